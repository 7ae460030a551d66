"""The careful converter: it agrees with the fast path, and names faults with their places."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bc_attrvals.core import responses
from bc_attrvals.core.fallback_decoding import convert_page, convert_rows
from bc_attrvals.core.models import AttributeValue, Key
from bc_attrvals.core.responses import (
    decode_echoes,
    decode_page,
    decode_rows,
)
from bc_attrvals.errors import (
    DecodeError,
)
from tests.core.answers import (
    ABSENT,
    DATES,
    DEPTHS,
    IDS,
    PAGINATION,
    ROW,
    UNKNOWN,
    damaged,
    examples,
    odd,
    page_body,
    row,
    rows_body,
)

# --- faults and their places -----------------------------------------------------------------

ROW_FAULTS = [
    (row(id=ABSENT), "required field missing", ".id"),
    (row(customer_id=ABSENT), "required field missing", ".customer_id"),
    (row(attribute_value=ABSENT), "required field missing", ".attribute_value"),
    (row(id="41"), "expected int, got str", ".id"),
    (row(id=True), "expected int, got bool", ".id"),
    (row(id=41.0), "expected int, got float", ".id"),
    (row(id=None), "expected int, got null", ".id"),
    (row(attribute_value=None), "expected str, got null", ".attribute_value"),
    (row(attribute_value=ABSENT, value=5), "expected str, got int", ".attribute_value"),
    (row(date_modified="soon"), "Invalid RFC3339 encoded datetime", ".date_modified"),
    (row(date_modified=1729744340), "Expected `datetime`, got `int`", ".date_modified"),
    (
        row(date_created="0001-01-01T00:00:00+05:00"),
        "a date outside of the years 1 to 9999 in UTC",
        ".date_created",
    ),
    (None, "expected object, got null", ""),
    ([], "expected object, got list", ""),
    ("41", "expected object, got str", ""),
]


@pytest.mark.parametrize("read", [decode_rows, decode_page])
@pytest.mark.parametrize(("bad", "reason", "where"), ROW_FAULTS)
def test_a_fault_in_a_row_is_named_with_its_place(
    read: Callable[[bytes], object], bad: object, reason: str, where: str
) -> None:
    with pytest.raises(DecodeError) as caught:
        read(page_body(ROW, ROW, ROW, bad, ROW))
    assert (caught.value.reason, caught.value.place) == (reason, f"$.data[3]{where}")
    assert str(caught.value) == f"{reason} @ $.data[3]{where}"


def test_of_several_faults_the_first_is_named() -> None:
    with pytest.raises(DecodeError) as caught:
        decode_rows(rows_body(ROW, row(id="x", customer_id="y"), row(id=None)))
    assert caught.value.place in {"$.data[1].id", "$.data[1].customer_id"}


@pytest.mark.parametrize(
    ("body", "place", "reason"),
    [
        (b"", "$", "not a JSON document of the service (0 bytes): "),
        (b"null", "$", "expected object, got null"),
        (b"[]", "$", "expected object, got list"),
        (b"\xff\xfe", "$", "not a JSON document of the service (2 bytes): "),
        (b"<html>502</html>", "$", "not a JSON document of the service (16 bytes): "),
        (b'{"data":[', "$", "not a JSON document of the service (9 bytes): "),
        (b"{}", "$.data", "expected array, got null"),
        (b'{"data":null,"meta":{}}', "$.data", "expected array, got null"),
        (b'{"data":{"0":{}}}', "$.data", "expected array, got dict"),
        (b'{"data":"[]"}', "$.data", "expected array, got str"),
    ],
)
@pytest.mark.parametrize("read", [decode_rows, decode_page])
def test_a_body_that_is_no_answer_is_a_decode_error_with_a_place(
    read: Callable[[bytes], object], body: bytes, place: str, reason: str
) -> None:
    with pytest.raises(DecodeError) as caught:
        read(body)
    assert caught.value.place == place
    assert caught.value.reason.startswith(reason)


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b'{"data":[]}', "$.meta.pagination"),
        (b'{"data":[],"meta":null}', "$.meta.pagination"),
        (b'{"data":[],"meta":[]}', "$.meta.pagination"),
        (b'{"data":[],"meta":{}}', "$.meta.pagination"),
        (b'{"data":[],"meta":{"pagination":[]}}', "$.meta.pagination"),
        (page_body(total=ABSENT), "$.meta.pagination.total"),
        (page_body(total="1"), "$.meta.pagination.total"),
        (page_body(per_page=None), "$.meta.pagination.per_page"),
        (page_body(total_pages=1.5), "$.meta.pagination.total_pages"),
        (page_body(current_page=False), "$.meta.pagination.current_page"),
        (page_body(count="all"), "$.meta.pagination.count"),
    ],
)
def test_a_page_without_pagination_says_where_it_is_missing(body: bytes, place: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode_page(body)
    assert caught.value.place == place


@pytest.mark.parametrize("field", ["total", "total_pages"])
@pytest.mark.parametrize("other", [0, 1])
@pytest.mark.parametrize("rows", [(), (row(),)])
def test_a_negative_count_is_refused_with_its_place(
    field: str, other: int, rows: tuple[object, ...]
) -> None:
    body = page_body(*rows, **{"total": other, "total_pages": other, field: -1})
    check_agreement(body)
    with pytest.raises(DecodeError) as caught:
        decode_page(body)
    assert (caught.value.reason, caught.value.place) == ("negative", f"$.meta.pagination.{field}")


@pytest.mark.parametrize(
    ("total", "per_page", "pages"),
    [(3, 50, 1), (51, 50, 2), (100, 50, 2), (7, 0, 4), (0, 50, 1), (5, 1, 5)],
)
def test_rows_under_a_count_of_no_pages_are_pages_all_the_same(
    total: int, per_page: int, pages: int
) -> None:
    body = page_body(row(), row(), total=total, per_page=per_page, total_pages=0)
    check_agreement(body)
    assert decode_page(body).pagination.total_pages == pages
    # An empty listing has none.
    assert decode_page(page_body(total=0, total_pages=0)).pagination.total_pages == 0


def test_a_decode_error_holds_no_value_of_a_customer() -> None:
    secret = "4111 1111 1111 1111"
    for bad in (row(attribute_value=secret, id=secret), row(date_created=secret), secret):
        with pytest.raises(DecodeError) as caught:
            decode_rows(rows_body(bad))
        assert secret not in str(caught.value)
        assert caught.value.__cause__ is None


# --- the two paths agree ---------------------------------------------------------------------


@st.composite
def rows(draw: st.DrawFn) -> object:
    """A row, mostly in order, and sometimes with something odd in one of its fields."""
    text = draw(st.sampled_from(["attribute_value", "attribute_value", "value"]))
    built: dict[str, object] = {
        "id": draw(IDS),
        "customer_id": draw(IDS),
        "attribute_id": draw(IDS),
        text: draw(st.text(max_size=10)),
    }
    for name in ("date_created", "date_modified"):
        if draw(st.booleans()):
            built[name] = draw(st.sampled_from([None, *DATES]))
    change = draw(st.sampled_from(["none", "add", "add", "replace", "delete"]))
    if change == "add":
        built[draw(st.sampled_from(["new", "value", "links", ""]))] = draw(UNKNOWN)
    elif change != "none":
        name = draw(st.sampled_from(sorted(built)))
        if change == "replace":
            built[name] = draw(UNKNOWN)
        else:
            del built[name]
    return built


def outcome(read: Callable[[bytes], object], body: bytes) -> object:
    try:
        return read(body)
    except DecodeError as error:
        return str(error)


def dates_of(rows: list[AttributeValue]) -> list[datetime]:
    return [
        date for one in rows for date in (one.date_created, one.date_modified) if date is not None
    ]


def proofs(rows: Any) -> list[tuple[Key, str]]:
    return [(one.key, one.attribute_value) for one in rows]


def check_agreement(body: bytes) -> str:
    """Assert it of one body, and return which path read it."""
    page = outcome(decode_page, body)
    assert page == outcome(convert_page, body)
    read = outcome(decode_rows, body)
    assert read == outcome(convert_rows, body)
    echoes = outcome(decode_echoes, body)
    if isinstance(read, list):
        assert all(date.tzinfo is UTC for date in dates_of(read))
        assert proofs(echoes) == proofs(read)
    else:
        # It may have read the rows all the same: it looks at no id and no date.
        assert echoes == read or "date" in read or ".id" in read
    if isinstance(page, str):
        return "refused"
    try:
        responses._PAGE_DECODER.decode(body)
    except msgspec.DecodeError:
        return "slow"
    return "fast"


@examples(300)
@given(
    st.lists(rows(), max_size=3),
    st.dictionaries(st.sampled_from([*PAGINATION, "new"]), UNKNOWN | IDS, max_size=2),
)
def test_the_fast_path_and_the_converter_agree_on_all_answers(
    rows: list[object], pagination: dict[str, object]
) -> None:
    check_agreement(page_body(*rows, **pagination))


def odd_row(random: Random) -> object:
    if random.random() < 0.02:
        return odd(random)
    built = row(date_created=random.choice([None, ABSENT, *DATES]), new=odd(random))
    if random.random() < 0.2:
        built["value"] = built.pop("attribute_value")
    if random.random() < 0.2:
        built[random.choice(sorted(built))] = odd(random)
    return built


def test_they_agree_on_thousands_more_that_meet_both_of_them() -> None:
    random = Random(5)
    paths = Counter[str]()
    for _ in range(3_000):
        changes = {}
        if random.random() < 0.1:
            changes[random.choice(sorted(PAGINATION))] = odd(random)
        rows = [odd_row(random) for _ in range(random.randrange(4))]
        paths[check_agreement(page_body(*rows, **changes))] += 1
    assert min(paths["fast"], paths["slow"], paths["refused"]) > 300, paths


ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
MOMENTS = st.none() | st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31), timezones=ZONES)


@examples(300)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 2**31 - 1),
            st.integers(1, 2**31 - 1),
            st.integers(1, 2**31 - 1),
            st.text(max_size=255),
            MOMENTS,
            MOMENTS,
        ),
        max_size=5,
    ),
    st.booleans(),
)
def test_what_python_itself_writes_is_read_back(
    values: list[tuple[Any, ...]], ascii_only: bool
) -> None:
    document = [
        {
            "id": number,
            "customer_id": customer,
            "attribute_id": attribute,
            "attribute_value": text,
            "date_created": created and created.isoformat(),
            "date_modified": modified and modified.isoformat(),
        }
        for number, customer, attribute, text, created, modified in values
    ]
    body = json.dumps({"data": document}, ensure_ascii=ascii_only).encode()
    read = decode_rows(body)
    assert read == [AttributeValue(*one) for one in values]
    assert all(date.utcoffset() == timedelta(0) for date in dates_of(read))


# --- whatever comes, it is a DecodeError -----------------------------------------------------


def only_decode_errors(body: bytes) -> None:
    for read in (decode_page, decode_rows, decode_echoes, convert_page, convert_rows):
        outcome(read, body)


@examples(500)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_nothing_but_decode_errors(body: bytes) -> None:
    only_decode_errors(body)
    with pytest.raises(DecodeError):
        decode_page(body)


def test_arbitrary_json_raises_nothing_but_decode_errors() -> None:
    random = Random(6)
    for _ in range(3_000):
        document = odd(random)
        if random.random() < 0.8:
            document = {
                "data": document,
                "meta": random.choice([{"pagination": odd(random)}, odd(random)]),
            }
        only_decode_errors(json.dumps(document).encode())


def test_damaged_answers_raise_nothing_but_decode_errors() -> None:
    random = Random(7)
    body = page_body(
        ROW, row(attribute_value="ø☃\U0001f600"), row(date_created="2024-10-24T04:32:20")
    )
    read = 0
    for _ in range(4_000):
        changed = damaged(random, body)
        only_decode_errors(changed)
        read += not isinstance(outcome(decode_page, changed), str)
    assert 50 < read < 3_000


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_deeply_nested_answers_raise_nothing_but_decode_errors(
    depth: int, opening: bytes, closing: bytes
) -> None:
    nested = opening * depth + b"1" + closing * depth
    whole = json.dumps({"data": [row(new="@")], "meta": {"pagination": PAGINATION, "x": "@"}})
    only_decode_errors(nested)
    only_decode_errors(opening * depth)
    for place in range(2):
        parts = whole.encode().split(b'"@"')
        filled = parts[0] + (nested if place == 0 else b"1") + parts[1]
        only_decode_errors(filled + (nested if place == 1 else b"1") + parts[2])
