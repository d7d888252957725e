"""The frame that all reports share: one HTML page that needs no other file."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment
from markupsafe import Markup

__all__ = ["render_page"]

FRAME = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 64em; padding: 0 1em }
table { border-collapse: collapse; margin: 1em 0 }
td, th { border-bottom: 1px solid #ccc; padding: .2em .7em; text-align: left; font-weight: normal }
.numbers td:not(:first-child) { text-align: right; white-space: nowrap }
tr.slower td { background: #fde3e0 } tr.faster td { background: #e0f3e3 }
svg { max-width: 100%; height: auto; font: 12px system-ui, sans-serif }
svg rect, svg circle { fill: #2f6db3 }
svg line, svg polyline { stroke: #555; fill: none }
</style>
</head>
<body>
<h1>{{ title }}</h1>
{{ body }}
</body>
</html>
"""


def render_page(title: str, body: str, **values: Any) -> str:
    """Return a page; ``body`` is a template of its HTML, in which all values are escaped."""
    environment = Environment(autoescape=True)
    inside = Markup(environment.from_string(body).render(**values))
    return environment.from_string(FRAME).render(title=title, body=inside)
