"""The first reading of an input: every row is looked at before anything is sent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import attrs
import click

from bc_attrvals.cli.reading import BadRow
from bc_attrvals.cli.settings import Settings
from bc_attrvals.cli.text import counted

__all__ = ["Checked", "check"]

_MOST_SHOWN: Final = 20


class BadInput(click.ClickException):
    """Rows of the input that can't be sent; they have been told one by one."""

    exit_code = 2


@attrs.frozen
class Checked:
    """How much a file holds."""

    good: int
    bad: int


def check(
    entries: Iterable[object], name: str, settings: Settings, *, skip_invalid: bool = False
) -> Checked:
    """Read a file to its end; tell the first bad rows on stderr.

    Raises `BadInput` if there are any, unless they shall be skipped.
    """
    good = bad = shown = 0
    previous = ""
    for entry in entries:
        if not isinstance(entry, BadRow):
            good += 1
            continue
        bad += 1
        text = str(entry)
        # A bad customer id spoils every cell of its row, and is told once.
        if text != previous and shown < _MOST_SHOWN:
            shown += 1
            if not (skip_invalid and settings.quiet):
                click.echo(f"{name}: {text}", err=True)
        previous = text
    if bad and not skip_invalid:
        more = f", the first {_MOST_SHOWN} are shown" if bad > _MOST_SHOWN else ""
        message = f"{name}: {counted(bad, 'bad value')}{more}; nothing was sent"
        raise BadInput(message)
    return Checked(good, bad)
