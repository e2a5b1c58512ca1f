"""The documented format is the written one, and formats change by version only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from store_samples import new_search, rich_tree

from llmzero_hpc.errors import CorruptStateError, FormatVersionError
from llmzero_hpc.search.tree import Tree
from llmzero_hpc.store.migration import FIRST_VERSION, FORMAT_VERSION, MIGRATIONS, Document, upgraded
from llmzero_hpc.store.schemas import main, schemas

if TYPE_CHECKING:
    from llmzero_hpc.store.search_directory import SearchDirectory

SHIPPED = Path(__file__).parents[2] / "state"
PATH = Path("tree.json")


def validated(name: str, document: Any) -> None:
    schema = json.loads((SHIPPED / "schemas" / f"{name}.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(document, schema, cls=jsonschema.Draft202012Validator)


def test_the_shipped_schemas_are_those_of_this_program(tmp_path: Path) -> None:
    main(tmp_path / "schemas")
    shipped = {path.name: path.read_bytes() for path in (SHIPPED / "schemas").iterdir()}
    assert shipped == schemas(), "run `python -m llmzero_hpc.store.schemas`"
    assert {path.name: path.read_bytes() for path in (tmp_path / "schemas").iterdir()} == schemas()


@pytest.mark.parametrize("tree", [Tree(), rich_tree()])
def test_what_is_written_is_valid_by_the_schemas(directory: SearchDirectory, tree: Tree) -> None:
    directory.write_tree(tree)
    validated("tree", json.loads(directory.tree_file.read_text()))
    validated("search", json.loads((directory.root / "search.json").read_text()))


def test_the_schemas_refuse_what_the_program_refuses(directory: SearchDirectory) -> None:
    directory.write_tree(rich_tree())
    document = json.loads(directory.tree_file.read_text())
    document["tree"]["nodes"][0]["configuration"]["more"] = 1
    with pytest.raises(jsonschema.ValidationError):
        validated("tree", document)


def test_every_file_that_a_search_holds_is_documented(directory: SearchDirectory) -> None:
    text = (SHIPPED / "README.md").read_text()
    attempt = directory.phase(0).attempt(1)
    phase = directory.phase(0)
    paths = [
        directory.root / "search.json", directory.tree_file, directory.metrics_h5, phase.specification,
        phase.checkpoints, phase.training_state, phase.plots, phase.agents, phase.result, attempt.metrics,
        attempt.marker(), attempt.claim(), attempt.head(), attempt.present(0, 1), attempt.ray_token(),
        attempt.ray_log(0), attempt.trainer_log, attempt.submission,
    ]  # fmt: skip
    for name in [path.name for path in paths] + ["lease", "daemon.json", "events.jsonl", "control/"]:
        assert name in text


def test_each_version_has_its_migration() -> None:
    assert FIRST_VERSION + len(MIGRATIONS) == FORMAT_VERSION


def test_migrations_run_in_order_from_the_version_of_the_file() -> None:
    # The first format has no predecessor: these are made up, to prove the way that the next one will take.
    def note(word: str) -> Any:
        def migrate(name: str, document: Document) -> Document:
            return {**document, "way": [*document.get("way", []), f"{name}:{word}"]}

        return migrate

    migrations = (note("1 to 2"), note("2 to 3"))
    assert upgraded(PATH, {"format_version": 1, "way": []}, migrations) == {
        "format_version": 3,
        "way": ["tree.json:1 to 2", "tree.json:2 to 3"],
    }
    assert upgraded(PATH, {"format_version": 2}, migrations) == {"format_version": 3, "way": ["tree.json:2 to 3"]}
    assert upgraded(PATH, {"format_version": 3}, migrations) == {"format_version": 3}


def test_newer_and_impossible_versions_are_refused() -> None:
    with pytest.raises(FormatVersionError, match="format version 2; this program knows versions up to 1") as caught:
        upgraded(PATH, {"format_version": 2})
    assert "upgrade llmzero-hpc" in caught.value.next_step
    for version in (0, -1, True, "1", 1.0, None):
        with pytest.raises(CorruptStateError, match="no valid format_version"):
            upgraded(PATH, {"format_version": version})


def test_the_record_is_fixed(tmp_path: Path) -> None:
    first, second = new_search(tmp_path / "a"), new_search(tmp_path / "b")
    assert len(first.record.token) == 4
    assert first.record.config == second.record.config
    with pytest.raises(ValueError, match="frozen"):
        first.record.train_rows = 3
