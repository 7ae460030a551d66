"""Data frames: values out of anything with the Arrow C stream interface, and tables of values."""

from __future__ import annotations

import io
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

import bc_attrvals
from bc_attrvals import (
    AttributeValue,
    AttributeValueUpsert,
    InvalidInputError,
    NamedValue,
    from_arrow,
    to_arrow,
)
from bc_attrvals.tables.files import InputFile
from bc_attrvals.tables.layout import Layout
from bc_attrvals.tables.reader import read_values

pa = pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
parquet = pytest.importorskip("pyarrow.parquet")


class Frame:
    """A data frame of another library: nothing but the interface."""

    def __init__(self, **columns: object) -> None:
        self._table = pa.table(columns)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


def text_of(array: object) -> list[str]:
    count = len(array)
    frame = Frame(customer_id=range(1, count + 1), attribute_id=[1] * count, value=array)
    return [item.value for item in from_arrow(frame)]


def test_the_long_form() -> None:
    assert bc_attrvals.from_arrow is from_arrow
    assert bc_attrvals.to_arrow is to_arrow
    frame = Frame(customer_id=[1.0, 2.0], attribute_id=["3", " 4.0 "], value=["a", ""])
    expected = [AttributeValueUpsert(1, 3, "a"), AttributeValueUpsert(2, 4, "")]
    assert list(from_arrow(frame)) == expected
    renamed = Frame(no=[Decimal("1.0")], attribute=["Tier"], v=["a"])
    columns = {"customer_id": "no", "value": "v"}
    assert list(from_arrow(renamed, columns=columns)) == [NamedValue(1, "Tier", "a")]


def test_the_wide_form() -> None:
    frame = Frame(
        ID=pa.array([1, None, 2], pa.float64()),
        x=pa.array(["a", None, None]),
        y=pa.nulls(3),
        z=[1, None, 3],
    )
    items = from_arrow(frame, customer_column="ID", attributes={"x": 1, "y": 2, "z": 3})
    assert list(items) == [
        AttributeValueUpsert(1, 1, "a"),
        AttributeValueUpsert(1, 3, "1"),
        AttributeValueUpsert(2, 3, "3"),
    ]
    people = pa.table(
        {" E-Mail ": [" a@b.c", "d@e.f"], "Tier": ["gold", None], "Score": [1.5, 2.0]}
    )
    assert list(from_arrow(people, email_column="E-Mail", attributes_by_header=True)) == [
        NamedValue("a@b.c", "Tier", "gold"),
        NamedValue("a@b.c", "Score", "1.5"),
        NamedValue("d@e.f", "Score", "2"),
    ]


@pytest.mark.parametrize(
    ("array", "texts"),
    [
        (pa.array([1, -(2**63)]), ["1", str(-(2**63))]),
        (pa.array([2**64 - 1], pa.uint64()), [str(2**64 - 1)]),
        (pa.array([1.0, 0.1, 1e-7, 2.0**50]), ["1", "0.1", "0.0000001", str(2**50)]),
        (pa.array([0.1, 16777216.0, 3.4e38], pa.float32()), ["0.1", "16777216", "34" + "0" * 37]),
        (pa.array([Decimal("12.50"), Decimal("-0.01")]), ["12.50", "-0.01"]),
        (pa.array([True, False]), ["true", "false"]),
        (pa.array([date(2024, 5, 14)]), ["2024-05-14"]),
        (pa.array([date(2024, 5, 14)], pa.date64()), ["2024-05-14"]),
        (pa.array([0], pa.timestamp("s")), ["1970-01-01T00:00:00"]),
        (
            pa.array([datetime(2024, 5, 14, 9, 34, tzinfo=UTC)], pa.timestamp("us", "CET")),
            ["2024-05-14T09:34:00Z"],
        ),
        (pa.array([-1, 1_500], pa.timestamp("ns", "UTC")),
         ["1969-12-31T23:59:59.999999999Z", "1970-01-01T00:00:00.000001500Z"]),
        (pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
        (pa.array([7, 8]).dictionary_encode(), ["7", "8"]),
        (pa.array(["a"], pa.large_string()), ["a"]),
    ],
    ids=lambda value: str(getattr(value, "type", "")),
)  # fmt: skip
def test_values_of_any_type_become_text_without_loss(array, texts) -> None:
    assert text_of(array) == texts
    file = io.BytesIO()
    table = pa.table(
        {"customer_id": [1] * len(array), "attribute_id": [1] * len(array), "value": array}
    )
    parquet.write_table(table, file)
    found = read_values(InputFile("memory", file), Layout(format="parquet"))
    assert [item.value for item in found] == texts


def test_a_float_of_32_bits_reads_back_to_itself() -> None:
    numbers = pa.array([1 / 3, 2e-45 * 3, 1.1, 123456.79], pa.float32())
    assert pa.array([float(text) for text in text_of(numbers)], pa.float32()) == numbers


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"customer_id": [1, 1.5]}, "row 2: column customer_id: not an integer: 1.5"),
        ({"customer_id": [1, None]}, "row 2: column customer_id: must be an integer, not null"),
        ({"value": ["a", None]}, "row 2: column value: must be a string, not null"),
        ({"value": [1.0, float("nan")]}, "row 2: column value: value must be a finite number"),
        ({"value": ["a", "x" * 256]}, "row 2: column value: value has 256"),
    ],
)
def test_a_bad_row_is_named(columns, words) -> None:
    good = {"customer_id": [1, 2], "attribute_id": [3, 4], "value": ["a", "b"]}
    items = from_arrow(Frame(**(good | columns)))
    next(items)
    with pytest.raises(InvalidInputError) as caught:
        next(items)
    assert str(caught.value).startswith(words)
    assert caught.value.place == "row 2"


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (Frame(customer_id=[1], value=["a"]), "column missing: attribute_id"),
        (
            Frame(Kundennummer=[1], attribute_id=[1], value=["a"]),
            "missing: customer_id; the file has",
        ),
        (
            Frame(customerid=[1], attribute_id=[1], value=["a"]),
            "did you mean 'customerid' for customer_id?",
        ),
        (Frame(customer_id=[b"1"], attribute_id=[1], value=["a"]), "is of type binary"),
        (Frame(email=[1], attribute_id=[1], value=["a"]), "names and addresses are strings"),
        (Frame(customer_id=[1], attribute_id=[1], value=[["a"]]), "values are strings"),
        ([1, 2], "Arrow C stream interface, not be list"),
    ],
)
def test_a_table_of_other_columns_is_refused_at_once(frame, words) -> None:
    with pytest.raises(InvalidInputError) as caught:
        from_arrow(frame)
    assert words in str(caught.value)


def test_stored_values_become_a_table() -> None:
    now = datetime(2024, 5, 14, 9, 34, tzinfo=UTC)
    values = [AttributeValue(7, 1, 2, "a", now, now), AttributeValue(2**40, 3, 4, "", None, None)]
    table = to_arrow(iter(values))
    assert [str(type_) for type_ in table.schema.types] == [
        *("int64", "int64", "string", "int64"),
        *["timestamp[us, tz=UTC]"] * 2,
    ]
    assert table.to_pylist()[0] == {
        "customer_id": 1,
        "attribute_id": 2,
        "value": "a",
        "id": 7,
        "date_created": now,
        "date_modified": now,
    }
    assert [item.value for item in from_arrow(table)] == ["a", ""]
    assert to_arrow([]).schema == table.schema
    assert list(from_arrow(to_arrow([]))) == []
