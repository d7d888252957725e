"""Numbatch: a batch engine for language models whose every kernel is Python."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from numbatch.errors import (
    InputError,
    ModelError,
    NumbatchError,
    OutputError,
    SpecialTokenError,
)
from numbatch.version import __version__

if TYPE_CHECKING:
    from numbatch.batching.llm import LLM
    from numbatch.batching.request import Request, SamplingParams
    from numbatch.batching.results import (
        Choice,
        FailedResult,
        GenerationResult,
        LogLikelihood,
        Perplexity,
        ScoreResult,
    )
    from numbatch.kernels.ragged import Ragged
    from numbatch.models.tokenizer import Tokenizer

__all__ = [
    "LLM",
    "Choice",
    "FailedResult",
    "GenerationResult",
    "InputError",
    "LogLikelihood",
    "ModelError",
    "NumbatchError",
    "OutputError",
    "Perplexity",
    "Ragged",
    "Request",
    "SamplingParams",
    "ScoreResult",
    "SpecialTokenError",
    "Tokenizer",
    "__version__",
]

_MODULES = {
    "LLM": "batching.llm",
    "Request": "batching.request",
    "SamplingParams": "batching.request",
    "Choice": "batching.results",
    "FailedResult": "batching.results",
    "GenerationResult": "batching.results",
    "LogLikelihood": "batching.results",
    "Perplexity": "batching.results",
    "ScoreResult": "batching.results",
    "Ragged": "kernels.ragged",
    "Tokenizer": "models.tokenizer",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: Numba takes 0.5 s, ``numbatch --help`` 0.1 s."""
    if name not in _MODULES:
        raise AttributeError(f"module 'numbatch' has no attribute {name!r}")
    return getattr(import_module(f"numbatch.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
