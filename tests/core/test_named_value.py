"""`NamedValue`: what it takes, and the strings that numbers and dates become."""

from __future__ import annotations

import numbers
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bc_attrvals import AttributeTypeError, InvalidInputError
from bc_attrvals.core.models import AttributeValueUpsert, check_id
from bc_attrvals.core.named_value import (
    NamedValue,
    Value,
    address_key,
    check_address,
    check_type,
    value_text,
)


class Int64:
    """An integer that is no `int`, as numpy's are."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __int__(self) -> int:
        return self.number


numbers.Integral.register(Int64)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("12.50", "12.50"),
        ("", ""),
        (7, "7"),
        (-(2**70), str(-(2**70))),
        (Int64(9), "9"),
        (12.0, "12"),
        (0.1, "0.1"),
        (-0.0, "0"),
        (Decimal("-0.00"), "0.00"),
        (1e-7, "0.0000001"),
        (1e22, "1" + "0" * 22),
        (Decimal("12.50"), "12.50"),
        (Decimal("1E+3"), "1000"),
        (Decimal("-1E-9"), "-0.000000001"),
        (date(2024, 5, 14), "2024-05-14"),
        (date.min, "0001-01-01"),
        (datetime(2024, 5, 14, 9, 34), "2024-05-14T09:34:00"),
        (datetime(2024, 5, 14, 9, 34, tzinfo=UTC), "2024-05-14T09:34:00Z"),
        (
            datetime(2024, 5, 14, 1, 0, 0, 500, tzinfo=timezone(timedelta(hours=2))),
            "2024-05-13T23:00:00.000500Z",
        ),
    ],
)
def test_values_become_strings(value, text) -> None:
    item = NamedValue("jane@example.com", "Tier", value)
    assert (item.text, value_text(value)) == (text, text)
    assert item.value is value


@settings(deadline=None, max_examples=300)
@given(
    st.floats(-1e200, 1e200, allow_nan=False).filter(lambda one: not one or abs(one) > 1e-200),
    st.integers(),
    st.decimals(-(10**30), 10**30),
)
def test_a_number_can_be_read_back(number, integer, decimal) -> None:
    assert float(value_text(number)) == number
    assert "e" not in value_text(number).lower()
    assert int(value_text(integer)) == integer
    if decimal.is_finite():
        assert Decimal(value_text(decimal)) == decimal


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), Decimal("NaN"), Decimal("-Infinity"), Decimal("1E+300"), 1e300,
     10**5_000, 10**255, True, None, b"x", [1], "x" * 256, "\ud800"],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_a_value_that_no_string_holds_is_refused(value) -> None:
    with pytest.raises(InvalidInputError) as caught:
        NamedValue(1, 1, value)
    assert caught.value.field == "value"
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "address",
    ["", "  ", "jane", "@", "jane@", "@example.com", "a,b@example.com", "a\n@example.com",
     "a\0@b", "x" * 250 + "@b.com", "\ud800@example.com"],
)  # fmt: skip
def test_an_address_that_can_not_be_asked_for_is_refused(address) -> None:
    with pytest.raises(InvalidInputError, match="address") as caught:
        NamedValue(address, 1, "x")
    assert caught.value.field == "customer"


def test_an_address_is_checked_without_its_blanks_and_kept_with_them() -> None:
    assert check_address(" jane.doe+shop@example.com\t") == "jane.doe+shop@example.com"
    assert NamedValue(" Jane@Example.org ", 1, "x").customer == " Jane@Example.org "
    check_address("x" * 243 + "@example.com")


@pytest.mark.parametrize(
    ("customer", "attribute", "field"),
    [
        (0, 1, "customer"),
        (2**31, 1, "customer"),
        (True, 1, "customer"),
        (1.0, 1, "customer"),
        (None, 1, "customer"),
        (10**5_000, 1, "customer"),
        (1, 0, "attribute"),
        (1, " ", "attribute"),
        (1, "x" * 256, "attribute"),
        (1, "\udfff", "attribute"),
        (1, None, "attribute"),
    ],
    ids=range(11),
)
def test_the_field_at_fault_is_named(customer, attribute, field) -> None:
    with pytest.raises(InvalidInputError) as caught:
        NamedValue(customer, attribute, "x")
    assert caught.value.field == field


def test_it_is_frozen_and_ids_are_plain_integers() -> None:
    item = NamedValue(Int64(5), Int64(6), "x")
    assert (type(item.customer), type(item.attribute)) == (int, int)
    assert item == NamedValue(5, 6, "x")
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        item.value = "y"
    assert AttributeValueUpsert(Int64(5), Int64(6), "x") == AttributeValueUpsert(5, 6, "x")
    assert type(check_id(Int64(7), "id")) is int


@pytest.mark.parametrize(
    ("kind", "value", "fits"),
    [
        ("number", 43, True),
        ("number", 4.5, True),
        ("number", Decimal("1.50"), True),
        ("number", " -12.5e3 ", True),
        ("number", "12,5", False),
        ("number", "", False),
        ("number", "NaN", False),
        ("number", date(2024, 5, 14), False),
        ("date", date(2024, 5, 14), True),
        ("date", "2024-05-14", True),
        ("date", "2024-05-14T09:34:00Z", True),
        ("date", "2024-02-30", False),
        ("date", "14.05.2024", False),
        ("date", 20240514, False),
        ("string", 43, True),
        ("string", "", True),
        ("colour", "red", True),
    ],
)
def test_what_an_attributes_type_can_hold(kind: str, value: Value, fits: bool) -> None:
    item = NamedValue(5, "Size", value)
    if fits:
        check_type(item, kind, "Size")
        return
    with pytest.raises(AttributeTypeError, match="'Size'") as refused:
        check_type(item, kind, "Size")
    assert refused.value.name == "Size"


def test_addresses_are_compared_without_case_and_blanks() -> None:
    assert address_key(" Ann@Example.ORG ") == address_key("ann@example.org")
