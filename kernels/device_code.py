"""How functions that only kernels call are compiled: to LLVM's code, which kernels take in.

Numba links each function with all that it calls, optimizes that and makes machine code of it. So
what lies six calls deep went through LLVM seven times, and only the last was ever run. Here a
function's code waits as it is; the kernel that calls it, itself or by others, is optimized as one.
On a Zen 3 the README's first command takes 97 seconds instead of 162, to code that is as fast.
"""

from __future__ import annotations

from typing import Any

from llvmlite.binding import Linkage
from numba import _dynfunc
from numba.core import codegen, compiler
from numba.core.compiler_machinery import register_pass
from numba.core.typed_passes import NativeLowering

__all__ = ["DeviceCompiler"]


class _DeviceLibrary(codegen.JITCodeLibrary):
    """A function's own code, and those it calls; both become one where a kernel asks for it."""

    _shared_module: Any
    _environment: Any

    def finalize(self) -> None:
        """End adding to the code."""
        self._raise_if_finalized()
        self._finalized = True

    def _get_module_for_linking(self) -> Any:
        """Return the code with that of all that it calls, of which a linker takes what it needs."""
        if self._shared_module is None:
            whole, others = self._final_module.clone(), []
            for library in _all_callees(self):
                if isinstance(library, _DeviceLibrary):
                    whole.link_in(library._final_module, preserve=True)
                else:
                    others.append(library)
            for library in others:  # linked last: only what is already called is taken
                whole.link_in(library._get_module_for_linking(), preserve=True)
            for function in whole.functions:
                if not function.is_declaration and function.linkage == Linkage.external:
                    function.linkage = "linkonce_odr"
            self._shared_module = whole
        return self._shared_module


def _all_callees(library: Any) -> list[Any]:
    """Return what a library calls, once each; what that calls too, where it is for kernels only."""
    found, waiting = {library: None}, [library]
    while waiting:
        for callee in waiting.pop()._linking_libraries:
            if callee not in found:
                found[callee] = None
                if isinstance(callee, _DeviceLibrary):
                    waiting.append(callee)
    return list(found)[1:]


def _keep_environment(library: Any, context: Any, function: Any, environment: Any) -> None:
    """Set what a function's code reads of Python's objects, if it does (``print`` of a text).

    That is a variable of LLVM's code, which all code that is linked with it shares.
    """
    name = context.get_env_name(function)
    if str(library._final_module).count(name) > 1:  # once where it is declared
        holder = library.codegen.create_library(f"environment of {function.qualname}")
        module = holder.create_ir_module("environment")
        context.declare_env_global(module, name)
        holder.add_ir_module(module)
        holder.finalize()
        library.codegen.set_env(name, environment)
        library._environment = holder  # which is deleted with its owner


@register_pass(mutates_CFG=True, analysis_only=False)
class _LowerForKernels(NativeLowering):
    """Numba's lowering, but for what makes a function ready to be run."""

    _name = "numbatch_device_lowering"

    def run_pass(self, state: Any) -> bool:
        """Lower a function; callers know it by an object of its own, as Numba has them know it."""
        library = _DeviceLibrary(state.targetctx.codegen(), state.func_id.func_qualname)
        state.library, state.flags.no_compile = library, True
        super().run_pass(state)
        lowered = state["cr"]
        function, name = lowered.fndesc, lowered.fndesc.qualname.rpartition(".")[2]
        entry = _dynfunc.make_function(
            function.lookup_module(), name, "", 0, lowered.env, (library,)
        )
        library.finalize()
        _keep_environment(library, state.targetctx, function, lowered.env)
        state.targetctx.insert_user_function(entry, function, [library])
        state.reload_init.extend(library._reload_init)
        state["cr"] = lowered._replace(cfunc=entry)
        return True


class DeviceCompiler(compiler.CompilerBase):
    """Numba's compiler with :class:`_LowerForKernels` in the place of its lowering."""

    def define_pipelines(self) -> list[Any]:
        """Return the one way of compiling."""
        builder = compiler.DefaultPassBuilder.define_nopython_pipeline(self.state)
        at = [step[0] for step in builder.passes].index(NativeLowering)
        builder.passes[at] = (_LowerForKernels, "lowering for kernels")
        builder.finalize()
        return [builder]
