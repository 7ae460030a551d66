"""Asks before something is lost for good; `--yes` is the answer where nobody can be asked."""

from __future__ import annotations

import sys

import click

__all__ = ["Declined", "confirm", "need_somebody"]


class Declined(click.ClickException):
    """The answer was no; exit status 2."""

    exit_code = 2


def need_somebody(*, yes: bool, stdin_taken: bool, what: str) -> None:
    """Raise `click.UsageError` where nobody can be asked and no `--yes` was given."""
    if not yes and (stdin_taken or sys.stdin is None or not sys.stdin.isatty()):
        raise click.UsageError(f"nobody can be asked here; --yes {what} without asking")


def confirm(question: str, otherwise: str) -> None:
    """Ask on stderr; raise `Declined` unless the answer is yes."""
    if not click.confirm(question, err=True):
        raise Declined(otherwise)
