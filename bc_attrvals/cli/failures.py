"""Writes what was not stored in the form of the input, with the reason, to be given in again."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Final

from bc_attrvals.cli.output_rows import RowFile
from bc_attrvals.core.models import AttributeValueUpsert
from bc_attrvals.core.named_value import NamedValue
from bc_attrvals.tables.layout import CSV, FIELDS, PARQUET, Layout
from bc_attrvals.tables.rows import BadRow, Written, marked
from bc_attrvals.tables.text import counted, one_line

_REASON: Final = "reason"


class FailureFile(RowFile):
    """The rows of a `--failures` file, under the column names and in the encoding of the input.

    Its name says its format; by default it is the input's. The wide form has a row for each value,
    whose other cells are empty. So it may not be given in where empty cells are deleted: `layout`
    is then the long form. Where every column is the attribute of its name (`by_header`), the
    column of the reasons has no name.
    """

    def __init__(
        self,
        stack: ExitStack,
        name: str,
        layout: Layout,
        *,
        same_options: bool,
        by_header: bool = False,
    ) -> None:
        self._how = "with the same options" if same_options else "in long form"
        reason = "" if by_header else _REASON
        columns = layout.needed
        self._places: dict[object, int] | None = None
        self._ids = (not layout.by_email, layout.fields[1] == FIELDS[1])
        if layout.wide:
            places = enumerate(layout.attributes.values(), 1)
            self._places = {attribute: place for place, attribute in places}
            ids = columns[:1] if self._ids[0] else ()
        else:
            ids = tuple(name for name, is_id in zip(columns, self._ids, strict=False) if is_id)
        while reason in columns:
            reason += "_"
        self._width = len(columns)
        super().__init__(stack, name, (*columns, reason), ids=ids, like=layout)

    def item(self, item: AttributeValueUpsert | NamedValue, reason: str) -> None:
        """Write a value that was not stored."""
        if isinstance(item, NamedValue):
            customer, attribute, value = item.customer, item.attribute, item.text
        else:
            customer, attribute, value = item.customer_id, item.attribute_id, item.value
        if isinstance(customer, int) and not self._ids[0]:
            customer = marked(customer)
        self._put((customer, attribute, value), one_line(reason, 500))

    def bad_row(self, row: BadRow) -> None:
        """Write what is known of a row that was skipped."""
        cells: list[Written] = [row.cells.get(field) for field in FIELDS]
        customer, attribute, value = cells
        if self._format != CSV:
            customer = _typed(customer, self._ids[0])
            if self._places is None:
                attribute = _typed(attribute, self._ids[1])
        if self._format == PARQUET:
            # A cell of another type has no place in its column; the reason shows it.
            customer = customer if isinstance(customer, int) == self._ids[0] else None
            if self._places is None and isinstance(attribute, int) != self._ids[1]:
                attribute = None
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


def _typed(cell: Written, is_id: bool) -> Written:
    if is_id and isinstance(cell, str) and cell.isascii() and cell.isdigit() and len(cell) < 16:
        return int(cell)
    return cell
