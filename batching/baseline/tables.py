"""The rows that the Markdown and the HTML report share."""

from __future__ import annotations

from statistics import median

from numbatch.batching.baseline.case import Record
from numbatch.batching.baseline.compare import Change
from numbatch.batching.baseline.report import Report
from numbatch.batching.operation_stats import format_time

__all__ = ["CHANGE_HEADS", "RECORD_HEADS", "change_rows", "machine_rows", "record_rows"]

RECORD_HEADS = ("", "median", "95 % interval", "rate", "limit", "of the limit")
CHANGE_HEADS = ("", "before", "now", "now / before", "")


def machine_rows(report: Report) -> list[tuple[str, str]]:
    """Return what ran where, and the limits that were measured."""
    machine, core, team = report.machine, report.core, report.team
    versions = ", ".join(
        f"{name} {machine[name]}" for name in ("numbatch", "python", "numpy", "numba", "llvmlite")
    )
    rows = [
        ("made", report.made),
        ("model", report.model),
        ("CPU", f"{machine['cpu']}, {machine['cores']} cores for this process"),
        ("memory", f"{machine['memory'] / 2**30:.1f} GiB; {machine['system']}"),
        ("versions", versions),
        ("instructions in use", f"{machine['path']}, of {' '.join(machine['features'])}"),
        ("peak memory of this run", f"{report.peak_memory / 1e6:.0f} MB"),
        ("time for all of it", f"{report.seconds:.0f} s, compilation included"),
        ("waited for a processor", f"{_waited(report):.0%} of a case's time, in the median"),
        ("slowest pace", _slowest(report)),
    ]
    for limits in (core, team) if team.threads > 1 else (core,):
        plural = "s" if limits.threads > 1 else ""
        rows.append(
            (
                f"limits of {limits.threads} thread{plural}",
                f"{limits.read / 1e9:.1f} GB/s read, {limits.float32 / 1e9:.0f} GFLOP/s in "
                f"float32, {limits.bfloat16 / 1e9:.0f} in bfloat16, {limits.int8 / 1e9:.0f} GOP/s "
                f"in bytes",
            )
        )
    return rows


def _waited(report: Report) -> float:
    shares = [record.waited for record in report.records]
    return median(shares) if shares else 0.0


def _slowest(report: Report) -> str:
    """Return how much slower the machine was beside one case than beside another."""
    paces = [record.pace for record in report.records]
    if not paces:
        return "not measured"
    arithmetic = [pace.arithmetic for pace in paces]
    reading = [pace.reading for pace in paces]
    return (
        f"{max(arithmetic) / min(arithmetic):.2f} times the fastest in arithmetic, "
        f"{max(reading) / min(reading):.2f} in reading"
    )


def record_rows(records: list[Record]) -> list[tuple[str, ...]]:
    """Return a row for each record under ``RECORD_HEADS``."""
    return [
        (
            record.name,
            format_time(record.median),
            f"{format_time(record.low)} to {format_time(record.high)}",
            f"{_rate(record.rate)} {record.unit}/s",
            "" if record.limit is None else format_time(record.limit),
            "" if record.share is None else f"{100 * record.share:.1f} %",
        )
        for record in records
    ]


def _rate(number: float) -> str:
    """Return four digits, or all before the point."""
    return f"{number:,.0f}" if number >= 1000 else f"{number:.4g}"


def change_rows(changes: list[Change]) -> list[tuple[str, ...]]:
    """Return a row for each change under ``CHANGE_HEADS``."""
    return [
        (
            change.key,
            format_time(change.before),
            format_time(change.after),
            f"{change.ratio:.2f}",
            change.mark,
        )
        for change in changes
    ]
