"""Words and numbers of summaries, progress bars and help pages."""

from __future__ import annotations

import math
from collections.abc import Iterable


def rate(count: int, seconds: float) -> str:
    """`3,041 values/s`."""
    return f"{count / seconds:,.0f} values/s" if seconds > 0 else "-"


def duration(seconds: float) -> str:
    """`12 s`, `3 min 05 s`, `2 h 10 min`; rounded up."""
    whole = math.ceil(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3_600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3_600} h {whole % 3_600 // 60:02} min"


def table(rows: Iterable[tuple[str, str]]) -> str:
    """Return lines of a name and, right-aligned, what belongs to it."""
    rows = list(rows)
    names = max((len(name) for name, _ in rows), default=0)
    width = max((len(text) for _, text in rows), default=0)
    return "\n".join(f"  {name:<{names}}  {text:>{width}}" for name, text in rows)


def examples(*lines: str) -> str:
    """Return the part of a help page that shows how a command is used."""
    # The mark keeps click from filling the lines.
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])
