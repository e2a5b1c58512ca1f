"""Searches whose every agent is the real vLLM with a random model: any reply that the schema allows may come."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from searches import CPU_PROFILE, on_slurm
from served import files_with, search, server_of, tick_until

from llmzero_hpc.agents.llm import replies, samples
from llmzero_hpc.agents.registry import make_agents
from llmzero_hpc.controller.daemon import Daemon
from llmzero_hpc.report.reading import read
from llmzero_hpc.store.agent_calls import CallLog
from llmzero_hpc.trainers.registry import make_trainer

if TYPE_CHECKING:
    from slurm_cluster import SlurmTestCluster

    from llmzero_hpc.store.search_directory import SearchDirectory

VLLM_PYTHON = os.environ.get("LLMZERO_VLLM_PYTHON", "")
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not VLLM_PYTHON, reason="LLMZERO_VLLM_PYTHON names no Python with vLLM (`make verl`)"),
]
ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 600
KINDS = {
    "proposer": replies.ProposerReply,
    "early_stopper": replies.EarlyStopperReply,
    "error_analyzer": replies.ErrorAnalyzerReply,
}
ON_A_CPU = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the worker in the engine's process: a third less to start
}


def made(kind: str, folder: Path) -> Path:
    """A random model, in a folder called by what it takes."""
    maker = ROOT / "tests" / "agents" / "tiny_models.py"
    command = [VLLM_PYTHON, str(maker), kind, str(folder / kind), str(ROOT / "prompts"), str(ROOT / "docs")]
    subprocess.run(command, check=True, capture_output=True)
    return folder / kind


def served(root: Path, model: Path, iterations: int, **changes: Any) -> SearchDirectory:
    serve = {
        "model": model,
        "python": VLLM_PYTHON,
        "vllm_options": ("--dtype=float32", "--enforce-eager", "--max-num-seqs=4"),
        **changes.pop("serve", {}),
    }
    agents = {"vision": model.name == "vision", "structured": "json_schema", "max_retries": 4}
    return search(
        root,
        serve,
        iterations=iterations,
        agents=agents,
        rehearsal={"step_seconds": 0.05, "train_rows": 64, "failure_rate": 0.4},
        seed=4,  # the first phase does not fail, so that the next is proposed
        tick_seconds=1,
        **changes,
    )


_OfAnySize = jsonschema.validators.extend(
    jsonschema.Draft202012Validator, dict.fromkeys(("minimum", "maximum", "exclusiveMinimum"))
)


def check(directory: SearchDirectory, *others: int) -> None:
    """Whatever the model said was said in the right form, and nothing came of it that must not be.

    `others` are phases that are in no tree, but were asked about.
    """
    config = directory.record.config
    trainer = make_trainer(config.trainer)
    tree, log = directory.read_tree(), CallLog(directory)
    calls = [call for node in (*(node.id for node in tree), *others) for call in log.calls(node)]
    asked = {call.agent for call in calls}
    assert {"proposer", "early_stopper"} <= asked
    for call in calls:
        for number in (1, 2):
            reply = call.reply(number)
            if reply is not None:
                assert reply.finish_reason == "stop"
                # A grammar bounds a number's digits, not its exponent: what is too large is sent back, and refused.
                jsonschema.validate(json.loads(reply.content), replies.schema(KINDS[call.agent]), cls=_OfAnySize)
                assert not reply.usage.estimated
        if config.agents.model == "vision" and call.agent != "error_analyzer":
            assert list(call.folder.glob("*.png"))
        assert call.reply(1) is not None
    for node in tree:
        assert node.configuration is not None
        assert node.configuration.problems(config.bounds) == []
        assert trainer.problems(config, node.configuration) == []
        resumed = None if node.resume is None else tree[node.resume.node].configuration
        assert resumed is None or resumed.fixed_changes(node.configuration) == []
        assert len(node.attempts) == 1


def test_a_search_by_a_model_that_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in ON_A_CPU.items():
        monkeypatch.setenv(key, value)
    directory = served(tmp_path / "state" / "served", made("vision", tmp_path), 3)
    server = server_of(directory)
    failure = samples.failure()
    with Daemon(directory) as daemon:
        tick_until(daemon, lambda: server.newest() and server.has_been_up(1), PATIENCE_SECONDS)
        repair = make_agents(directory.record.config, directory).repair(failure)
        assert repair.configuration.problems(failure.bounds) == []
        tick_until(daemon, lambda: daemon.tick().finished, PATIENCE_SECONDS)
    check(directory, failure.node.id)
    assert [call.agent for call in CallLog(directory).calls(failure.node.id)] == ["error_analyzer"]
    assert server.newest() == 1
    assert files_with(server.key(), tmp_path) == {"key"}, "vLLM's log is among these files"


def test_a_search_by_a_model_whose_job_is_preempted(clean_slurm: SlurmTestCluster, tmp_path: Path) -> None:
    profile = CPU_PROFILE | {"nodelist": "node1"}
    cluster = on_slurm(tmp_path, profile)
    profiles = Path(cluster["profiles"])
    own = CPU_PROFILE | {"nodelist": "node4", "cpus_per_node": 2, "memory_gb_per_node": 8, "environment": ON_A_CPU}
    profiles.write_text(profiles.read_text() + f"server: {own}\n")
    model = made("text", tmp_path)
    directory = served(tmp_path / "state" / "served", model, 4, cluster=cluster, serve={"profile": "server"})
    server = server_of(directory)

    def is_up(restart: int) -> bool:
        word = server.announcement(1) if server.newest() else None
        return word is not None and word[0].restart == restart and word[0].up_at is not None

    with Daemon(directory) as daemon:
        tick_until(daemon, lambda: is_up(0), PATIENCE_SECONDS)
        urgent = ("-p", "high", "-w", "node4", "--exclusive", "--mem=1G", "--parsable", "--wrap", "sleep 600")
        other = clean_slurm.run("sbatch", "-o", "/dev/null", *urgent).strip()
        tick_until(daemon, lambda: "pending" in read(directory).controller.server, PATIENCE_SECONDS)
        clean_slurm.run("scancel", other)
        tick_until(daemon, lambda: is_up(1), PATIENCE_SECONDS)
        tick_until(daemon, lambda: daemon.tick().finished, PATIENCE_SECONDS)
    check(directory)
    assert server.newest() == 1
    clean_slurm.wait_for(lambda: not clean_slurm.jobs_in_queue(), "an empty queue")
    assert files_with(server.key(), tmp_path, clean_slurm.root) == {"key"}
