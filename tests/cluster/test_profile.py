"""Profiles as people write them: what is read, and what each mistake is called."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from llmzero_hpc.cluster.profile import ClusterProfile
from llmzero_hpc.cluster.profiles import read_profile, resolved
from llmzero_hpc.config import SearchConfig
from llmzero_hpc.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(text: str) -> Path:
        path = tmp_path / "profiles.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return written


MISTAKES = [
    ("acount: x", "unknown key 'acount'", "did you mean 'account'?"),
    ("account: 5", "account: expected text, found 5", "cluster-profiles.md"),
    ("account: a b", "account: 'a b' is nothing that Slurm takes here", "cluster-profiles.md"),
    ('account: "a\\n#SBATCH --uid=0"', r"account: 'a\n#SBATCH --uid=0' is nothing that Slurm takes here", ""),
    ("partition: a;reboot", "partition: 'a;reboot' is nothing", ""),
    ("partition: [a, b]", "partition: expected text", ""),
    ("qos: $(id)", "qos: '$(id)' is nothing", ""),
    ("qos: no", "qos: expected text, found False", ""),
    ("constraint: a100 80g", "constraint: 'a100 80g' is nothing", ""),
    ("reservation: --x", "reservation: '--x' is nothing", ""),
    ("gpu_type: a100:8", "gpu_type: 'a100:8' is nothing", ""),
    ("nodelist: /etc/hosts", "nodelist: '/etc/hosts' is nothing", ""),
    ("exclude: node1 node2", "exclude: 'node1 node2' is nothing", ""),
    ("nodes: 0", "nodes: 0 is below 1", ""),
    ("gpus_per_node: a100", "gpus_per_node: expected a whole number, found 'a100'", ""),
    ("gpu_request: gpus", "gpu_request: 'gpus' is unknown", "known: gres, gpus-per-node"),
    ("memory_gb_per_node: 64G", "memory_gb_per_node: expected a number, found '64G'", ""),
    ("time_limit_minutes: 24:00:00", "time_limit_minutes: '24:00:00' is no number of minutes", "write 1440"),
    ("time_limit_minutes: 90:30", "time_limit_minutes: '90:30' is no number of minutes", "write 90"),
    ("time_limit_minutes: 2-12", "time_limit_minutes: '2-12' is no number of minutes", "write 3600"),
    ("time_limit_minutes: 1-01:30:00", "time_limit_minutes: '1-01:30:00' is no number of minutes", "write 1530"),
    ("time_limit_minutes: a day", "time_limit_minutes: expected a number, found 'a day'", ""),
    ("time_limit_minutes: .inf", "time_limit_minutes: expected a number, found inf", ""),
    ("signal_seconds: 0", "signal_seconds: 0 is below 1", ""),
    ("exclusive: maybe", "exclusive: expected true or false", ""),
    ("modules: cuda", "modules: expected a list, found 'cuda'", ""),
    ("modules: [gcc cuda]", "modules: 'gcc cuda' is no name of a module", "write one module an entry"),
    ("modules: [-gcc]", "modules: '-gcc' is no name of a module", ""),
    ('modules: [""]', "modules: empty", ""),
    ('setup: ["a\\nb"]', r"setup: 'a\nb' is not one line of printable text", ""),
    ("setup: module load cuda", "setup: expected a list", ""),
    ('virtual_environment: "/a\\nb"', r"virtual_environment: '/a\nb' is not one line", ""),
    ("apptainer_options: [--bind /data]", "apptainer_options: '--bind /data' is no option", "its value after `=`"),
    ("srun_options: [mpi=none]", "srun_options: 'mpi=none' is no option", ""),
    ("environment: {1A: x}", "environment: '1A' is no variable that a job may set", ""),
    ("environment: {UID: 0}", "environment: 'UID' is no variable that a job may set", ""),
    ("environment: {A: [x]}", "environment.A: expected text", ""),
    ('environment: {A: "x\\ny"}', r"environment.A: 'x\ny' is not one line", ""),
    ("environment: {OPENAI_API_KEY: sk}", "environment.OPENAI_API_KEY: a secret would be written", "export it"),
    ("environment: {hf_token: x}", "environment.hf_token: a secret would be written", "export it"),
    ("sbatch_options: {nodes: 2}", "sbatch_options.nodes has a place of its own", "set nodes instead"),
    ("sbatch_options: {mem: 2G}", "sbatch_options.mem has a place of its own", "set memory_gb_per_node instead"),
    ("sbatch_options: {output: x}", "sbatch_options.output cannot be set: jobs are found again by it", "remove it"),
    ("sbatch_options: {no-requeue: true}", "sbatch_options.no-requeue cannot be set: jobs requeue themselves", ""),
    ("sbatch_options: {test-only: true}", "sbatch_options.test-only cannot be set", ""),
    ("sbatch_options: {--hint: x}", "sbatch_options: '--hint' is no long option", "without --"),
    ("sbatch_options: {mail_type: END}", "sbatch_options: 'mail_type' is no long option", ""),
    ("sbatch_options: {hint: [x]}", "sbatch_options.hint: expected text, a whole number, true or false", ""),
    ('sbatch_options: {hint: "a\\nb"}', r"sbatch_options.hint: 'a\nb' is not one line", ""),
    ("sbatch_options: {hint: 'a\\b'}", "sbatch_options.hint: 'a\\\\b' has a backslash", ""),
    ("scratch: caches", "scratch: 'caches' is no absolute path", "begin it with / or $VARIABLE"),
    ("scratch: /a/$(id)", "scratch: '/a/$(id)' is no absolute path", ""),
    ('scratch: "/it\'s"', 'scratch: "/it\'s" is no absolute path', "no quotes"),
    ("node_local: ${TMPDIR}", "node_local: '${TMPDIR}' is no absolute path", ""),
    ("node_local: /a`id`", "node_local: '/a`id`' is no absolute path", ""),
]


@pytest.mark.parametrize(("line", "message", "advice"), MISTAKES, ids=[line for line, _, _ in MISTAKES])
def test_mistakes(line: str, message: str, advice: str, write: Write) -> None:
    path = write(f"gpu:\n  {line}\n")
    with pytest.raises(ConfigurationError) as caught:
        read_profile("gpu", path)
    assert caught.value.message.startswith(f"{path}: profile gpu: {message}")
    assert advice in caught.value.next_step
    assert "\n" not in caught.value.message + caught.value.next_step


FILES = [
    ("{}", "has no profile 'gpu'", "llmzero-hpc init --slurm"),
    ("gpus: {}\nlong: {}", "has no profile 'gpu'", "did you mean 'gpus'?"),
    ("long: {}\nshort: {}", "has no profile 'gpu'", "known: long, short"),
    ("gpu: 5", "profile gpu: expected options with values", "cluster-profiles.md"),
    ("", "profiles.yaml is empty", "llmzero-hpc init --slurm"),
    ("gpu: {}\ngpu: {}", "line 2, column 1: not valid YAML: 'gpu' stands twice", ""),
]


@pytest.mark.parametrize(("text", "message", "advice"), FILES)
def test_files_without_a_usable_profile(text: str, message: str, advice: str, write: Write) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_profile("gpu", write(text))
    assert message in caught.value.message
    assert advice in caught.value.next_step


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.yaml is not there") as caught:
        read_profile("gpu", tmp_path / "nowhere.yaml")
    assert "llmzero-hpc init --slurm" in caught.value.next_step


def test_where_profiles_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, other = tmp_path / ".config" / "llmzero-hpc" / "profiles.yaml", tmp_path / "other.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("site: {partition: own}")
    other.write_text("site: {partition: other}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("LLMZERO_PROFILES", raising=False)
    assert read_profile("site", None).partition == "own"
    monkeypatch.setenv("LLMZERO_PROFILES", str(other))
    assert read_profile("site", None).partition == "other"
    assert read_profile("site", own).partition == "own"


def test_paths_are_taken_from_the_file(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    path = write("a: {virtual_environment: venv, apptainer_image: ~/x.sif, scratch: $SCRATCH/me}")
    profile = read_profile("a", path)
    assert profile.virtual_environment == path.parent / "venv"
    assert profile.apptainer_image == Path("/home/me/x.sif")
    assert profile.scratch == Path("$SCRATCH/me")


def test_one_profile_may_build_on_another(write: Write) -> None:
    path = write("a: &a {account: x, qos: long}\nb:\n  <<: *a\n  qos: short\n")
    assert read_profile("b", path) == ClusterProfile(account="x", qos="short")


def test_a_profile_may_leave_everything_out(write: Write) -> None:
    assert read_profile("a", write("a:\n  # partition: gpu\n")) == ClusterProfile()


def test_numbers_of_the_environment_are_text(write: Write) -> None:
    assert read_profile("a", write("a: {environment: {THREADS: 8}}")).environment == {"THREADS": "8"}


ROOT = Path(__file__).parents[2]
SHIPPED = [
    (path, name)
    for path in (ROOT / "docs/data/cluster-profiles.yaml", ROOT / "llmzero_hpc/cli/templates/slurm/profiles.yaml")
    for name in yaml.safe_load(path.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize(("path", "name"), SHIPPED, ids=[f"{path.stem}-{name}" for path, name in SHIPPED])
def test_profiles_that_people_start_from(path: Path, name: str) -> None:
    profile = read_profile(name, path)
    assert profile != ClusterProfile()
    # what is commented out works, too
    text = re.sub(r"^( +)# (\w+:)", r"\1\2", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert set(yaml.safe_load(text)[name]) <= set(ClusterProfile.model_fields)
    ClusterProfile.model_validate(yaml.safe_load(text)[name])


def search(**hardware: Any) -> SearchConfig:
    text = "{name: s, trainer: trl, model: m, task: {name: chains}, cluster: {kind: slurm, profile: big}}"
    return SearchConfig.model_validate(yaml.safe_load(text) | {"hardware": hardware})


BIG = ClusterProfile(nodes=2, gpus_per_node=8, cpus_per_node=64)


@pytest.mark.parametrize("stated", [{}, {"nodes": 2, "gpus": 16}, {"gpus": 16, "device": "cuda", "threads": 64}])
def test_a_search_takes_its_hardware_from_the_profile(stated: dict[str, Any]) -> None:
    found = resolved(search(**stated), BIG).hardware
    assert (found.nodes, found.gpus, found.threads) == (2, 16, 64)


def test_what_the_search_says_beyond_the_profile_stays() -> None:
    found = resolved(search(threads=1, vllm=True), BIG)
    assert (found.hardware.threads, found.hardware.vllm) == (1, True)
    assert resolved(found, BIG) == found
    assert resolved(search(threads=3), ClusterProfile()).hardware.threads == 3


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"nodes": 1}, "hardware.nodes: 1 contradicts the cluster profile 'big', which has 2 machines"),
        ({"gpus": 8}, "hardware.gpus: 8 contradicts the cluster profile 'big', which has 16 GPUs"),
        ({"gpus": 0}, "hardware.gpus: 0 contradicts the cluster profile 'big', which has 16 GPUs"),
        ({"device": "cpu"}, "hardware.device: cpu contradicts the cluster profile 'big', which has 16 GPUs"),
        ({"threads": 65}, "hardware.threads: 65 contradicts the cluster profile 'big', which has 64 CPUs"),
    ],
)
def test_a_search_that_contradicts_its_profile(stated: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)) as caught:
        resolved(search(**stated), BIG)
    assert "remove it from search.yaml" in caught.value.next_step
