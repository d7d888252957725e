"""Plots as SVG text, so that a page needs no other file and no plotting library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

__all__ = ["bars", "line", "roofline"]

WIDTH, BAR, LABEL = 760, 22, 300
HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 320, 70, 20, 16, 44
LETTER, LINE = 7, 13
"""Width of a letter at most, and height of a line of text."""

Point = tuple[float, float, float, float]
"""x, y, and the interval of y."""


def bars(rows: Sequence[tuple[str, float]], unit: str) -> str:
    """Draw a horizontal bar for each row, its value behind it; the longest fills the width."""
    most = max((value for _, value in rows), default=0) or 1
    texts = [f"{value:,.4g} {unit}" if value < 1e6 else f"{value:.3g} {unit}" for _, value in rows]
    room = WIDTH - LABEL - 12 - LETTER * max(map(len, texts), default=0)
    parts = []
    for i, (label, value) in enumerate(rows):
        y = i * BAR
        width = room * value / most
        parts.append(
            f'<text x="{LABEL - 8}" y="{y + 15}" text-anchor="end">{escape(label)}</text>'
            f'<rect x="{LABEL}" y="{y + 4}" width="{width:.1f}" height="{BAR - 8}"/>'
            f'<text x="{LABEL + width + 6:.1f}" y="{y + 15}">{escape(texts[i])}</text>'
        )
    return _svg(WIDTH, len(rows) * BAR + 6, parts)


def line(points: Sequence[Point], x_label: str, y_label: str) -> str:
    """Draw y against x, both from 0, with the interval of each point as a vertical stroke."""
    right = max(x for x, *_ in points) * 1.05
    high = max(high for *_, high in points) * 1.1
    x_of = _scale(0, right, LEFT, WIDTH - RIGHT)
    y_of = _scale(0, high, HEIGHT - BOTTOM, TOP)
    parts = _axes(x_label, y_label)
    parts += [_tick_x(x_of(x), f"{x:g}") for x, *_ in points]
    parts += [_tick_y(y_of(y), f"{y:g}") for y in _round_steps(high)]
    path = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y, *_ in points)
    parts.append(f'<polyline points="{path}"/>')
    for x, y, low, top in points:
        parts.append(_stroke(x_of(x), y_of(low), x_of(x), y_of(top)))
        parts.append(f'<circle cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="3.5"/>')
    return _svg(WIDTH, HEIGHT, parts)


def roofline(points: Sequence[tuple[str, float, float]], peak: float, bandwidth: float) -> str:
    """Draw operations a second against operations a byte, both logarithmic, under their limits.

    Parameters
    ----------
    points : (name, operations a byte, operations a second)
    peak : float
        Operations a second that the machine can do.
    bandwidth : float
        Bytes a second that it can read.
    """
    xs = [x for _, x, _ in points] + [peak / bandwidth]
    ys = [y for *_, y in points] + [peak]
    low_x, high_x = min(xs) / 3, max(xs) * 3
    low_y, high_y = min(*ys, low_x * bandwidth) / 2, peak * 3
    x_log = _scale(math.log10(low_x), math.log10(high_x), LEFT, WIDTH - RIGHT)
    y_log = _scale(math.log10(low_y), math.log10(high_y), HEIGHT - BOTTOM, TOP)

    def place(x: float, y: float) -> tuple[float, float]:
        return x_log(math.log10(x)), y_log(math.log10(y))

    parts = _axes("operations a byte", "operations a second")
    for power in range(math.ceil(math.log10(low_x)), math.floor(math.log10(high_x)) + 1):
        parts.append(_tick_x(x_log(power), f"1e{power}"))
    for power in range(math.ceil(math.log10(low_y)), math.floor(math.log10(high_y)) + 1):
        parts.append(_tick_y(y_log(power), f"1e{power}"))
    roof = [place(low_x, low_x * bandwidth), place(peak / bandwidth, peak), place(high_x, peak)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in roof)
    parts.append(f'<polyline points="{path}"/>')
    labels = []
    for name, intensity, rate in points:
        x, y = place(intensity, rate)
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>')
        labels.append((x + 6, y + 4, name))
    for x, y, name in _apart(labels):
        parts.append(f'<text x="{x:.1f}" y="{y:.1f}">{escape(name)}</text>')
    return _svg(WIDTH, HEIGHT, parts)


def _apart(labels: Sequence[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
    """Return labels (x, y, text) from the top down, each below those that it would lie on."""
    placed: list[tuple[float, float, str]] = []
    for x, y, text in sorted(labels, key=lambda label: label[1]):
        for left, top, other in placed:
            beside = x > left + LETTER * len(other) or left > x + LETTER * len(text)
            if not beside and y < top + LINE:
                y = top + LINE
        placed.append((x, y, text))
    return placed


def _scale(low: float, high: float, start: float, stop: float):  # type: ignore[no-untyped-def]
    span = (high - low) or 1
    return lambda value: start + (value - low) / span * (stop - start)


def _round_steps(high: float) -> list[float]:
    """Return four or five round numbers from 0 up to ``high``."""
    raw = high / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(size * power for size in (1, 2, 5, 10) if size * power >= raw)
    return [i * step for i in range(int(high / step) + 1)]


def _axes(x_label: str, y_label: str) -> list[str]:
    middle = (TOP + HEIGHT - BOTTOM) / 2
    return [
        _stroke(LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM),
        _stroke(LEFT, TOP, LEFT, HEIGHT - BOTTOM),
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_label)}</text>',
        f'<text x="14" y="{middle}" text-anchor="middle" '
        f'transform="rotate(-90 14 {middle})">{escape(y_label)}</text>',
    ]


def _tick_x(x: float, text: str) -> str:
    y = HEIGHT - BOTTOM + 16
    return f'<text x="{x:.1f}" y="{y}" text-anchor="middle">{escape(text)}</text>'


def _tick_y(y: float, text: str) -> str:
    return f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{escape(text)}</text>'


def _stroke(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _svg(width: int, height: int, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img">{"".join(parts)}</svg>'
    )
