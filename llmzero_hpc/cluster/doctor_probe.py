"""What the doctor's small job does on each of its machines: look, and write down what it saw."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from llmzero_hpc import __version__
from llmzero_hpc.cluster.gpus import visible_gpus
from llmzero_hpc.cluster.job_environment import own_address, rank
from llmzero_hpc.errors import LLMZeroError
from llmzero_hpc.store.atomic import read_bytes, write_bytes, write_json

WORD = "word"
"""File with a word that the login node wrote and the machines repeat."""
_HEAD = "head.json"
_GREETING_SECONDS = 60.0
_SMI_SECONDS = 60.0
_POLL_SECONDS = 0.1
_GIGABYTE = 2**30


@dataclass(frozen=True, slots=True)
class MachineReport:
    """What one machine of the job saw. Texts named `..._problem` are empty where all is well."""

    host: str
    word: str
    python: str
    version: str
    gpus: int
    driver_problem: str
    cuda_devices: int | None
    """GPUs that torch sees; None where it was not asked."""
    temporary_folder: str
    temporary_free_gb: float
    temporary_problem: str
    network_problem: str
    search_problem: tuple[str, str] = ("", "")
    """From the trainer's own check: message and next step."""


@dataclass
class Probe:
    """The job, as submitit pickles and calls it, once on each machine; `config` is a search's as JSON, or empty."""

    folder: str
    nodes: int
    config: str = field(repr=False)

    def __call__(self) -> None:
        """Look, and write `machine-<rank>.json`."""
        place, own_rank = Path(self.folder), rank()
        word = (place / WORD).read_text(encoding="utf-8")
        search_problem, torch_counts = self._search_problem()
        gpus = len(visible_gpus(os.environ))
        free, temporary_problem = _temporary_folder()
        report = MachineReport(
            host=os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
            word=word,
            python=f"{sys.executable} {sys.version.split()[0]}",
            version=__version__,
            gpus=gpus,
            driver_problem=_driver_problem(),
            cuda_devices=_cuda_devices() if torch_counts and gpus and not search_problem[0] else None,
            temporary_folder=tempfile.gettempdir(),
            temporary_free_gb=free,
            temporary_problem=temporary_problem,
            network_problem=_network_problem(place, own_rank, self.nodes) if self.nodes > 1 else "",
            search_problem=search_problem,
        )
        write_json(place / f"machine-{own_rank}.json", asdict(report))

    def _search_problem(self) -> tuple[tuple[str, str], bool]:
        """What the trainer says of packages, model, data and reward here; and whether it trains with torch."""
        if not self.config:
            return ("", ""), False
        from llmzero_hpc.config import SearchConfig
        from llmzero_hpc.trainers.registry import make_trainer

        try:
            config = SearchConfig.model_validate_json(self.config)
            trainer = make_trainer(config.trainer)
            trainer.check(config)
        except LLMZeroError as error:
            return (error.message, error.next_step), False
        except ValueError as error:
            return (f"the installation there reads search.yaml otherwise: {str(error).splitlines()[0]}", ""), False
        return ("", ""), not trainer.simulated


def _driver_problem() -> str:
    if shutil.which("nvidia-smi") is None:
        return ""
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=_SMI_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"nvidia-smi: {error}"
    return "" if not done.returncode else f"nvidia-smi: {' '.join((done.stdout + done.stderr).split())}"


def _cuda_devices() -> int | None:
    try:
        import torch
    except ImportError:
        return None
    return int(torch.cuda.device_count())


def _temporary_folder() -> tuple[float, str]:
    wanted = os.environ.get("TMPDIR", tempfile.gettempdir())
    try:
        with tempfile.TemporaryDirectory(dir=wanted) as folder:
            write_bytes(Path(folder) / "file", b"x")
            return shutil.disk_usage(folder).free / _GIGABYTE, ""
    except (OSError, LLMZeroError) as error:
        return 0.0, f"{wanted}: {error}"


def _network_problem(place: Path, own_rank: int, nodes: int) -> str:
    """Whether the first machine hears from all others, by the address that Ray would use."""
    deadline = time.monotonic() + _GREETING_SECONDS
    try:
        return _heard(place, nodes, deadline) if own_rank == 0 else _greeted(place, own_rank, deadline)
    except OSError as error:
        return str(error)


def _heard(place: Path, nodes: int, deadline: float) -> str:
    waited_for = set(range(1, nodes))
    with socket.create_server(("", 0)) as server:
        write_json(place / _HEAD, {"address": own_address(nodes), "port": server.getsockname()[1]})
        while waited_for and (left := deadline - time.monotonic()) > 0:
            server.settimeout(left)
            try:
                stream, _ = server.accept()
            except TimeoutError:
                break
            with stream:
                stream.settimeout(_GREETING_SECONDS)
                waited_for.discard(int(stream.recv(16) or b"0"))
    return f"machines {sorted(waited_for)} of the job do not reach the first" if waited_for else ""


def _greeted(place: Path, own_rank: int, deadline: float) -> str:
    while (content := read_bytes(place / _HEAD)) is None:
        if time.monotonic() > deadline:
            return "the first machine of the job has not come up"
        time.sleep(_POLL_SECONDS)
    head = json.loads(content)
    where = (head["address"], head["port"])
    try:
        with socket.create_connection(where, max(1.0, deadline - time.monotonic())) as stream:
            stream.sendall(str(own_rank).encode())
    except OSError as error:
        return f"{where[0]} (the first machine) cannot be reached: {error}"
    return ""
