"""An OpenAI-compatible server on a real socket that answers as a script tells it: for tests of what calls models."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

    Script = Callable[["Asked"], "Said"]


@dataclass(frozen=True)
class Asked:
    """A request that came in. `number` counts from 1; names of headers are in lower case."""

    number: int
    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def text(self) -> str:
        """All texts of all messages."""
        texts = []
        for message in self.body["messages"]:
            content = message["content"]
            texts += [content] if isinstance(content, str) else [part.get("text", "") for part in content]
        return "\n".join(texts)

    @property
    def images(self) -> list[str]:
        """Addresses of all images."""
        return [
            part["image_url"]["url"]
            for message in self.body["messages"]
            if isinstance(message["content"], list)
            for part in message["content"]
            if part["type"] == "image_url"
        ]

    @property
    def properties(self) -> set[str]:
        """Keys of the reply that the schema asks for; empty without one."""
        form = self.body.get("response_format")
        return set(form["json_schema"]["schema"]["properties"]) if form else set()


@dataclass(frozen=True)
class Said:
    """An answer, or what stands in for one."""

    status: int = 200
    content: str | None = ""
    finish_reason: str | None = "stop"
    usage: dict[str, Any] | None = field(
        default_factory=lambda: {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
    )
    message: dict[str, Any] = field(default_factory=dict)
    error: str = "no"
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    """The body, whatever it is."""
    before: Callable[[], object] | None = None
    """Done before anything is sent."""
    drops: bool = False
    """The connection is closed without a word."""
    streams: bool = False
    """Sent as a stream of events, a few characters in each, and in chunks, although nobody asked for that."""
    drips: float = 0.0
    """Seconds between single spaces that are sent instead of a body, until the other side has had enough."""


def refusal(status: int, message: str = "no", **headers: str) -> Said:
    """An error as OpenAI and vLLM send it."""
    return Said(status=status, error=message, headers={key.replace("_", "-"): value for key, value in headers.items()})


@contextmanager
def own_port() -> Iterator[int]:
    """A port where nobody listens, and where meanwhile nobody but a `ScriptedEndpoint` that is told of it will."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


class ScriptedEndpoint:
    """The server, in threads of its own. `asked` holds all that came in."""

    def __init__(self, script: Script, port: int = 0) -> None:
        self.script = script
        self.asked: list[Asked] = []
        self._lock = threading.Lock()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                endpoint._serve(self)

            def log_message(self, *_: object) -> None:
                pass

        ThreadingHTTPServer.request_queue_size = 128
        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        """Serving."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Not serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """Base URL of the API."""
        return f"http://127.0.0.1:{self.port}/v1"

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers.get("Content-Length", 0))))
        with self._lock:
            headers = {key.lower(): value for key, value in handler.headers.items()}
            asked = Asked(len(self.asked) + 1, handler.path, headers, body)
            self.asked.append(asked)
        said = self.script(asked)
        if said.before is not None:
            said.before()
        if said.drops:
            handler.close_connection = True
            handler.connection.close()
            return
        if said.drips:
            self._drip(handler, said.drips)
            return
        if said.streams:
            self._stream(handler, asked, said)
            return
        data = _body(asked, said) if said.raw is None else said.raw
        handler.send_response(said.status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(data)))
        for key, value in said.headers.items():
            handler.send_header(key, value)
        handler.end_headers()
        handler.wfile.write(data)

    @staticmethod
    def _stream(handler: BaseHTTPRequestHandler, asked: Asked, said: Said) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for line in _events(asked, said):
            data = f"{line}\n\n".encode()
            handler.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        handler.wfile.write(b"0\r\n\r\n")

    @staticmethod
    def _drip(handler: BaseHTTPRequestHandler, seconds: float) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.close_connection = True
        try:
            for _ in range(1000):
                handler.wfile.write(b" ")
                handler.wfile.flush()
                time.sleep(seconds)
        except OSError:
            pass


def _events(asked: Asked, said: Said) -> list[str]:
    """As OpenAI and vLLM stream a completion."""
    content = said.content or ""
    deltas = [
        {"role": "assistant"},
        *({"content": content[i : i + 9]} for i in range(0, len(content), 9)),
        said.message,
    ]
    model = f"{asked.body['model']}-0613"
    events: list[dict[str, Any]] = [
        {"model": model, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas
    ]
    events.append({"model": model, "choices": [{"index": 0, "delta": {}, "finish_reason": said.finish_reason}]})
    events.append({"model": model, "choices": [], "usage": said.usage})
    return [": a moment", *(f"data: {json.dumps(event)}" for event in events), "data: [DONE]"]


def _body(asked: Asked, said: Said) -> bytes:
    if said.status != 200:
        error = {"message": said.error, "type": "invalid_request_error", "param": None, "code": said.status}
        return json.dumps({"error": error}).encode()
    message = {"role": "assistant", "content": said.content, **said.message}
    reply = {
        "id": f"chatcmpl-{asked.number}",
        "object": "chat.completion",
        "created": 1,
        "model": f"{asked.body['model']}-0613",
        "choices": [{"index": 0, "message": message, "finish_reason": said.finish_reason}],
    }
    if said.usage is not None:
        reply["usage"] = said.usage
    return json.dumps(reply).encode()
