"""Models: what may be stored, and what values and upserts can do."""

from __future__ import annotations

import copy
import gc
import pickle
from collections.abc import Callable
from datetime import UTC, datetime
from enum import Enum, IntEnum, StrEnum

import attrs
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.core.models import (
    MAX_ID,
    AttributeValue,
    AttributeValueUpsert,
    Page,
    Pagination,
)
from bc_attrvals.errors import InvalidInputError

WHEN = datetime(2024, 5, 14, 9, 34, tzinfo=UTC)
VALUE = AttributeValue(1, 2, 3, "x", WHEN, None)
UPSERT = AttributeValueUpsert(2, 3, "x", 1)
FILTER = AttributeValueFilter([1, 2], [3], "size", date_created_min=WHEN)
MODELS = [VALUE, UPSERT, FILTER, Pagination(1, 50, 1, 1, 1)]


class Size(StrEnum):
    SMALL = "small"


class OldSize(str, Enum):  # noqa: UP042
    SMALL = "small"


class Attribute(IntEnum):
    SIZE = 7


# --- ids -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 2, 2_147_483_646, 2_147_483_647])
def test_ids_are_positive_and_of_32_bits(number: int) -> None:
    item = AttributeValueUpsert(number, number, "x", number)
    assert (item.customer_id, item.attribute_id, item.id) == (number, number, number)


@pytest.mark.parametrize("number", [1, 2_147_483_648, 2**63 - 1])
def test_ids_of_rows_are_positive_and_of_64_bits(number: int) -> None:
    assert AttributeValueUpsert(1, 1, "x", number).id == number


@pytest.mark.parametrize("field", ["customer_id", "attribute_id"])
def test_an_id_of_more_than_32_bits_is_refused_but_for_rows(field: str) -> None:
    good = {"customer_id": 1, "attribute_id": 1}
    with pytest.raises(InvalidInputError) as caught:
        AttributeValueUpsert(**{**good, field: 2_147_483_648}, value="x")
    assert caught.value.field == field


@pytest.mark.parametrize("field", ["customer_id", "attribute_id", "id"])
@pytest.mark.parametrize(
    "bad",
    [0, -1, -MAX_ID, 2**63, True, False, "1", 1.0, b"1", float("nan"), object()],
)
def test_anything_else_is_refused_and_the_field_named(field: str, bad: object) -> None:
    good: dict[str, object] = {"customer_id": 1, "attribute_id": 1, "value": "x", "id": 1}
    with pytest.raises(InvalidInputError) as caught:
        AttributeValueUpsert(**{**good, field: bad})  # type: ignore[arg-type]
    assert caught.value.field == field
    assert field in str(caught.value)


@pytest.mark.parametrize("field", ["customer_id", "attribute_id"])
@pytest.mark.parametrize("bad", ["1", 1.0, True])
def test_what_was_given_for_an_id_is_named_by_its_type(field: str, bad: object) -> None:
    with pytest.raises(InvalidInputError, match=f"must be an int, not {type(bad).__name__}"):
        AttributeValueUpsert(**{"customer_id": 1, "attribute_id": 1, "value": "x", field: bad})  # type: ignore[arg-type]


@pytest.mark.parametrize("field", ["customer_id", "attribute_id"])
def test_a_missing_id_is_refused(field: str) -> None:
    good: dict[str, object] = {"customer_id": 1, "attribute_id": 1, "value": "x"}
    with pytest.raises(InvalidInputError):
        AttributeValueUpsert(**{**good, field: None})  # type: ignore[arg-type]


def test_the_id_of_the_row_may_be_left_out() -> None:
    assert AttributeValueUpsert(1, 2, "x").id is None


# --- values ----------------------------------------------------------------------------------


@pytest.mark.parametrize("character", ["x", "ø", "☃", "\U0001f600", "\x00", "\u0301"])
def test_255_characters_are_stored_and_256_refused_counted_in_code_points(character: str) -> None:
    assert AttributeValueUpsert(1, 2, character * 255).value == character * 255
    with pytest.raises(InvalidInputError, match="256 characters") as caught:
        AttributeValueUpsert(1, 2, character * 256)
    assert caught.value.field == "value"


def test_the_empty_value_is_a_value() -> None:
    assert AttributeValueUpsert(1, 2, "").value == ""


@pytest.mark.parametrize("bad", ["\ud800", "ab\udfff", "\udc00\ud800", "x" * 254 + "\ud83d"])
def test_a_lone_surrogate_is_refused_and_its_place_told(bad: str) -> None:
    with pytest.raises(InvalidInputError, match="lone surrogate at character") as caught:
        AttributeValueUpsert(1, 2, bad)
    assert caught.value.field == "value"
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("bad", [None, 5, 5.0, True, b"x", ["x"], object()])
def test_a_value_that_is_no_string_is_refused(bad: object) -> None:
    with pytest.raises(
        InvalidInputError, match=f"must be a str, not {type(bad).__name__}"
    ) as caught:
        AttributeValueUpsert(1, 2, bad)  # type: ignore[arg-type]
    assert caught.value.field == "value"


