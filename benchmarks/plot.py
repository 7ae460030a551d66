"""Draws the ratios of reading and writing as bars, one group a Python version. No dependencies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

_BAR, _GAP, _LEFT, _WIDTH, _MOST = 16, 5, 230, 720, 12.0


def draw(results: Sequence[Path], target: Path) -> None:
    """Write an SVG of the result files."""
    parts: list[str] = []
    y = 24
    for path in results:
        result = json.loads(path.read_text(encoding="utf-8"))
        python = result["environment"]["python"].split()[-1]
        for title, key in (
            ("Reading, a page of 250", "stream"),
            ("Writing, a PUT of 10", "upsert"),
        ):
            heading = f"{title}: CPU, by-hand aiohttp + orjson = 1 (Python {python})"
            parts.append(f'<text x="8" y="{y}" font-weight="bold">{escape(heading)}</text>')
            y += 10
            for one in result[key]["figures"]:
                ratio = one["ratio"]
                length = max(1.0, min(ratio, _MOST) / _MOST * (_WIDTH - _LEFT - 60))
                colour = "#2a6fdb" if one["name"].startswith("bc_attrvals") else "#9aa4b1"
                middle = y + _BAR - 4
                parts.append(
                    f'<text x="{_LEFT - 8}" y="{middle}" text-anchor="end">'
                    f"{escape(one['name'])}</text>"
                    f'<rect x="{_LEFT}" y="{y}" width="{length:.0f}" height="{_BAR}" '
                    f'fill="{colour}"/>'
                    f'<text x="{_LEFT + length + 6:.0f}" y="{middle}">{ratio:.2f}</text>'
                )
                y += _BAR + _GAP
            y += 26
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{y}" '
        f'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
        + "\n".join(parts)
        + "</svg>\n"
    )
    target.write_text(svg, encoding="utf-8")
