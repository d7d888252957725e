"""Kernels that begin while the one before them still runs, as ``Gpu.overlapping`` starts them.

Such a kernel brings near what no kernel writes (weights), then waits; after that it may read what
earlier kernels wrote, and write itself. All its threads wait, also those with nothing to do, since
who comes later relies on it. On a GPU that cannot do this both functions do nothing, and kernels
run one after the other.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbatch.kernels.cuda import can_overlap, is_simulated
from numbatch.kernels.cuda.assembly import assembly

__all__ = ["await_previous", "begin_next"]

if is_simulated():

    def begin_next():
        """Let the next kernel begin as soon as all blocks of this one have come here."""

    def await_previous():
        """Wait until the kernels before are done, and what they wrote can be read."""

else:

    def _emit(builder: Any, template: str) -> None:
        if can_overlap():
            constraints = "~{memory}"
            assembly(builder, template, ir.VoidType(), constraints, [], effects=True)

    @intrinsic
    def begin_next(typingctx):
        """Let the next kernel begin as soon as all blocks of this one have come here."""

        def emit(context, builder, signature, args):
            _emit(builder, "griddepcontrol.launch_dependents;")
            return context.get_dummy_value()

        return types.none(), emit

    @intrinsic
    def await_previous(typingctx):
        """Wait until the kernels before are done, and what they wrote can be read."""

        def emit(context, builder, signature, args):
            _emit(builder, "griddepcontrol.wait;")
            return context.get_dummy_value()

        return types.none(), emit
