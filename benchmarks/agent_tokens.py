"""Counts what language models are sent, and writes the section on it into docs/benchmarks.md (about two minutes).

    python benchmarks/agent_tokens.py [PAGE] [--quick]

A rehearsal search asks a scripted endpoint, which counts tokens as `estimated_tokens` does, rather too many than too
few, and pictures by their pixels. `--quick` measures a tiny search, to see that everything works; its figures say
nothing.
"""

from __future__ import annotations

import argparse
import base64
import json
import struct
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from measuring import Progress, part_of_page, with_part

from llmzero_hpc.agents.llm.ledger import TYPICAL, dollars
from llmzero_hpc.agents.llm.prompts import estimated_tokens
from llmzero_hpc.config import SearchConfig
from llmzero_hpc.controller.daemon import Daemon
from llmzero_hpc.sections import Prices
from llmzero_hpc.store.agent_calls import CallLog, Usage
from llmzero_hpc.store.atomic import write_bytes
from llmzero_hpc.store.search_directory import SearchDirectory, SearchRecord

_ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(_ROOT / "tests" / name) for name in ("server", "agents")]
from stand_in_server import reply  # noqa: E402 - it stands beside the tests

_PIXELS_OF_A_TOKEN = 750
"""Of a picture, with the model that the paper used."""
_BUDGETS = {"proposer": (12_000, 4), "early_stopper": (3_000, 2)}
"""Text tokens and pictures of a call, at most."""
_REPLY_TOKENS = {agent: reply for agent, (_, _, reply) in TYPICAL.items()}
"""As dry runs assume: scripted replies are short."""
_PRICES = Prices(input=3.0, output=15.0)
"""Dollars for a million tokens of the paper's model, Claude Sonnet 4.6."""
SIZE = (16, 300)
"""Phases, and steps of each."""
QUICK = (3, 100)

# The paper's searches: section 3.5, appendix B.6, and tables 18, 20 and 21, which list 42 of the 58 phases.
_DOLLARS, _PHASES, _SEARCHES = 48, 58, 4
_HOURS = 502.7 / 42
"""Of a phase on the wall clock, on average."""
_FIRST_HOURS = (4.5 + 19.1 + 7.3) / 3
"""Of the phase that a search starts with, which there is nothing to compare with."""
_STEP_HOURS = 13.2 / 120
"""Of a step in the phase whose steps can be counted (SSMR-Bench, node 4: 33 to 153); the other tasks were slower."""
_VALIDATE_STEPS = 3
"""All best steps are multiples of it."""
_FIRST_STEP = 10
_INTERVAL_HOURS = 0.25
_TRAIN_ROWS = 6_400


@dataclass(frozen=True, slots=True)
class Asked:
    """One call: tokens of its text, its pictures and their tokens."""

    text: int
    images: int
    image_tokens: int


