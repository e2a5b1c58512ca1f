"""Counts what language models are sent, and writes the section on it into docs/agents.md (a few minutes).

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
import textwrap
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from measuring import Progress

from llmzero_hpc.agents.llm.ledger import dollars
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

_BEGIN = "<!-- Measured by benchmarks/agent_tokens.py. Do not edit. -->"
_END = "<!-- End of what is measured. -->"
_AFTER = "## How a curve becomes words"
_PIXELS_OF_A_TOKEN = 750
"""Of a picture, with the model that the paper used."""
_BUDGETS = {"proposer": (12_000, 4), "early_stopper": (3_000, 2)}
"""Text tokens and pictures of a call, at most."""
_REPLY_TOKENS = {"proposer": 2_000, "early_stopper": 800}
"""As dry runs assume: scripted replies are short."""
_PRICES = Prices(input=3.0, output=15.0)
"""Dollars for a million tokens of the paper's model, Claude Sonnet 4.6."""
_PAPER_NODES, _PAPER_DOLLARS = 58, 48
_PAPER_HOURS, _PAPER_HOURS_NODES = 502.7, 42
"""Wall hours of the nodes whose hours are published (tables 18, 20 and 21)."""
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


def section(calls: dict[str, list[Asked]], nodes: int, steps: int) -> str:
    """The part of the page."""
    names = {"proposer": "proposal", "early_stopper": "stop check"}
    checks = round(_PAPER_NODES * _PAPER_HOURS / _PAPER_HOURS_NODES / _INTERVAL_HOURS)
    counts = {"proposer": _PAPER_NODES, "early_stopper": checks}
    lines = ["| | calls | text tokens, mean | most | limit | pictures, most | their tokens, mean |", "| --- " * 7 + "|"]
    total = 0.0
    for agent, name in names.items():
        asked = calls[agent]
        text = sum(each.text for each in asked) / len(asked)
        seen = sum(each.image_tokens for each in asked) / len(asked)
        most, pictures = max(each.text for each in asked), max(each.images for each in asked)
        limit, shown = _BUDGETS[agent]
        lines.append(
            f"| {name} | {len(asked)} | {text:,.0f} | {most:,} | {limit:,} | {pictures} of {shown} | {seen:,.0f} |"
        )
        cost = dollars(Usage(round(text + seen), _REPLY_TOKENS[agent]), _PRICES)
        total += counts[agent] * cost
        checked = counts[agent] * cost
    table = "\n".join(lines)
    hours = _PAPER_HOURS / _PAPER_HOURS_NODES
    text = f"""\
{_BEGIN}

## How much that is

Counted by a scripted endpoint in a rehearsal search of {nodes} phases of {steps} steps: text by an estimate that splits
words after four letters and counts every digit, pictures as one token for {_PIXELS_OF_A_TOKEN} pixels.

{table}

For the paper's {_PAPER_NODES} phases, with a stop check every 15 minutes of the {hours:.0f} hours that they took on
average ({checks:,} checks) and replies of {_REPLY_TOKENS["proposer"]:,} and {_REPLY_TOKENS["early_stopper"]} tokens,
that comes to ${total:.0f} at ${_PRICES.input:g} and ${_PRICES.output:g} for a million tokens in and out, of which
${checked:.0f} are for stop checks; the paper paid ${_PAPER_DOLLARS}.

{_END}"""
    blocks = text.split("\n\n")
    return (
        "\n\n".join(each if each[0] in "|#<" else textwrap.fill(" ".join(each.split()), 128) for each in blocks)
        + "\n\n"
    )


def written(page: str, part: str) -> str:
    """The page with that part, in its old place or before its first neighbour."""
    if _BEGIN in page:
        before, _, rest = page.partition(_BEGIN)
        return before + part + rest.partition(_END)[2].lstrip("\n")
    before, heading, rest = page.partition(_AFTER)
    return before + part + heading + rest


def main() -> None:
    """The command line."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("page", type=Path, nargs="?", default=_ROOT / "docs" / "agents.md")
    arguments.add_argument("--quick", action="store_true")
    chosen = arguments.parse_args()
    nodes, steps = (3, 100) if chosen.quick else (16, 300)
    part = section(measured(nodes, steps, Progress()), nodes, steps)
    write_bytes(chosen.page, written(chosen.page.read_text(encoding="utf-8"), part).encode())
    print(f"wrote {chosen.page}")


if __name__ == "__main__":
    main()
