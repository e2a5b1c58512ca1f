"""The client of an OpenAI-compatible endpoint: chat completions with images, repeated while that may help."""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from llmzero_hpc.agents.llm.completion import read_completion
from llmzero_hpc.agents.llm.failures import EndpointError, RequestRefusedError, UnsupportedError
from llmzero_hpc.agents.llm.gate import Gate, Patience
from llmzero_hpc.agents.llm.refusals import TOKEN_LIMITS, explain, wants_other_token_limit
from llmzero_hpc.agents.llm.streams import joined
from llmzero_hpc.errors import MissingDependencyError
from llmzero_hpc.store.agent_calls import ToolCall

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from llmzero_hpc.agents.llm.completion import Completion
    from llmzero_hpc.agents.llm.secret import Key
    from llmzero_hpc.errors import AgentError
    from llmzero_hpc.sections import LanguageModelAgents

_TRANSPORTS = ("httpcore", "httpcore2")
_CONNECT_SECONDS = 30.0
_MOST_BYTES = 8_000_000
_TIMEOUTS = 2
"""Attempts that may use up the time for a reply: each may have been paid for."""
_BARE_ERROR = 500
_LONGEST_WISH = 3600.0
"""Seconds that an endpoint may ask us to stay away at once."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation; `images` are PNG files, sent as data, never as addresses to fetch."""

    role: str
    text: str
    images: tuple[bytes, ...] = ()
    wanted: tuple[ToolCall, ...] = ()
    """Of the role `assistant`: the tools that it wanted called."""
    result_of: str = ""
    """Of the role `tool`: the id of the call."""