def test_an_error_holds_no_value_of_a_customer() -> None:
    for bad in ("4111" * 64, "4111\ud800"):
        with pytest.raises(InvalidInputError) as caught:
            AttributeValueUpsert(1, 2, bad)
        assert "4111" not in str(caught.value)


def test_members_of_enums_are_taken_for_what_they_stand_for() -> None:
    for size in (Size.SMALL, OldSize.SMALL):
        item = AttributeValueUpsert(Attribute.SIZE, Attribute.SIZE, size, Attribute.SIZE)
        assert item == AttributeValueUpsert(7, 7, "small", 7)
        assert {type(one) for one in attrs.astuple(item)} == {int, str}


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.integers(-5, MAX_ID + 5), st.integers(-5, MAX_ID + 5), st.text(max_size=260))
def test_an_upsert_is_built_exactly_when_the_service_could_store_it(
    customer: int, attribute: int, text: str
) -> None:
    storable = 1 <= customer <= MAX_ID and 1 <= attribute <= MAX_ID and len(text) <= 255
    try:
        item = AttributeValueUpsert(customer, attribute, text)
    except InvalidInputError:
        assert not storable
    else:
        assert storable
        assert (item.key, item.value) == ((customer, attribute), text)


# --- what all models can do ------------------------------------------------------------------


def test_the_one_python_name_of_a_value_is_value() -> None:
    assert VALUE.value == VALUE.attribute_value == "x"
    assert VALUE.key == UPSERT.key == (2, 3)


def test_the_dates_of_a_value_may_be_missing() -> None:
    value = AttributeValue(1, 2, 3, "x")
    assert (value.date_created, value.date_modified) == (None, None)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_models_are_frozen_and_slotted(model: object) -> None:
    name = attrs.fields(type(model))[0].name  # type: ignore[arg-type]
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(model, name, getattr(model, name))
    with pytest.raises((attrs.exceptions.FrozenInstanceError, AttributeError)):
        model.other = 1  # type: ignore[attr-defined]
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        delattr(model, name)
    assert not hasattr(model, "__dict__")


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
@pytest.mark.parametrize(
    "double",
    [
        copy.copy,
        copy.deepcopy,
        *(
            lambda model, protocol=protocol: pickle.loads(pickle.dumps(model, protocol))
            for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)
        ),
    ],
)
def test_models_are_copied_and_pickled_whole(
    model: object, double: Callable[[object], object]
) -> None:
    other = double(model)
    assert other == model
    assert hash(other) == hash(model)
    assert type(other) is type(model)
    assert attrs.astuple(other) == attrs.astuple(model)  # type: ignore[arg-type]


@pytest.mark.parametrize("model", [VALUE, UPSERT], ids=lambda model: type(model).__name__)
def test_a_record_is_one_class_to_attrs_and_to_msgspec(
    model: AttributeValue | AttributeValueUpsert,
) -> None:
    fields = [(one.name, one.default) for one in attrs.fields(type(model))]
    ours = msgspec.structs.fields(model)
    assert fields == [(one.name, attrs.NOTHING if one.required else one.default) for one in ours]
    assert attrs.asdict(model) == msgspec.structs.asdict(model)


def test_a_value_is_shown_and_changed_as_attrs_does() -> None:
    assert attrs.evolve(VALUE, id=9) == AttributeValue(9, 2, 3, "x", WHEN, None)
    assert repr(AttributeValue(1, 2, 3, "x")) == (
        "AttributeValue(id=1, customer_id=2, attribute_id=3, attribute_value='x', "
        "date_created=None, date_modified=None)"
    )


def test_the_garbage_collector_looks_through_no_values() -> None:
    assert not gc.is_tracked(VALUE)


def test_models_are_equal_by_all_their_fields() -> None:
    assert AttributeValueUpsert(1, 2, "x") == AttributeValueUpsert(1, 2, "x")
    assert AttributeValueUpsert(1, 2, "x") != AttributeValueUpsert(1, 2, "y")
    assert AttributeValueUpsert(1, 2, "x") != AttributeValueUpsert(2, 1, "x")
    assert AttributeValueUpsert(1, 2, "x") != AttributeValueUpsert(1, 2, "x", 5)
    assert AttributeValue(1, 2, 3, "x") != AttributeValue(1, 2, 3, "x", WHEN)
    assert AttributeValueUpsert(2, 3, "x", 1) != AttributeValue(1, 2, 3, "x")
    assert len({UPSERT, AttributeValueUpsert(2, 3, "x", 1), AttributeValueUpsert(2, 3, "x")}) == 2


def test_a_changed_copy_is_checked_again() -> None:
    assert attrs.evolve(UPSERT, value="y") == AttributeValueUpsert(2, 3, "y", 1)
    with pytest.raises(InvalidInputError):
        attrs.evolve(UPSERT, value="y" * 256)


def test_a_page_holds_its_rows_and_where_it_stands() -> None:
    page = Page([VALUE], Pagination(1, 50, 1, 1))
    assert (page.data, page.pagination.total, page.pagination.count) == ([VALUE], 1, None)
