"""What VeRL, Ray, vLLM and torch print when they fail is understood; what they print when all is well is not blamed."""

from __future__ import annotations

import re
import signal
import types
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmzero_hpc.agents.playbook.error_analyzer import classify
from llmzero_hpc.errors import INFRASTRUCTURE_EXIT_CODES, ClusterError, ConfigurationError, LLMZeroError, StorageError
from llmzero_hpc.trainers.verl.errors import FAILURES, Cause, Failure, Kind, diagnose, failed_run
from llmzero_hpc.trainers.verl.run import reported

LOGS = Path(__file__).parent / "logs"
CONFIGURATION = {
    Cause.REWARD, Cause.GPU_MEMORY, Cause.KV_CACHE, Cause.NOT_FINITE, Cause.CHAT_TEMPLATE, Cause.LONG_PROMPT,
}  # fmt: skip
NAMES = sorted(path.stem for path in LOGS.glob("*.txt") if path.stem != "healthy")


def cause_of(name: str) -> Cause:
    """A log's name begins with its cause's."""
    return max((cause for cause in Cause if name.startswith(cause)), key=len)


def read(name: str) -> str:
    return (LOGS / f"{name}.txt").read_text()


def test_there_is_one_row_and_a_log_of_every_cause() -> None:
    assert {cause_of(name) for name in NAMES} == set(Cause)
    assert sorted(failure.cause for failure in FAILURES) == sorted(Cause)
    assert {failure.cause for failure in FAILURES if failure.kind is Kind.CONFIGURATION} == CONFIGURATION


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.cause)
def test_each_row_says_what_to_do_and_is_proved_by_its_own_lines_alone(failure: Failure) -> None:
    assert failure.message
    assert failure.next_step
    assert all(re.compile(pattern).groups == 0 for pattern in failure.patterns)
    assert not failure.pattern.search("")


@pytest.mark.parametrize("name", NAMES)
def test_a_log_tells_its_cause_and_proves_it(name: str) -> None:
    log = read(name)
    found = diagnose(log)
    assert found is not None
    assert found.failure.cause is cause_of(name)
    assert found.evidence
    assert all(line in log for line in found.evidence)


@pytest.mark.parametrize("name", NAMES)
def test_a_cause_is_found_among_all_that_is_printed_when_all_is_well(name: str) -> None:
    healthy = read("healthy")
    assert diagnose(healthy + read(name) + healthy) == diagnose(read(name))


def test_a_healthy_log_is_not_blamed() -> None:
    assert diagnose(read("healthy")) is None


@pytest.mark.parametrize("first", NAMES)
def test_the_death_of_an_actor_is_blamed_for_nothing_that_another_cause_explains(first: str) -> None:
    found = diagnose(read("actor_died") + read(first) + read("actor_died"))
    assert found is not None
    assert found.failure.cause is cause_of(first)


SETTINGS = (
    "Error executing job with overrides: ['reward.name=compute_score', 'actor_rollout_ref.rollout.max_model_len=40']\n"
)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("gpu_memory", "out_of_memory"),
        ("kv_cache_none", "out_of_memory"),
        ("kv_cache", "too_long"),
        ("long_prompt_vllm", "too_long"),
        ("not_finite", "diverged"),
        ("disk_full", "disk_full"),
        ("reward", "missing_or_reward"),
        ("actor_died", "killed"),
    ],
)
def test_the_playbook_goes_by_what_was_found_and_not_by_verls_settings(name: str, rule: str, tmp_path: Path) -> None:
    log = tmp_path / "trainer.log"
    log.write_text(read("healthy") + read(name) + SETTINGS)
    error = failed_run(1, log)
    assert classify(f"{log.read_text()}error: {error.message}\n{error.next_step}\n", error.exit_code).name == rule


@given(st.text(max_size=300))
def test_any_text_has_a_diagnosis_or_none(text: str) -> None:
    found = diagnose(text)
    assert found is None or found.evidence


def test_a_failure_is_one_line_with_its_proof_and_the_exit_code_of_its_kind(tmp_path: Path) -> None:
    log = tmp_path / "trainer.log"
    kinds = {"disk_full": StorageError, "gpu_memory": ConfigurationError, "communication": ClusterError}
    for name, kind in kinds.items():
        log.write_text(read(name))
        error = failed_run(1, log)
        assert type(error) is kind
        assert "\n" not in error.message
        assert error.next_step


def test_a_failure_that_nobody_knows_names_the_exit_code_and_the_log(tmp_path: Path) -> None:
    log = tmp_path / "trainer.log"
    error = failed_run(7, log)
    assert type(error) is LLMZeroError
    assert "exit code 7" in error.message
    assert str(log) in error.next_step
    log.write_text("nothing known\n")
    assert "no validation" in failed_run(0, log).message
    log.write_text("  raise it\nAttributeError: 'NoneType' object has no attribute 'shape'\n\nSet HYDRA_FULL_ERROR=1\n")
    assert failed_run(1, log).message.endswith("AttributeError: 'NoneType' object has no attribute 'shape'")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_signal_that_others_sent_is_no_failure_of_the_configuration(number: signal.Signals, tmp_path: Path) -> None:
    log = tmp_path / "trainer.log"
    log.write_text(read("healthy"))
    error = failed_run(-number, log)
    assert type(error) is ClusterError
    assert number.name in error.message
    assert type(failed_run(-signal.SIGSEGV, log)) is LLMZeroError
    log.write_text(read("healthy") + read("gpu_memory"))
    assert type(failed_run(-number, log)) is ConfigurationError


def test_a_full_disk_is_the_cause_where_it_kept_the_log_from_saying_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "trainer.log"
    log.write_text(read("healthy"))
    monkeypatch.setattr("shutil.disk_usage", lambda _path: types.SimpleNamespace(free=4096))
    error = failed_run(1, log)
    assert type(error) is StorageError
    assert str(tmp_path) in error.message
    log.write_text(read("gpu_memory"))
    assert type(failed_run(1, log)) is ConfigurationError


@pytest.mark.parametrize("name", NAMES)
def test_the_log_ends_with_the_proofs_the_error_and_what_can_be_done(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "trainer.log"
    log.write_text(read("healthy") + read(name) + read("healthy"))
    error, found = failed_run(1, log), diagnose(read(name))

    def failing() -> None:
        raise error

    assert found is not None
    is_transient = found.failure.kind is Kind.INFRASTRUCTURE
    assert (reported(failing) in INFRASTRUCTURE_EXIT_CODES) is is_transient
    *proofs, said, next_step = capsys.readouterr().err.splitlines()
    assert (*proofs, found.evidence[-1]) == found.evidence
    assert said == f"error: {found.failure.message}: {found.evidence[-1]}"
    assert next_step == found.failure.next_step
