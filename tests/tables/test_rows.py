"""Cells become ids and values without loss, or are refused with their place."""

from __future__ import annotations

from contextlib import suppress
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bc_attrvals import AttributeValueUpsert, NamedValue
from bc_attrvals.tables.layout import Layout
from bc_attrvals.tables.rows import MISSING, BadRow, Table, entries, marked, parse_id


@given(st.integers(0, 2**53))
def test_an_integer_of_any_type_is_an_id(number) -> None:
    cells = [number, float(number), Decimal(number), Decimal(f"{number}.000")]
    if number < 10**15:
        cells += [str(number), f" {number} ", f"{number}.0", f"{number}.", f"00{number}"[-15:]]
    assert {parse_id(cell) for cell in cells} == {number}


@given(st.floats(allow_nan=True) | st.decimals(allow_nan=True) | st.text(max_size=30))
def test_anything_else_is_none(cell) -> None:
    with suppress(ValueError):
        assert parse_id(cell) == Decimal(cell.strip() if isinstance(cell, str) else cell)


@pytest.mark.parametrize(
    "cell", [True, None, [1], b"1", MISSING, "", "-", 2.0**60, Decimal("1E+30")]
)
def test_other_types_and_large_numbers_are_no_ids(cell) -> None:
    with pytest.raises(ValueError, match=r"integer|missing|large"):
        parse_id(cell)


LONG = Layout().resolved(["customer_id", "attribute_id", "value"], "in.csv")
WIDE = Layout(customer_column="ID", attributes={"x": 1, "y": 2})


def read(layout, *rows) -> list[object]:
    found = entries(Table(layout, iter(enumerate(rows, 1)), "row"))
    return [str(one) if isinstance(one, BadRow) else one for one in found]


@given(st.integers(1, 2**31 - 1))
def test_a_customer_without_an_address_is_read_back_by_id(number) -> None:
    long = Layout(columns={"email": "E"}).resolved(["E", "attribute_id", "value"], "in.csv")
    wide = Layout(email_column="E", attributes={"x": 1})
    for layout, row in ((long, (marked(number), 1, "v")), (wide, (marked(number), "v"))):
        (found,) = read(layout, row)
        assert found in [NamedValue(number, 1, "v"), AttributeValueUpsert(number, 1, "v")]


@pytest.mark.parametrize("cell", ["id:", "id:x", "id:0", "id:-1", f"id:{2**31}", "id:1.5"])
def test_what_is_no_id_behind_the_mark_is_refused(cell) -> None:
    (found,) = read(Layout(email_column="E", attributes={"x": 1}), (cell, "v"))
    assert found.startswith("row 1, column E: ")


def test_rows_without_content_are_skipped() -> None:
    nan = float("nan")
    blank = [("", " ", ""), (None, None, None), (nan, None, None)]
    assert read(LONG, *blank, (1, 2, "a")) == [AttributeValueUpsert(1, 2, "a")]
    assert read(WIDE, *blank[1:], ("", None, ""), (1, "a", None)) == [
        AttributeValueUpsert(1, 1, "a")
    ]


def test_a_bad_id_is_reported_without_values_too() -> None:
    assert read(WIDE, ("x", None, ""), (MISSING, MISSING, MISSING)) == [
        "row 1, column ID: not an integer: 'x'",
        "row 2, column ID: missing",
    ]


def test_what_was_read_is_kept_with_a_bad_row() -> None:
    rows = iter([(7, ("x", 2.5, "\ud800"))])
    (bad,) = entries(Table(LONG, rows))
    assert bad.cells == {"customer_id": "x", "attribute_id": 2.5, "value": "?"}
    assert (bad.line, bad.column, bad.unit) == (7, "customer_id", "line")


def test_a_cell_may_be_the_reason_why_it_can_not_be_read() -> None:
    assert read(LONG, (1, 2, ValueError("a date too far"))) == [
        "row 1, column value: a date too far"
    ]
