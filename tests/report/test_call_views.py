"""Calls of language models as people and scripts read them, from a folder prepared by hand."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import call_samples as samples
import pytest
from rich.console import Console

from llmzero_hpc.report.calls import calls_about, calls_to_json
from llmzero_hpc.report.reading import read
from llmzero_hpc.report.terminal_calls import calls_view

if TYPE_CHECKING:
    from pathlib import Path

    from llmzero_hpc.store.search_directory import SearchDirectory


@pytest.fixture
def search(tmp_path: Path) -> SearchDirectory:
    return samples.directory(tmp_path / "asked")


def shown(search: SearchDirectory, node: int) -> str:
    data = read(search, metrics=())
    stream = io.StringIO()
    Console(file=stream, width=80, force_terminal=False).print(
        calls_view(data, data.nodes[node], calls_about(search, data.nodes[node])), crop=False
    )
    lines = stream.getvalue().replace(str(search.root), "ROOT").splitlines()
    return "\n".join(line.rstrip() for line in lines)


def plain(search: SearchDirectory, node: int) -> dict[str, Any]:
    report = read(search, metrics=()).nodes[node]
    made: dict[str, Any] = json.loads(json.dumps(calls_to_json(report, calls_about(search, report))))
    return made


def test_a_proposal_in_two_rounds(search: SearchDirectory) -> None:
    assert (
        shown(search, 1)
        == """\
Phase 1  evolve
  author     tiny

1  proposer  2025-10-09 08:54 UTC
  model      tiny at https://api.example.org/v1
  prompt     system 18 and user 27 characters: # What next? Node 0 ended.
             ROOT/phases/0001/agents/proposer_aaaa/request_1.json
             ROOT/phases/0001/agents/proposer_aaaa/curves_1.png
  reply      length by tiny-2026 after 12 s; 9,000 tokens in (4,000 cached,
             1,500 of images), 500 out, $0.0230
    {"diagnosis": "Too [31mshort
  again      the reply was cut off; think less
             ROOT/phases/0001/agents/proposer_aaaa/request_2.json
  reply      stop by tiny-2026 after 12 s; 9,000 tokens in, 500 out, $0.0230
    diagnosis: Responses are cut off.
    observations:
    - metric kl, value 0.9
    changes: none
    resume_step: none
  outcome    used"""
    )


def test_a_reply_that_could_not_be_used_and_who_answered_instead(search: SearchDirectory) -> None:
    text = shown(search, 2)
    assert "    I would rather not.\n    Try [bold]tomorrow[/bold].\n" in text
    assert "  outcome    not used: the reply has no JSON object\n" in text
    assert text.endswith("  instead    the playbook (rules)")
    assert "author     the playbook (rules, entropy_collapse)" in text


def test_a_judgement_that_did_not_come_lets_the_phase_go_on(search: SearchDirectory) -> None:
    first, second = shown(search, 3).split("\n2  early stopper")
    assert "decision: STOP" in first
    assert "instead" not in first
    assert "no reply   2025-10-09 09:09 UTC, after 1 s: connection refused" in second
    assert "nobody: the phase goes on" in second


def test_a_phase_without_calls_says_why_where_a_model_was_to_be_asked(search: SearchDirectory) -> None:
    assert shown(search, 0).endswith("No language model was asked about it.")
    tree = search.read_tree()
    other = tree[2].rationale
    search.write_tree(tree.replacing(replace(tree[4], rationale=other)))
    text = " ".join(shown(search, 4).split())
    assert "No language model was asked about it. Instead of tiny (the reply has no JSON object): Entropy" in text


def test_a_call_under_way_is_neither_used_nor_answered_by_another(search: SearchDirectory) -> None:
    tree = search.read_tree()
    search.write_tree(tree.replacing(replace(tree[2], rationale=None)))
    for file in (search.phase(2).agents / "proposer_bbbb").iterdir():
        if not file.name.startswith("request"):
            file.unlink()
    (call,) = plain(search, 2)["calls"]
    assert (call["used"], call["answered_by"], call["rounds"][0]["replies"]) == (None, "", [])
    assert call["spending"]["unanswered"] == 1


def test_scripts_read_everything_whole(search: SearchDirectory) -> None:
    document = plain(search, 1)
    assert (document["node"], document["author"], document["spending"]["calls"]) == (1, "tiny", 2)
    assert document["spending"]["dollars"] == pytest.approx(0.046)
    (call,) = document["calls"]
    assert call["used"] is True
    first, second = call["rounds"]
    assert first["replies"][0]["finish_reason"] == "length"
    assert first["content"] == '{"diagnosis": "Too \x1b[31mshort'
    assert second["repairs"] == ["the reply was cut off", "think less"]
    assert second["content"] == samples.ANSWER
    folder = search.phase(1).agents / "proposer_aaaa"
    assert first["request"] == str(folder / "request_1.json")
    assert first["images"] == [str(folder / "curves_1.png")]
    assert (folder / "curves_1.png").read_bytes() == samples.PNG


def test_without_prices_no_money_is_shown(tmp_path: Path) -> None:
    assert "$" not in shown(samples.directory(tmp_path / "free", priced=False), 1)


def test_a_log_that_a_kill_tore_is_read_as_far_as_it_goes(search: SearchDirectory) -> None:
    folder = search.phase(1).agents / "proposer_aaaa"
    (folder / "outcome.json").write_text('{"parsed": {"diag', encoding="utf-8")
    (folder / "reply_2.json").write_text("", encoding="utf-8")
    (folder / "failures.jsonl").write_text('{"at": 1.0, "sec', encoding="utf-8")
    (call,) = plain(search, 1)["calls"]
    assert (call["used"], call["failures"], call["rounds"][1]["replies"]) == (None, [], [])
    assert "reply      none" in shown(search, 1)


def test_looking_at_calls_loads_nothing_heavy(search: SearchDirectory) -> None:
    code = (
        "import sys; from llmzero_hpc.cli.main import app; from pathlib import Path\n"
        "from llmzero_hpc.report import calls, reading\n"
        "from llmzero_hpc.store.search_directory import SearchDirectory\n"
        "found = SearchDirectory.open(Path(sys.argv[1])); data = reading.read(found, metrics=())\n"
        "assert calls.calls_about(found, data.nodes[1])\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code, str(search.root)], check=True, capture_output=True, text=True
    ).stdout.split()
    assert not {"openai", "jinja2", "matplotlib", "numpy", "h5py", "rich", "submitit", "torch"} & set(loaded)
