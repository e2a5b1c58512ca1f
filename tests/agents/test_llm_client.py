"""The client: what endpoints do to it, and what it does about that. Real sockets."""

from __future__ import annotations

import email.utils
import json
import os
import socket
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from model_samples import KEY, QUICK, settings
from scripted_endpoint import Asked, Said, ScriptedEndpoint, own_port, refusal

from llmzero_hpc.agents.llm.client import Client, Message
from llmzero_hpc.agents.llm.failures import EndpointError, RequestRefusedError, UnsupportedError
from llmzero_hpc.agents.llm.gate import Patience
from llmzero_hpc.agents.llm.replies import ProposerReply, schema
from llmzero_hpc.agents.llm.secret import Key, read_key
from llmzero_hpc.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from llmzero_hpc.agents.llm.completion import Completion

HELLO = (Message("system", "Be brief."), Message("user", "Hello."))
SCHEMA = schema(ProposerReply)
FINE = Said(content="{}")


class Asking:
    """A client that notes what it was told on the way."""

    def __init__(self, url: str, patience: Patience = QUICK, **changes: Any) -> None:
        self.kept: list[Completion] = []
        self.failures: list[str] = []
        self.slept: list[float] = []
        self.client = Client(settings(url, **changes), Key(KEY), patience, sleep=self._sleep)

    def _sleep(self, seconds: float) -> None:
        if seconds:
            self.slept.append(seconds)
            time.sleep(seconds)

    def ask(self, messages: Sequence[Message] = HELLO, form: dict[str, Any] | None = None) -> Completion:
        return self.client.ask(
            messages, form, keep=self.kept.append, failed=lambda _, message: self.failures.append(message)
        )


def in_turn(*answers: Said) -> Callable[[Asked], Said]:
    """One answer after the other; the last for ever."""
    return lambda asked: answers[min(asked.number, len(answers)) - 1]


def test_what_is_sent() -> None:
    with ScriptedEndpoint(in_turn(FINE)) as endpoint:
        asking = Asking(endpoint.url, temperature=0.5, max_output_tokens=700)
        asking.ask((*HELLO, Message("user", "Look.", (b"png 1", b"png 2"))), SCHEMA)
    [asked] = endpoint.asked
    assert asked.path == "/v1/chat/completions"
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.body["max_tokens"] == 700
    assert asked.body["temperature"] == 0.5
    assert asked.body["response_format"]["json_schema"] == {"name": "reply", "schema": SCHEMA, "strict": True}
    assert asked.images == ["data:image/png;base64,cG5nIDE=", "data:image/png;base64,cG5nIDI="]
    assert "tools" not in asked.body


def test_an_endpoint_without_a_key_is_not_given_one_of_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-service")
    with ScriptedEndpoint(in_turn(FINE)) as endpoint:
        client = Client(settings(endpoint.url), read_key(None))
        client.ask(HELLO, None, keep=lambda _: None, failed=lambda *_: None)
    assert "another" not in endpoint.asked[0].headers["authorization"]


@pytest.mark.parametrize(
    "trouble",
    [refusal(500, "oops"), refusal(503, "loading"), refusal(429, "slow down"), Said(drops=True), refusal(408, "")],
)
def test_what_passes_is_tried_again(trouble: Said) -> None:
    with ScriptedEndpoint(in_turn(trouble, trouble, FINE)) as endpoint:
        asking = Asking(endpoint.url)
        assert asking.ask().content == "{}"
    assert len(endpoint.asked) == 3
    assert len(asking.failures) == 2
    assert len(asking.slept) == 2


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "refuses calls without a key"),
        (403, "refuses calls"),
        (404, "knows no model 'tiny'"),
        (402, "wants money"),
    ],
)
def test_what_a_person_must_mend_is_not_tried_again(status: int, words: str) -> None:
    with (
        ScriptedEndpoint(in_turn(refusal(status, "no"))) as endpoint,
        pytest.raises(EndpointError, match=words) as told,
    ):
        Asking(endpoint.url).ask()
    assert len(endpoint.asked) == 1
    assert told.value.next_step
    assert told.value.retry_seconds is not None


