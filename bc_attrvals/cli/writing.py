"""Writes values as CSV (RFC 4180) and JSON Lines: rows as they come, or one row a customer."""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import IO

from bc_attrvals.cli.layout import CSV, FIELDS, Layout
from bc_attrvals.cli.reading import BadRow
from bc_attrvals.cli.text import one_line
from bc_attrvals.core.models import AttributeValue, AttributeValueUpsert

__all__ = ["ALL_COLUMNS", "FailureWriter", "RowWriter", "WideTable"]

ALL_COLUMNS = (*FIELDS, "id", "date_created", "date_modified")


class RowWriter:
    """Writes rows under fixed columns; a CSV header comes first. Blocks."""

    def __init__(self, text: IO[str], format: str, columns: Sequence[str]) -> None:
        self._text = text
        self._columns = tuple(columns)
        self._csv = csv.writer(text) if format == CSV else None
        if self._csv is not None:
            self._csv.writerow(self._columns)

    def write(self, rows: Iterable[Sequence[int | float | str | None]]) -> None:
        """Write rows; None is an empty cell, or a field left out."""
        if self._csv is not None:
            self._csv.writerows(rows)
            return
        for row in rows:
            fields = {
                name: cell
                for name, cell in zip(self._columns, row, strict=True)
                if cell is not None
            }
            self._text.write(json.dumps(fields, ensure_ascii=False) + "\n")


def long_rows(
    values: Iterable[AttributeValue], *, all_columns: bool
) -> Iterator[Sequence[int | str | None]]:
    """Yield the rows of the long form."""
    for value in values:
        row = (value.customer_id, value.attribute_id, value.attribute_value)
        if all_columns:
            dates = (_moment(value.date_created), _moment(value.date_modified))
            yield (*row, value.id, *dates)
        else:
            yield row


def _moment(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    return moment.replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


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

    def rows(self) -> Iterator[Sequence[int | str | None]]:
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


class FailureWriter:
    """Writes what was not stored in long form with a `reason`, fit to be read in again."""

    def __init__(self, text: IO[str], format: str) -> None:
        self._rows = RowWriter(text, format, (*FIELDS, "reason"))
        self._format = format
        self.count = 0

    def item(self, item: AttributeValueUpsert, reason: str) -> None:
        """Write a value that was not stored."""
        self.count += 1
        row = (item.customer_id, item.attribute_id, item.value, one_line(reason, 500))
        self._rows.write([row])

    def bad_row(self, row: BadRow) -> None:
        """Write what is there of a row that was skipped."""
        self.count += 1
        cells: list[str | int | float | None] = [row.cells.get(field) for field in FIELDS]
        if self._format == CSV:
            cells = ["" if cell is None else cell for cell in cells]
        self._rows.write([(*cells, str(row))])
