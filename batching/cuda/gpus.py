"""All GPUs of a machine as one engine: a worker process for each."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from numbatch.batching.worker_pool import WorkerPool
from numbatch.errors import DeviceError, InputError
from numbatch.kernels.cuda import count_gpus
from numbatch.models.load import LoadedModel, load_model

__all__ = ["make_pool"]


def make_pool(
    model: LoadedModel,
    *,
    logits_processor: Any = None,
    load: Callable[[], LoadedModel] | None = None,
    **options: Any,
) -> WorkerPool:
    """Return a pool with a worker for each GPU.

    Parameters
    ----------
    model : LoadedModel
    logits_processor : None
        A compiled function cannot be sent to another process.
    load : function, optional
        Loads the model in a worker; from its path by default.
    options
        As for ``Engine``.

    Raises
    ------
    InputError
        If there is a ``logits_processor``.
    DeviceError
        If there is no GPU, or a worker cannot start.
    """
    if logits_processor is not None:
        raise InputError('logits_processor needs one GPU: device="cuda", not "cuda:*"')
    count = count_gpus()
    if count == 0:
        raise DeviceError("this machine has no GPU")
    devices = [f"cuda:{number}" for number in range(count)]
    return WorkerPool(model, load or functools.partial(load_model, model.path), devices, **options)
