"""The rules that CONTRIBUTING.md states, held against the code."""

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = [
    path for folder in ("kernels", "models", "batching") for path in (ROOT / folder).rglob("*.py")
]

CUDA = ROOT / "kernels" / "cuda"
"""The folder that imports numba.cuda."""

SETTERS = (ROOT / "kernels" / "jit.py", CUDA / "kernels.py")
"""Files that set Numba's options."""

FORBIDDEN = {
    "kernels": ("numbatch.models", "numbatch.batching"),
    "models": ("numbatch.batching",),
    "batching": (),
}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_data_goes_one_way(path):
    folder = path.relative_to(ROOT).parts[0]
    for name in imported(path):
        assert not name.startswith("."), f"{path} imports relatively"
        assert name.split(".")[0] not in FORBIDDEN, f"{path} imports {name}, not numbatch.{name}"
        assert not name.startswith(FORBIDDEN[folder]), f"{path} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_numba_options_are_set_in_one_place(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute | ast.Name) and path not in SETTERS:
            name = node.attr if isinstance(node, ast.Attribute) else node.id
            assert name not in ("njit", "jit", "vectorize", "guvectorize"), f"{path}:{node.lineno}"
        if isinstance(node, ast.keyword) and node.arg == "fastmath":
            assert not (isinstance(node.value, ast.Constant) and node.value.value is True), path
    if path.parent != CUDA:
        assert not any(name.startswith("numba.cuda") for name in imported(path)), path
        assert "from numba import cuda" not in path.read_text(), path


def run(*command, cwd=ROOT):
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=cwd, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_types():
    run("mypy")


def test_style():
    run("ruff", "check", ".")
    run("ruff", "format", "--check", ".")


def test_the_wheel_holds_the_whole_package(tmp_path):
    """Built from the sdist, as for PyPI: the links to the sources must survive both."""
    run("build", "--outdir", str(tmp_path), str(ROOT))
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in MODULES:
        assert f"numbatch/{path.relative_to(ROOT)}" in names
    assert {"numbatch/__init__.py", "numbatch/py.typed", "numbatch/errors.py"} <= names
    assert not any(name.split("/")[0] in FORBIDDEN for name in names)
    assert not any("test" in name.split("/")[0] for name in names)
