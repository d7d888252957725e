"""Numbatch: a batch engine for language models whose every kernel is Python."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from numbatch.errors import (
    DeviceError,
    InputError,
    ModelError,
    NumbatchError,
    OutputError,
    SpecialTokenError,
)
from numbatch.version import __version__

if TYPE_CHECKING:
    from numbatch.batching.batch_result import (
        BatchResponse,
        BatchResult,
        BatchStats,
        TokenEvent,
    )
    from numbatch.batching.batch_sizer import BatchSizer, StepSize
    from numbatch.batching.ids import IdMap
    from numbatch.batching.job import Job
    from numbatch.batching.llm import LLM
    from numbatch.batching.measure import (
        compare,
        measure_operation,
        measure_time,
        time_operation,
    )
    from numbatch.batching.operation_stats import Comparison, OperationStats
    from numbatch.batching.policy import FairPriority, FirstCome, Policy
    from numbatch.batching.request import Request, SamplingParams
    from numbatch.batching.results import (
        Choice,
        FailedResult,
        GenerationResult,
        LogLikelihood,
        Perplexity,
        ScoreResult,
    )
    from numbatch.batching.sizes import MemoryEstimate, estimate_memory
    from numbatch.kernels import statistics
    from numbatch.kernels.ragged import Ragged
    from numbatch.models.tokenizer import Tokenizer

__all__ = [
    "LLM",
    "BatchResponse",
    "BatchResult",
    "BatchSizer",
    "BatchStats",
    "Choice",
    "Comparison",
    "DeviceError",
    "FailedResult",
    "FairPriority",
    "FirstCome",
    "GenerationResult",
    "IdMap",
    "InputError",
    "Job",
    "LogLikelihood",
    "MemoryEstimate",
    "ModelError",
    "NumbatchError",
    "OperationStats",
    "OutputError",
    "Perplexity",
    "Policy",
    "Ragged",
    "Request",
    "SamplingParams",
    "ScoreResult",
    "SpecialTokenError",
    "StepSize",
    "TokenEvent",
    "Tokenizer",
    "__version__",
    "compare",
    "estimate_memory",
    "measure_operation",
    "measure_time",
    "statistics",
    "time_operation",
]

_MODULES = {
    "BatchResponse": "batching.batch_result",
    "BatchResult": "batching.batch_result",
    "BatchStats": "batching.batch_result",
    "TokenEvent": "batching.batch_result",
    "BatchSizer": "batching.batch_sizer",
    "StepSize": "batching.batch_sizer",
    "IdMap": "batching.ids",
    "MemoryEstimate": "batching.sizes",
    "estimate_memory": "batching.sizes",
    "Job": "batching.job",
    "FairPriority": "batching.policy",
    "FirstCome": "batching.policy",
    "Policy": "batching.policy",
    "LLM": "batching.llm",
    "Request": "batching.request",
    "SamplingParams": "batching.request",
    "Choice": "batching.results",
    "FailedResult": "batching.results",
    "GenerationResult": "batching.results",
    "LogLikelihood": "batching.results",
    "Perplexity": "batching.results",
    "ScoreResult": "batching.results",
    "Comparison": "batching.operation_stats",
    "OperationStats": "batching.operation_stats",
    "compare": "batching.measure",
    "measure_operation": "batching.measure",
    "measure_time": "batching.measure",
    "time_operation": "batching.measure",
    "Ragged": "kernels.ragged",
    "Tokenizer": "models.tokenizer",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: Numba takes 0.5 s, ``numbatch --help`` 0.1 s."""
    if name == "statistics":
        return import_module("numbatch.kernels.statistics")
    if name not in _MODULES:
        raise AttributeError(f"module 'numbatch' has no attribute {name!r}")
    return getattr(import_module(f"numbatch.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
