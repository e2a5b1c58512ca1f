"""Which host a controller gets, what cron is told, and what two controllers do to one search: nothing bad."""

from __future__ import annotations

import json
import resource
import shlex
import sys
from itertools import count
from typing import TYPE_CHECKING

import pytest
from controller_world import World, small_config

from llmzero_hpc.cluster.controller_job import placement
from llmzero_hpc.controller import hosts_log
from llmzero_hpc.controller.hosts import Choice, Host, chosen, is_at
from llmzero_hpc.controller.hosts_cron import cron_lines
from llmzero_hpc.controller.hosts_log import limit_log
from llmzero_hpc.errors import LeaseError
from llmzero_hpc.search.node import NodeStatus
from llmzero_hpc.store import control
from llmzero_hpc.store.control import StopRequest
from llmzero_hpc.store.lease import ControllerJob, Lease, holder_of

if TYPE_CHECKING:
    from pathlib import Path

ON_SLURM = small_config(cluster={"kind": "slurm"})


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "search", small_config(max_attempts=2, cluster={"grace_seconds": 0}))


def test_phases_on_this_machine_need_a_controller_on_it(tmp_path: Path) -> None:
    assert chosen(small_config(), root=tmp_path) == Choice(Host.LOGIN, "its phases run on this machine")


