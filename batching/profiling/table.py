"""A profile as a table of text."""

from __future__ import annotations

from numbatch.batching.operation_stats import format_time
from numbatch.batching.profiling.entry import Entry, Profile

__all__ = ["HEADS", "rows_of", "to_text"]

HEADS = ("kernel", "calls", "time", "of all", "GFLOP/s", "GB/s", "flop/byte", "of the limit")

ABOVE = (
    "More than 100 %: what lies in a cache is read faster than memory, or the machine was busy\n"
    "while its limits were measured."
)


def rows_of(profile: Profile) -> list[tuple[str, ...]]:
    """Return a row for each kernel under ``HEADS``, and one for what lies between them."""
    rows = [_row(entry, profile) for entry in profile.entries]
    rest = profile.between
    share = f"{100 * rest / profile.seconds:.1f} %" if profile.seconds else ""
    return [*rows, ("between kernels", "", format_time(rest), share, "", "", "", "")]


def _row(entry: Entry, profile: Profile) -> tuple[str, ...]:
    share = entry.share_of_limit(profile.limits, profile.arithmetic)
    rate = 1e-9 / entry.seconds if entry.seconds > 0 else 0.0
    return (
        entry.name,
        f"{entry.calls:,}",
        format_time(entry.seconds),
        f"{100 * entry.seconds / profile.seconds:.1f} %",
        f"{entry.operations * rate:.1f}" if entry.operations else "",
        f"{entry.bytes * rate:.2f}" if entry.bytes else "",
        "" if entry.intensity is None else f"{entry.intensity:.2f}",
        "" if share is None else f"{100 * share:.1f} %",
    )


def to_text(profile: Profile) -> str:
    """Return the table, with what was run and the limits above it."""
    limits = profile.limits
    peak = limits.peak(profile.arithmetic)
    plural = "s" if limits.threads > 1 else ""
    lines = [
        f"{profile.title}: {format_time(profile.seconds)}, "
        f"{profile.tokens / profile.seconds:.1f} tokens/s",
        f"Limits of {limits.threads} thread{plural}: {limits.read / 1e9:.1f} GB/s, "
        f"{peak / 1e9:.0f} GFLOP/s in {profile.arithmetic}; they meet at "
        f"{peak / limits.read:.1f} flop/byte",
        "",
    ]
    rows = [HEADS, *rows_of(profile)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADS))]
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    shares = [entry.share_of_limit(limits, profile.arithmetic) or 0 for entry in profile.entries]
    if max(shares, default=0) > 1:
        lines += ["", ABOVE]
    return "\n".join(lines)
