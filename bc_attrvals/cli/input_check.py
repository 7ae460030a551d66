"""Reads an input once: every row is checked, and kept, before anything is sent."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Final, TypeVar

import click

from bc_attrvals.cli.console import Failure
from bc_attrvals.cli.settings import Settings
from bc_attrvals.tables.error_text import counted
from bc_attrvals.tables.rows import BadRow, Entry
from bc_attrvals.tables.spool import Spool

T = TypeVar("T", Entry, int | BadRow)

_MOST_SHOWN: Final = 20


def check(
    entries: Iterable[T],
    name: str,
    settings: Settings,
    stack: ExitStack,
    *,
    skip_invalid: bool = False,
) -> tuple[Iterable[T], int]:
    """Read a file to its end; return its rows, kept in a spool, and how many of them are good.

    Prints the first bad ones on stderr, a line each. `stack` closes the spool.

    Raises `Failure` if there are any, unless they shall be skipped.
    """
    good = bad = 0
    texts: list[str] = []
    spool: Spool[T] = Spool(stack)
    for entry in spool.keep(entries):
        if not isinstance(entry, BadRow):
            good += 1
            continue
        bad += 1
        text = f"{name}: {entry}"
        # A bad customer id makes every cell of its row bad; one line is enough.
        if len(texts) <= _MOST_SHOWN and text not in texts[-1:]:
            texts.append(text)
    problem = None if skip_invalid or not bad else f"{name}: {counted(bad, 'bad value')}"
    if problem is not None and len(texts) == 1:
        raise Failure(f"{texts[0]}; nothing was sent")
    if problem is not None or not settings.quiet:
        for text in texts[:_MOST_SHOWN]:
            click.echo(text, err=True)
    if problem is not None:
        more = f", the first {_MOST_SHOWN} are shown" if len(texts) > _MOST_SHOWN else ""
        raise Failure(f"{problem}{more}; nothing was sent")
    return spool, good
