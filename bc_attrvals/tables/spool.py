"""Keeps rows on disk: those of an input from their check to their sending, and tables of cells.

A file is read once. All rows are checked before the first is sent, so what was checked is kept:
a file that is cut or replaced in between changes nothing.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import IO, Final, Generic, TypeAlias, TypeVar, cast

import msgspec

from bc_attrvals.core.models import AttributeValueUpsert
from bc_attrvals.core.named_value import NamedValue
from bc_attrvals.tables.files import temporary_error
from bc_attrvals.tables.rows import BadRow

Kept: TypeAlias = AttributeValueUpsert | NamedValue | BadRow | int
T = TypeVar("T", bound=Kept)

_encode: Final = msgspec.json.Encoder().encode
_decode_named: Final = msgspec.json.Decoder(tuple[int | str, int | str, str]).decode


def _named(line: memoryview) -> NamedValue:
    return NamedValue(*_decode_named(line))


#: The decoder of each kind of row, by the first byte of its line.
_READERS: Final[Mapping[int, Callable[[memoryview], Kept]]] = {
    ord("v"): msgspec.json.Decoder(AttributeValueUpsert).decode,
    ord("n"): _named,
    ord("b"): msgspec.json.Decoder(BadRow).decode,
    ord("i"): msgspec.json.Decoder(int).decode,
}


def scratch_database(*statements: str) -> sqlite3.Connection:
    """Return a private database on disk, without a name, after these statements.

    It is gone once it is closed, so nothing needs a commit. It blocks, and may be used in one
    thread at a time.
    """
    connection = sqlite3.connect("", check_same_thread=False)
    for one in ("PRAGMA journal_mode = OFF", "PRAGMA synchronous = OFF", *statements):
        connection.execute(one)
    return connection


@contextmanager
def _temporary_file() -> Iterator[IO[bytes]]:
    with tempfile.TemporaryFile() as file:
        yield file


class Spool(Generic[T]):
    """Rows in the order they came, in a temporary file that has no name. Blocks.

    `keep` fills it. Iterating it reads it from its start, once at a time. `stack` closes it.
    """

    def __init__(self, stack: ExitStack) -> None:
        self._file = stack.enter_context(_temporary_file())

    def keep(self, rows: Iterable[T]) -> Iterator[T]:
        """Yield rows after writing them to the file."""
        write = self._file.write
        for row in rows:
            try:
                write(_line(row))
            except OSError as error:
                raise temporary_error(error) from None
            yield row

    def __iter__(self) -> Iterator[T]:
        try:
            self._file.seek(0)
        except OSError as error:
            # It writes what is buffered.
            raise temporary_error(error) from None
        for line in self._file:
            yield cast(T, _READERS[line[0]](memoryview(line)[1:]))


def _line(row: Kept) -> bytes:
    # The encoder escapes line breaks in strings, and writes none between tokens.
    if isinstance(row, AttributeValueUpsert):
        return b"v%b\n" % _encode(row)
    if isinstance(row, NamedValue):
        return b"n%b\n" % _encode((row.customer, row.attribute, row.text))
    return (b"b%b\n" if isinstance(row, BadRow) else b"i%b\n") % _encode(row)