def _answered(body: dict[str, Any]) -> tuple[str, Usage]:
    """What the endpoint says, and what it counts."""
    texts, images = [], []
    for message in body["messages"]:
        content = message["content"]
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            if part["type"] == "text":
                texts.append(part["text"])
            else:
                images.append(base64.b64decode(part["image_url"]["url"].partition(",")[2]))
    text = "\n".join(texts)
    # Width and height stand at the beginning of a PNG file.
    pixels = [width * height for width, height in (struct.unpack(">II", png[16:24]) for png in images)]
    seen = sum(-(-each // _PIXELS_OF_A_TOKEN) for each in pixels)
    said = json.dumps(reply(text))
    return said, Usage(sum(map(estimated_tokens, texts)) + seen, estimated_tokens(said), image_tokens=seen)


class _Endpoint(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        said, usage = _answered(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        answer = {
            "model": "scripted",
            "choices": [{"message": {"role": "assistant", "content": said}, "finish_reason": "stop"}],
            "usage": {
                "prompt_tokens": usage.input_tokens,
                "completion_tokens": usage.output_tokens,
                "prompt_tokens_details": {"image_tokens": usage.image_tokens},
            },
        }
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


def measured(nodes: int, steps: int, progress: Progress) -> dict[str, list[Asked]]:
    """The calls of a whole search, by agent."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings = {
        "name": "tokens",
        "seed": 1,
        "trainer": "rehearsal",
        "model": "none",
        "task": {"name": "chains"},
        "configuration": {"batch_size": 64, "epochs": 64 * steps / _TRAIN_ROWS},
        "early_stop": {"interval_seconds": 1.0},
        "budget": {"iterations": nodes},
        "rehearsal": {"step_seconds": 0.01, "train_rows": _TRAIN_ROWS},
        "agents": {"base_url": f"http://127.0.0.1:{server.server_address[1]}/v1", "model": "scripted"},
        "tick_seconds": 0.2,
        "live_views": False,
    }
    with tempfile.TemporaryDirectory() as folder:
        record = SearchRecord.new(SearchConfig.model_validate(settings), _TRAIN_ROWS, time.time())
        directory = SearchDirectory.create(Path(folder) / "tokens", record)
        with Daemon(directory) as daemon:
            while not daemon.tick().finished:
                progress(f"{len(daemon.controller.tree)} of {nodes} phases")
                time.sleep(0.2)
        log = CallLog(directory)
        found: dict[str, list[Asked]] = {}
        for node in directory.read_tree():
            for call in log.calls(node.id):
                request = call.request(1)
                said = call.reply(1)
                if request is not None and said is not None:
                    seen = said.usage.image_tokens
                    asked = Asked(said.usage.input_tokens - seen, len(request.images), seen)
                    found.setdefault(call.agent, []).append(asked)
    server.shutdown()
    return found


@dataclass(frozen=True, slots=True)
class Price:
    """Calls of one kind, with what each sends and costs on average."""

    calls: int
    tokens: int
    reply: int

    @property
    def dollars(self) -> float:
        """Of all of them."""
        return self.calls * dollars(Usage(self.tokens, self.reply), _PRICES)


def section(calls: dict[str, list[Asked]], nodes: int, steps: int) -> str:
    """The part of the page."""
    names = {"proposer": "proposal", "early_stopper": "stop check"}
    lines = ["| | calls | text tokens, mean | most | limit | pictures, most | their tokens, mean |", "| --- " * 7 + "|"]
    mean: dict[str, int] = {}
    for agent, name in names.items():
        asked = calls[agent]
        text = sum(each.text for each in asked) / len(asked)
        seen = sum(each.image_tokens for each in asked) / len(asked)
        most, pictures = max(each.text for each in asked), max(each.images for each in asked)
        limit, shown = _BUDGETS[agent]
        lines.append(
            f"| {name} | {len(asked)} | {text:,.0f} | {most:,} | {limit:,} | {pictures} of {shown} | {seen:,.0f} |"
        )
        mean[agent] = round(text + seen)
    table = "\n".join(lines)
    judged = _PHASES * _HOURS - _SEARCHES * _FIRST_HOURS - (_PHASES - _SEARCHES) * _FIRST_STEP * _STEP_HOURS
    counts = {
        "proposals": ("proposer", _PHASES - _SEARCHES),
        "stop checks, one for each validation": ("early_stopper", round(judged / (_VALIDATE_STEPS * _STEP_HOURS))),
        "stop checks, one every 15 minutes": ("early_stopper", round(_PHASES * _HOURS / _INTERVAL_HOURS)),
    }
    prices = {name: Price(count, mean[agent], _REPLY_TOKENS[agent]) for name, (agent, count) in counts.items()}
    proposals, ours, always = prices.values()
    sums = "\n".join(
        f"| {name} | {each.calls:,} | {each.tokens:,} | {each.reply:,} | ${each.dollars:.1f} |"
        for name, each in prices.items()
    )
    text = f"""\
## What language models are sent, and what it costs

Counted by a scripted endpoint in a rehearsal search of {nodes} phases of {steps} steps: text by an estimate that splits
words after four letters and counts every digit, pictures as one token for {_PIXELS_OF_A_TOKEN} pixels.

{table}

The paper paid ${_DOLLARS} for the {_PHASES} phases of its four searches and does not say how that sum is made up. At
the same prices (${_PRICES.input:g} and ${_PRICES.output:g} for a million tokens in and out, nothing cached) the same
phases would cost **${proposals.dollars + ours.dollars:.0f}** here:

| | calls | tokens in | tokens out | together |
| --- | --- | --- | --- | --- |
{sums}

Phases took {_HOURS:.0f} hours on average. A phase is judged every 15 minutes at most, but never twice between two
validations, as nothing new could be said: a validation every {_VALIDATE_STEPS} steps of {60 * _STEP_HOURS:.1f} minutes
is one every {60 * _VALIDATE_STEPS * _STEP_HOURS:.0f}. Without the first {_FIRST_STEP} steps of each phase, and the
first phase of each search, which have nothing to be compared with, that makes {ours.calls:,} checks. One every 15
minutes of all hours, the last row, would bring the sum to ${proposals.dollars + always.dollars:.0f}. Pace and interval
are read off the paper's tables. Replies are the lengths that dry runs assume; hidden reasoning would come on top."""
    return part_of_page("benchmarks/agent_tokens.py", text)


def main() -> None:
    """The command line."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("page", type=Path, nargs="?", default=_ROOT / "docs" / "benchmarks.md")
    arguments.add_argument("--quick", action="store_true")
    chosen = arguments.parse_args()
    size = QUICK if chosen.quick else SIZE
    part = section(measured(*size, Progress()), *size)
    write_bytes(chosen.page, with_part(chosen.page.read_text(encoding="utf-8"), part).encode())
    print(f"wrote {chosen.page}")


if __name__ == "__main__":
    main()
