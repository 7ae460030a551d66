"""Reads an input once: every row is checked, and kept, before anything is sent."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Final, Generic, TypeVar

import attrs
import click

from bc_attrvals.cli.emptying import EmptyCells
from bc_attrvals.cli.settings import Settings
from bc_attrvals.tables.files import InputFile
from bc_attrvals.tables.layout import Layout
from bc_attrvals.tables.reading import read_cells, read_values
from bc_attrvals.tables.rows import BadRow, Entry
from bc_attrvals.tables.spool import Spool
from bc_attrvals.tables.text import counted

T = TypeVar("T", Entry, int | BadRow)

_MOST_SHOWN: Final = 20


class BadInput(click.ClickException):
    """Rows of the input can't be sent. The first of them were printed one by one."""

    exit_code = 2


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

    Raises `BadInput` if there are any, unless they shall be skipped.
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
            raise BadInput(f"{only}; nothing was sent")
        more = f", the first {_MOST_SHOWN} are shown" if shown > _MOST_SHOWN else ""
        message = f"{name}: {counted(bad, 'bad value')}{more}; nothing was sent"
        raise BadInput(message)
    if only is not None and not silent:
        click.echo(only, err=True)
    return Checked(spool, good, bad)


def check_values(
    source: InputFile,
    shape: Layout,
    settings: Settings,
    stack: ExitStack,
    *,
    skip_invalid: bool = False,
    empty_cells: EmptyCells | None = None,
) -> Checked[Entry]:
    """Read the values of a file to its end, as `check` does; `empty_cells` gets the empty ones."""
    if empty_cells is None:
        entries = read_values(source, shape)
    else:
        entries = empty_cells.watch(read_cells(source, shape))
    return check(entries, source.name, settings, stack, skip_invalid=skip_invalid)
