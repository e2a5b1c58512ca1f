"""The client of a server that the search keeps itself: wherever that listens at the moment."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

from llmzero_hpc.agents.llm.client import Client
from llmzero_hpc.agents.llm.failures import EndpointError
from llmzero_hpc.agents.llm.secret import Key
from llmzero_hpc.cluster.server_watch import ServerWatch
from llmzero_hpc.errors import ConfigurationError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from llmzero_hpc.agents.llm.client import Message
    from llmzero_hpc.agents.llm.completion import Completion
    from llmzero_hpc.sections import LanguageModelAgents, Serve
    from llmzero_hpc.store.server_directory import ServerDirectory

_CONTEXT = 32_768


class ServedClient:
    """Calls the model of a server that may be gone, and come back elsewhere. Safe from several threads.

    Raises:
        MissingDependencyError: the extra `agents` is not installed.
        StorageError: the server's folder cannot be written.
    """

    def __init__(self, settings: LanguageModelAgents, server: ServerDirectory) -> None:
        server.create()
        self.key = Key(server.key())
        self._settings = settings
        self._watch = ServerWatch(server)
        self._lock = threading.Lock()
        self._client = Client(settings, self.key)
        self._base_url = ""

    def ask(
        self,
        messages: Sequence[Message],
        schema: Mapping[str, Any] | None,
        *,
        keep: Callable[[Completion], None],
        failed: Callable[[float, str], None],
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> Completion:
        """As `Client.ask`; an `EndpointError` at once while the server is not up."""
        return self._present().ask(messages, schema, keep=keep, failed=failed, tools=tools)

    def _present(self) -> Client:
        with self._lock:
            try:
                said = self._watch.answering()
            except StorageError as error:
                raise EndpointError(error.message, error.next_step) from None
            if said is None:
                raise EndpointError(f"the server of {self._settings.model} is not up")
            if said.base_url != self._base_url:
                # What was known of the endpoint, that it is down above all, was said of another run.
                self._base_url = said.base_url
                self._client = Client(self._settings.model_copy(update={"base_url": said.base_url}), self.key)
            return self._client


def context_of(serve: Serve) -> int:
    """Tokens of a prompt and its reply that the server is to take.

    Raises:
        ConfigurationError: the folder holds no model.
    """
    file = serve.model / "config.json"
    try:
        config = json.loads(file.read_bytes())
        inner = config.get("text_config") or config
        longest = int(inner.get("max_position_embeddings") or _CONTEXT)
    except (OSError, ValueError, AttributeError, TypeError) as error:
        reason = getattr(error, "strerror", None) or "it is not what a model's folder holds"
        raise ConfigurationError(
            f"agents.serve.model: {file} cannot be read: {reason}", "name the folder of a Hugging Face model"
        ) from None
    return serve.max_model_len or min(_CONTEXT, longest)
