"""Inverse frequencies of rotary positions, with the scalings that lengthen a context."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from numbatch.errors import ModelError
from numbatch.models.decoders.settings import Settings

__all__ = ["inverse_frequencies"]


def inverse_frequencies(
    size: int, theta: float, scaling: Mapping[str, Any], context: int, where: object
) -> tuple[np.ndarray, float]:
    """Return the angle by which each pair turns from one position to the next.

    Parameters
    ----------
    size : int
        Rotated entries of a head, even; they form ``size // 2`` pairs.
    theta : float
        Base: pair ``i`` turns by ``theta ** (-2 * i / size)`` where nothing is scaled.
    scaling : Mapping
        As ``rope_parameters`` in transformers' configurations: ``rope_type`` is ``default``,
        ``linear``, ``dynamic``, ``llama3`` or ``yarn``, the rest are that type's parameters.
    context : int
        The longest sequence that the model was made for, in tokens.
    where : object
        What the values were read from, for messages.

    Returns
    -------
    frequencies : float32 array, shape (size // 2,), read-only
        Radians a position.
    magnitude : float
        Factor on sine and cosine; 1 except for ``yarn``.

    Raises
    ------
    ModelError
        If the type is unknown, a parameter is missing or out of range, or ``size`` is odd.
    """
    if size < 2 or size % 2:
        raise ModelError(f"{where}: {size} entries of a head are rotated, should be an even number")
    if theta <= 1:
        raise ModelError(f"{where}: rotary base is {theta}, should be greater than 1")
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    if not isinstance(kind, str) or kind not in _SCALINGS:
        raise ModelError(
            f"{where}: rotary scaling {kind!r} is not supported; supported are "
            f"{', '.join(_SCALINGS)}"
        )
    plain = theta ** (-np.arange(0, size, 2) / size)
    scaled, magnitude = _SCALINGS[kind](plain, theta, Settings(scaling, where), context)
    frequencies = scaled.astype(np.float32)
    frequencies.flags.writeable = False
    return frequencies, magnitude


def _default(
    plain: np.ndarray, theta: float, settings: Settings, context: int
) -> tuple[np.ndarray, float]:
    return plain, 1.0


def _linear(
    plain: np.ndarray, theta: float, settings: Settings, context: int
) -> tuple[np.ndarray, float]:
    """Position interpolation (Chen et al. 2023, https://arxiv.org/abs/2306.15595)."""
    return plain / settings.number("factor"), 1.0


def _llama3(
    plain: np.ndarray, theta: float, settings: Settings, context: int
) -> tuple[np.ndarray, float]:
    """Slow pairs are divided by the factor, fast ones kept, those between are blended (Llama 3.1).

    A pair is slow where the original context holds fewer than ``low_freq_factor`` of its turns.
    """
    factor, low, high = (
        settings.number(key) for key in ("factor", "low_freq_factor", "high_freq_factor")
    )
    if high <= low:
        raise ModelError(
            f"{settings.where}: high_freq_factor is {high}, should be greater than "
            f"low_freq_factor, {low}"
        )
    turns = settings.integer("original_max_position_embeddings", context) * plain / (2 * math.pi)
    kept = np.clip((turns - low) / (high - low), 0, 1)
    return plain * (kept + (1 - kept) / factor), 1.0


def _yarn(
    plain: np.ndarray, theta: float, settings: Settings, context: int
) -> tuple[np.ndarray, float]:
    """YaRN (Peng et al. 2023, https://arxiv.org/abs/2309.00071).

    Pairs that turn more than ``beta_fast`` times in the original context are kept, those that turn
    less than ``beta_slow`` times are divided by the factor, those between are blended.
    """
    original = settings.integer("original_max_position_embeddings", context)
    factor = settings.number("factor", context / original)
    size = 2 * len(plain)

    def pair_that_turns(times: float) -> float:
        return size * math.log(original / (times * 2 * math.pi)) / (2 * math.log(theta))

    low = pair_that_turns(settings.number("beta_fast", 32.0))
    high = pair_that_turns(settings.number("beta_slow", 1.0))
    if settings.flag("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, size - 1)
    scaled = np.clip((np.arange(len(plain)) - low) / (high - low or 0.001), 0, 1)
    frequencies = plain / factor * scaled + plain * (1 - scaled)
    return frequencies, settings.number("attention_factor", _yarn_magnitude(factor, settings))


def _yarn_magnitude(factor: float, settings: Settings) -> float:
    def magnitude(scale: float) -> float:
        return 0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0

    over = settings.number("mscale", 0.0, positive=False)
    under = settings.number("mscale_all_dim", 0.0, positive=False)
    return magnitude(over) / magnitude(under) if over and under else magnitude(1.0)


_SCALINGS: dict[str, Callable[..., tuple[np.ndarray, float]]] = {
    "default": _default,
    "linear": _linear,
    # Dynamic scaling begins past the context of the configuration, and no sequence is longer.
    "dynamic": _default,
    "llama3": _llama3,
    "yarn": _yarn,
}
