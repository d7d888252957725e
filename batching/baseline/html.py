"""A baseline as one HTML page that needs no other file."""

from __future__ import annotations

from markupsafe import Markup

from numbatch.batching.baseline import svg
from numbatch.batching.baseline.case import Record
from numbatch.batching.baseline.compare import Change
from numbatch.batching.baseline.markdown import NOTE
from numbatch.batching.baseline.page import render_page
from numbatch.batching.baseline.report import Report
from numbatch.batching.baseline.tables import (
    CHANGE_HEADS,
    RECORD_HEADS,
    change_rows,
    machine_rows,
    record_rows,
)

__all__ = ["to_html"]

BODY = """<table>{% for name, text in machine %}<tr><th>{{ name }}</th><td>{{ text }}</td></tr>
{% endfor %}</table>
<p>{{ note }}</p>
{% if changes is not none %}<h2>Changes</h2>
<table class="numbers"><tr>{% for head in change_heads %}<th>{{ head }}</th>{% endfor %}</tr>
{% for row in changes %}<tr class="{{ row[-1] }}">
{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table>{% endif %}
{% for group in groups %}<h2>{{ group.title }}</h2>
{{ group.plot }}
<table class="numbers"><tr>{% for head in heads %}<th>{{ head }}</th>{% endfor %}</tr>
{% for row in group.rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table>
{% endfor %}"""


def to_html(report: Report, changes: list[Change] | None = None) -> str:
    """Return the page: tables as in the Markdown report, and a plot of each group."""
    groups = [
        {"title": group.capitalize(), "plot": _plot(group, records), "rows": record_rows(records)}
        for group, records in report.groups().items()
    ]
    return render_page(
        "Numbatch baseline",
        BODY,
        machine=machine_rows(report),
        note=NOTE,
        heads=RECORD_HEADS,
        change_heads=CHANGE_HEADS,
        changes=None if changes is None else change_rows(changes),
        groups=groups,
    )


def _plot(group: str, records: list[Record]) -> Markup:
    drawn = svg.bars([(record.name, record.rate) for record in records], f"{records[0].unit}/s")
    points = [
        (float(record.name.split()[0]), *_rates(record))
        for record in records
        if record.name.endswith(("sequence", "sequences"))
    ]
    if len(points) > 1:
        drawn = svg.line(points, "sequences at once", f"{records[0].unit} a second") + drawn
    return Markup(drawn)


def _rates(record: Record) -> tuple[float, float, float]:
    """Return the rate at the median, and its interval."""
    amount = record.rate * record.median
    return record.rate, amount / record.high, amount / record.low
