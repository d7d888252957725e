"""Load a model by name: its decoder and its tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numbatch.errors import ModelError
from numbatch.models.decoder import Decoder
from numbatch.models.decoders.from_gguf import decoder_from_gguf
from numbatch.models.decoders.from_huggingface import decoder_from_folder, read_json
from numbatch.models.gguf import open_gguf
from numbatch.models.locate import DEFAULT_MODEL, locate

if TYPE_CHECKING:
    from numbatch.models.tokenizer import Tokenizer

__all__ = ["LoadedModel", "load_model"]


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """What is needed to run a model.

    Parameters
    ----------
    decoder : Decoder
    tokenizer : Tokenizer
    eos_ids : frozenset of int
        Tokens that end a generation: the tokenizer's, and those of the generation configuration.
    path : Path
        The file or folder that it was read from.
    """

    decoder: Decoder
    tokenizer: Tokenizer
    eos_ids: frozenset[int]
    path: Path


def load_model(name: str | Path = DEFAULT_MODEL) -> LoadedModel:
    """Load a model.

    Parameters
    ----------
    name : str or Path
        A GGUF file, a Hugging Face folder, ``hf:owner/name``, ``hf:owner/name/file.gguf`` or
        ``smollm2``; see ``numbatch.models.locate.locate``.

    Returns
    -------
    LoadedModel
        Its weights are mapped from the file, not read.

    Raises
    ------
    ModelError
        If there is no such model, or its files are damaged or not supported.
    """
    path = locate(name)
    return _load_folder(path) if path.is_dir() else _load_gguf(path)


def _load_gguf(path: Path) -> LoadedModel:
    from numbatch.models.tokenizers.from_gguf import tokenizer_from_gguf

    file = open_gguf(path)
    decoder = decoder_from_gguf(file)
    tokenizer = tokenizer_from_gguf(file.metadata)
    return LoadedModel(decoder, tokenizer, _eos_ids(decoder, tokenizer, {}, path), path)


def _load_folder(folder: Path) -> LoadedModel:
    from numbatch.models.tokenizer import Tokenizer

    decoder = decoder_from_folder(folder)
    tokenizer = Tokenizer.from_file(folder)
    values = read_json(folder / "config.json")
    generation = folder / "generation_config.json"
    if generation.is_file():
        values |= read_json(generation)
    return LoadedModel(decoder, tokenizer, _eos_ids(decoder, tokenizer, values, folder), folder)


def _eos_ids(
    decoder: Decoder, tokenizer: Tokenizer, values: dict[str, Any], path: Path
) -> frozenset[int]:
    """Return the tokenizer's end tokens and those that the configuration names."""
    named = values.get("eos_token_id")
    listed = named if isinstance(named, list) else [] if named is None else [named]
    for token in listed:
        if isinstance(token, bool) or not isinstance(token, int):
            raise ModelError(f"{path}: eos_token_id is {named!r}, should be token ids")
    ids = frozenset(tokenizer.eos_ids) | frozenset(listed)
    return frozenset(token for token in ids if 0 <= token < decoder.config.vocabulary)
