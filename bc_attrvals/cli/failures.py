"""Writes what was not stored in the form of the input, with the reason: to be given in again."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Final

from bc_attrvals.core.models import AttributeValueUpsert
from bc_attrvals.tables.files import OutputFile
from bc_attrvals.tables.layout import CSV, ENCODING, FIELDS, PARQUET, Layout, file_format
from bc_attrvals.tables.rows import BadRow, Written
from bc_attrvals.tables.text import one_line
from bc_attrvals.tables.writing import row_writer

__all__ = ["FailureWriter", "open_failures"]

_REASON: Final = "reason"


def open_failures(
    name: str | None, layout: Layout, stack: ExitStack
) -> tuple[OutputFile | None, FailureWriter | None]:
    """Begin the `--failures` file, if any: of the input's encoding, so that the options fit both.

    Its format is told by its name, and is the input's by default. The stack closes it; to
    `commit` it is the caller's. Raises `FileError`.
    """
    if name is None:
        return None, None
    form = file_format(name, None, layout.format)
    encoding = "utf-8" if layout.encoding == ENCODING else layout.encoding
    file = stack.enter_context(OutputFile(name, encoding))
    return file, FailureWriter(file, form, layout)


class FailureWriter:
    """The rows of a `--failures` file, under the input's own names of columns.

    The wide form has a row for each value, whose other cells are empty; so it may not be given in
    where empty cells are deleted. Blocks, for a moment.
    """

    def __init__(self, file: OutputFile, format: str, layout: Layout) -> None:
        """Begin, with a header. Raises `FileError` where the format's extra is not installed."""
        self.count = 0
        self._format = format
        reason = _REASON
        if layout.customer_column is not None:
            ids: tuple[str, ...] = (layout.customer_column,)
            self._columns: tuple[str, ...] = (layout.customer_column, *layout.attributes)
            places = enumerate(layout.attributes.values(), 1)
            self._places: dict[object, int] | None = {number: place for place, number in places}
        else:
            self._columns = tuple(layout.columns[field] for field in FIELDS)
            ids, self._places = self._columns[:2], None
        while reason in self._columns:
            reason += "_"
        self._rows = row_writer(
            file, format, (*self._columns, reason), ids=ids, delimiter=layout.delimiter
        )

    def item(self, item: AttributeValueUpsert, reason: str) -> None:
        """Write a value that was not stored."""
        self._write((item.customer_id, item.attribute_id, item.value), one_line(reason, 500))

    def bad_row(self, row: BadRow) -> None:
        """Write what is there of a row that was skipped."""
        cells: list[Written] = [row.cells.get(field) for field in FIELDS]
        customer, attribute, value = cells
        if self._format != CSV:
            customer, attribute = _number(customer), _number(attribute)
        if self._format == PARQUET:
            # What is of another type has no place in its column; the reason shows it.
            customer = customer if type(customer) is int else None
            attribute = attribute if type(attribute) is int else None
            value = value if isinstance(value, str) else None
        self._write((customer, attribute, value), str(row))

    def _write(self, cells: tuple[Written, Written, Written], reason: str) -> None:
        self.count += 1
        row: list[Written]
        if self._places is None:
            row = list(cells)
        else:
            customer, attribute, value = cells
            row = [customer, *[None] * (len(self._columns) - 1)]
            place = self._places.get(attribute)
            if place is not None:
                row[place] = value
        self._rows.write([(*row, reason)])


def _number(cell: Written) -> Written:
    if isinstance(cell, str) and cell.isascii() and cell.isdigit() and len(cell) < 16:
        return int(cell)
    return cell
