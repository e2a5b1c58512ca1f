"""The generated pages say what the code says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from types import ModuleType

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_docs", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PAGES = [
    "cli.md", "cluster-profiles.md", "search-yaml.md", "exit-codes.md", "hyperparameters.md", "methods.md",
    "playbook.md",
]  # fmt: skip


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_what_the_code_says(name: str, generator: ModuleType) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == generator.pages()[name], "write it anew: make docs"


def test_every_page_is_compared(generator: ModuleType) -> None:
    assert set(generator.pages()) == set(PAGES)
