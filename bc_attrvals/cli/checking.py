"""Reads an input once: every row is checked, and kept, before anything is sent."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Final, Generic, TypeVar

import attrs
import click

from bc_attrvals.cli.console import Failure
from bc_attrvals.cli.settings import Settings
from bc_attrvals.tables.rows import BadRow, Entry
from bc_attrvals.tables.spool import Spool
from bc_attrvals.tables.text import counted

T = TypeVar("T", Entry, int | BadRow)

_MOST_SHOWN: Final = 20


@attrs.frozen
class Checked(Generic[T]):
    """The rows of a file, kept in a spool, and how many of them are good and bad."""

    rows: Iterable[T]
    good: int
    bad: int


def check(
    entries: Iterable[T],
    name: str,
    settings: Settings,
    stack: ExitStack,
    *,
    skip_invalid: bool = False,
) -> Checked[T]:
    """Read a file to its end and keep its rows; print the first bad ones on stderr, a line each.

    `stack` closes what keeps them.

    Raises `Failure` if there are any, unless they shall be skipped.
    """
    good = bad = shown = 0
    previous = ""
    # The first is held back: the only one is the whole message.
    only: str | None = None
    silent = skip_invalid and settings.quiet
    spool: Spool[T] = Spool(stack)
    for entry in spool.keep(entries):
        if not isinstance(entry, BadRow):
            good += 1
            continue
        bad += 1
        text = f"{name}: {entry}"
        # A bad customer id makes every cell of its row bad; one line is enough.
        if text == previous:
            continue
        previous = text
        shown += 1
        if shown == 1:
            only = text
        elif shown <= _MOST_SHOWN and not silent:
            if only is not None:
                click.echo(only, err=True)
                only = None
            click.echo(text, err=True)
    if bad and not skip_invalid:
        if only is not None:
            raise Failure(f"{only}; nothing was sent")
        more = f", the first {_MOST_SHOWN} are shown" if shown > _MOST_SHOWN else ""
        raise Failure(f"{name}: {counted(bad, 'bad value')}{more}; nothing was sent")
    if only is not None and not silent:
        click.echo(only, err=True)
    return Checked(spool, good, bad)