class Client:
    """Calls one model at one endpoint. Safe from several threads.

    Args:
        settings: where, which, how long, how often.
        key: never shown in any error.
        patience: the waits.
        clock, sleep: for tests.

    Raises:
        MissingDependencyError: the extra `agents` is not installed.
    """

    def __init__(
        self,
        settings: LanguageModelAgents,
        key: Key,
        patience: Patience | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        try:
            import openai
        except ImportError:
            raise MissingDependencyError(
                "agents of kind llm need the package openai", "pip install 'llmzero-hpc[agents]'"
            ) from None
        for transport in _TRANSPORTS:
            # They would log headers as they are, and a server may send ours back.
            logging.getLogger(transport).setLevel(logging.WARNING)
        self._settings = settings
        self._key = key
        self._patience = patience or Patience()
        self._clock = clock
        self._sleep = sleep
        self._gate = Gate(settings.concurrency, self._patience, clock)
        self._token_limit = TOKEN_LIMITS[0]
        seconds = settings.timeout_seconds
        self._api = openai.OpenAI(
            api_key=key.reveal(),
            base_url=settings.base_url or None,
            # A server of one's own stands in the same network; a proxy would only be shown its key.
            http_client=openai.DefaultHttpxClient(trust_env=False) if settings.serve else None,
            timeout=openai.Timeout(seconds, connect=min(seconds, _CONNECT_SECONDS)),
            max_retries=0,  # repeating is done here, where Retry-After, the gate and the log of failures are
        )

    def ask(
        self,
        messages: Sequence[Message],
        schema: Mapping[str, Any] | None,
        *,
        keep: Callable[[Completion], None],
        failed: Callable[[float, str], None],
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> Completion:
        """The reply to a conversation.

        Args:
            messages: oldest first.
            schema: JSON Schema that the endpoint is to enforce; None asks it for nothing of the kind.
            keep: called with every reply as soon as it is there, before anything else, also with one cut off.
            failed: called with the seconds and the message of every attempt that brought none.
            tools: what the model may call, in the API's form.

        Raises:
            EndpointError: it cannot be asked at the moment.
            UnsupportedError: it refuses the schema, the images or the tools.
            RequestRefusedError: it refuses the request for another reason.
        """
        with self._gate.place():
            timeouts = 0
            for attempt in range(self._settings.max_retries + 1):
                self._sleep(self._gate.pause())
                started = self._clock()
                try:
                    completion = self._once(messages, schema, tools)
                    self._gate.answered()
                    keep(completion)
                    if not completion.is_cut_off:
                        return completion
                    raise EndpointError("the endpoint was shut down in the middle of a reply", passing=True)  # noqa: TRY301
                except RequestRefusedError as error:
                    self._gate.answered()
                    failed(self._clock() - started, error.message)
                    raise
                except EndpointError as error:
                    timeouts += error.timed_out
                    pause = self._pause(attempt, error)
                    last = attempt == self._settings.max_retries or timeouts == _TIMEOUTS or not error.passing
                    failed(self._clock() - started, error.message)
                    if last or pause > self._patience.longest_pause:
                        raise self._given_up(error, schema) from None
                self._sleep(pause)
            raise AssertionError("the last attempt returns or raises")

    def _given_up(self, error: EndpointError, schema: Mapping[str, Any] | None) -> AgentError:
        if error.status == _BARE_ERROR and schema is not None and self._settings.structured == "auto":
            # How servers fail on a schema that they cannot compile; one that is down will say so again without it.
            return UnsupportedError(error.message, "structured", certain=False)
        self._gate.gave_up(error.message)
        return error

    def _pause(self, attempt: int, error: EndpointError) -> float:
        if error.retry_seconds is not None:
            self._gate.hold_back(error.retry_seconds, error.message)
            return error.retry_seconds
        longest = min(self._patience.first_pause * 2.0**attempt, self._patience.longest_pause)
        spread = random.uniform(0.5, 1.0)  # noqa: S311 - spreads callers, no secret
        return longest * spread

    def _once(
        self, messages: Sequence[Message], schema: Mapping[str, Any] | None, tools: Sequence[Mapping[str, Any]]
    ) -> Completion:
        """One attempt; an endpoint that knows the limit of a reply by its newer name only is asked at once again."""
        try:
            return self._post(messages, schema, tools)
        except RequestRefusedError as error:
            other = wants_other_token_limit(error.message, self._token_limit)
            if other is None:
                raise
            self._token_limit = other
            return self._post(messages, schema, tools)

    def _post(
        self, messages: Sequence[Message], schema: Mapping[str, Any] | None, tools: Sequence[Mapping[str, Any]]
    ) -> Completion:
        import openai

        started = self._clock()
        deadline = started + self._settings.timeout_seconds
        try:
            body = self._body(messages, schema) | ({"tools": list(tools)} if tools else {})
            with self._api.chat.completions.with_streaming_response.create(**body) as response:
                data = self._read(response.iter_bytes(), deadline)
        except openai.APIStatusError as error:
            raise explain(
                error.status_code,
                self._said(error.body, error.message),
                self._settings,
                retry_seconds=_retry_seconds(error.response.headers),
                schema=schema is not None,
                images=any(message.images for message in messages),
                tools=bool(tools),
            ) from None
        except EndpointError:
            raise
        except openai.APITimeoutError:
            raise self._too_slow() from None
        except Exception as error:  # noqa: BLE001 - see below
            # Whatever breaks while a connection is made or read comes from one of several libraries below openai.
            if "timeout" in type(error).__name__.lower():
                raise self._too_slow() from None
            raise EndpointError(
                f"{self._settings.base_url} cannot be reached ({self._reason(error)})",
                "check agents.base_url, and that the server runs",
                passing=True,
            ) from None
        return read_completion(self._key.removed_from(joined(data)), self._clock() - started)

    def _body(self, messages: Sequence[Message], schema: Mapping[str, Any] | None) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._settings.model,
            "messages": [_sent(message) for message in messages],
            self._token_limit: self._settings.max_output_tokens,
        }
        if self._settings.temperature is not None:
            body["temperature"] = self._settings.temperature
        if schema is not None:
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "reply", "schema": schema, "strict": True},
            }
        return body

    def _read(self, chunks: Any, deadline: float) -> str:
        """The body, under one deadline: a server that sends a byte now and then would never time out by itself."""
        data = bytearray()
        for chunk in chunks:
            data += chunk
            if len(data) > _MOST_BYTES:
                raise EndpointError(f"{self._settings.base_url} sends more than any reply holds")
            if self._clock() > deadline:
                raise self._too_slow()
        return data.decode("utf-8", errors="replace")

    def _too_slow(self) -> EndpointError:
        seconds = self._settings.timeout_seconds
        return EndpointError(
            f"{self._settings.base_url} did not reply within {seconds:g} s",
            "raise agents.timeout_seconds, or see how busy the server is",
            passing=True,
            timed_out=True,
        )

    def _said(self, body: object, message: str) -> str:
        text = body.get("message") if isinstance(body, dict) else body
        return self._key.removed_from(_line(text if isinstance(text, str) and text else message))

    def _reason(self, error: Exception) -> str:
        cause = error.__cause__ or error
        return self._key.removed_from(_line(str(cause) or type(cause).__name__))


def _sent(message: Message) -> dict[str, Any]:
    if message.result_of:
        return {"role": message.role, "content": message.text, "tool_call_id": message.result_of}
    if message.wanted:
        calls = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.wanted
        ]
        return {"role": message.role, "content": message.text or None, "tool_calls": calls}
    if not message.images:
        return {"role": message.role, "content": message.text}
    import base64

    pictures = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(png).decode()}"}}
        for png in message.images
    ]
    return {"role": message.role, "content": [{"type": "text", "text": message.text}, *pictures]}


def _line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:300]


def _retry_seconds(headers: Mapping[str, str]) -> float | None:
    """What `Retry-After` says, in either of its forms, or OpenAI's own in milliseconds."""
    try:
        if "retry-after-ms" in headers:
            seconds = float(headers["retry-after-ms"]) / 1000
        elif headers.get("retry-after", "").replace(".", "", 1).isdecimal():
            seconds = float(headers["retry-after"])
        else:
            seconds = parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time()
    except (KeyError, ValueError, TypeError, OverflowError):
        return None
    return min(max(0.0, seconds), _LONGEST_WISH) if seconds == seconds else None  # noqa: PLR0124 - not a number
