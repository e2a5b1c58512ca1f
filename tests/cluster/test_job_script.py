"""What a job is asked for with, to the letter; and that nothing in a profile leaves its place in the script."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from golden_scripts import ATTEMPT, FOLDER, NAMES, golden_script
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from llmzero_hpc.cluster.base import JobRequest
from llmzero_hpc.cluster.job_script import JobScript, job_script
from llmzero_hpc.cluster.profile import ClusterProfile
from llmzero_hpc.errors import ConfigurationError
from llmzero_hpc.sections import SlurmClusterConfig
from llmzero_hpc.trainers.base import LaunchPlan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from slurm_cluster import SlurmTestCluster

BASH = shutil.which("bash")
SHELLCHECK = shutil.which("shellcheck")


def request(directory: Path = ATTEMPT, **changes: Any) -> JobRequest:
    fields: dict[str, Any] = {
        "name": "lz-demo-k3j4-0003-2",
        "attempt": 2,
        "devices": 4,
        "gpus": False,
        "time_limit_seconds": None,
    }
    return JobRequest(directory=directory, plan=LaunchPlan(("train",)), **(fields | changes))


def script_of(profile: ClusterProfile, wanted: JobRequest | None = None, **own: Any) -> JobScript:
    return job_script(wanted or request(), profile, SlurmClusterConfig(kind="slurm", **own))


@pytest.mark.parametrize("name", NAMES)
def test_scripts_to_the_letter(name: str) -> None:
    golden = (FOLDER / f"{name}.sh").read_text(encoding="utf-8")
    assert golden_script(name) == golden, "write them anew: python tests/cluster/golden_scripts.py"


def test_every_golden_script_is_compared() -> None:
    assert {path.stem for path in FOLDER.glob("*.sh")} == set(NAMES)


@pytest.mark.skipif(SHELLCHECK is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing_in_the_scripts() -> None:
    assert SHELLCHECK is not None
    # SC2016: values are meant literally
    done = subprocess.run(
        [SHELLCHECK, "--exclude=SC2016", *sorted(FOLDER.glob("*.sh"))], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_script_is_what_submitit_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from submitit.slurm.slurm import SlurmExecutor

    (tmp_path / "srun").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    script = script_of(ClusterProfile(gpus_per_node=2, setup=("echo ready",)), request(devices=2, gpus=True))
    folder = tmp_path / "my submission"
    executor = SlurmExecutor(folder=folder, python=script.python)
    executor.update_parameters(**script.parameters)
    assert script.text(folder) == executor._make_submission_file_text(executor._submitit_command_str, "uid")


@pytest.mark.parametrize(
    ("profile", "asked", "minutes", "signal"),
    [
        ({}, None, 24 * 60, 90),
        ({"time_limit_minutes": 30}, None, 30, 90),
        ({"time_limit_minutes": 30}, 300.0, 5, 90),
        ({"time_limit_minutes": 30}, 3600.0, 30, 90),
        ({"time_limit_minutes": 2}, None, 2, 60),
        ({}, 1.0, 1, 30),
        ({"signal_seconds": 600}, None, 24 * 60, 600),
    ],
)
def test_time_limits(profile: dict[str, Any], asked: float | None, minutes: int, signal: int) -> None:
    found = script_of(ClusterProfile(**profile), request(time_limit_seconds=asked)).parameters
    assert (found["time"], found["signal_delay_s"]) == (minutes, signal)


def test_the_search_may_set_a_time_limit_of_its_own() -> None:
    assert script_of(ClusterProfile(time_limit_minutes=60), time_limit_minutes=20).parameters["time"] == 20


def test_gpus_are_shared_out_among_the_machines() -> None:
    profile = ClusterProfile(nodes=2, gpus_per_node=4)
    assert script_of(profile, request(devices=8, gpus=True, nodes=2)).parameters["gres"] == "gpu:4"
    with pytest.raises(ConfigurationError, match="7 GPUs cannot be shared out among 2 machines"):
        script_of(profile, request(devices=7, gpus=True, nodes=2))


@pytest.mark.parametrize(
    ("profile", "avoid", "excluded"),
    [
        ({}, "", None),
        ({}, "node[1-2],node4", "node[1-2],node4"),
        ({"exclude": "node9"}, "node1", "node9,node1"),
        ({"nodelist": "node1"}, "node1", None),
        ({}, "None assigned", None),
        ({}, "node1\n#SBATCH --uid=0", None),
    ],
)
def test_machines_that_are_avoided(profile: dict[str, Any], avoid: str, excluded: str | None) -> None:
    assert script_of(ClusterProfile(**profile), request(avoid=avoid)).parameters.get("exclude") == excluded


@pytest.mark.parametrize("folder", ["/state/100%/1", "/state/%j", "/state/a\\b", "/state/a\nb"])
def test_folders_that_slurm_would_change_are_refused(folder: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be the folder of a Slurm job"):
        script_of(ClusterProfile(), request(Path(folder)))


def test_a_setup_of_the_users_own(tmp_path: Path) -> None:
    (tmp_path / "job_setup.sh").write_text("echo {{ profile.partition | quote }} on {{ nodes }}\n\n")
    assert script_of(ClusterProfile(partition="gpu"), templates=tmp_path).parameters["setup"] == ["echo gpu on 1"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ok\n{% if %}", "job_setup.sh line 2: Expected an expression"),
        ("{{ profil.nodes }}", "job_setup.sh: 'profil' is undefined"),
        ("{{ 1 | nothing }}", "job_setup.sh line 1: No filter named 'nothing'"),
    ],
)
def test_a_setup_of_the_users_own_that_is_wrong(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "job_setup.sh").write_text(text)
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        script_of(ClusterProfile(), templates=tmp_path)


FAKE_SRUN = """\
#!/bin/bash
case "$1" in --unbuffered) ;; *) exec "${@:2}" ;; esac
printf '%s\\0' "$@" > argv
env -0 > environment
[ ! -d "$TMPDIR" ] || touch "$TMPDIR/file"
exit 3
"""
FAKE_MODULE = """\
#!/bin/bash
printf '%s\\0' "$@" >> modules
[ "$2" != missing ]
"""


class Machine:
    """Bash with an srun that keeps what it is called with, in a folder that nothing else may change."""

    def __init__(self, root: Path) -> None:
        self.work, self._programs = root / "work", root / "bin"
        self.work.mkdir()
        self._programs.mkdir()
        for name, text in (("srun", FAKE_SRUN), ("module", FAKE_MODULE)):
            (self._programs / name).write_text(text)
            (self._programs / name).chmod(0o755)

    def run(self, script: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a script from its start; earlier traces are gone."""
        for trace in self.work.iterdir():
            trace.unlink()
        assert BASH is not None
        environment = {"PATH": f"{self._programs}:/usr/bin:/bin", "SLURM_JOB_ID": "7", "HOME": "/nowhere", **variables}
        return subprocess.run(
            [BASH, "-c", script], cwd=self.work, env=environment, capture_output=True, text=True, check=False
        )

    def kept(self, name: str) -> list[str]:
        """What srun or module kept."""
        path = self.work / name
        return path.read_text(encoding="utf-8").split("\0")[:-1] if path.exists() else []

    def variables(self) -> dict[str, str]:
        """The environment of srun."""
        return dict(line.split("=", 1) for line in self.kept("environment"))


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(tmp_path_factory.mktemp("machine"))