def test_no_money_left_is_not_the_same_as_too_many_requests() -> None:
    said = "You exceeded your current quota, please check your plan and billing details."
    with ScriptedEndpoint(in_turn(refusal(429, said))) as endpoint, pytest.raises(EndpointError, match="wants money"):
        Asking(endpoint.url).ask()
    assert len(endpoint.asked) == 1
    busy = refusal(429, "Quota of requests for a minute is used", Retry_After="0.05")
    with ScriptedEndpoint(in_turn(busy, FINE)) as endpoint:
        Asking(endpoint.url).ask()
    assert len(endpoint.asked) == 2


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Retry_After": "0.2"}, 0.2),
        ({"retry_after_ms": "300"}, 0.3),
        ({"Retry_After": email.utils.formatdate(time.time() - 60, usegmt=True)}, 0.0),
        ({"Retry_After": "soon"}, None),
        ({"Retry_After": "-5"}, None),
        ({"Retry_After": "nan"}, None),
    ],
)
def test_it_waits_as_long_as_it_is_told(headers: dict[str, str], expected: float | None) -> None:
    with ScriptedEndpoint(in_turn(refusal(429, "slow down", **headers), FINE)) as endpoint:
        asking = Asking(endpoint.url)
        asking.ask()
    waited = sum(asking.slept)
    if expected is None:
        assert 0 < waited <= 0.01
    else:
        assert waited == pytest.approx(expected, abs=0.05)


def test_a_long_wait_is_left_to_whoever_asked() -> None:
    with ScriptedEndpoint(in_turn(refusal(429, "come back later", Retry_After="120"))) as endpoint:
        asking = Asking(endpoint.url)
        with pytest.raises(EndpointError) as told:
            asking.ask()
        assert told.value.retry_seconds == pytest.approx(120)
        with pytest.raises(EndpointError, match="asked too often"):
            asking.ask()
        assert len(endpoint.asked) == 1, "nobody else calls before"


