"""Errors, warnings and questions of the command line, and the forms of numbers in summaries."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from typing import Final

import click

from bc_attrvals.cli.standard_streams import leave
from bc_attrvals.errors import InvalidInputError, JournalError, MirrorError, UnresolvedError
from bc_attrvals.tables.error_text import one_line

#: Errors of the input, of a file or of a name.
NOT_OF_THE_SERVICE: Final = (InvalidInputError, JournalError, MirrorError, UnresolvedError)


class Failure(click.ClickException):
    """Bad input, a question that was answered no, a limit: nothing was done."""

    exit_code = 2


class SomeFailed(Failure):
    """Some items failed."""

    exit_code = 1


class Refused(Failure):
    """Refused by the service, or unreachable."""

    exit_code = 3


class Interrupted(Exception):  # noqa: N818 - not an error: the user asked for it
    """The command was stopped by a signal; `exit_status` is 128 and its number."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.exit_status = 128 + signal_number


def refuse(holds: object, message: str) -> None:
    """Raise `click.UsageError` with a message if a condition holds."""
    if holds:
        raise click.UsageError(message)


def need_terminal(*, yes: bool, stdin_taken: bool, what: str) -> None:
    """Raise `click.UsageError` where there is no terminal to ask on and no `--yes` was given."""
    if not yes and (stdin_taken or sys.stdin is None or not sys.stdin.isatty()):
        raise click.UsageError(f"there is no terminal to ask on; --yes {what} without asking")


def confirm(question: str, otherwise: str) -> None:
    """Ask on stderr; raise `Failure` unless the answer is yes."""
    if not click.confirm(question, err=True):
        raise Failure(otherwise)


def warn(text: str) -> None:
    """Print a warning on stderr, with `--quiet` too."""
    click.echo(one_line(f"Warning: {text}"), err=True)


def print_result(text: str) -> None:
    """Print on stdout; raise `Failure`, which names it, unless it is a broken pipe."""
    try:
        click.echo(text)
    except BrokenPipeError:
        raise
    except OSError as error:
        leave(sys.stdout)
        raise Failure(f"standard output: {error.strerror or error}") from None


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
