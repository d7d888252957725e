"""What a command says while kernels are compiled, which may take a minute or two."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import click

__all__ = ["told_of_compiling"]


@contextlib.contextmanager
def told_of_compiling() -> Iterator[None]:
    """Tell that kernels are compiled, if any are, and afterwards how long that took."""
    from numbatch.batching.warmup import compilations  # heavy: not for a command's help

    def begin() -> None:
        click.echo("Compiling kernels, once for this version and CPU: up to two minutes.", err=True)

    with compilations(begin) as found:
        yield
    if found.kernels:
        click.echo(f"Compiled    {found.kernels} kernels in {found.seconds:.1f} s", err=True)
