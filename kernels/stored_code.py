"""How the JIT cache keeps a kernel, so that a new process calls it a few milliseconds later.

Numba's own loading makes ready for compiling too: it imports all that it can compile (0.25 s with
scipy's linear algebra, 0.15 s more for extensions such as awkward's) and parses LLVM's code of each
kernel (90 ms for the kernels up to a model's first token), which only a caller that is compiled
reads. Here both wait until something is compiled.
"""

from __future__ import annotations

from typing import Any

from llvmlite import binding as llvm
from numba.core import caching, codegen, compiler
from numba.core.runtime import rtsys

__all__ = ["StoredCode", "StoredFunctions"]


class _Library(codegen.JITCodeLibrary):
    """Machine code from the cache, of which LLVM's code is parsed when a caller is compiled."""

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
        """Return Numba's own record, and beside its code the names that it defines."""
        module = result.library._get_module_for_linking()
        names = {
            each.name
            for several in (module.functions, module.global_variables)
            for each in several
            if not each.is_declaration
        }
        return names, super().reduce(result)

    def rebuild(self, context: Any, payload: Any) -> Any:
        """Return the result that was kept; does what ``CompileResult._rebuild`` does."""
        names, (code, function, environment, signature, *_, callees) = payload
        name, _, (machine_code, bitcode) = code
        library = _Library(context.codegen(), name, machine_code, bitcode)
        library.codegen._engine._defined_symbols |= names
        entry = context.get_executable(library, function, environment)
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
            referenced_envs=callees,
        )


class StoredFunctions(caching.FunctionCache):
    """The functions that are kept; loading one does not make Numba ready to compile."""

    _impl_class = StoredCode

    def load_overload(self, signature: Any, context: Any) -> Any:
        """Return what is kept for a signature, or None."""
        rtsys.initialize(context)  # C functions that machine code calls
        with self._guard_against_spurious_io_errors():
            return self._load_overload(signature, context)
