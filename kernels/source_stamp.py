"""What makes compiled code stale: a hash of the sources that a kernel is made of.

Numba's own cache looks at the kernel's file alone and does not notice a change in a helper in
another file (numba issue 1833). Here the hash covers the file and, through their import
statements, all files of `kernels/` that it can reach: an edit to a statistics kernel does not
recompile the forward pass, which takes a minute.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from pathlib import Path

__all__ = ["reached_files", "source_stamp"]

ROOT = Path(__file__).parent
PACKAGE = __name__.rpartition(".")[0]


@functools.cache
def source_stamp(file: str) -> str:
    """Return a hash of the source of ``file`` and of all kernel sources that it reaches."""
    digest = hashlib.sha256()
    for path in reached_files(Path(file).resolve()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def reached_files(file: Path) -> list[Path]:
    """Return ``file`` and the kernel files that it imports, directly or through others, sorted.

    This module's neighbour ``jit.py``, which sets the compiler's options, is always among them.
    """
    reached: set[Path] = set()
    waiting = [file, ROOT.resolve() / "jit.py"]
    while waiting:
        path = waiting.pop()
        if path not in reached:
            reached.add(path)
            waiting.extend(_imported_files(path))
    return sorted(reached)


@functools.cache
def _imported_files(file: Path) -> tuple[Path, ...]:
    """Return the kernel files that one file names in its import statements, wherever they stand."""
    named: set[str] = set()
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            named.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            named.add(node.module)
            named.update(f"{node.module}.{alias.name}" for alias in node.names)
    found = {path for name in named if (path := _file_of(name)) is not None}
    return tuple(sorted(found))


def _file_of(module: str) -> Path | None:
    """Return the file of a module of `kernels/`, None for a module or name that is none."""
    if module != PACKAGE and not module.startswith(f"{PACKAGE}."):
        return None
    path = ROOT.resolve().joinpath(*module[len(PACKAGE) :].strip(".").split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None