def test_a_storm_of_refusals_is_ridden_out() -> None:
    """Thirty callers, an endpoint that takes two at once and refuses the rest."""
    inside, most, lock = 0, 0, threading.Lock()

    def script(_: Asked) -> Said:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
            busy = inside > 2
        time.sleep(0.01)
        with lock:
            inside -= 1
        return refusal(429, "busy", Retry_After="0.02") if busy else FINE

    with ScriptedEndpoint(script) as endpoint:
        asking = Asking(endpoint.url, concurrency=4, max_retries=20)
        done: list[Completion] = []
        callers = [threading.Thread(target=lambda: done.append(asking.ask())) for _ in range(30)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join(300)
    assert len(done) == 30
    assert most <= 4, "no more calls at once than allowed"


def test_a_slow_reply_is_given_up_and_tried_once_more() -> None:
    slow = Said(before=lambda: time.sleep(0.6))
    with ScriptedEndpoint(in_turn(slow)) as endpoint:
        asking = Asking(endpoint.url, timeout_seconds=0.2, max_retries=9)
        with pytest.raises(EndpointError, match=r"did not reply within 0\.2 s"):
            asking.ask()
        assert len(asking.failures) == 2, "each attempt may be paid for"
        assert len(endpoint.asked) <= 2


def test_a_reply_may_take_twenty_minutes_where_that_is_allowed() -> None:
    clock = [0.0]

    def twenty_minutes() -> None:
        clock[0] += 1200

    for allowed in (1800, 900):
        with ScriptedEndpoint(in_turn(Said(content="{}", before=twenty_minutes))) as endpoint:
            patient = settings(endpoint.url, timeout_seconds=allowed, max_retries=0)
            client = Client(patient, Key(KEY), QUICK, clock=lambda: clock[0])
            if allowed == 1800:
                reply = client.ask(HELLO, None, keep=lambda _: None, failed=lambda *_: None)
                assert (reply.content, reply.seconds) == ("{}", 1200)
            else:
                with pytest.raises(EndpointError, match="did not reply within 900 s"):
                    client.ask(HELLO, None, keep=lambda _: None, failed=lambda *_: None)


def test_a_reply_that_drips_is_given_up() -> None:
    with ScriptedEndpoint(in_turn(Said(drips=0.05))) as endpoint:
        asking = Asking(endpoint.url, timeout_seconds=0.3, max_retries=0)
        with pytest.raises(EndpointError, match="did not reply within"):
            asking.ask()


def test_a_reply_without_end_is_given_up() -> None:
    much = Said(raw=b" " * 9_000_000)
    with ScriptedEndpoint(in_turn(much)) as endpoint, pytest.raises(EndpointError, match="more than any reply"):
        Asking(endpoint.url, max_retries=0).ask()


def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        asking = Asking(url, max_retries=1)
        with pytest.raises(EndpointError, match=r"cannot be reached \(.*refused"):
            asking.ask()
    assert len(asking.failures) == 2


@pytest.fixture
def port() -> Iterator[int]:
    with own_port() as found:
        yield found


def test_an_endpoint_that_is_down_is_left_alone_and_found_again(port: int) -> None:
    clock = [0.0]
    patience = Patience(first_pause=0.001, failures=2, first_rest=30, longest_rest=100)
    url = f"http://127.0.0.1:{port}/v1"
    client = Client(settings(url, max_retries=0), Key(KEY), patience, clock=lambda: clock[0], sleep=lambda _: None)

    def ask() -> float:
        failures: list[str] = []
        try:
            client.ask(HELLO, None, keep=lambda _: None, failed=lambda _, message: failures.append(message))
        except EndpointError as error:
            return -1.0 if failures else error.retry_seconds or 0.0
        return 0.0

    assert [ask() for _ in range(4)] == [-1.0, -1.0, 30.0, 30.0], "after two failures nobody knocks"
    clock[0] += 30
    assert [ask() for _ in range(2)] == [-1.0, 60.0], "one knocks, and the rest grows"
    clock[0] += 60
    assert [ask() for _ in range(2)] == [-1.0, 100.0]
    with ScriptedEndpoint(in_turn(FINE), port) as endpoint:
        assert ask() == 100.0
        clock[0] += 100
        assert [ask() for _ in range(3)] == [0.0, 0.0, 0.0]
        assert len(endpoint.asked) == 3


@pytest.mark.parametrize(
    ("said", "feature", "certain"),
    [
        ("This model is not a multimodal model", "vision", True),
        ("Invalid content type: image_url is not supported", "vision", True),
        ("response_format json_schema is not supported", "structured", True),
        ("Failed to compile grammar", "structured", True),
        ("bad request", "structured", False),
    ],
)
def test_what_an_endpoint_lacks_is_understood(said: str, feature: str, certain: bool) -> None:
    with ScriptedEndpoint(in_turn(refusal(400, said))) as endpoint, pytest.raises(UnsupportedError) as told:
        Asking(endpoint.url).ask((Message("user", "Look.", (b"png",)),), SCHEMA)
    assert (told.value.feature, told.value.certain) == (feature, certain)


def test_a_bare_error_on_a_schema_is_worth_a_try_without() -> None:
    with ScriptedEndpoint(in_turn(refusal(500, "Internal Server Error"))) as endpoint:
        with pytest.raises(UnsupportedError, match="500"):
            Asking(endpoint.url, max_retries=1).ask(form=SCHEMA)
        assert len(endpoint.asked) == 2
        with pytest.raises(EndpointError, match="500"):
            Asking(endpoint.url, max_retries=0, structured="json_schema").ask(form=SCHEMA)


def test_a_prompt_that_is_too_long_is_no_lack_of_a_feature() -> None:
    said = "This model's maximum context length is 4096 tokens. However, your prompt has an image of 5000 input_tokens."
    long = in_turn(refusal(400, said))
    with ScriptedEndpoint(long) as endpoint, pytest.raises(RequestRefusedError, match="too long for tiny") as told:
        Asking(endpoint.url).ask(form=SCHEMA)
    assert not isinstance(told.value, UnsupportedError)


def test_the_newer_name_of_the_limit_is_learnt() -> None:
    said = "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead."

    def script(asked: Asked) -> Said:
        return refusal(400, said) if "max_tokens" in asked.body else FINE

    with ScriptedEndpoint(script) as endpoint:
        asking = Asking(endpoint.url)
        asking.ask(form=SCHEMA)
        asking.ask(form=SCHEMA)
    assert ["max_tokens" in asked.body for asked in endpoint.asked] == [True, False, False]


def test_a_server_that_is_shut_down_in_the_middle_is_asked_again() -> None:
    with ScriptedEndpoint(in_turn(Said(content='{"half', finish_reason="abort"), FINE)) as endpoint:
        asking = Asking(endpoint.url)
        assert asking.ask().content == "{}"
    assert [completion.finish_reason for completion in asking.kept] == ["abort", "stop"], "both may have been paid for"


def test_a_reply_that_is_streamed_is_the_same_reply() -> None:
    whole = Said(content=f'{{"a": "ключ {KEY}"}}', finish_reason="length")
    found = []
    for answer in (whole, replace(whole, streams=True)):
        with ScriptedEndpoint(in_turn(answer)) as endpoint:
            found.append(replace(Asking(endpoint.url).ask(), seconds=0.0))
    assert found[0] == found[1]
    assert (found[0].content, found[0].finish_reason) == ('{"a": "ключ ***"}', "length"), (
        "also where the key is in pieces"
    )


def test_calls_of_tools_come_in_pieces_too() -> None:
    first = {"index": 0, "id": "a", "function": {"name": "read", "arguments": '{"n'}}
    second = {"index": 0, "function": {"arguments": '": 1}'}}
    other = {"index": 1, "id": "b", "function": {"name": "stop", "arguments": "{}"}}
    events = [{"choices": [{"delta": {"tool_calls": calls}}]} for calls in ([first], [second, other])]
    events.append({"choices": [{"delta": {}, "finish_reason": "tool_calls"}]})
    raw = "".join(f"data: {json.dumps(event)}\n\n" for event in events).encode()
    with ScriptedEndpoint(in_turn(Said(raw=raw))) as endpoint:
        wanted = Asking(endpoint.url).ask().wanted
    assert [(call.id, call.name, call.arguments) for call in wanted] == [("a", "read", '{"n": 1}'), ("b", "stop", "{}")]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b'data: {"choices": [{"delta": {"content": "{\\"de', "something else than JSON"),
        (b'data: {"error": {"message": "upstream is gone"}}\n\ndata: [DONE]\n\n', "upstream is gone"),
        (b"data: [1, 2]\n\n", None),
        (b'data: {"choices": [{"delta": {"content": "{}"}}]}\n\n', None),
        (b'event: x\ndata: {"choices": [null], "usage": 3}\ndata: {"choices": [{"delta": [], "tool_calls": 5}]}', None),
    ],
)
def test_a_stream_that_breaks_off_is_no_reply(raw: bytes, words: str | None) -> None:
    with ScriptedEndpoint(in_turn(Said(raw=raw))) as endpoint:
        asking = Asking(endpoint.url, max_retries=0)
        if words is None:
            assert "did not come to its end" in asking.ask().problem
        else:
            with pytest.raises(EndpointError, match=words):
                asking.ask()


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"<html>login</html>", b"[]", b"null", b'{"choices": []}', b'{"choices": [null]}', b'{"choices": {}}',
        b"\xff\xfe", b"[" * 100_000, b'{"error": {"message": "upstream"}}', b'{"a": ' + b"9" * 10_000 + b"}",
    ],
)  # fmt: skip
def test_what_is_no_completion_is_an_error_of_the_endpoint(raw: bytes) -> None:
    with ScriptedEndpoint(in_turn(Said(raw=raw))) as endpoint, pytest.raises(EndpointError):
        Asking(endpoint.url, max_retries=0).ask()


