"""What the language model of a search is asked with: client, log, ledger, key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmzero_hpc.agents.llm.client import Client
from llmzero_hpc.agents.llm.ledger import Ledger
from llmzero_hpc.agents.llm.secret import Key, read_key
from llmzero_hpc.agents.llm.serve import ServedClient
from llmzero_hpc.sections import LanguageModelAgents
from llmzero_hpc.store.agent_calls import CallLog
from llmzero_hpc.store.server_directory import ServerDirectory

if TYPE_CHECKING:
    from llmzero_hpc.store.search_directory import SearchDirectory


@dataclass(frozen=True, slots=True)
class ModelParts:
    """One of each."""

    settings: LanguageModelAgents
    client: Client | ServedClient
    log: CallLog
    ledger: Ledger
    key: Key

    @staticmethod
    def of(directory: SearchDirectory, settings: LanguageModelAgents) -> ModelParts:
        """Those of a search, which has these settings.

        Raises:
            ConfigurationError: the key is not where it is said to be.
            MissingDependencyError: the extra `agents` is not installed.
            StorageError: what was spent so far cannot be read.
        """
        server = ServerDirectory.of(directory)
        served = None if server is None else ServedClient(settings, server)
        key = read_key(settings.api_key_env, settings.api_key_file) if served is None else served.key
        log = CallLog(directory)
        ledger = Ledger(settings, directory.record.config.budget.api_dollars, log.spending())
        return ModelParts(settings, served or Client(settings, key), log, ledger, key)
