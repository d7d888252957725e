"""Profiles as one HTML page that needs no other file, each with its roofline."""

from __future__ import annotations

from markupsafe import Markup

from numbatch.batching.baseline import svg
from numbatch.batching.baseline.page import render_page
from numbatch.batching.profiling.entry import Profile
from numbatch.batching.profiling.table import HEADS, rows_of, to_text

__all__ = ["to_html"]

BODY = """<p>The line is what the machine can do: it rises by the memory's bandwidth, and is flat
where arithmetic is the limit. A kernel on the line cannot become faster without doing less; one
above it works on what lies in a cache, or the machine was busy while its limits were measured.</p>
{% for part in parts %}<h2>{{ part.title }}</h2>
<p>{{ part.summary }}</p>
{{ part.plot }}
<table class="numbers"><tr>{% for head in heads %}<th>{{ head }}</th>{% endfor %}</tr>
{% for row in part.rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table>
{% endfor %}"""


def to_html(profiles: list[Profile]) -> str:
    """Return the page."""
    parts = [
        {
            "title": profile.title,
            "summary": ". ".join(to_text(profile).splitlines()[:2]) + ".",
            "plot": Markup(_plot(profile)),
            "rows": rows_of(profile),
        }
        for profile in profiles
    ]
    return render_page("Numbatch profile", BODY, parts=parts, heads=HEADS)


def _plot(profile: Profile) -> str:
    points = [
        (entry.name, entry.intensity, entry.operations / entry.seconds)
        for entry in profile.entries
        if entry.intensity is not None and entry.seconds > 0
    ]
    limits = profile.limits
    return svg.roofline(points, limits.peak(profile.arithmetic), limits.read)
