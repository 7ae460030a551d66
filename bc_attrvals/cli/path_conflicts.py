"""Refuses paths of one command that name the same file, by any spelling or link."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Final, TypeAlias

import click

from bc_attrvals.cli.console import refuse
from bc_attrvals.tables.error_text import one_line
from bc_attrvals.tables.files import STANDARD

#: What SQLite keeps beside a database.
_DATABASE_SUFFIXES: Final = ("-journal", "-wal", "-shm")

_Identity: TypeAlias = tuple[object, ...]


def check_paths(
    inputs: Iterable[tuple[str, str | None]],
    outputs: Iterable[tuple[str, str | None]],
    databases: Iterable[tuple[str, str | None]] = (),
    *,
    json: bool = False,
) -> None:
    """Raise `click.UsageError` where an output or a database is also another path of the command.

    Each path comes with the words that name it to the user; None is a path that was not given.
    `databases` are SQLite files, with the files that SQLite keeps beside them. `-` is standard
    input among the inputs and standard output among the outputs, and no database. With `json` the
    latter is taken.
    """
    outputs, databases = list(outputs), list(databases)
    for words, path in databases:
        refuse(path == STANDARD, f"{words} needs a file; - is a standard stream")
    for words, path in outputs if json else ():
        refuse(path == STANDARD, f"--json and {words} can't share stdout; give {words} FILE")
    taken: dict[_Identity, str] = {}
    for words, path in inputs:
        for identity in () if path is None else _identities(path, sys.stdin):
            taken.setdefault(identity, words)
    writing = [(words, path, [path]) for words, path in outputs if path is not None]
    writing += [
        (words, path, [path, *(path + suffix for suffix in _DATABASE_SUFFIXES)])
        for words, path in databases
        if path is not None
    ]
    for words, path, files in writing:
        identities = [one for file in files for one in _identities(file, sys.stdout)]
        for identity in identities:
            if identity in taken:
                message = f"{taken[identity]} and {words} are the same file: {one_line(path)}"
                raise click.UsageError(message)
        taken.update(dict.fromkeys(identities, words))


def _identities(path: str, standard: IO[str] | None) -> Iterator[_Identity]:
    """Yield what two names of one file have in common: its path, and its place on the disk."""
    with suppress(OSError, ValueError):
        if path != STANDARD:
            yield ("path", os.path.normcase(os.path.realpath(path)))
            status = Path(path).stat()
        elif standard is not None:
            yield ("standard stream", standard is sys.stdout)
            # An output may be the file that is standard input, and replace it.
            status = os.fstat(standard.fileno())
        else:
            return
        if stat.S_ISREG(status.st_mode):
            yield ("disk", status.st_dev, status.st_ino)
