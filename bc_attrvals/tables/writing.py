"""Writes rows as CSV, JSON Lines or Parquet: a row a value, or a row a customer.

The last step of `export`, and of `--failures`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Protocol

import attrs

from bc_attrvals.core.models import AttributeValue
from bc_attrvals.tables.csv_format import CSVRows
from bc_attrvals.tables.files import OutputFile
from bc_attrvals.tables.json_lines import JSONRows
from bc_attrvals.tables.layout import CSV, FIELDS, PARQUET
from bc_attrvals.tables.parquet import ParquetRows
from bc_attrvals.tables.rows import Written
from bc_attrvals.tables.spool import scratch_database

MOMENTS: Final = ("date_created", "date_modified")
#: Columns of the long form that hold integers.
IDS: Final = ("customer_id", "attribute_id", "id")


class RowWriter(Protocol):
    """Writes rows under fixed columns. Blocks."""

    def write(self, rows: Iterable[Sequence[Written]]) -> None:
        """Write rows; each has a cell a column."""


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
    """Return the writer of a format, with its header written.

    `ids` are the columns of integers, `moments` those of datetimes, for formats that have types.
    With `spreadsheet_safe` (CSV alone) no cell begins as a formula does. Raises `FileError` where
    Parquet's extra is not installed.
    """
    if format == PARQUET:
        return ParquetRows(file, columns, ids=ids, moments=moments)
    if format == CSV:
        return CSVRows(
            file.text, columns, delimiter=delimiter or ",", spreadsheet_safe=spreadsheet_safe
        )
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
        customer, attribute, value = FIELDS
        return (
            customer,
            *(() if self.emails is None else ("email",)),
            attribute,
            *(() if self.names is None else ("attribute",)),
            value,
            *(("id", *MOMENTS) if self.all_columns else ()),
        )

    def rows(self, values: Iterable[AttributeValue]) -> Iterator[Sequence[Written]]:
        """Yield the row of each value."""
        names, emails = self.names, self.emails
        for one in values:
            row: list[Written] = [one.customer_id]
            if emails is not None:
                row.append(emails.get(one.customer_id))
            row.append(one.attribute_id)
            if names is not None:
                row.append(names.get(one.attribute_id))
            row.append(one.attribute_value)
            if self.all_columns:
                row += (one.id, one.date_created, one.date_modified)
            yield row


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
