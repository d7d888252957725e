"""Profiles as one HTML page that needs no other file, each with its roofline."""

from __future__ import annotations

from jinja2 import Environment
from markupsafe import Markup

from numbatch.batching.baseline import svg
from numbatch.batching.profiling.entry import Profile
from numbatch.batching.profiling.table import HEADS, rows_of, to_text

__all__ = ["to_html"]

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Numbatch profile</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 64em; padding: 0 1em }
table { border-collapse: collapse; margin: 1em 0 }
td, th { border-bottom: 1px solid #ccc; padding: .2em .7em; text-align: left; font-weight: normal }
td:not(:first-child) { text-align: right; white-space: nowrap }
svg { max-width: 100%; height: auto; font: 12px system-ui, sans-serif }
svg rect, svg circle { fill: #2f6db3 }
svg line, svg polyline { stroke: #555; fill: none }
</style>
</head>
<body>
<h1>Numbatch profile</h1>
<p>The line is what the machine can do: it rises by the memory's bandwidth, and is flat where
arithmetic is the limit. A kernel on the line cannot become faster without doing less.</p>
{% for part in parts %}<h2>{{ part.title }}</h2>
<p>{{ part.summary }}</p>
{{ part.plot }}
<table><tr>{% for head in heads %}<th>{{ head }}</th>{% endfor %}</tr>
{% for row in part.rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table>
{% endfor %}
</body>
</html>
"""


def to_html(profiles: list[Profile]) -> str:
    """Return the page."""
    parts = [
        {
            "title": profile.title,
            "summary": " ".join(to_text(profile).splitlines()[:2]),
            "plot": Markup(_plot(profile)),
            "rows": rows_of(profile),
        }
        for profile in profiles
    ]
    return Environment(autoescape=True).from_string(PAGE).render(parts=parts, heads=HEADS)


def _plot(profile: Profile) -> str:
    points = [
        (entry.name, entry.intensity, entry.operations / entry.seconds)
        for entry in profile.entries
        if entry.intensity is not None and entry.seconds > 0
    ]
    limits = profile.limits
    return svg.roofline(points, limits.peak(profile.arithmetic), limits.read)