@pytest.mark.parametrize(
    "raw",
    [
        b'{"choices": [{}]}', b'{"choices": [{"message": null}]}', b'{"choices": [{"message": {"content": 7}}]}',
        b'{"choices": [{"message": {"content": "\\ud800"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": -1}}',
        b'{"choices": [{"message": {"content": [{"text": "a"}, 5]}}], "model": ["x"], "usage": []}',
    ],
)  # fmt: skip
def test_odd_completions_are_read_without_trust(raw: bytes) -> None:
    with ScriptedEndpoint(in_turn(Said(raw=raw))) as endpoint:
        completion = Asking(endpoint.url, max_retries=0).ask()
    assert completion.usage is None
    completion.content.encode()


def test_tokens_are_counted_as_the_endpoint_does() -> None:
    usage = {
        "prompt_tokens": 500, "completion_tokens": 20,
        "prompt_tokens_details": {"cached_tokens": 300, "image_tokens": 100},
    }  # fmt: skip
    with ScriptedEndpoint(in_turn(Said(content="x", usage=usage))) as endpoint:
        found = Asking(endpoint.url).ask().usage
    assert found is not None
    assert (found.input_tokens, found.output_tokens, found.cached_tokens, found.image_tokens) == (500, 20, 300, 100)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"finish_reason": "length"}, "cut off at the limit"),
        ({"finish_reason": "content_filter"}, "filter"),
        ({"finish_reason": "tool_calls"}, "no tools"),
        ({"message": {"tool_calls": [{"function": {"name": "shell", "arguments": "rm -rf /"}}]}}, "no tools"),
        ({"message": {"refusal": "I cannot help with that."}}, "declined: I cannot"),
        ({"finish_reason": None}, "did not come to its end"),
        ({"finish_reason": "error"}, "did not come to its end"),
    ],
)
def test_why_a_reply_ended_is_known_before_it_is_read(parts: dict[str, Any], words: str) -> None:
    with ScriptedEndpoint(in_turn(Said(content="{}", **parts))) as endpoint:
        assert words in Asking(endpoint.url).ask().problem


