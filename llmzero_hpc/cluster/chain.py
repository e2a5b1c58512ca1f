"""The best strategy as a chain of jobs that makes it again without the search: each phase resumes the one before it."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from llmzero_hpc.cluster.base import JobRequest
from llmzero_hpc.cluster.chain_job import RAY_SCRIPTS, Work
from llmzero_hpc.cluster.job_script import job_script
from llmzero_hpc.cluster.profiles import read_profile
from llmzero_hpc.cluster.ray_cluster import write_ray_scripts
from llmzero_hpc.cluster.templates import rendered
from llmzero_hpc.errors import SearchNotFoundError
from llmzero_hpc.search.strategy import path
from llmzero_hpc.sections import SlurmClusterConfig
from llmzero_hpc.store.atomic import make_folder, write_bytes
from llmzero_hpc.store.phase_directory import PhaseDirectory
from llmzero_hpc.tasks.base import Split
from llmzero_hpc.trainers.base import EvaluationSpec, PhaseSpec
from llmzero_hpc.trainers.checkpoints import checkpoint_path
from llmzero_hpc.trainers.registry import make_trainer
from llmzero_hpc.trainers.specification import read_phase, write_specification

if TYPE_CHECKING:
    from pathlib import Path

    from llmzero_hpc.cluster.profile import ClusterProfile
    from llmzero_hpc.config import SearchConfig
    from llmzero_hpc.search.strategy import StrategyPhase
    from llmzero_hpc.store.search_directory import SearchDirectory
    from llmzero_hpc.trainers.base import LaunchPlan, Trainer

SUBMIT, HERE, SCRIPT = "submit.sh", "run.sh", "job.sh"
_SUBMIT_TEMPLATE, _HERE_TEMPLATE = "strategy_chain.sh", "strategy_here.sh"
_LOGS = "logs"


@dataclass(frozen=True, slots=True)
class Link:
    """One job of a chain: where it works, and what it is told."""

    folder: PhaseDirectory
    specification: PhaseSpec | EvaluationSpec

    @property
    def work(self) -> Work:
        """What its command does."""
        return Work.TRAIN if isinstance(self.specification, PhaseSpec) else Work.SCORE

    def plan(self, trainer: Trainer) -> LaunchPlan:
        """Its command, once its specification is written."""
        plan = trainer.plan if self.work is Work.TRAIN else trainer.plan_evaluation
        return plan(self.folder.specification, self.folder.path)


def links(directory: SearchDirectory, folder: Path) -> tuple[Link, ...]:
    """The jobs of the best strategy, to work in `folder`: its phases as they were launched, then the test score.

    Each phase ends where the next one resumed, or at the best step. Failures are not made up again by the rehearsal.

    Raises:
        SearchNotFoundError: no phase has a validation score yet.
        ConfigurationError: the specification of a phase is gone.
    """
    tree = directory.read_tree()
    best = tree.best()
    if best is None or best.best is None:
        raise SearchNotFoundError(
            f"{directory.record.config.name} has no validation score yet", "`llmzero-hpc status` tells how far it is"
        )
    found: list[Link] = []
    adapter = None
    for position, part in enumerate(path(tree, best.id, best.best.step), start=1):
        place = PhaseDirectory(folder / f"phase_{position}")
        launched = read_phase(directory.phase(part.node.id).specification)
        spec = _cut(launched, part, place, adapter)
        found.append(Link(place, spec))
        adapter = checkpoint_path(place.checkpoints, part.last_step)
    if adapter is not None and getattr(spec.task, Split.TEST.value, True) is not None:
        found.append(_scored(spec, adapter, best.best.step, PhaseDirectory(folder / Split.TEST.value)))
    return tuple(found)


def write_chain(chain: tuple[Link, ...], config: SearchConfig, folder: Path) -> tuple[str, ...]:
    """Write specifications and scripts; the names of the scripts that start it all, the foremost first.

    Raises:
        ConfigurationError: the cluster profile or a template is wrong.
        StorageError: the file system refused.
    """
    settings = config.cluster if isinstance(config.cluster, SlurmClusterConfig) else None
    profile = read_profile(settings.profile, settings.profiles) if settings else None
    own = settings.templates if settings else None
    make_folder(folder / _LOGS)
    for link in chain:
        make_folder(link.folder.path)
        write_specification(link.folder.specification, link.specification)
        if settings and profile:
            write_bytes(link.folder.path / SCRIPT, _script(link, config, settings, profile).encode())
    _write_ray(chain, config, folder, own)
    jobs = [link.folder.path.name for link in chain]
    commands = {link.folder.path.name: _command(shlex.quote(sys.executable), link, config) for link in chain}
    values = {"search": config.name, "folder": str(folder), "jobs": jobs, "commands": commands}
    names = ((SUBMIT, _SUBMIT_TEMPLATE),) if settings else ()
    for name, template in (*names, (HERE, _HERE_TEMPLATE)):
        write_bytes(folder / name, rendered(template, own, **values).encode())
    return tuple(name for name, _ in (*names, (HERE, _HERE_TEMPLATE)))


def _cut(launched: PhaseSpec, part: StrategyPhase, place: PhaseDirectory, adapter: Path | None) -> PhaseSpec:
    return replace(
        launched,
        total_steps=part.last_step - part.first_step + 1,
        parent_adapter=adapter,
        checkpoints=place.checkpoints,
        training_state=place.training_state,
        rehearsal=launched.rehearsal.model_copy(update={"failure_rate": 0.0}),
    )


def _scored(last: PhaseSpec, adapter: Path, step: int, place: PhaseDirectory) -> Link:
    spec = EvaluationSpec(
        search=last.search,
        node=last.node,
        step=step,
        seed=last.seed,
        model=last.model,
        task=last.task,
        split=Split.TEST,
        adapter=adapter,
        max_response_length=last.validation_max_response_length,
        hardware=last.hardware,
        rehearsal=last.rehearsal,
        result=place.result,
    )
    return Link(place, spec)


def _script(link: Link, config: SearchConfig, settings: SlurmClusterConfig, profile: ClusterProfile) -> str:
    """A job's script: options and setup as the search's own jobs have them, then the command."""
    hardware, place = link.specification.hardware, link.folder.path
    request = JobRequest(
        name=f"strategy-{config.name}-{place.name}",
        directory=place,
        plan=link.plan(make_trainer(config.trainer)),
        attempt=1,
        devices=hardware.devices,
        gpus=hardware.gpus > 0,
        time_limit_seconds=None,
        nodes=hardware.nodes,
    )
    script = job_script(request, profile, settings)
    head, found, _ = script.text(place.parent / _LOGS).rpartition("\n# command\n")
    if not found:
        raise AssertionError("submitit writes its scripts in another way now")
    srun = shlex.join(["srun", "--unbuffered", *script.parameters["srun_args"]])
    return f"{head}{found}{srun} {_command(script.python, link, config)}\n"


def _command(python: str, link: Link, config: SearchConfig) -> str:
    words = ["-u", "-m", "llmzero_hpc.cluster.chain_job", config.trainer, link.work, str(link.folder.path)]
    return f"{python} {shlex.join(words)}"


def _write_ray(chain: tuple[Link, ...], config: SearchConfig, folder: Path, own: Path | None) -> None:
    trainer = make_trainer(config.trainer)
    if any(link.plan(trainer).ray for link in chain):
        make_folder(folder / RAY_SCRIPTS)
        write_ray_scripts(folder / RAY_SCRIPTS, config.hardware.nodes, own)
