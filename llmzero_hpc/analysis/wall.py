"""How long a search takes when several phases are in flight: its phases put on so many places, in their order."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from llmzero_hpc.search.strategy_cost import Cost, measured

if TYPE_CHECKING:
    from llmzero_hpc.search.node import Node
    from llmzero_hpc.search.tree import Tree


def makespan(tree: Tree, slots: int, devices: int = 1, cost: Cost = measured) -> float:
    """Seconds from the start of the first phase to the end of the last, if nothing ever waited for a queue.

    Phases begin in the order of their ids, each as soon as one of the places is free and the phase has ended that it
    resumes or repairs. A phase lasts what it cost, divided by its devices. So searches that shared a machine, or were
    interrupted, compare with others.

    Raises:
        ValueError: there is no place.
    """
    if slots < 1:
        raise ValueError("a search needs a place for a phase")
    free = [0.0] * slots
    ends: dict[int, float] = {}
    begun = 0.0
    for node in tree:
        begun = max(heapq.heappop(free), begun, *(ends[one] for one in _needs(node)), 0.0)
        ends[node.id] = begun + cost(node) / devices
        heapq.heappush(free, ends[node.id])
    return max(ends.values(), default=0.0)


def _needs(node: Node) -> tuple[int, ...]:
    source = None if node.resume is None else node.resume.node
    return tuple(one for one in (source, node.repairs) if one is not None)
