"""How the JIT cache keeps a kernel, so that a new process calls it a few milliseconds later.

Numba's own loading makes ready for compiling too: it imports all that it can compile (0.25 s with
scipy's linear algebra, 0.15 s more for extensions such as awkward's) and parses LLVM's code of each
kernel (90 ms for the kernels up to a model's first token), which only a caller that is compiled
reads. Here both wait until something is compiled.
"""

from __future__ import annotations

import functools
from typing import Any

from llvmlite import binding as llvm
from numba.core import caching, codegen, compiler
from numba.core.environment import Environment
from numba.core.runtime import _nrt_python

__all__ = ["StoredCode", "StoredFunctions"]


@functools.cache
def _name_runtime() -> None:
    """Tell LLVM where the C functions lie that machine code calls.

    Numba's own beginning of its runtime (``rtsys.initialize``) does that too, and compiles for
    20 ms what code that is kept has in it already.
    """
    for name, address in _nrt_python.c_helpers.items():
        llvm.add_symbol(name if name.startswith("_") else f"NRT_{name}", address)


def _environment(name: str, constants: list[Any]) -> Any:
    """Return what a callee's code reads. Globals are read in object mode only, which no kernel has.

    Numba would import the callee's module for them: 20 ms for that of its arrays.
    """
    made = Environment({})
    made.env_name = name
    made.consts[:] = constants
    return made


class _Library(codegen.JITCodeLibrary):
    """Machine code from the cache, of which LLVM's code is parsed when a caller is compiled."""

    _shared_module: Any

    def __init__(self, owner: Any, name: str, machine_code: bytes, bitcode: bytes) -> None:
        super().__init__(owner, name)
        self._bitcode = bitcode
        self.enable_object_caching()
        self._set_compiled_object(machine_code)
        self._finalize_final_module()

    def _get_module_for_linking(self) -> Any:
        if self._shared_module is None:
            self._shared_module = llvm.parse_bitcode(self._bitcode)
        return self._shared_module


class StoredCode(caching.CompileResultCacheImpl):
    """Turns what was compiled into what is kept, and back."""

    def reduce(self, result: Any) -> Any:
        """Return the names that the code defines, Numba's record, and callees' constants."""
        module = result.library._get_module_for_linking()
        names = {
            each.name
            for several in (module.functions, module.global_variables)
            for each in several
            if not each.is_declaration
        }
        *record, callees = super().reduce(result)
        return names, record, [(each.env_name, each.consts) for each in callees]

    def rebuild(self, context: Any, payload: Any) -> Any:
        """Return the result that was kept; does what ``CompileResult._rebuild`` does."""
        names, ((name, _, code), function, environment, signature, *_), constants = payload
        library = _Library(context.codegen(), name, *code)
        library.codegen._engine._defined_symbols |= names
        entry = context.get_executable(library, function, environment)
        callees = [_environment(*each) for each in constants]
        for each in callees:
            library.codegen.set_env(each.env_name, each)
        return compiler.compile_result(
            target_context=context,
            typing_context=context.typing_context,
            library=library,
            environment=environment,
            entry_point=entry,
            fndesc=function,
            signature=signature,
            objectmode=False,
            lifted=(),
            typing_error=None,
            reload_init=(),
            referenced_envs=tuple(callees),
        )


class StoredFunctions(caching.FunctionCache):
    """The functions that are kept; loading one does not make Numba ready to compile."""

    _impl_class = StoredCode

    def load_overload(self, signature: Any, context: Any) -> Any:
        """Return what is kept for a signature, or None."""
        _name_runtime()
        with self._guard_against_spurious_io_errors():
            return self._load_overload(signature, context)
