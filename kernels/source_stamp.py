"""What makes compiled code stale: a hash of the sources that a kernel is made of.

Numba's own cache looks at the kernel's file alone and does not notice a change in a helper in
another file (numba issue 1833). Here the hash covers the file and, through their import
statements, all files of `kernels/` that it can reach: an edit to a statistics kernel does not
recompile the forward pass, which takes a minute.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
from pathlib import Path

__all__ = ["reached_files", "source_stamp"]

ROOT = os.path.realpath(os.path.dirname(__file__))
PACKAGE = __name__.rpartition(".")[0]

# To parse the files instead took a quarter of a second in each new process. What looks like an
# import inside a string is taken for one too, which costs a stamp that changes once too often.
_IMPORT = re.compile(
    rb"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+import[ \t]*(\([^)]*\)|(?:[^\n\\]|\\\n)*)"
    rb"|import[ \t]+((?:[^\n\\]|\\\n)*))",
    re.MULTILINE,
)
_COMMENT = re.compile(rb"#[^\n]*")
_NAME = re.compile(rb"[\w.]+")


@functools.cache
def source_stamp(file: str) -> str:
    """Return a hash of the source of ``file`` and of all kernel sources that it reaches."""
    digest = hashlib.sha256()
    for path in reached_files(file):
        digest.update(os.path.basename(path).encode() + b"\0" + _source(path) + b"\0")
    return digest.hexdigest()


def reached_files(file: str | Path) -> list[str]:
    """Return ``file`` and the kernel files that it imports, directly or through others, sorted.

    This module's neighbour ``jit.py``, which sets the compiler's options, is always among them.
    """
    reached: set[str] = set()
    waiting = [os.path.realpath(file), os.path.join(ROOT, "jit.py")]
    while waiting:
        path = waiting.pop()
        if path not in reached:
            reached.add(path)
            waiting.extend(_imported_files(path))
    return sorted(reached)


@functools.cache
def _source(path: str) -> bytes:
    with open(path, "rb") as source:
        return source.read()


@functools.cache
def _imported_files(path: str) -> tuple[str, ...]:
    """Return the kernel files that one file names in its import statements, wherever they stand."""
    named: set[str] = set()
    for module, names, modules in _IMPORT.findall(_COMMENT.sub(b"", _source(path))):
        if modules:
            named.update(_words(modules))
        elif module.startswith(PACKAGE.encode()):
            named.add(module.decode())
            named.update(f"{module.decode()}.{name}" for name in _words(names))
    return tuple(sorted({_files()[name] for name in named if name in _files()}))


def _words(text: bytes) -> list[str]:
    """Return names in an import statement; ``as`` and what follows it is no module and harmless."""
    return [word.decode() for word in _NAME.findall(text)]


@functools.cache
def _files() -> dict[str, str]:
    """Return the file of each module of ``kernels/``."""
    found = {}
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [each for each in folders if each != "__pycache__"]
        package = ".".join([PACKAGE, *os.path.relpath(folder, ROOT).split(os.sep)]).rstrip(".")
        for name in names:
            if name.endswith(".py"):
                module = package if name == "__init__.py" else f"{package}.{name[:-3]}"
                found[module] = os.path.join(folder, name)
    return found
