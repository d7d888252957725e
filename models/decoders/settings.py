"""Values of a model's metadata or configuration, checked one by one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from numbatch.errors import ModelError

__all__ = ["Settings"]

_REQUIRED: Any = object()


class Settings:
    """A mapping whose values are checked when they are asked for.

    Parameters
    ----------
    values : Mapping
    where : object
        What the values were read from, for messages.
    prefix : str, optional
        Put before every key.
    aliases : Mapping, optional
        Key -> the file's own name for it.

    Raises
    ------
    ModelError
        From every method: if the key is missing and no default is given, or its value is of
        another type or out of range. A value of None (JSON's null) counts as missing.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        where: object,
        prefix: str = "",
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        self.values, self.where = values, where
        self._prefix, self._aliases = prefix, aliases or {}

    def _key(self, key: str) -> str:
        """Return the key as the file has it."""
        return self._prefix + self._aliases.get(key, key)

    def _get(self, key: str, default: Any) -> Any:
        value = self.values.get(self._key(key))
        if value is None:
            if default is _REQUIRED:
                raise ModelError(f"{self.where} lacks {self._key(key)}")
            return default
        if isinstance(value, np.ndarray) and len(value) and (value == value[0]).all():
            return value[0].item()  # one value for each layer, all the same
        return value

    def _refuse(self, key: str, value: Any, right: str) -> ModelError:
        shown = repr(value) if len(repr(value)) < 80 else f"{repr(value)[:77]}..."
        return ModelError(f"{self.where}: {self._key(key)} is {shown}, should be {right}")

    def integer(self, key: str, default: Any = _REQUIRED, least: int = 1, most: int = 2**31) -> Any:
        """Return an integer from ``least`` to ``most``, or the default."""
        value = self._get(key, default)
        if value is default:
            return value
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self._refuse(key, value, f"an integer from {least} to {most}")
        return value

    def number(self, key: str, default: Any = _REQUIRED, positive: bool = True) -> Any:
        """Return a finite float, greater than 0 unless ``positive`` is False, or the default."""
        value = self._get(key, default)
        if value is default:
            return value
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
            or (positive and value <= 0)
        ):
            raise self._refuse(key, value, "a positive number" if positive else "a number")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """Return a boolean."""
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self._refuse(key, value, "true or false")
        return value

    def text(self, key: str, default: Any = _REQUIRED) -> Any:
        """Return a string, or the default."""
        value = self._get(key, default)
        if value is not default and not isinstance(value, str):
            raise self._refuse(key, value, "a string")
        return value

    def mapping(self, key: str) -> dict[str, Any]:
        """Return a copy of a mapping; an empty one where the key is missing."""
        value = self._get(key, {})
        if not isinstance(value, dict):
            raise self._refuse(key, value, "a mapping")
        return dict(value)

    def choice(self, key: str, choices: Mapping[str, str], default: str) -> str:
        """Return what ``choices`` gives for the string under ``key``."""
        value = self.text(key, default)
        if value not in choices:
            raise self._refuse(key, value, f"one of {', '.join(choices)}")
        return choices[value]
