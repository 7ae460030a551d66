"""Writes what was not stored in the form of the input, with the reason, to be given in again."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Final

from bc_attrvals.cli.output_rows import RowFile
from bc_attrvals.core.models import AttributeValueUpsert
from bc_attrvals.tables.layout import CSV, FIELDS, PARQUET, Layout
from bc_attrvals.tables.rows import BadRow, Written
from bc_attrvals.tables.text import counted, one_line

__all__ = ["FailureFile"]

_REASON: Final = "reason"


class FailureFile(RowFile):
    """The rows of a `--failures` file, under the column names and in the encoding of the input.

    Its name says its format; by default it is the input's. The wide form has a row for each value,
    whose other cells are empty. So it may not be given in where empty cells are deleted: `layout`
    is then the long form.
    """

    def __init__(self, stack: ExitStack, name: str, layout: Layout, *, same_options: bool) -> None:
        self._how = "with the same options" if same_options else "in long form"
        reason = _REASON
        if layout.customer_column is not None:
            ids: tuple[str, ...] = (layout.customer_column,)
            columns = (layout.customer_column, *layout.attributes)
            places = enumerate(layout.attributes.values(), 1)
            self._places: dict[object, int] | None = {number: place for place, number in places}
        else:
            columns = tuple(layout.columns[field] for field in FIELDS)
            ids, self._places = columns[:2], None
        while reason in columns:
            reason += "_"
        self._width = len(columns)
        super().__init__(stack, name, (*columns, reason), ids=ids, like=layout)

    def item(self, item: AttributeValueUpsert, reason: str) -> None:
        """Write a value that was not stored."""
        self._put((item.customer_id, item.attribute_id, item.value), one_line(reason, 500))

    def bad_row(self, row: BadRow) -> None:
        """Write what is known of a row that was skipped."""
        cells: list[Written] = [row.cells.get(field) for field in FIELDS]
        customer, attribute, value = cells
        if self._format != CSV:
            customer, attribute = _number(customer), _number(attribute)
        if self._format == PARQUET:
            # A cell of another type has no place in its column; the reason shows it.
            customer = customer if type(customer) is int else None
            attribute = attribute if type(attribute) is int else None
            value = value if isinstance(value, str) else None
        self._put((customer, attribute, value), str(row))

    def hint(self) -> str:
        """Return a line for the summary: how the rows are given in again."""
        return f"{counted(self.count, 'row')} in {self.name}, to be given in again {self._how}."

    def _put(self, cells: tuple[Written, Written, Written], reason: str) -> None:
        row: list[Written]
        if self._places is None:
            row = list(cells)
        else:
            customer, attribute, value = cells
            row = [customer, *[None] * (self._width - 1)]
            place = self._places.get(attribute)
            if place is not None:
                row[place] = value
        self.write((*row, reason))


def _number(cell: Written) -> Written:
    if isinstance(cell, str) and cell.isascii() and cell.isdigit() and len(cell) < 16:
        return int(cell)
    return cell
