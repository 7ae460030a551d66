"""Writes rows as CSV (RFC 4180), JSON Lines, Parquet: values as they come, or one row a customer.

The last step of `export`, and of `--failures`.
"""

from __future__ import annotations

import csv
import json
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import IO, Final, Protocol, TypeAlias

from bc_attrvals.core.models import AttributeValue
from bc_attrvals.tables.files import OutputFile
from bc_attrvals.tables.layout import CSV, FIELDS, PARQUET, Layout
from bc_attrvals.tables.parquet_writing import ParquetRows

__all__ = [
    "ALL_COLUMNS",
    "IDS",
    "MOMENTS",
    "Cell",
    "RowWriter",
    "WideTable",
    "long_rows",
    "row_writer",
]

MOMENTS: Final = ("date_created", "date_modified")
ALL_COLUMNS: Final = (*FIELDS, "id", *MOMENTS)
#: Columns of the long form that hold integers.
IDS: Final = ("customer_id", "attribute_id", "id")

#: None is an empty cell, or a field left out.
Cell: TypeAlias = int | float | str | datetime | None

# What makes a spreadsheet run a cell (OWASP, "CSV Injection"), with the full-width forms.
_FORMULA: Final = re.compile(r"[\t\r\n]|\s*[=+\-@＝＋－＠]")
_NUMBER: Final = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)


class RowWriter(Protocol):
    """Writes rows under fixed columns. Blocks."""

    def write(self, rows: Iterable[Sequence[Cell]]) -> None:
        """Write rows; each has a cell a column."""


def row_writer(
    file: OutputFile,
    format: str,
    columns: Sequence[str],
    *,
    ids: Sequence[str],
    moments: Sequence[str] = (),
    spreadsheet_safe: bool = False,
) -> RowWriter:
    """Return the writer of a format, with its header written.

    `ids` are the columns of integers, `moments` those of datetimes, for formats that have types.
    With `spreadsheet_safe` (CSV alone) no cell begins as a formula does. Raises `FileError` where
    Parquet's extra is not installed.
    """
    if format == PARQUET:
        return ParquetRows(file, columns, ids=ids, moments=moments)
    if format == CSV:
        return CSVRows(file.text, columns, spreadsheet_safe=spreadsheet_safe)
    return JSONRows(file.text, columns)


class CSVRows:
    """Rows of CSV below a header."""

    def __init__(
        self, text: IO[str], columns: Sequence[str], *, spreadsheet_safe: bool = False
    ) -> None:
        self._writer = csv.writer(text)
        self._safe = spreadsheet_safe
        self.write([columns])

    def write(self, rows: Iterable[Sequence[Cell]]) -> None:
        """Write rows; None is an empty cell."""
        if self._safe:
            rows = ([_harmless(cell) for cell in row] for row in rows)
        self._writer.writerows([_plain(cell) for cell in row] for row in rows)


def _harmless(cell: Cell) -> Cell:
    if isinstance(cell, str) and _FORMULA.match(cell) and not _NUMBER.fullmatch(cell):
        return "'" + cell
    return cell


class JSONRows:
    """Rows of JSON Lines."""

    def __init__(self, text: IO[str], columns: Sequence[str]) -> None:
        self._text = text
        self._columns = tuple(columns)

    def write(self, rows: Iterable[Sequence[Cell]]) -> None:
        """Write rows; None is a field left out."""
        for row in rows:
            fields = {
                name: _plain(cell)
                for name, cell in zip(self._columns, row, strict=True)
                if cell is not None
            }
            self._text.write(json.dumps(fields, ensure_ascii=False) + "\n")


def _plain(cell: Cell) -> int | float | str | None:
    if isinstance(cell, datetime):
        return cell.replace(tzinfo=None).isoformat(timespec="seconds") + "Z"
    return cell


def long_rows(values: Iterable[AttributeValue], *, all_columns: bool) -> Iterator[Sequence[Cell]]:
    """Yield the rows of the long form."""
    for value in values:
        row = (value.customer_id, value.attribute_id, value.attribute_value)
        if all_columns:
            yield (*row, value.id, value.date_created, value.date_modified)
        else:
            yield row


class WideTable:
    """Groups values by customer in a temporary database on disk, so that memory stays bounded.

    Blocks; used in one thread at a time.
    """

    def __init__(self, layout: Layout) -> None:
        self._slots = {number: place for place, number in enumerate(layout.attributes.values())}
        # An empty name is a private file of SQLite's own, removed when it is closed.
        self._connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode = OFF", "synchronous = OFF"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.execute(
            "CREATE TABLE cells (customer INTEGER, slot INTEGER, value TEXT,"
            " PRIMARY KEY (customer, slot)) WITHOUT ROWID"
        )

    def close(self) -> None:
        """Drop the database."""
        self._connection.close()

    def add(self, values: Iterable[AttributeValue]) -> None:
        """Take values; those of attributes without a column are left out."""
        self._connection.executemany(
            "INSERT OR REPLACE INTO cells VALUES (?, ?, ?)",
            (
                (value.customer_id, self._slots[value.attribute_id], value.attribute_value)
                for value in values
                if value.attribute_id in self._slots
            ),
        )

    def rows(self) -> Iterator[Sequence[Cell]]:
        """Yield one row a customer, by ascending id: the id and a cell an attribute."""
        cells: list[str | None] = []
        present: int | None = None
        statement = "SELECT customer, slot, value FROM cells ORDER BY customer, slot"
        for customer, slot, value in self._connection.execute(statement):
            if customer != present:
                if present is not None:
                    yield (present, *cells)
                present, cells = customer, [None] * len(self._slots)
            cells[slot] = value
        if present is not None:
            yield (present, *cells)
