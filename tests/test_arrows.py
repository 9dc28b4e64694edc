"""The arrows between the rooms, and the few rules of taste that a machine can see."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "tightrun"
MODULES = sorted(PACKAGE.rglob("*.py"))
MAY_IMPORT = {
    "core": set(),
    "sandbox": set(),
    "policies": {"policies", "core"},
    "io": {"io", "core", "sandbox"},
    "runtime": {"runtime", "policies", "core", "sandbox"},
    "cli": {"cli", "runtime", "policies", "io", "core"},
    "__init__": {"cli", "core", "io"},
}
HEAVY = {"torch", "transformers"}
NO_IDEA = {"utils", "util", "helpers", "helper", "common", "misc"}
MOST_LINES = 400


def room_of(path: Path) -> str:
    """The room a file lives in: a folder of the package, or the name of a module beside them."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else path.stem


def imports_of(source: str, package: tuple[str, ...]) -> Iterator[str]:
    """The full names of all modules that a module of `package` imports, wherever it does."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def imported(path: Path) -> set[str]:
    package = ("tightrun", *path.relative_to(PACKAGE).parts[:-1])
    return set(imports_of(path.read_text(encoding="utf-8"), package))


def name(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_imports_point_down_only(path: Path) -> None:
    parts = [module.split(".") for module in imported(path)]
    rooms = {part[1] for part in parts if part[0] == "tightrun" and len(part) > 1}
    known = rooms & MAY_IMPORT.keys()
    assert known <= MAY_IMPORT[room_of(path)]


@pytest.mark.parametrize(
    "path", [p for p in MODULES if room_of(p) in ("io", "policies", "core")], ids=name
)
def test_io_policies_and_core_never_import_torch_or_transformers(path: Path) -> None:
    assert not {module.split(".")[0] for module in imported(path)} & HEAVY


def test_core_needs_the_standard_library_only() -> None:
    roots = {module.split(".")[0] for module in imported(PACKAGE / "core.py")}
    assert roots <= sys.stdlib_module_names


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_file_holds_one_idea(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_name_says_what_a_file_holds(path: Path) -> None:
    assert path.stem not in NO_IDEA


def test_an_import_inside_a_function_is_seen() -> None:
    source = "def late():\n    from tightrun.runtime import engine\n    import torch.nn\n"
    assert {"tightrun.runtime.engine", "torch.nn"} <= set(imports_of(source, ("tightrun",)))


def test_a_relative_import_is_seen() -> None:
    source = "from ..runtime import engine\n"
    assert "tightrun.runtime.engine" in set(imports_of(source, ("tightrun", "policies")))