def test_setup_reaches_the_job_and_leaves_nothing(machine: Machine, tmp_path: Path) -> None:
    profile = ClusterProfile(
        nodes=2,
        modules=("gcc/12", "cuda"),
        scratch=Path("/scratch/$USER"),
        node_local=tmp_path / "my local",
        environment={"A": "x $HOME", "TRITON_CACHE_DIR": "/own"},
        setup=("export B=$A", "cd ."),
    )
    ended = machine.run(
        script_of(profile, request(nodes=2)).text(tmp_path), USER="me", HF_HOME="/models", SLURM_EXPORT_ENV="NONE"
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, "", "")
    assert machine.kept("modules") == ["load", "gcc/12", "load", "cuda"]
    found = machine.variables()
    assert found["TMPDIR"] == f"{tmp_path}/my local/llmzero-7"
    assert [path.name for path in (tmp_path / "my local").iterdir()] == []
    assert (found["HF_HOME"], found["VLLM_CACHE_ROOT"]) == ("/models", "/scratch/me/vllm")
    assert (found["A"], found["B"], found["TRITON_CACHE_DIR"]) == ("x $HOME", "x $HOME", "/own")
    assert "SLURM_EXPORT_ENV" not in found


@pytest.mark.parametrize(
    ("profile", "says"),
    [
        ({"modules": ("gcc", "missing", "cuda")}, "llmzero-hpc: module missing cannot be loaded"),
        ({"node_local": Path("/dev/null")}, "/dev/null"),
        ({"node_local": Path("$NOWHERE/tmp")}, "NOWHERE"),
    ],
)
def test_a_setup_that_fails_ends_the_job(profile: dict[str, Any], says: str, machine: Machine, tmp_path: Path) -> None:
    ended = machine.run(script_of(ClusterProfile(**profile)).text(tmp_path))
    assert ended.returncode not in {0, 3}
    assert says in ended.stderr
    assert machine.kept("argv") == []


