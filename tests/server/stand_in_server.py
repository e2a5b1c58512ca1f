"""Stands in for a Python with vLLM: serves good replies of no model, with the options and the key of `vllm serve`."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "agents"))
from model_samples import analyzer_reply, proposer_reply, stopper_reply


def reply(prompt: str) -> dict[str, object]:
    """What a good model would say, as far as the prompt tells."""
    if "CONTINUE or STOP?" in prompt:
        return stopper_reply(decision="CONTINUE")
    if "propose the repair" in prompt:
        return analyzer_reply(changes=[{"name": "learning_rate", "value": 1e-5, "why": "calmer"}])
    steps = re.findall(r"@(\d+)", prompt.partition("# Checkpoints of node")[2].partition("#")[0])
    rate = 1e-6 * (10 + len(prompt) % 80)
    changes = [{"name": "learning_rate", "value": rate, "why": "one of its own for each prompt"}]
    return proposer_reply(int(steps[-1]) if steps else None, changes=changes, epochs=2.0)


class Handler(BaseHTTPRequestHandler):
    """The two paths that matter."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._say(200 if self.path == "/health" else 404, {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["Authorization"] != f"Bearer {os.environ['VLLM_API_KEY']}":
            self._say(401, {"error": {"message": "Unauthorized"}})
            return
        prompt = "\n".join(
            part["text"]
            for message in body["messages"]
            for part in ([{"text": message["content"]}] if isinstance(message["content"], str) else message["content"])
            if "text" in part
        )
        message = {"role": "assistant", "content": json.dumps(reply(prompt))}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
        self._say(200, {"id": "1", "model": body["model"], "choices": [choice], "usage": usage})

    def log_message(self, *_: object) -> None:
        pass

    def _say(self, status: int, content: object) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def main() -> None:
    """As `python -m vllm.entrypoints.openai.api_server --host HOST --port PORT ...`."""
    if sys.argv[1] == "-c":
        sys.exit("no package vllm")
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # as vLLM
    parser = argparse.ArgumentParser()
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    options, _ = parser.parse_known_args()
    print("serving with", *sys.argv[1:], flush=True)  # noqa: T201 - the job's log
    ThreadingHTTPServer((options.host, options.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
