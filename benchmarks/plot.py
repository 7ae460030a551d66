"""Draws the seconds of jobs and the CPU of calls as bars, one group a question. No dependencies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from xml.sax.saxutils import escape

_BAR, _GAP, _LEFT, _WIDTH = 16, 5, 230, 720


def _groups(result: dict[str, Any], python: str) -> Iterator[tuple[str, list[tuple[str, float]]]]:
    """Yield headings, and bars as (name, length)."""
    by_job: dict[tuple[str, int], list[tuple[str, float]]] = {}
    for one in result["jobs"]["results"]:
        bar = (one["contender"], one["seconds"] / one["ideal_seconds"])
        by_job.setdefault((one["job"], one["latency_ms"]), []).append(bar)
    slowest = max(latency_ms for _, latency_ms in by_job)
    for (job, latency_ms), bars in by_job.items():
        if latency_ms == slowest:
            yield f"{job}, {latency_ms} ms: seconds, the ideal = 1 (Python {python})", bars
    for title, key in (("Reading a page of 250", "page"), ("Writing a PUT of 10", "put")):
        bars = [(one["name"], one["ratio"]) for one in result["cpu"]["tls"][key]]
        yield f"{title} over TLS: CPU, by hand = 1 (Python {python})", bars


def drawn(result: dict[str, Any]) -> str:
    """Return an SVG of one result."""
    parts: list[str] = []
    y = 24
    for heading, bars in _groups(result, result["environment"]["python"].split()[-1]):
        parts.append(f'<text x="8" y="{y}" font-weight="bold">{escape(heading)}</text>')
        y += 10
        longest = max(ratio for _, ratio in bars)
        for name, ratio in bars:
            length = max(1.0, ratio / longest * (_WIDTH - _LEFT - 60))
            colour = "#2a6fdb" if name.startswith("bc_attrvals") else "#9aa4b1"
            middle = y + _BAR - 4
            parts.append(
                f'<text x="{_LEFT - 8}" y="{middle}" text-anchor="end">{escape(name)}</text>'
                f'<rect x="{_LEFT}" y="{y}" width="{length:.0f}" height="{_BAR}" '
                f'fill="{colour}"/>'
                f'<text x="{_LEFT + length + 6:.0f}" y="{middle}">{ratio:.2f}</text>'
            )
            y += _BAR + _GAP
        y += 26
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{y}" '
        f'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
        + "\n".join(parts)
        + "</svg>\n"
    )
