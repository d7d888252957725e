"""From a model's name to the file or folder that holds it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from numbatch.errors import ModelError
from numbatch.models.fetch import SMOLLM2, fetch

__all__ = ["DEFAULT_MODEL", "locate"]

DEFAULT_MODEL = "smollm2"
_PACKAGED = {"smollm2": SMOLLM2}
_NAMES = (
    "a path (a GGUF file, or a Hugging Face folder with config.json), hf:owner/name, "
    f"hf:owner/name/file.gguf, or {', '.join(_PACKAGED)}"
)
_HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.jinja", "*.txt"]


def locate(name: str | Path = DEFAULT_MODEL) -> Path:
    """Return the file or folder of a model; fetch it if it has to be.

    Parameters
    ----------
    name : str or Path
        The path of a GGUF file or of a Hugging Face folder; ``hf:owner/name`` or
        ``hf:owner/name/file.gguf`` on the Hugging Face Hub; or ``smollm2``. A file of that name
        is meant by ``./smollm2``.

    Raises
    ------
    ModelError
        If there is no such model, or it cannot be fetched.
    """
    if isinstance(name, str) and name in _PACKAGED:
        return fetch(_PACKAGED[name])
    if isinstance(name, str) and name.startswith("hf:"):
        return _from_hub(name)
    try:
        path = Path(name).expanduser()
        found = path.exists()
    except (ValueError, RuntimeError, OSError, TypeError) as error:
        raise ModelError(
            f"{name!r} names no model ({error}); a model is named by {_NAMES}"
        ) from error
    if not found or not str(name):
        raise ModelError(f"{str(name)!r} names no model; a model is named by {_NAMES}")
    return path


def _from_hub(name: str) -> Path:
    """Return the local copy of a model of the Hugging Face Hub."""
    owner, _, rest = name.removeprefix("hf:").partition("/")
    repository, _, file = rest.partition("/")
    if not owner or not repository or (file and not file.endswith(".gguf")):
        raise ModelError(f"{name!r} should be hf:owner/name or hf:owner/name/file.gguf")
    try:
        import huggingface_hub
    except ImportError:
        raise ModelError(f"{name} needs huggingface_hub; run `pip install numbatch[hf]`") from None
    repository = f"{owner}/{repository}"
    if file:
        return _asked(name, huggingface_hub.hf_hub_download, repository, file)
    folder = _asked(
        name,
        huggingface_hub.snapshot_download,
        repository,
        allow_patterns=_HUB_FILES,
        # Mistral's and Meta's repositories hold the weights a second time, in their own layout.
        ignore_patterns=["consolidated*", "original/*", "onnx/*"],
    )
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{name} has no config.json; if it holds GGUF files, name one: {name}/file.gguf"
        )
    return folder


def _asked(name: str, function: Callable[..., str], *args: Any, **options: Any) -> Path:
    """Call the hub's client; whatever it raises means that the model cannot be had."""
    try:
        return Path(function(*args, **options))
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(
            f"{name} cannot be had from the Hugging Face Hub: {lines[0]} (is its name right, are "
            "you online, and may you read it?)"
        ) from error