@pytest.mark.parametrize(
    ("files", "host"),
    [
        ({}, Host.LOGIN),
        ({"etc/systemd/logind.conf": "[Login]\n#KillUserProcesses=yes\n"}, Host.LOGIN),
        ({"etc/systemd/logind.conf": "[Login]\nKillUserProcesses=yes\n"}, Host.SLURM),
        ({"etc/systemd/logind.conf": "[Login]\nKillUserProcesses=no\n"}, Host.LOGIN),
        (
            {"usr/lib/systemd/logind.conf": "[Login]\nKillUserProcesses=yes\n", "etc/systemd/logind.conf": ""},
            Host.LOGIN,
        ),
        ({"etc/systemd/logind.conf.d/site.conf": "[Login]\nKillUserProcesses = true\n"}, Host.SLURM),
        (
            {
                "usr/lib/systemd/logind.conf.d/10.conf": "[Login]\nKillUserProcesses=yes\n",
                "etc/systemd/logind.conf.d/20.conf": "[Login]\nKillUserProcesses=no\n",
            },
            Host.LOGIN,
        ),
        ({"etc/systemd/logind.conf": "KillUserProcesses=1\nKillExcludeUsers=root me\n"}, Host.LOGIN),
        ({"etc/systemd/logind.conf": "KillUserProcesses=1\nKillOnlyUsers=guest\n"}, Host.LOGIN),
        ({"etc/systemd/logind.conf": "KillUserProcesses=1\nKillOnlyUsers=guest me\n"}, Host.SLURM),
    ],
)
def test_a_login_node_that_ends_processes_at_logout_is_no_place(
    tmp_path: Path, files: dict[str, str], host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "me")
    monkeypatch.setattr(resource, "getrlimit", lambda _what: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    choice = chosen(ON_SLURM, root=tmp_path)
    assert choice.host is host
    assert ("KillUserProcesses in " + str(tmp_path) in choice.reason) == (host is Host.SLURM)


@pytest.mark.parametrize("limits", [(3600, 7200), (resource.RLIM_INFINITY, 3600)])
def test_a_login_node_that_limits_cpu_time_is_no_place(
    tmp_path: Path, limits: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _what: limits)
    assert chosen(ON_SLURM, root=tmp_path) == Choice(
        Host.SLURM, "this machine ends processes after 1.0 hours of CPU time"
    )


def test_where_a_controller_is(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    holder = holder_of(world.directory)
    assert holder is not None
    assert is_at(holder, Host.LOGIN)
    assert not is_at(holder, Host.SLURM)
    world.lease.release()
    Lease.acquire(world.directory, job=ControllerJob("17", 0))
    holder = holder_of(world.directory)
    assert holder is not None
    assert holder.place.endswith(" in job 17")
    assert is_at(holder, Host.SLURM)
    assert not is_at(holder, Host.LOGIN)


def test_lines_for_cron_and_scrontab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profiles = tmp_path / "profiles.yaml"
    profiles.write_text("default: {account: lab, partition: cpu, qos: long, constraint: a100}")
    places = tmp_path / "slurm bin"
    places.mkdir()
    for name in ("squeue", "scrontab"):
        (places / name).write_text("#!/bin/sh\n")
        (places / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(places))
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm 2/slurm.conf")
    monkeypatch.delenv("LLMZERO_PROFILES", raising=False)
    world = World(tmp_path / "50% of it", small_config(cluster={"kind": "slurm", "profiles": str(profiles)}))
    lines = cron_lines(world.directory)
    head, _, rest = lines.crontab.partition(" env ")
    assert head == "*/5 * * * *"
    words = shlex.split(rest.replace(r"\%", "%"))
    root, path = str(world.directory.root), f"{places}:/usr/local/bin:/usr/bin:/bin"
    command = [sys.executable, "-m", "llmzero_hpc.cli.main", "drive", root, "--once"]
    assert words == [
        f"PATH={path}", "SLURM_CONF=/etc/slurm 2/slurm.conf", *command, f">>{root}/controller.log", "2>&1"
    ]  # fmt: skip
    assert "%" not in lines.crontab.replace(r"\%", ""), "cron would end the line there"
    options, line = lines.scrontab.splitlines()
    assert options.startswith("#SCRON --time=10 --cpus-per-task=1 --mem=1G --open-mode=append --account=lab ")
    assert "--partition=cpu --qos=long" in options
    assert "constraint" not in options
    assert options.endswith(f"--output={root.replace('%', '%%')}/controller.log")
    assert shlex.split(line)[-len(command) :] == command


@pytest.mark.parametrize(
    ("profile", "options"),
    [
        ({}, []),
        (
            {"account": "lab", "partition": "gpu", "qos": "long", "reservation": "paper", "constraint": "a100"},
            ["--account=lab", "--partition=gpu", "--qos=long", "--reservation=paper"],
        ),
        (
            {"account": "lab", "partition": "gpu", "qos": "long", "controller_partition": "cpu"},
            ["--account=lab", "--partition=cpu"],
        ),
        ({"partition": "gpu", "controller_partition": "cpu", "controller_qos": "x"}, ["--partition=cpu", "--qos=x"]),
        ({"partition": "gpu", "qos": "long", "controller_qos": "x"}, ["--partition=gpu", "--qos=x"]),
    ],
)
def test_the_controllers_job_goes_where_the_profile_says(
    tmp_path: Path, profile: dict[str, str], options: list[str]
) -> None:
    profiles = tmp_path / "profiles.yaml"
    profiles.write_text(json.dumps({"default": profile}))
    world = World(tmp_path / "search", small_config(cluster={"kind": "slurm", "profiles": str(profiles)}))
    assert placement(world.directory) == options


def test_without_slurm_there_is_no_line_for_scrontab(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert cron_lines(world.directory).scrontab == ""


def test_a_log_stays_small_whoever_has_it_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts_log, "LARGEST_LOG", 100)
    log = tmp_path / "controller.log"
    limit_log(log)
    with log.open("a") as one, log.open("a") as other:
        for number in range(60):
            stream = (one, other)[number % 2]
            stream.write(f"line {number}\n")
            stream.flush()
            limit_log(log)
            assert log.stat().st_size <= 100
    kept = log.with_name("controller.log.1").read_text() + log.read_text()
    assert kept.endswith("".join(f"line {number}\n" for number in range(50, 60)))
    assert len(kept) <= 200


def test_stopping_with_the_jobs_is_no_failure_of_the_phases_however_often(world: World) -> None:
    for number in range(1, 5):
        world.tick()
        assert len(world.tree[0].attempts) == number
        control.request_stop(world.directory, StopRequest.JOBS_TOO)
        assert world.tick().stop_requested
        assert control.stop_request(world.directory) is None
        assert world.tree[0].attempts[-1].name in world.cluster.cancelled
        world.carry_out_cancellations()
        world.restart()
        world.tick()
        world.tick()
    assert world.tree[0].status is not NodeStatus.FAILED
    assert world.finish([0.5]).finished


def test_a_cluster_that_does_not_answer_keeps_a_controller_that_was_to_stop_with_its_jobs(world: World) -> None:
    world.tick()
    control.request_stop(world.directory, StopRequest.JOBS_TOO)
    world.cluster.out_of_reach = True
    for _ in range(3):
        outcome = world.tick()
        assert not outcome.stop_requested
        assert "the cluster cannot be asked" in outcome.waiting_for
    world.cluster.out_of_reach = False
    assert world.tick().stop_requested
    assert world.cluster.cancelled == [world.tree[0].attempts[-1].name]


def ousted(world: World, place: int, patch: pytest.MonkeyPatch) -> None:
    """Another controller takes over right before this one's look at the lease number `place`."""
    real, token, looks = Lease.check, world.lease.token, count(1)

    def check(lease: Lease) -> None:
        if lease.token == token and next(looks) == place:
            Lease.acquire(world.directory, take_over=True)
        real(lease)

    patch.setattr(Lease, "check", check)


def test_a_controller_that_loses_its_lease_anywhere_in_a_search_submits_nothing_more(tmp_path: Path) -> None:
    for place in count(1):
        world = World(tmp_path / str(place), small_config(budget={"iterations": 2}))
        with pytest.MonkeyPatch.context() as patch:
            ousted(world, place, patch)
            try:
                world.finish([0.5])
                break
            except LeaseError:
                before, submitted = world.tree, list(world.cluster.submissions)
        with pytest.raises(LeaseError):
            world.tick()
        assert (world.tree, world.cluster.submissions) == (before, submitted)
        Lease.acquire(world.directory, take_over=True).release()
        world.restart()
        assert world.finish([0.5]).finished
        assert len(set(world.cluster.submissions)) == len(world.cluster.submissions) == 3
    assert place > 10


def test_what_the_cluster_says_of_a_job_that_waits_can_be_told(world: World) -> None:
    world.tick()
    assert world.controller.words() == {}
    world.cluster.refuses = True
    world.restart()
    world.end(world.live()[0], "error", 1)
    world.tick()
    assert list(world.controller.words()) == [1]
    assert "invalid partition" in world.controller.words()[1]