HOSTILE = st.text(st.sampled_from(" \t\n\r\x0b\x85\u2028'\"`$();|&<>*?~!#%\\{}[]=,:-/.@_ab1ü"), min_size=1, max_size=12)
OPTIONS: dict[str, Any] = {
    "account": HOSTILE,
    "partition": HOSTILE,
    "qos": HOSTILE,
    "constraint": HOSTILE,
    "reservation": HOSTILE,
    "gpu_type": HOSTILE,
    "nodelist": HOSTILE,
    "exclude": HOSTILE,
    "modules": HOSTILE.map(lambda text: (text,)),
    "virtual_environment": HOSTILE.map(lambda text: Path("/venv" + text)),
    "apptainer_image": HOSTILE.map(lambda text: Path("/image" + text)),
    "apptainer_options": HOSTILE.map(lambda text: ("--bind=" + text,)),
    "srun_options": HOSTILE.map(lambda text: ("--mpi=" + text,)),
    "environment": HOSTILE.map(lambda text: {"A": text}) | HOSTILE.map(lambda text: {text: "b"}),
    "sbatch_options": HOSTILE.map(lambda text: {"mail-user": text}) | HOSTILE.map(lambda text: {text: "b"}),
    "scratch": HOSTILE.map(lambda text: Path("/scratch" + text)),
    "node_local": HOSTILE.map(lambda text: Path("/dev/shm/lz" + text)),  # noqa: S108 - nothing is made there
}
FLAG = re.compile(r"#SBATCH --[a-z-]+(=[A-Za-z0-9@%_.,:/=+-]*|='.*')?")


def test_every_option_that_is_text_is_tried() -> None:
    plain = {"nodes", "gpus_per_node", "gpu_request", "cpus_per_node", "memory_gb_per_node", "time_limit_minutes"}
    of_the_controller = {"controller_partition", "controller_qos"}
    untried = plain | of_the_controller | {"exclusive", "signal_seconds", "setup"}
    assert set(OPTIONS) == set(ClusterProfile.model_fields) - untried


@settings(max_examples=300, deadline=None)
@given(option=st.sampled_from(sorted(OPTIONS)), data=st.data())
def test_hostile_values_are_refused_or_stay_one_word(option: str, data: st.DataObject, machine: Machine) -> None:
    value = data.draw(OPTIONS[option])
    try:
        profile = ClusterProfile(**{"gpus_per_node": 1, option: value})
    except ValidationError:
        return
    # folders are not really made: the hostile ones could be anywhere
    script = script_of(profile, request(devices=1, gpus=True))
    text = script.text(ATTEMPT).replace("on_each_machine mkdir", ": ").replace("on_each_machine rm -rf", ": ")
    head, _, body = text.partition("# setup")
    flags = head.splitlines()[3:]
    assert all(FLAG.fullmatch(line) for line in flags if line), flags
    ended = machine.run(text)
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, "", ""), text
    assert {path.name for path in machine.work.iterdir()} <= {"argv", "environment", "modules"}
    own = machine.kept("argv")
    before = ["--unbuffered", "--output", f"{ATTEMPT}/%j_%t_log.out", "--error", f"{ATTEMPT}/%j_%t_log.err"]
    assert own[:6] == [*before, "--kill-on-bad-exit=1"]
    assert own[-4:] == ["-u", "-m", "submitit.core._submit", str(ATTEMPT)]
    _is_one_word(option, value, machine, own[6:-4], body)


