"""The README and the documents name only commands, options, targets and files that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main
import yaml

from llmzero_hpc.cli.create import template
from llmzero_hpc.cli.main import app
from llmzero_hpc.config import load_text

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "state" / "README.md", *(ROOT / "docs").glob("*.md")]
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def commands_in(text: str) -> list[str]:
    return re.findall(r"(?:^|`|bin/)llmzero-hpc ([a-z][^`\n#|]*)", text, flags=re.MULTILINE)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_and_options_exist(document: Path) -> None:
    for line in commands_in(document.read_text()):
        name, *words = line.replace("[", " ").replace("]", " ").split()
        name = name.strip(".,;:")
        assert name in COMMANDS, f"{document.name}: llmzero-hpc {line}"
        command = COMMANDS[name]
        if words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words[0]]
        known = {option for parameter in command.params for option in parameter.opts}
        options = {word.strip(".,;:") for word in words if word.startswith("--")}
        assert options <= known | {"--help"}, f"{document.name}: llmzero-hpc {line}"


def test_the_readme_shows_commands_at_all() -> None:
    assert len(commands_in((ROOT / "README.md").read_text())) > 8


def test_parts_of_settings_in_the_readme_are_accepted() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    parts = [yaml.safe_load(block) for block in blocks if not block.startswith("# compare.yaml")]
    assert len(parts) >= 2
    whole = yaml.safe_load(template("slurm", "search.yaml"))
    for part in parts:
        load_text(yaml.safe_dump(whole | part), "README.md")


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_make_targets_exist(document: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", (ROOT / document).read_text(), flags=re.MULTILINE))
    assert named
    assert named <= targets
