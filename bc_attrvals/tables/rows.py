"""Makes values of the rows of an input, or reports what is wrong with a row and where.

Between the formats, whose readers return a `Table` of cells, and `reader`. Cells are checked only
here, so that all formats accept and refuse the same.

Ids are integers, as text or as numbers; `5.0` is 5. Values that are no strings become strings by
`value_text`; booleans become `true` and `false`. All of that is lossless, so it has no option.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any, Final, TypeAlias

import attrs

from bc_attrvals.core.models import AttributeValueUpsert, check_id
from bc_attrvals.core.named_value import (
    Item,
    NamedValue,
    check_address,
    check_attribute_name,
    value_text,
)
from bc_attrvals.tables.error_text import cut, one_line
from bc_attrvals.tables.layout import FIELDS, Layout


@attrs.frozen
class BadRow:
    """A row, or a cell of one, that can't be sent.

    `line` counts from 1, in what `unit` says. `cells` is what stands there, by the fields of the
    long form: strings, numbers, booleans or None.
    """

    line: int
    column: str | None
    message: str
    cells: Mapping[str, str | int | float | bool | None] = attrs.field(factory=dict)
    unit: str = "line"

    def __str__(self) -> str:
        column = f", column {self.column}" if self.column else ""
        return one_line(f"{self.unit} {self.line:,}{column}: {self.message}", 300)


@attrs.frozen
class Absent:
    """An empty cell of the wide form: the customer shall have no value for the attribute."""

    customer_id: int | str
    attribute_id: int | str


#: What reading yields for each value of the file.
Entry: TypeAlias = Item | BadRow
#: What it yields where empty cells have a meaning.
Cell: TypeAlias = Entry | Absent
#: (line, cells in the order of `Layout.needed`, or why the row is bad). A cell may be the
#: ValueError to raise when it is needed.
Row: TypeAlias = tuple[int, Sequence[object] | BadRow]
#: A cell to be written; None is an empty cell, or a field left out.
Written: TypeAlias = int | float | str | datetime | None


@attrs.frozen
class Table:
    """The rows of a file, and the layout fitted to it. Places are counted in `unit`."""

    layout: Layout
    rows: Iterator[Row]
    unit: str = "line"


class _Missing:
    """The cell of a field that an object does not have."""


MISSING: Final = _Missing()

_TYPE_NAMES: Final[Mapping[type, str]] = {
    str: "a string",
    bool: "true or false",
    float: "NaN",
    Decimal: "NaN",
    type(None): "null",
    list: "an array",
    dict: "an object",
    bytes: "bytes that are not UTF-8",
    datetime: "a date",
}
_SCIENTIFIC: Final = re.compile(r"[0-9.]+[eE][+-]?[0-9]+$")
#: A float holds all integers up to here.
_LARGEST_WHOLE: Final = 2**53
#: What goes before a customer's id in a column of addresses.
_ID_MARK: Final = "id:"
#: An integer of more digits is no id, and is not parsed.
_MOST_DIGITS: Final = 15


def parse_id(cell: object) -> int:
    """Return the integer that a cell holds, as text or as a number; raise ValueError if none.

    A fraction of zeros is none: `5.0` is 5. Scientific notation is refused, because digits may
    have been lost before it was written.
    """
    if isinstance(cell, str):
        if cell.isascii() and cell.isdigit() and len(cell) <= _MOST_DIGITS:
            return int(cell)
        text = cell.strip()
        whole, _, fraction = text.partition(".")
        if whole.isascii() and whole.isdigit() and len(whole) <= _MOST_DIGITS:
            if not fraction.strip("0"):
                return int(whole)
        elif not text:
            raise ValueError("empty, must be an integer")
        scientific = (
            " (scientific notation may have lost digits)" if _SCIENTIFIC.match(text) else ""
        )
        raise ValueError(f"not an integer: {cut(cell)}{scientific}")
    if type(cell) is int:
        return cell
    if isinstance(cell, float | Decimal) and not _is_blank(cell):
        number = Decimal(cell)
        if not number.is_finite() or number != number.to_integral_value():
            raise ValueError(f"not an integer: {cell}")
        if abs(number) > _LARGEST_WHOLE:
            raise ValueError(f"too large for an id: {cell}")
        return int(number)
    raise ValueError("missing" if cell is MISSING else f"must be an integer, not {_name(cell)}")


def _text(cell: object) -> str:
    """Return the string that a cell is sent as; raise ValueError if there is none."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, ValueError):
        raise cell
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if cell is None or cell is MISSING or isinstance(cell, list | dict | bytes):
        raise ValueError("missing" if cell is MISSING else f"must be a string, not {_name(cell)}")
    return value_text(cell)


def marked(customer_id: int) -> str:
    """Return what stands for a customer without an address in a column of addresses."""
    return f"{_ID_MARK}{customer_id}"


