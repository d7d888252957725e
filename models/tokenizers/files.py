"""Choose the reader of a tokenizer by its file, and read the files beside a tokenizer.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numbatch.errors import ModelError
from numbatch.models.tokenizer import Tokenizer
from numbatch.models.tokenizers.from_json import tokenizer_from_json
from numbatch.models.tokenizers.from_tiktoken import tokenizer_from_tiktoken_file

__all__ = ["tokenizer_from_path"]


def tokenizer_from_path(
    path: Path,
    *,
    encoding: str | None = None,
    pattern: str | None = None,
    special_tokens: Mapping[str, int] | None = None,
) -> Tokenizer:
    """Read a tokenizer; see :meth:`numbatch.models.tokenizer.Tokenizer.from_file`."""
    if not path.exists():
        raise ModelError(f"{path} does not exist")
    if path.suffix == ".tiktoken":
        return tokenizer_from_tiktoken_file(path, encoding, pattern, special_tokens)
    if encoding is not None or pattern is not None or special_tokens is not None:
        raise ModelError(
            f"encoding, pattern and special_tokens are for .tiktoken files, not {path}"
        )
    if path.is_dir():
        return _from_folder(path)
    if path.suffix == ".json":
        return tokenizer_from_json(_read_json(path), name=str(path))
    if path.suffix == ".gguf":
        from numbatch.models.gguf import read_metadata
        from numbatch.models.tokenizers.from_gguf import tokenizer_from_gguf

        return tokenizer_from_gguf(read_metadata(path))
    raise ModelError(
        f"{path} is of no known kind; supported are tokenizer.json, .gguf, .tiktoken, "
        "and a folder with tokenizer.json"
    )


def _from_folder(folder: Path) -> Tokenizer:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ModelError(f"{folder} holds no tokenizer.json")
    config = _read_object(folder / "tokenizer_config.json")
    return tokenizer_from_json(
        _read_json(path),
        name=str(path),
        config=config,
        more_eos_ids=_generation_ends(folder / "generation_config.json"),
        chat_template=_template(folder / "chat_template.jinja", config),
    )


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes(), object_pairs_hook=_without_duplicates)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    except RecursionError:
        raise ModelError(f"{path} is no valid JSON: nested too deeply") from None
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    except ValueError as error:
        raise ModelError(f"{path} is no valid JSON: {error}") from error


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    built = dict(pairs)
    if len(built) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ModelError(f"the key {twice!r} stands twice in one object")
    return built


def _read_object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    value = _read_json(path)
    if not isinstance(value, dict):
        raise ModelError(f"{path} holds a {type(value).__name__}, should hold an object")
    return value


def _generation_ends(path: Path) -> list[int]:
    value = _read_object(path).get("eos_token_id")
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(type(index) is int and index >= 0 for index in ids):
        raise ModelError(f"{path}: eos_token_id is {value!r}, should be ids")
    return ids


def _template(path: Path, config: Mapping[str, Any]) -> str | None:
    if path.is_file():
        try:
            return path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(f"{path} cannot be read: {error}") from error
    template = config.get("chat_template")
    if isinstance(template, list):
        named = {t.get("name"): t.get("template") for t in template if isinstance(t, Mapping)}
        template = named.get("default")
    return template if isinstance(template, str) else None
