"""Text for error messages: one printable line, cut to a length."""

from __future__ import annotations


def one_line(text: str, longest: int = 1_000) -> str:
    """Return text as one printable line; what comes from files and services may hold anything."""
    printable = "".join(one if one.isprintable() else " " for one in text[: longest + 1])
    return printable if len(printable) <= longest else printable[: longest - 1] + "…"


def cut(text: str, longest: int = 40) -> str:
    """Return text quoted and cut, to be shown in an error."""
    return repr(text if len(text) <= longest else text[: longest - 1] + "…")


def counted(count: int, singular: str) -> str:
    """`1 value`, `9,428 values`."""
    return f"{count:,} {singular}{'' if count == 1 else 's'}"
