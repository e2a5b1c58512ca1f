"""The log of calls to language models: each whole, with its cost, in `phases/0007/agents/<agent>_<key>/`, private.

A call is a question with at most a few rounds. Its folder is named by a key that follows from the question, so that
an answer that is on disk is found before anybody pays for it again. Files of a round, in the order they are written:

- the images, `request_1.json`: what was sent, before it is sent. Alone, it tells of a call that may have been paid for;
- `failures.jsonl`: attempts that brought no reply;
- `reply_1.json`: the reply as it came with its tokens and dollars, before anything is made of it;
- `outcome.json`: what was made of the last reply; it follows from the rest.

What was spent is the sum over the replies and is kept nowhere else, so that no kill separates an answer from its cost.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmzero_hpc.store.atomic import (
    PRIVATE_FILE,
    PRIVATE_FOLDER,
    append_line,
    create_bytes,
    make_folder,
    read_bytes,
    refusals,
    write_bytes,
)
from llmzero_hpc.store.records import decoded, encoded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llmzero_hpc.store.search_directory import SearchDirectory

CUT_OFF = "abort"
"""The reason to finish of a server that was shut down in the middle: paid perhaps, but no reply."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one reply. `input_tokens` is the whole prompt; cached ones and those of images are parts of it."""

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    image_tokens: int = 0
    """0 where the endpoint does not count them apart."""
    estimated: bool = False
    """The endpoint did not say; guessed from the length of the texts."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool that a model wants called, as it came: `arguments` is text that may be no JSON."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a call of a tool brought, for the model that wanted it."""

    call: str
    """Its id."""
    text: str


@dataclass(frozen=True, slots=True)
class CallRequest:
    """What is sent in a round: the prompt in the first, what was wrong with the reply before in a later one.

    Of a conversation that goes on over many calls only what is new stands here; the rest is in the calls before.
    """

    agent: str
    model: str
    endpoint: str
    asked_at: float
    system: str
    user: str
    images: tuple[str, ...]
    """File names beside this record, in the order in which they are sent."""
    structured: bool
    """The form of the reply is enforced by the endpoint."""
    results: tuple[ToolResult, ...] = ()
    """Of the tools that the reply before wanted called; sent before `user`, which may then be empty."""


@dataclass(frozen=True, slots=True)
class CallReply:
    """What came back. `model` is the name that the endpoint gave; times are seconds, `asked_at` since the epoch."""

    model: str
    content: str
    finish_reason: str
    usage: Usage
    dollars: float
    asked_at: float
    seconds: float
    refusal: str = ""
    """The model's words where it declined."""
    tool_calls: int = 0
    """Calls of tools that it wanted."""
    wanted: tuple[ToolCall, ...] = ()
    """Those calls, where tools were offered."""


@dataclass(frozen=True, slots=True)
class CallFailure:
    """An attempt that brought no reply."""

    at: float
    seconds: float
    message: str


@dataclass(frozen=True, slots=True)
class CallOutcome:
    """What was made of the last reply: its values as JSON, or None, and why they were not used."""

    parsed: Any
    problems: list[str]


@dataclass(frozen=True, slots=True)
class Spending:
    """Calls and what they cost. Add up with `+`."""

    calls: int = 0
    """Replies that came."""
    unanswered: int = 0
    """Requests without a reply so far: under way, failed, or cut off by a kill, and then perhaps paid for."""
    input_tokens: int = 0
    cached_tokens: int = 0
    image_tokens: int = 0
    output_tokens: int = 0
    dollars: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: Spending) -> Spending:
        """The sum, field by field."""
        theirs = asdict(other)
        return Spending(**{name: value + theirs[name] for name, value in asdict(self).items()})

    @property
    def tokens(self) -> int:
        """Of prompts and replies together."""
        return self.input_tokens + self.output_tokens

    @staticmethod
    def of(reply: CallReply) -> Spending:
        """What one reply cost."""
        usage = reply.usage
        return Spending(
            calls=1,
            input_tokens=usage.input_tokens,
            cached_tokens=usage.cached_tokens,
            image_tokens=usage.image_tokens,
            output_tokens=usage.output_tokens,
            dollars=reply.dollars,
            seconds=reply.seconds,
        )


