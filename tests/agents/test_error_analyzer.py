"""Failures are recognized by their logs; repairs are valid and never tried twice."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from playbook_samples import SICK, failure_request, node, phase

from llmzero_hpc.agents.playbook import Playbook
from llmzero_hpc.agents.playbook.error_analyzer import classify
from llmzero_hpc.search.configuration import Bounds, Configuration

if TYPE_CHECKING:
    from llmzero_hpc.agents.base import FailureRequest, Repair

LOGS = {
    "out_of_memory": "step 3\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.\n",
    "unknown_argument": "TypeError: GRPOConfig.__init__() got an unexpected keyword argument 'beta_two'\n",
    "disk_full": "OSError: [Errno 28] No space left on device: 'checkpoints/step_30'\n",
    "diverged": "RuntimeError: probability tensor contains either `inf`, `nan` or element < 0\n",
    "too_long": "ValueError: The prompt is longer than the maximum model length of 2048\n",
    "missing_or_reward": "FileNotFoundError: [Errno 2] No such file or directory: 'train.jsonl'\n",
    "killed": "slurmstepd: error: Detected 1 oom-kill event(s)\n",
    "unknown": "something odd happened\n",
}


def repair(request: FailureRequest) -> Repair:
    return Playbook().repair(request)


def repairs(log: str, count: int, configuration: Configuration | None = None, **fields: Any) -> list[Repair]:
    """Repairs of one failure, each knowing those before it."""
    found, earlier = [], ()
    for number in range(3, 3 + count):
        answer = repair(failure_request(log, configuration=configuration, earlier=earlier, **fields))
        found.append(answer)
        earlier += (node(number, answer.configuration),)
    return found


@pytest.mark.parametrize("name", LOGS)
def test_a_failure_is_recognized_and_quoted(name: str) -> None:
    answer = repair(failure_request(LOGS[name]))
    assert answer.rationale.rule == name
    assert answer.rationale.author == "playbook"
    assert LOGS[name].strip().splitlines()[-1] in answer.rationale.evidence


@pytest.mark.parametrize("name", LOGS)
def test_no_repair_is_tried_twice(name: str) -> None:
    found = repairs(LOGS[name], 10)
    configurations = [answer.configuration for answer in found]
    assert all(one != other for i, one in enumerate(configurations) for other in configurations[:i])
    assert all(configuration.problems() == [] for configuration in configurations)


def test_memory_is_saved_by_the_batch_before_capacity_is_touched() -> None:
    first, second, *_ = repairs(LOGS["out_of_memory"], 2, Configuration(batch_size=64, mini_batches=2, epochs=2.0))
    assert (first.configuration.batch_size, first.configuration.epochs) == (32, 1.0), "as many steps as before"
    assert second.configuration.mini_batches == 4
    for answer in (first, second):
        assert answer.configuration.rollouts == 8
        assert answer.configuration.max_response_length == 6144


def test_a_divergence_calms_the_updates_and_goes_back_before_the_damage() -> None:
    series = phase({"grad_norm": lambda t: 0.3 if t < 0.6 else float("nan")})
    answer = repair(failure_request(LOGS["diverged"], series=series))
    assert answer.configuration.learning_rate == 2.5e-5
    assert answer.configuration.gradient_clip == 0.5
    assert answer.resume_step == 35, "the best validation before step 36"


def test_metrics_that_are_not_finite_are_a_divergence_without_a_word_in_the_log() -> None:
    series = phase({"policy_loss": lambda t: 0.1 if t < 0.6 else float("inf")})
    assert repair(failure_request("", series=series)).rationale.rule == "diverged"


def test_other_failures_resume_from_the_newest_checkpoint() -> None:
    assert repair(failure_request(LOGS["killed"], series=phase())).resume_step == 60
    assert repair(failure_request(LOGS["killed"])).resume_step is None


@pytest.mark.parametrize("name", ["disk_full", "missing_or_reward"])
def test_what_no_configuration_helps_is_tried_once_as_it_is(name: str) -> None:
    first, second = repairs(LOGS[name], 2)
    assert first.configuration == Configuration()
    assert "nothing in the configuration helps" in first.rationale.diagnosis
    assert "the same configuration again" in first.rationale.evidence
    assert second.configuration != Configuration()


def test_an_override_that_the_trainer_does_not_know_is_dropped() -> None:
    configuration = replace(Configuration(), overrides={"beta_two": 0.9, "warmup_steps": 3})
    first, second = repairs(LOGS["unknown_argument"], 2, configuration)
    assert first.configuration.overrides == {"warmup_steps": 3}
    assert second.configuration.overrides == {}


def test_a_kill_is_recognized_by_its_exit_code() -> None:
    for code in (-9, 137):
        assert classify("", code).name == "killed"
    assert classify("", 1).name == "unknown"
    assert classify(LOGS["out_of_memory"], 137).name == "out_of_memory", "the log knows better"


def test_an_unknown_failure_halves_the_learning_rate() -> None:
    assert repair(failure_request(LOGS["unknown"])).configuration.learning_rate == 2.5e-5


@pytest.mark.parametrize("text", ["loss 0.31 info: saved", "financial data, nanometre", "kl 0.02 lr 5e-05"])
def test_innocent_words_are_no_divergence(text: str) -> None:
    assert classify(text, 1).name == "unknown"


@settings(max_examples=80, deadline=None)
@given(
    st.one_of(st.sampled_from(sorted(LOGS.values())), st.text(max_size=200)),
    st.sampled_from([None, 0, 1, -9, -11, 137]),
    st.sampled_from(sorted(SICK)),
    st.integers(1, 64),
    st.integers(1, 8),
)
def test_every_repair_is_valid_and_repeatable(
    log: str, exit_code: int | None, sick: str, batches: int, mini_batches: int
) -> None:
    configuration = Configuration(batch_size=batches * mini_batches, mini_batches=mini_batches, epochs=0.5)
    bounds = {"batch_size": Bounds(low=mini_batches), "learning_rate": Bounds(low=1e-5, high=1e-4)}
    request = failure_request(
        log, exit_code=exit_code, configuration=configuration, series=phase(SICK[sick]), bounds=bounds
    )
    answer = repair(request)
    assert answer == repair(request)
    assert answer.configuration.problems(bounds) == []
    assert configuration.fixed_changes(answer.configuration) == []
    assert answer.resume_step is None or answer.resume_step in {point.step for point in request.node.checkpoints}
