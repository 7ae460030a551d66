"""Asks before data is deleted; `--yes` is the answer where there is no terminal to ask on."""

from __future__ import annotations

import sys

import click


class Declined(click.ClickException):
    """The answer was no; exit status 2."""

    exit_code = 2


def need_terminal(*, yes: bool, stdin_taken: bool, what: str) -> None:
    """Raise `click.UsageError` where there is no terminal to ask on and no `--yes` was given."""
    if not yes and (stdin_taken or sys.stdin is None or not sys.stdin.isatty()):
        raise click.UsageError(f"there is no terminal to ask on; --yes {what} without asking")


def confirm(question: str, otherwise: str) -> None:
    """Ask on stderr; raise `Declined` unless the answer is yes."""
    if not click.confirm(question, err=True):
        raise Declined(otherwise)
