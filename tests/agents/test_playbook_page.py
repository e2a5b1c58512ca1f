"""The page for people is what the code says; the registry gives the playbook."""

from __future__ import annotations

from pathlib import Path

from llmzero_hpc.agents.playbook import Playbook
from llmzero_hpc.agents.playbook.document import page
from llmzero_hpc.agents.playbook.error_analyzer import FAILURES
from llmzero_hpc.agents.playbook.rules import RULES
from llmzero_hpc.agents.registry import make_agents
from llmzero_hpc.config import SearchConfig
from llmzero_hpc.sections import ChainsTask
from llmzero_hpc.store.search_directory import SearchDirectory, SearchRecord

PAGE = Path(__file__).parents[2] / "docs" / "playbook.md"


def test_the_page_equals_the_code() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "write it: python -m llmzero_hpc.agents.playbook.document"


def test_the_page_names_every_rule_and_failure() -> None:
    for row in (*RULES, *FAILURES):
        assert f"| `{row.name}` |" in page()


def test_a_search_gets_the_playbook(tmp_path: Path) -> None:
    config = SearchConfig(name="x", model="builtin:chains", task=ChainsTask())
    directory = SearchDirectory.create(tmp_path / "search", SearchRecord.new(config, 64, 0.0))
    assert isinstance(make_agents(config, directory), Playbook)