def _is_one_word(option: str, value: Any, machine: Machine, between: list[str], body: str) -> None:
    variables = machine.variables()
    match option:
        case "modules":
            assert machine.kept("modules") == ["load", *value]
        case "virtual_environment":
            assert between == [f"{value}/bin/python"]
        case "apptainer_image":
            assert between == ["apptainer", "exec", str(value), "python3"]
        case "srun_options":
            assert between[:-1] == list(value)
        case "environment":
            assert value.items() <= variables.items()
        case "scratch" if "$" not in str(value):
            assert variables["HF_HOME"] == f"{value}/huggingface"
        case "node_local" if "$" not in str(value):
            assert variables["TMPDIR"] == f"{value}/llmzero-7"
        case _:
            assert len(between) == 1
            assert "unset SLURM_EXPORT_ENV" in body


WORDS = ("a b", "it's", 'say "no"', "$(touch canary)", "`touch canary`", "a;touch canary", "a#b", "# no comment", "ü")


@pytest.fixture
def held(clean_slurm: SlurmTestCluster) -> Iterator[SlurmTestCluster]:
    yield clean_slurm
    clean_slurm.run("scancel", "--user=root")


@pytest.mark.parametrize("word", WORDS)
def test_a_real_slurm_reads_what_was_meant(word: str, held: SlurmTestCluster, tmp_path: Path) -> None:
    directory = tmp_path / f"x{word}"
    directory.mkdir()
    profile = ClusterProfile(
        sbatch_options={"mail-type": "END", "mail-user": word, "chdir": str(directory)}, partition="low,high"
    )
    file = tmp_path / "job.sh"
    file.write_text(script_of(profile, request(directory)).text(directory), encoding="utf-8")
    assert "to start at" in held.ask("sbatch", "--test-only", str(file)).stderr
    job = held.run("sbatch", "--parsable", "--hold", str(file)).strip()
    shown = held.run("scontrol", "show", "job", job)
    for expected in (f"MailUser={word}", f"WorkDir={directory}", f"StdOut={directory}/{job}_0_log.out"):
        assert f"   {expected}\n" in shown or f" {expected} " in shown
    assert not list(tmp_path.rglob("canary"))


def test_a_real_slurm_gives_what_was_asked_for(held: SlurmTestCluster, tmp_path: Path) -> None:
    profile = ClusterProfile(
        nodes=2,
        gpus_per_node=4,
        gpu_type="a100",
        cpus_per_node=8,
        memory_gb_per_node=1.5,
        time_limit_minutes=90,
        exclude="node4",
        signal_seconds=120,
    )
    file = tmp_path / "job.sh"
    wanted = request(tmp_path, devices=8, gpus=True, nodes=2, avoid="node3")
    file.write_text(script_of(profile, wanted, nice=7).text(tmp_path), encoding="utf-8")
    shown = held.run("scontrol", "show", "job", held.run("sbatch", "--parsable", "--hold", str(file)).strip())
    for expected in (
        "NumNodes=2-2 NumCPUs=16 NumTasks=2 CPUs/Task=8",
        "MinMemoryNode=1.50G",
        "TresPerNode=gres:gpu:a100:4",
        "TimeLimit=01:30:00",
        "ExcNodeList=node[3-4]",
        "Requeue=1",
        "Nice=7",
        "Comment=llmzero-hpc: search demo, phase 0003, attempt 2",
    ):
        assert expected in shown