def test_the_key_is_in_no_error() -> None:
    for answer in (
        refusal(401, f"Incorrect API key provided: {KEY}."),
        refusal(500, f"Traceback: Authorization: Bearer {KEY}"),
        Said(raw=f'{{"error": {{"message": "bad {KEY}"}}}}'.encode()),
    ):
        with ScriptedEndpoint(in_turn(answer)) as endpoint:
            asking = Asking(endpoint.url, max_retries=0)
            with pytest.raises(EndpointError) as told:
                asking.ask()
        assert KEY not in f"{told.value!r} {told.value.message} {told.value.next_step} {asking.failures}"
        assert told.value.__cause__ is None
    with ScriptedEndpoint(in_turn(Said(content=f"your key is {KEY}"))) as endpoint:
        assert Asking(endpoint.url).ask().content == "your key is ***"


def test_a_key_is_read_from_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", f" {KEY}\n")
    key = read_key("MY_KEY")
    assert key.reveal() == KEY
    assert KEY not in repr(key)
    for value in ("", "  ", "two words", "ключ-от-всего"):
        monkeypatch.setenv("MY_KEY", value)
        with pytest.raises(ConfigurationError, match="MY_KEY") as told:
            read_key("MY_KEY")
        assert not value.strip() or value not in told.value.message
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(ConfigurationError, match="MY_KEY"):
        read_key("MY_KEY")


def test_a_key_is_read_from_a_private_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    for mode in (0o600, 0o400):
        file.chmod(mode)
        assert read_key(None, file).reveal() == KEY
    link = tmp_path / "link"
    link.symlink_to(file)
    assert read_key(None, link).reveal() == KEY


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601, 0o644])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "key"
    file.write_text(KEY)
    file.chmod(mode)
    with pytest.raises(ConfigurationError, match="can be read by others") as told:
        read_key(None, file)
    assert f"chmod 600 {file}" in told.value.next_step
    assert KEY not in f"{told.value.message} {told.value.next_step}"
    assert "\n" not in told.value.message


def test_a_file_without_a_key_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "key"
    file.touch(0o600)
    for text, words in (
        ("", "is empty"),
        (" \n", "is empty"),
        (f"{KEY}\n{KEY}", "holds no key"),
        ("ключ", "holds no key"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigurationError, match=words) as told:
            read_key(None, file)
        assert KEY not in told.value.message
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)
    for no_file in (tmp_path, fifo):
        with pytest.raises(ConfigurationError, match="is no file"):
            read_key(None, no_file)
    # Who mistakes the setting may have written the key itself.
    with pytest.raises(ConfigurationError, match="cannot be read: No such file") as told:
        read_key(None, tmp_path / KEY)
    assert KEY not in told.value.message
    monkeypatch.setattr(os, "geteuid", lambda: file.stat().st_uid + 1)
    with pytest.raises(ConfigurationError, match="belongs to somebody else"):
        read_key(None, file)
