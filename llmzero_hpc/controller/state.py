"""The tree of a search that is being driven: every change is on disk before anything that follows from it is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmzero_hpc.controller import housekeeping
from llmzero_hpc.search.growth import settle
from llmzero_hpc.search.node import NodeStatus
from llmzero_hpc.store import control, events

if TYPE_CHECKING:
    from llmzero_hpc.controller.house import House
    from llmzero_hpc.search.node import Node
    from llmzero_hpc.search.tree import Tree


class SearchState:
    """Holds the tree between ticks, and commits it. Used by the one thread of the controller."""

    def __init__(self, house: House) -> None:
        self._directory = house.directory
        self._lease = house.lease
        self._views = house.views
        config = house.directory.record.config
        self._pause_after_failures = config.pause_after_failures
        self._collects = config.housekeeping.collect
        self.clock = house.clock
        self.tree = house.directory.read_tree()

    def commit(self, tree: Tree) -> None:
        """Make a tree the one truth.

        Raises:
            LeaseError: another controller took the search over; nothing was changed.
            StorageError: the tree stands as it was last written.
        """
        if tree != self.tree:
            self._lease.commit(tree)
            self.tree = tree

    def put(self, *nodes: Node) -> None:
        """Commit new versions of nodes. Raises as `commit`."""
        self.commit(self.tree.replacing(*nodes))

    def settle(self, node: Node) -> None:
        """Commit a node that became final, with what follows from it. Raises as `commit`."""
        self.commit(settle(self.tree, node))
        score = "no score" if node.score is None else f"best validation {node.score:.4f}"
        self.say("phase", f"{node.status.value}, {score}" + (f": {node.problem}" if node.problem else ""), node.id)
        self._views.request()
        if node.status is NodeStatus.FAILED:
            self._pause_if_stalled()
        if self._collects and (done := housekeeping.collect(self._directory, self.tree)):
            self.say("housekeeping", done)

    def say(self, kind: str, message: str, node: int | None = None) -> None:
        """Tell people what happened."""
        events.append_event(self._directory, self.clock(), kind, message, node)

    def _pause_if_stalled(self) -> None:
        """Phases that fail one after another have a cause that no configuration mends: that is for a person to see."""
        newest = [node for node in self.tree if node.status.is_final][-self._pause_after_failures :]
        stalled = len(newest) == self._pause_after_failures and all(node.status is NodeStatus.FAILED for node in newest)
        if stalled and not control.is_paused(self._directory):
            control.request_pause(self._directory)
            log = self._directory.phase(newest[-1].id).path
            self.say("stall", f"the last {len(newest)} phases failed, so the search is paused; see {log}")