def _address(cell: object) -> str | int:
    text = _text("" if cell is None else cell)
    if text.startswith(_ID_MARK) and "@" not in text:
        return check_id(parse_id(text.removeprefix(_ID_MARK)), "customer_id")
    return check_address(text)


def _attribute_name(cell: object) -> str:
    return check_attribute_name(_text("" if cell is None else cell).strip())


def _name(cell: object) -> str:
    return _TYPE_NAMES.get(type(cell), type(cell).__name__)


def _is_blank(cell: object) -> bool:
    """Whether a cell has no content. Data frames hold NaN for a missing number."""
    if isinstance(cell, float | Decimal):
        return math.isnan(cell)
    return cell is None or (isinstance(cell, str) and not cell.strip())


def entries(table: Table, *, absent: bool = False) -> Iterator[Cell]:
    """Yield the values of each row, and what is bad as `BadRow`. Blank rows are skipped.

    In wide form an empty cell is `Absent` if asked for, else nothing. A bad id makes each value of
    its row bad. It is reported in a row without values too, since that shows a shifted column.
    """
    return _wide_entries(table, absent=absent) if table.layout.wide else _long_entries(table)


def _long_entries(table: Table) -> Iterator[Entry]:
    layout = table.layout
    by_name = layout.fields[1] == "attribute"
    customer_of: _Check = _address if layout.by_email else parse_id
    attribute_of: _Check = _attribute_name if by_name else parse_id
    make: _Make = NamedValue if layout.by_email or by_name else AttributeValueUpsert
    customer_column, attribute_column, value_column = layout.needed
    checks: _Checks = (
        (customer_column, _address if layout.by_email else partial(_check_id, "customer_id")),
        (attribute_column, _attribute_name if by_name else partial(_check_id, "attribute_id")),
        (value_column, _check_value),
    )
    for line, row in table.rows:
        if isinstance(row, BadRow):
            yield row
            continue
        customer, attribute, value = row
        entry: Entry
        try:
            text = value if type(value) is str else _text(value)
            entry = make(customer_of(customer), attribute_of(attribute), text)
        except ValueError:
            if all(map(_is_blank, row)):
                continue
            entry = _refusal(line, (customer, attribute, value), checks, table.unit)
        yield entry


def _wide_entries(table: Table, *, absent: bool) -> Iterator[Cell]:
    key, *columns = table.layout.needed
    check: _Check = _address if table.layout.by_email else partial(_check_id, "customer_id")
    attributes = [
        (attribute, ((key, check), (column, _check_attribute), (column, _check_value)))
        for column, attribute in zip(columns, table.layout.attributes.values(), strict=True)
    ]
    for line, row in table.rows:
        if isinstance(row, BadRow):
            yield row
            continue
        customer: Any = None
        with suppress(ValueError):
            customer = check(row[0])
        some = False
        for (attribute, checks), value in zip(attributes, row[1:], strict=True):
            if value is None or value is MISSING or value == "":
                if absent and customer is not None and value is not MISSING:
                    yield Absent(customer, attribute)
                continue
            some = True
            plain = type(customer) is type(attribute) is int
            make: _Make = AttributeValueUpsert if plain else NamedValue
            entry: Entry
            try:
                entry = make(customer, attribute, value if type(value) is str else _text(value))
            except ValueError:
                entry = _refusal(line, (row[0], attribute, value), checks, table.unit)
            yield entry
        if not some and customer is None and not _is_blank(row[0]):
            bad = _refusal(line, (row[0], 1, ""), ((key, check), *[(key, _text)] * 2), table.unit)
            yield attrs.evolve(bad, cells={})


_Check: TypeAlias = Callable[[object], object]
_Checks: TypeAlias = Sequence[tuple[str, _Check]]
_Make: TypeAlias = Callable[[Any, Any, str], AttributeValueUpsert | NamedValue]


def _check_id(field: str, cell: object) -> int:
    return check_id(parse_id(cell), field)


def _check_attribute(cell: object) -> object:
    return cell if isinstance(cell, int) else _attribute_name(cell)


def _check_value(cell: object) -> str:
    return AttributeValueUpsert(1, 1, _text(cell)).value


def _refusal(line: int, cells: tuple[object, object, object], checks: _Checks, unit: str) -> BadRow:
    """Return the first cell that fails its check as a bad row; at least one does."""
    kept = dict(zip(FIELDS, map(_kept, cells), strict=True))
    for (column, check), cell in zip(checks, cells, strict=True):
        try:
            check(cell)
        except ValueError as error:
            return BadRow(line, column, str(error), kept, unit)
    raise AssertionError(f"no value was made of these cells, and each passes its check: {cells!r}")


def _kept(cell: object) -> str | int | float | bool | None:
    """Return a cell as it can be written again."""
    if isinstance(cell, str):
        # A lone surrogate can't be.
        return cell.encode("utf-8", "replace").decode()
    if cell is None or cell is MISSING:
        return None
    return cell if isinstance(cell, int | float) else one_line(str(cell), 300)
