"""What a row of an input comes to: values to send, or what is wrong with it and where.

Between the formats, whose readers yield the cells of each row, and `reading`, which puts both
together. Cells are checked here alone, so that all formats refuse the same things.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final, TypeAlias

import attrs

from bc_attrvals.core.models import AttributeValueUpsert, check_id
from bc_attrvals.errors import InvalidInputError
from bc_attrvals.tables.layout import FIELDS, Layout
from bc_attrvals.tables.text import cut, one_line

__all__ = [
    "MISSING",
    "Absent",
    "BadRow",
    "Cell",
    "Entry",
    "Row",
    "Rules",
    "Written",
    "long_entries",
    "parse_id",
    "wide_entries",
]


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

    customer_id: int
    attribute_id: int


#: What reading gives for each value of the file.
Entry: TypeAlias = AttributeValueUpsert | BadRow
#: What it gives where empty cells mean something.
Cell: TypeAlias = Entry | Absent
#: (line, cells in the order of `Layout.needed`, or what spoils the row).
Row: TypeAlias = tuple[int, Sequence[object] | BadRow]
#: A cell to be written; None is an empty cell, or a field left out.
Written: TypeAlias = int | float | str | datetime | None


class _Missing:
    """The cell of a field that an object does not have."""


MISSING: Final = _Missing()

_TYPE_NAMES: Final[Mapping[type, str]] = {
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
    list: "an array",
    dict: "an object",
    bytes: "bytes that are not UTF-8",
}


@attrs.frozen
class Rules:
    """What differs between formats: whether ids may be strings, and what rows are counted in."""

    text_ids: bool = True
    unit: str = "line"


def parse_id(text: str) -> int:
    """Return an id of a CSV cell; raise ValueError with the reason."""
    digits = text.strip(" ")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 15):
        message = "empty, must be an integer" if not digits else f"not an integer: {cut(text)}"
        raise ValueError(message)
    return int(digits)


def long_entries(rows: Iterator[Row], layout: Layout, rules: Rules) -> Iterator[Entry]:
    """Yield the value of each row; cells stand in the order of `FIELDS`."""
    text_ids = rules.text_ids
    for line, row in rows:
        if isinstance(row, BadRow):
            yield row
            continue
        customer, attribute, value = row
        entry: Entry
        try:
            entry = AttributeValueUpsert(
                parse_id(customer) if text_ids and type(customer) is str else customer,  # type: ignore[arg-type]
                parse_id(attribute) if text_ids and type(attribute) is str else attribute,  # type: ignore[arg-type]
                value,  # type: ignore[arg-type]
            )
        except ValueError:
            entry = _refusal(line, (customer, attribute, value), layout.columns, rules)
        yield entry


def wide_entries(
    rows: Iterator[Row], layout: Layout, rules: Rules, *, absent: bool
) -> Iterator[Cell]:
    """Yield the values of each row; cells are the customer's id and then one an attribute.

    A cell that is empty or None is `Absent` if asked for; one that is `MISSING` is nothing. A bad
    id spoils each value of its row, and is told even where there is none: a shifted column is found
    so.
    """
    assert layout.customer_column is not None
    customer_names = {"customer_id": layout.customer_column}
    attributes = [
        (attribute_id, {**customer_names, "value": column})
        for column, attribute_id in layout.attributes.items()
    ]
    for line, row in rows:
        if isinstance(row, BadRow):
            yield row
            continue
        customer = row[0]
        try:
            customer_id: int | None = _customer_id(customer, rules)
        except ValueError:
            customer_id = None
        some = False
        for place, (attribute_id, names) in enumerate(attributes, 1):
            value = row[place]
            if value is None or value == "" or value is MISSING:
                if absent and customer_id is not None and value is not MISSING:
                    yield Absent(customer_id, attribute_id)
                continue
            some = True
            entry: Entry
            try:
                entry = AttributeValueUpsert(customer_id, attribute_id, value)  # type: ignore[arg-type]
            except ValueError:
                entry = _refusal(line, (customer, attribute_id, value), names, rules)
            yield entry
        if not some and customer_id is None:
            bad = _refusal(line, (customer, 1, ""), customer_names, rules)
            yield attrs.evolve(bad, cells={})


def _customer_id(cell: object, rules: Rules) -> int:
    if rules.text_ids and type(cell) is str:
        cell = parse_id(cell)
    # What is no id by its type is found there.
    return check_id(cell, "customer_id")


def _refusal(
    line: int, cells: tuple[object, object, object], columns: Mapping[str, str], rules: Rules
) -> BadRow:
    """Return what is wrong with cells of which some value can't be made, by their columns."""
    column, message = _reason(cells, columns, rules)
    kept = dict(zip(FIELDS, map(_kept, cells), strict=True))
    return BadRow(line, column, message, kept, rules.unit)


def _reason(
    cells: tuple[object, object, object], columns: Mapping[str, str], rules: Rules
) -> tuple[str, str]:
    for field, cell in zip(FIELDS, cells, strict=True):
        column = columns.get(field, field)
        wrong = _wrong_type(cell, is_id=field != "value", rules=rules)
        if wrong is not None:
            return column, wrong
        try:
            if field == "value":
                AttributeValueUpsert(1, 1, cell)  # type: ignore[arg-type]
            else:
                check_id(parse_id(cell) if isinstance(cell, str) else cell, field)
        except InvalidInputError as error:
            return column, str(error)
        except ValueError as error:
            return column, str(error)
    message = f"cells that no value can be made of, and yet each is good: {cells!r}"
    raise AssertionError(message)


def _wrong_type(cell: object, *, is_id: bool, rules: Rules) -> str | None:
    if cell is MISSING:
        return "missing"
    name = _TYPE_NAMES.get(type(cell), type(cell).__name__)
    if is_id:
        fits = type(cell) is int or (rules.text_ids and type(cell) is str)
        return None if fits else f"must be an integer, not {name}"
    if type(cell) is str:
        return None
    hint = '; values are strings, as in "12.50"' if type(cell) in {int, float} else ""
    return f"must be a string, not {name}{hint}"


def _kept(cell: object) -> str | int | float | bool | None:
    """Return a cell as it can be written again."""
    if isinstance(cell, str):
        # A lone surrogate can't be.
        return cell.encode("utf-8", "replace").decode()
    if cell is None or cell is MISSING:
        return None
    return cell if isinstance(cell, int | float) else one_line(repr(cell), 300)
