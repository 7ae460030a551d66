"""Writes rows as CSV, JSON Lines or Parquet: a row a value, or a row a customer.

The last step of `export`, and of `--failures`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import TypeAlias

import attrs

from bc_attrvals.core.models import AttributeValue
from bc_attrvals.tables.csv_format import CSVRows
from bc_attrvals.tables.files import OutputFile
from bc_attrvals.tables.json_lines import JSONRows
from bc_attrvals.tables.layout import CSV, MOMENTS, PARQUET
from bc_attrvals.tables.parquet import ParquetRows
from bc_attrvals.tables.rows import Written
from bc_attrvals.tables.spool import scratch_database

#: Writes rows under fixed columns; `write` takes rows that have a cell a column. Blocks.
RowWriter: TypeAlias = CSVRows | JSONRows | ParquetRows


def row_writer(
    file: OutputFile,
    format: str,
    columns: Sequence[str],
    *,
    ids: Sequence[str],
    moments: Sequence[str] = (),
    delimiter: str | None = None,
    spreadsheet_safe: bool = False,
) -> RowWriter:
    """Return the writer of a format. The header comes with the first rows, or with the commit.

    `ids` are the columns of integers, `moments` those of datetimes, for formats that have types.
    With `spreadsheet_safe` (only CSV) no cell begins as a formula does. Raises `FileError` where
    Parquet's extra is not installed.
    """
    if format == PARQUET:
        return ParquetRows(file, columns, ids=ids, moments=moments)
    if format == CSV:
        rows = CSVRows(
            file.text, columns, delimiter=delimiter or ",", spreadsheet_safe=spreadsheet_safe
        )
        file.attach(rows.finish)
        return rows
    return JSONRows(file.text, columns)


@attrs.frozen(kw_only=True)
class LongForm:
    """The columns of the long form: three, and those asked for.

    A name or an address that is not known is an empty cell.
    """

    all_columns: bool = False
    names: Mapping[int, str] | None = None
    emails: Mapping[int, str] | None = None

    @property
    def columns(self) -> Sequence[str]:
        """The names of the columns."""
        return [name for name, _ in self._cells()]

    def rows(self, values: Iterable[AttributeValue]) -> Iterator[Sequence[Written]]:
        """Yield the row of each value."""
        cells = [cell for _, cell in self._cells()]
        return ([cell(one) for cell in cells] for one in values)

    def _cells(self) -> Iterator[tuple[str, Callable[[AttributeValue], Written]]]:
        names, emails = self.names, self.emails
        yield "customer_id", attrgetter("customer_id")
        if emails is not None:
            yield "email", lambda one: emails.get(one.customer_id)
        yield "attribute_id", attrgetter("attribute_id")
        if names is not None:
            yield "attribute", lambda one: names.get(one.attribute_id)
        yield "value", attrgetter("attribute_value")
        for name in ("id", *MOMENTS) if self.all_columns else ():
            yield name, attrgetter(name)


class WideTable:
    """Groups values by customer in a temporary database on disk, so that memory stays bounded.

    Blocks; used in one thread at a time.
    """

    def __init__(self, attributes: Iterable[int]) -> None:
        self._slots = {number: place for place, number in enumerate(attributes)}
        self._connection = scratch_database(
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

    def rows(self) -> Iterator[tuple[int, *tuple[str | None, ...]]]:
        """Yield one row a customer, by ascending id: the id and a cell an attribute."""
        statement = "SELECT customer, slot, value FROM cells ORDER BY customer, slot"
        for customer, found in groupby(self._connection.execute(statement), itemgetter(0)):
            cells: list[str | None] = [None] * len(self._slots)
            for _, slot, value in found:
                cells[slot] = value
            yield (customer, *cells)
