"""What VeRL is told, and that VeRL itself accepts it and finds every value in the right place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from llmzero_hpc.errors import ConfigurationError
from llmzero_hpc.search.configuration import Configuration
from llmzero_hpc.search.hyperparameters import HYPERPARAMETERS
from llmzero_hpc.sections import Hardware, Rehearsal
from llmzero_hpc.store.phase_directory import AttemptDirectory
from llmzero_hpc.tasks.base import Split
from llmzero_hpc.trainers.base import EvaluationSpec
from llmzero_hpc.trainers.verl.hydra_text import assignment
from llmzero_hpc.trainers.verl.layout import Layout
from llmzero_hpc.trainers.verl.overrides import ACTOR, KEYS, MODEL, ROLLOUT
from llmzero_hpc.trainers.verl.rendering import phase_settings, rendered, rendered_evaluation
from llmzero_hpc.trainers.verl.schema import types

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llmzero_hpc.trainers.base import PhaseSpec

PHASE = Path("/search/phases/0003")
PLACE = Layout.of_run(PHASE / "training_state", AttemptDirectory(PHASE / "attempts/2"))
GOLDEN = Path(__file__).with_name("golden_two_nodes.txt")
CPU, GPU = Hardware(device="cpu"), Hardware(gpus=1, gpu_memory_gb=80)


def test_the_command_of_a_phase_on_two_machines_with_a100s(make_phase: Callable[..., PhaseSpec]) -> None:
    """Written anew by hand where a change is meant: `golden_two_nodes.txt` is what a reviewer reads."""
    spec = make_phase(
        parent_adapter=Path("/search/phases/0001/checkpoints/step_60"),
        configuration=Configuration(overrides={f"{ACTOR}.entropy_coeff": 0.001, f"{ROLLOUT}.top_p": 0.95}),
        hardware=Hardware(gpus=8, nodes=2, gpu_memory_gb=40),
    )
    lines = [line.replace(spec.model, "/models/Qwen3-4B") for line in rendered(spec, PLACE)]
    assert "\n".join(lines) + "\n" == GOLDEN.read_text()


def test_a_run_that_was_requeued_has_files_of_its_own_and_shares_the_states() -> None:
    again = Layout.of_run(PLACE.states, AttemptDirectory(PHASE / "attempts/2"), 1)
    assert again.states == PLACE.states
    own = {"train_rows", "validation_rows", "task", "agent_loops", "metrics", "mistake"}
    assert not {getattr(again, name) for name in own} & {getattr(PLACE, name) for name in own}


def test_overrides_replace_what_they_name_and_nothing_else(make_phase: Callable[..., PhaseSpec]) -> None:
    plain = phase_settings(make_phase(), PLACE)
    wanted = {f"{ROLLOUT}.gpu_memory_utilization": 0.65, f"{ACTOR}.ppo_epochs": 2}
    changed = phase_settings(make_phase(configuration=Configuration(overrides=wanted)), PLACE)
    assert {key: value for key, value in changed.items() if plain.get(key) != value} == wanted


def test_without_a_kl_coefficient_there_is_no_reference_pass(make_phase: Callable[..., PhaseSpec]) -> None:
    assert phase_settings(make_phase(), PLACE)[f"{ACTOR}.use_kl_loss"] is True
    none = make_phase(configuration=Configuration(kl_coefficient=0.0))
    assert phase_settings(none, PLACE)[f"{ACTOR}.use_kl_loss"] is False


def test_on_cpus_a_phase_says_what_generates(make_phase: Callable[..., PhaseSpec]) -> None:
    plain = phase_settings(make_phase(hardware=CPU), PLACE)
    other = phase_settings(make_phase(hardware=Hardware(device="cpu", vllm=True)), PLACE)
    assert (plain[f"{ROLLOUT}.name"], other[f"{ROLLOUT}.name"]) == ("transformers_cpu", "vllm")
    assert f"{MODEL}.external_lib" not in other


def test_phases_differ_in_their_seeds(make_phase: Callable[..., PhaseSpec]) -> None:
    seeds = {phase_settings(make_phase(node=node, seed=seed), PLACE)["data.seed"] for node in (0, 1) for seed in (0, 1)}
    assert len(seeds) == 4


@pytest.mark.parametrize("text", ["${oc.env:HOME}", "two\nlines", "\x00"])
def test_text_that_would_not_arrive_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        assignment("trainer.project_name", text)


def test_settings_render_to_keys_that_verl_has(make_phase: Callable[..., PhaseSpec]) -> None:
    known = types().keys()
    for hardware in (CPU, GPU):
        keys = phase_settings(make_phase(hardware=hardware), PLACE)
        sections = tuple({key.split(".")[0] for key in known})
        unknown = {key for key in keys if key.startswith(sections) and key not in known}
        assert not unknown


ENDS = [
    (row.name, value)
    for row in HYPERPARAMETERS.values()
    for value in ((row.low, row.high) if row.low is not None else (True, False) if row.kind is bool else ())
] + [("target_modules", "all-linear"), ("target_modules", "q_proj, v_proj")]


def at_end(name: str, value: Any) -> Configuration:
    value = HYPERPARAMETERS[name].kind(value)
    partner = {"batch_size": {"mini_batches": 1}, "mini_batches": {"batch_size": 128 if value == 1 else 64}}
    return Configuration().changed(**{name: value}, **partner.get(name, {}))


def expected(spec: PhaseSpec, name: str) -> Any:
    configuration = spec.configuration
    if name == "mini_batches":
        return configuration.batch_size // configuration.mini_batches
    if name == "epochs":
        return spec.total_steps
    if name == "max_response_length":
        return max(configuration.max_response_length, spec.validation_max_response_length)
    if name == "target_modules" and configuration.target_modules != "all-linear":
        return ["q_proj", "v_proj"]
    return configuration.value(name)


@pytest.mark.verl
@pytest.mark.slow
@pytest.mark.parametrize("hardware", [CPU, GPU], ids=["cpu", "gpu"])
def test_both_ends_of_every_hyperparameter_arrive_in_verl(
    hardware: Hardware, make_phase: Callable[..., PhaseSpec], ask: Callable[[Sequence[Any]], list[Any]]
) -> None:
    # vLLM takes no rank above 512: `problems` refuses it on GPUs.
    ends = [(name, value) for name, value in ENDS if hardware is CPU or name != "lora_rank" or value != 1024]
    specs = []
    for name, value in ends:
        configuration = at_end(name, value)
        assert not configuration.problems()
        specs.append(make_phase(configuration=configuration, hardware=hardware, total_steps=configuration.steps(5000)))
    questions = [
        {
            "overrides": rendered(spec, PLACE),
            "keys": list(row.verl_keys),
        }
        for spec, row in zip(specs, (HYPERPARAMETERS[name] for name, _ in ends), strict=True)
    ]
    for (name, value), spec, answer in zip(ends, specs, ask(questions), strict=True):
        assert "error" not in answer, (name, value, answer)
        found = list(answer["values"].values())
        assert found == [expected(spec, name)] * len(found), (name, value)


@pytest.mark.verl
@pytest.mark.slow
def test_every_override_arrives_in_verl(
    make_phase: Callable[..., PhaseSpec], ask: Callable[[Sequence[Any]], list[Any]]
) -> None:
    chosen: dict[str, Any] = {}
    for key, limits in KEYS.items():
        kinds = types()[key]
        chosen[key] = limits.choices[-1] if limits.choices else True if "bool" in kinds else limits.high
        if "int" in kinds and not limits.choices and "bool" not in kinds:
            chosen[key] = int(chosen[key])
    chosen[f"{ROLLOUT}.tensor_model_parallel_size"] = 1
    spec = make_phase(hardware=GPU, configuration=Configuration(overrides=chosen))
    (answer,) = ask([{"overrides": rendered(spec, PLACE), "keys": list(chosen)}])
    assert answer == {"values": chosen}


@pytest.mark.verl
@pytest.mark.slow
def test_what_verl_refuses_is_one_line(
    make_phase: Callable[..., PhaseSpec], ask: Callable[[Sequence[Any]], list[Any]]
) -> None:
    lines = rendered(make_phase(hardware=GPU), PLACE)
    bad = [
        [*lines, f"{ACTOR}.nonexistent=1"],
        [*lines, f"{ACTOR}.loss_agg_mode=nope"],
        [*lines, f"{ACTOR}.use_dynamic_bsz=false"],
        [*lines, f"{MODEL}.lora_rank=600"],
        [*lines, f"{ROLLOUT}.mode=sync"],
        [*lines, f"{MODEL}.path=/nowhere"],
    ]
    for answer in ask([{"overrides": overrides, "keys": []} for overrides in bad]):
        assert answer["error"].startswith("VeRL refuses the configuration: "), answer
        assert "\n" not in answer["error"]


@pytest.mark.verl
@pytest.mark.slow
def test_text_arrives_as_it_is(ask: Callable[[Sequence[Any]], list[Any]]) -> None:
    texts = [
        "a b", "it's", '"', "\\", "a\\", "\\'", "\\\\'", "x=1,y", "[1]", "{a: b}", "null", "true", "1e5", "ü", "$x",
        "# no", "", " lead", "~", "%s",
    ]  # fmt: skip
    questions = [
        {
            "overrides": [f"{ROLLOUT}.name=vllm", assignment("trainer.project_name", text)],
            "keys": ["trainer.project_name"],
            "validate": False,
        }
        for text in texts
    ]
    assert [answer["values"]["trainer.project_name"] for answer in ask(questions)] == texts


@pytest.mark.verl
@pytest.mark.slow
def test_an_evaluation_arrives_in_verl(
    model_4b: Path, tmp_path: Path, ask: Callable[[Sequence[Any]], list[Any]]
) -> None:
    (tmp_path / "adapter_config.json").write_text('{"r": 16, "lora_alpha": 8, "target_modules": ["v_proj", "q_proj"]}')
    from llmzero_hpc.sections import ChainsTask

    spec = EvaluationSpec(
        search="music",
        node=3,
        step=60,
        seed=1,
        model=str(model_4b),
        task=ChainsTask(),
        split=Split.TEST,
        adapter=tmp_path,
        max_response_length=8192,
        hardware=Hardware(gpus=8, nodes=2),
        rehearsal=Rehearsal(),
        result=tmp_path / "result.json",
    )
    wanted = {
        "trainer.val_only": True,
        "trainer.val_before_train": True,
        "data.max_response_length": 8192,
        f"{MODEL}.lora_rank": 16,
        f"{MODEL}.lora_alpha": 8,
        f"{MODEL}.target_modules": ["q_proj", "v_proj"],
        f"{MODEL}.lora_adapter_path": str(tmp_path),
        f"{ROLLOUT}.val_kwargs.temperature": 0,
    }
    (answer,) = ask([{"overrides": rendered_evaluation(spec, PLACE), "keys": list(wanted)}])
    assert answer == {"values": wanted}


def test_an_evaluation_of_no_adapter_is_refused(model_4b: Path, tmp_path: Path) -> None:
    from llmzero_hpc.trainers.verl.rendering import _adapter_config

    with pytest.raises(ConfigurationError, match="is not there or cannot be read"):
        _adapter_config(tmp_path)


@pytest.mark.verl
@pytest.mark.slow
def test_the_schema_is_that_of_the_release(tmp_path: Path, in_verl: Callable[..., Any]) -> None:
    from llmzero_hpc.trainers.verl.schema import SCHEMA_FILE

    code = (
        "import sys, pathlib; from llmzero_hpc.trainers.verl import make_schema; "
        "make_schema.SCHEMA_FILE = pathlib.Path(sys.argv[1]); make_schema.main()"
    )
    done = in_verl("-c", code, str(tmp_path / "schema.json"))
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "schema.json").read_text() == SCHEMA_FILE.read_text()