@dataclass(frozen=True, slots=True)
class Call:
    """One call of an agent; its folder may not be there yet. Rounds count from 1."""

    node: int
    agent: str
    folder: Path = field(compare=False)

    def reply(self, number: int) -> CallReply | None:
        """The reply of a round, or None where none came whole."""
        return next((reply for reply in self.replies_of(number) if reply.finish_reason != CUT_OFF), None)

    def request(self, number: int) -> CallRequest | None:
        """What was sent in a round, or None where nothing was."""
        return decoded(CallRequest, read_bytes(self.folder / f"request_{number}.json"))

    def replies(self) -> list[CallReply]:
        """Every reply that came in any round, also those that were cut off."""
        return [reply for number in self.rounds for reply in self.replies_of(number)]

    @property
    def rounds(self) -> tuple[int, ...]:
        """Rounds in which something was sent, ascending."""
        names = (path.stem.split("_") for path in _entries(self.folder) if path.suffix == ".json")
        known = {int(parts[1]) for parts in names if parts[0] in {"request", "reply"} and parts[1].isdecimal()}
        return tuple(sorted(known))

    @property
    def failures(self) -> list[CallFailure]:
        """Attempts that brought no reply; a line that a kill tore is left out."""
        lines = (read_bytes(self.folder / "failures.jsonl") or b"").splitlines()
        return [failure for line in lines if (failure := decoded(CallFailure, line)) is not None]

    @property
    def outcome(self) -> CallOutcome | None:
        """What was made of the last reply; None before there is one."""
        return decoded(CallOutcome, read_bytes(self.folder / "outcome.json"))

    def spending(self) -> Spending:
        """What this call cost so far."""
        total = Spending(unanswered=sum(not self.replies_of(number) for number in self.rounds))
        return sum((Spending.of(reply) for reply in self.replies()), start=total)

    def ask(self, number: int, request: CallRequest, images: Mapping[str, bytes]) -> None:
        """Note what is going to be sent; to be on disk before it is sent.

        Raises:
            StorageError: the file system refused; nothing may be sent.
        """
        make_folder(self.folder.parents[1])
        make_folder(self.folder.parent, PRIVATE_FOLDER)
        make_folder(self.folder, PRIVATE_FOLDER)
        for name, png in images.items():
            write_bytes(self.folder / name, png, PRIVATE_FILE)
        write_bytes(self.folder / f"request_{number}.json", encoded(request), PRIVATE_FILE)

    def answer(self, number: int, reply: CallReply) -> None:
        """Keep a reply. One that is there already stands, as it may have been acted upon, and this one beside it.

        Raises:
            StorageError: the file system refused.
        """
        if not create_bytes(self.folder / f"reply_{number}.json", encoded(reply), PRIVATE_FILE):
            create_bytes(self.folder / f"reply_{number}_{os.urandom(4).hex()}.json", encoded(reply), PRIVATE_FILE)

    def fail(self, failure: CallFailure) -> None:
        """Note an attempt that brought no reply.

        Raises:
            StorageError: the file system refused.
        """
        append_line(self.folder / "failures.jsonl", json.dumps(asdict(failure)), PRIVATE_FILE)

    def conclude(self, parsed: object, problems: Sequence[str]) -> None:
        """Note what was made of the last reply: its values as JSON, or None, and why they were not used.

        Raises:
            StorageError: the file system refused.
        """
        write_bytes(self.folder / "outcome.json", encoded(CallOutcome(parsed, list(problems))), PRIVATE_FILE)

    def replies_of(self, number: int) -> list[CallReply]:
        """Every reply that came in a round, also those that were cut off; the first whole one counts."""
        stem = f"reply_{number}"
        paths = sorted(path for path in _entries(self.folder) if path.stem == stem or path.stem.startswith(f"{stem}_"))
        return [reply for path in paths if (reply := decoded(CallReply, read_bytes(path))) is not None]


class CallLog:
    """All calls of a search. Safe from several threads: each call has a folder of its own."""

    def __init__(self, directory: SearchDirectory) -> None:
        self._directory = directory

    def call(self, node: int, agent: str, key: str) -> Call:
        """The call of an agent for a node with that key, made before or not."""
        return Call(node, agent, self._directory.phase(node).agents / f"{agent}_{key}")

    def calls(self, node: int) -> list[Call]:
        """Calls that were made for a node, by the time at which they were.

        Raises:
            StorageError: the folder cannot be read.
        """
        folders = [path for path in _entries(self._directory.phase(node).agents) if path.is_dir()]
        found = [Call(node, folder.name.rpartition("_")[0], folder) for folder in folders]
        return sorted(found, key=lambda call: (request.asked_at if (request := call.request(1)) else 0.0, call.folder))

    def spending(self) -> dict[tuple[int, str], Spending]:
        """What each agent cost for each node.

        Raises:
            StorageError: a folder cannot be read.
        """
        total: dict[tuple[int, str], Spending] = {}
        for phase in _entries(self._directory.root / "phases"):
            for call in self.calls(int(phase.name)) if phase.name.isdecimal() else ():
                total[call.node, call.agent] = total.get((call.node, call.agent), Spending()) + call.spending()
        return total


def _entries(folder: Path) -> list[Path]:
    with refusals("reading", folder):
        try:
            return sorted(folder.iterdir())
        except FileNotFoundError:
            return []
