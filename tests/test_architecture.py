"""The shape of the house: imports run downward only, the search is pure, looking at a search stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "llmzero_hpc"
ROOMS = ("cli", "controller", "baselines", "agents", "report", "analysis", "cluster", "trainers", "tasks", "store",
         "config", "search", "errors")  # fmt: skip
"""From the top of the house to its ground."""
BESIDE = {
    "mistakes": "search", "settings_file": "search", "sections": "search", "method_sections": "search",
    "shipped": "errors",
}  # fmt: skip
"""Modules that stand on the floor of a room."""
PURE = {
    "__future__", "abc", "bisect", "collections", "dataclasses", "enum", "functools", "hashlib", "itertools", "math",
    "types", "typing",
}  # fmt: skip
HEAVY = ("torch", "numpy", "h5py", "matplotlib", "submitit", "transformers", "rich", "datasets", "trl", "peft",
         "openai")  # fmt: skip
SLURM = ("squeue", "sacct", "scancel", "sbatch")
LONGEST_FILE = 400
MODULES = sorted(PACKAGE.rglob("*.py"))


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(path: Path) -> list[str]:
    """Everything imported anywhere in a module, inside functions and for type checkers only, too."""
    found = []
    for part in ast.walk(parsed(path)):
        if isinstance(part, ast.Import):
            found += [alias.name for alias in part.names]
        elif isinstance(part, ast.ImportFrom):
            assert part.level == 0, f"{path} imports relatively"
            # `from llmzero_hpc import x` and `from llmzero_hpc.search import y` may name modules
            found += [f"{part.module}.{alias.name}" for alias in part.names]
    return found


def floor(name: str) -> int | None:
    parts = name.split(".")
    if parts[0] != PACKAGE.name or len(parts) == 1:
        return None
    room = BESIDE.get(parts[1], parts[1])
    return ROOMS.index(room) if room in ROOMS else None


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def test_every_module_has_its_room() -> None:
    strays = [path for path in MODULES if path != PACKAGE / "__init__.py" and floor(name_of(path)) is None]
    assert not strays, "add the room to ROOMS, at its place"


def test_imports_run_downward_only() -> None:
    upward = [
        f"{name_of(path)} imports {imported}"
        for path in MODULES
        for imported in imports(path)
        if (own := floor(name_of(path))) is not None and (other := floor(imported)) is not None and other < own
    ]
    assert not upward


def test_no_relation_between_the_rooms_is_hidden_from_this_test() -> None:
    calls = [
        name_of(path)
        for path in MODULES
        for part in ast.walk(parsed(path))
        if isinstance(part, ast.Call) and ast.unparse(part.func) in {"importlib.import_module", "__import__"}
    ]
    assert not calls


def test_the_search_is_pure() -> None:
    impure = []
    for path in sorted((PACKAGE / "search").rglob("*.py")):
        for imported in imports(path):
            own = imported.startswith(("llmzero_hpc.search.", "llmzero_hpc.errors."))
            if not own and imported.split(".")[0] not in PURE:
                impure.append(f"{path.name} imports {imported}")
        impure += [
            f"{path.name} line {part.lineno} calls {part.func.id}"
            for part in ast.walk(parsed(path))
            if isinstance(part, ast.Call)
            and isinstance(part.func, ast.Name)
            and part.func.id in {"open", "print", "input"}
        ]
    assert not impure


def test_files_hold_one_noun_each() -> None:
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert not {name: length for name, length in lengths.items() if length > LONGEST_FILE}


@pytest.mark.parametrize("module", ["llmzero_hpc.cli.main", "llmzero_hpc.controller.daemon"])
def test_what_runs_on_a_login_node_imports_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not set(HEAVY) & set(loaded)


def test_only_the_cluster_speaks_to_slurm() -> None:
    spoken = []
    for path in MODULES:
        if path.is_relative_to(PACKAGE / "cluster"):
            continue
        tree = parsed(path)
        documentation = {
            id(part.value)
            for part in ast.walk(tree)
            if isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant)
        }
        for part in ast.walk(tree):
            texts = [part.value] if isinstance(part, ast.Constant) and isinstance(part.value, str) else []
            texts += [part.id] if isinstance(part, ast.Name) else []
            texts += [part.attr] if isinstance(part, ast.Attribute) else []
            if id(part) not in documentation and any(word in text for word in SLURM for text in texts):
                spoken.append(f"{name_of(path)} line {part.lineno}")
    assert not spoken
