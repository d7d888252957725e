"""What a journal's records hold: results, and the requests that they answer."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from numbatch.batching.request import Request
from numbatch.batching.results import FailedResult, GenerationResult, Result, ScoreResult

__all__ = ["model_fingerprint", "pack_result", "request_digest", "unpack_result"]

ENDS = 1 << 20
"""Of a large file, so many bytes at each end are looked at."""

_KINDS = {kind.__name__: kind for kind in (FailedResult, GenerationResult, ScoreResult)}


def request_digest(request: Request) -> str:
    """Return a hash of what a request's result depends on."""
    tokens = request.tokens
    content = tokens if isinstance(tokens, str) else np.asarray(tokens).tolist()
    asked = (request.params, request.score_from, request.prompt_logprobs)
    functions = (getattr(request.params, "logits_processor", None), request.scorer)
    words = repr((request.id, content, asked, [_function_identity(each) for each in functions]))
    return hashlib.blake2b(words.encode(errors="surrogatepass"), digest_size=8).hexdigest()


def _function_identity(function: Any) -> tuple[Any, ...] | None:
    """Tell a user's function by its name and code; what it closes over is not looked at."""
    if function is None:
        return None
    code = function.py_func.__code__
    constants = [each for each in code.co_consts if isinstance(each, int | float | str | bytes)]
    return (function.__module__, function.__qualname__, code.co_code, constants, code.co_names)


def pack_result(result: Result, digest: str) -> bytes:
    """Write a result as a record; floats keep their bits."""
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(result):
        value = getattr(result, field.name)
        if isinstance(value, np.ndarray):
            data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
            value = {"dtype": value.dtype.str, "shape": value.shape, "data": data}
        fields[field.name] = value
    record = {"kind": type(result).__name__, "digest": digest, "fields": fields}
    return json.dumps(record).encode()


def unpack_result(content: bytes) -> tuple[Result, str]:
    """Read a record; return the result and the digest of its request."""
    record = json.loads(content)
    fields = record["fields"]
    for name, value in fields.items():
        if isinstance(value, dict):
            data = np.frombuffer(base64.b64decode(value["data"]), value["dtype"])
            fields[name] = data.reshape(value["shape"])
    result: Result = _KINDS[record["kind"]](**fields)
    return result, record["digest"]


def model_fingerprint(path: Path) -> str:
    """Return a hash of a model's files: their names, sizes, first and last megabyte."""
    digest = hashlib.sha256()
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    for each in files:
        if each.is_file():
            size = each.stat().st_size
            digest.update(f"{each.name} {size}\n".encode())
            with open(each, "rb") as file:
                digest.update(file.read(ENDS))
                file.seek(max(size - ENDS, 0))
                digest.update(file.read(ENDS))
    return digest.hexdigest()[:16]
