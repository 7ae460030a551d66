"""Filters: what is accepted, and that their queries list exactly what was asked for, once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from enum import IntEnum
from itertools import combinations, pairwise
from random import Random
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bc_attrvals.core.filters import (
    MAX_URL_BYTES,
    AttributeValueFilter,
    ListingQuery,
    parts_of,
    split_queries,
)
from bc_attrvals.core.models import MAX_ID, AttributeValue
from bc_attrvals.core.requests import RequestBuilder
from bc_attrvals.errors import FilterIgnoredError, InvalidInputError

ROOM_BYTES = 3_900
DATE_FIELDS = [
    "date_created",
    "date_created_min",
    "date_created_max",
    "date_modified",
    "date_modified_min",
    "date_modified_max",
]
WHEN = datetime(2024, 5, 14, 9, 34, tzinfo=UTC)


def examples(count: int) -> settings:
    return settings(
        max_examples=count,
        derandomize=True,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def texts(filter: AttributeValueFilter | None, room_bytes: int) -> list[str]:
    """Return the query strings of a filter."""
    return [query.text for query in split_queries(filter, room_bytes)]


def parse(query: str) -> dict[str, str]:
    """Take a raw query apart, leaving percent-encoding as it is."""
    pairs = [pair.split("=") for pair in query.split("&")] if query else []
    assert all(len(pair) == 2 for pair in pairs), query
    parsed = dict(pairs)
    assert len(parsed) == len(pairs), "a parameter is there twice"
    return parsed


def ids(text: str | None) -> set[int]:
    return set() if text is None else {int(one) for one in text.split(",")}


def query_of(filter: AttributeValueFilter) -> dict[str, str]:
    """Return the parameters of a filter that needs one query."""
    (query,) = texts(filter, ROOM_BYTES)
    return parse(query)


# --- one query -------------------------------------------------------------------------------


def test_no_filter_lists_everything() -> None:
    assert texts(None, ROOM_BYTES) == [""]
    assert texts(AttributeValueFilter(), ROOM_BYTES) == [""]
    assert AttributeValueFilter().is_empty


@pytest.mark.parametrize("bad", [{"name": "size"}, "size", [1], 5])
def test_what_is_no_filter_lists_nothing_and_is_refused(bad: object) -> None:
    message = f"^filter must be an AttributeValueFilter or None, not {type(bad).__name__}$"
    with pytest.raises(InvalidInputError, match=message) as caught:
        texts(bad, ROOM_BYTES)  # type: ignore[arg-type]
    assert caught.value.field == "filter"


def test_each_field_is_the_services_parameter() -> None:
    whole = AttributeValueFilter(
        customer_id_in=[7, 3],
        attribute_id_in=(2,),
        name="Shoe size",
        **dict.fromkeys(DATE_FIELDS, WHEN),
    )
    moment = "2024-05-14T09:34:00Z"
    assert query_of(whole) == {
        "customer_id:in": "7,3",
        "attribute_id:in": "2",
        "name": "Shoe%20size",
        "date_created": moment,
        "date_created:min": moment,
        "date_created:max": moment,
        "date_modified": moment,
        "date_modified:min": moment,
        "date_modified:max": moment,
    }
    assert not whole.is_empty


@pytest.mark.parametrize("field", [*DATE_FIELDS, "name", "customer_id_in", "attribute_id_in"])
def test_a_field_alone_is_a_filter_and_sends_nothing_else(field: str) -> None:
    value: object = "x" if field == "name" else [1] if field.endswith("_in") else WHEN
    one = AttributeValueFilter(**{field: value})  # type: ignore[arg-type]
    assert not one.is_empty
    assert not one.matches_nothing
    assert len(query_of(one)) == 1


# --- ids -------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["customer_id_in", "attribute_id_in"])
@pytest.mark.parametrize(
    "make_ids",
    [
        lambda: [3, 1, 3, 2, 1],
        lambda: (3, 1, 2),
        lambda: (one for one in (3, 1, 1, 2)),
        lambda: {3: "", 1: "", 2: ""},
        {3: "", 1: "", 2: ""}.keys,
        lambda: map(abs, [3, -1, -3, 2]),
    ],
)
def test_ids_come_from_any_iterable_once_each_and_in_order(
    field: str, make_ids: Callable[[], Iterable[int]]
) -> None:
    one = AttributeValueFilter(**{field: make_ids()})  # type: ignore[arg-type]
    assert getattr(one, field) == (3, 1, 2)


def test_ids_of_an_enum_are_sent_as_numbers() -> None:
    class Attribute(IntEnum):
        SIZE = 7

        def __str__(self) -> str:
            return self.name

    assert query_of(AttributeValueFilter(attribute_id_in=Attribute)) == {"attribute_id:in": "7"}


@pytest.mark.parametrize("field", ["customer_id_in", "attribute_id_in"])
@pytest.mark.parametrize("empty", [[], (), set(), iter([]), {}])
def test_an_empty_list_matches_nothing_and_sends_nothing(field: str, empty: Iterable[int]) -> None:
    other = "attribute_id_in" if field == "customer_id_in" else "customer_id_in"
    one = AttributeValueFilter(**{field: empty, other: [1], "name": "x"})  # type: ignore[arg-type]
    assert one.matches_nothing
    assert not one.is_empty
    assert texts(one, ROOM_BYTES) == []


@pytest.mark.parametrize("field", ["customer_id_in", "attribute_id_in"])
@pytest.mark.parametrize("bad", [0, -1, MAX_ID + 1, True, "2", 2.0, None])
def test_a_bad_id_is_refused_with_its_place(field: str, bad: object) -> None:
    with pytest.raises(InvalidInputError) as caught:
        AttributeValueFilter(**{field: [1, bad, 3]})  # type: ignore[arg-type]
    assert (caught.value.field, caught.value.place) == (field, f"{field}[1]")


@pytest.mark.parametrize("field", ["customer_id_in", "attribute_id_in"])
@pytest.mark.parametrize("bad", [5, "12", b"12", object(), 1.5, True])
def test_what_is_no_list_of_ids_is_refused(field: str, bad: object) -> None:
    message = f"^{field} must be an iterable, not {type(bad).__name__}$"
    with pytest.raises(InvalidInputError, match=message) as caught:
        AttributeValueFilter(**{field: bad})  # type: ignore[arg-type]
    assert caught.value.field == field


# --- dates -----------------------------------------------------------------------------------

ZONES = st.one_of(
    st.just(UTC),
    st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes))),
    st.integers(-86_399, 86_399).map(lambda seconds: timezone(timedelta(seconds=seconds))),
)
MOMENTS = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=ZONES)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SENT = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)Z")


def sent_second(text: str) -> int:
    """Read what was sent, as seconds since 1970."""
    match = SENT.fullmatch(text)
    assert match, text
    return int((datetime(*map(int, match.groups()), tzinfo=UTC) - EPOCH).total_seconds())  # type: ignore[misc]


def microseconds(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


@examples(300)
@given(MOMENTS, st.sampled_from(["created", "modified"]))
def test_fractions_of_a_second_are_rounded_inward(moment: datetime, what: str) -> None:
    lowest = query_of(AttributeValueFilter(**{f"date_{what}_min": moment}))  # type: ignore[arg-type]
    highest = query_of(AttributeValueFilter(**{f"date_{what}_max": moment}))  # type: ignore[arg-type]
    exact = microseconds(moment)
    assert sent_second(lowest[f"date_{what}:min"]) == -(-exact // 1_000_000)
    assert sent_second(highest[f"date_{what}:max"]) == exact // 1_000_000


@examples(100)
@given(MOMENTS)
def test_what_must_match_exactly_is_sent_exactly_or_refused(moment: datetime) -> None:
    whole = moment.replace(microsecond=0)
    for field in ("date_created", "date_modified"):
        sent = query_of(AttributeValueFilter(**{field: whole}))[field]  # type: ignore[arg-type]
        assert sent_second(sent) * 1_000_000 == microseconds(whole)
        if moment.microsecond:
            with pytest.raises(InvalidInputError, match="takes no fraction of one") as caught:
                AttributeValueFilter(**{field: moment})  # type: ignore[arg-type]
            assert caught.value.field == field


@pytest.mark.parametrize("field", DATE_FIELDS)
def test_a_date_is_its_midnight_utc(field: str) -> None:
    one = AttributeValueFilter(**{field: date(2024, 5, 14)})  # type: ignore[arg-type]
    assert getattr(one, field) == datetime(2024, 5, 14, tzinfo=UTC)
    assert list(query_of(one).values()) == ["2024-05-14T00:00:00Z"]


def test_moments_are_sent_in_utc_wherever_the_machine_stands(elsewhere: None) -> None:
    moment = datetime(2024, 5, 14, 15, 4, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    assert query_of(AttributeValueFilter(date_created=moment)) == {
        "date_created": "2024-05-14T09:34:00Z"
    }


class NoOffset(tzinfo):
    """A zone that doesn't know its offset: such a datetime is naive, too."""

    def utcoffset(self, moment: datetime | None) -> None:
        return None


@pytest.mark.parametrize("field", DATE_FIELDS)
@pytest.mark.parametrize("naive", [datetime(2024, 5, 14), datetime(2024, 5, 14, tzinfo=NoOffset())])
def test_a_naive_datetime_is_refused(field: str, naive: datetime) -> None:
    with pytest.raises(InvalidInputError, match="without time zone") as caught:
        AttributeValueFilter(**{field: naive})  # type: ignore[arg-type]
    assert caught.value.field == field


@pytest.mark.parametrize("field", DATE_FIELDS)
@pytest.mark.parametrize("bad", ["2024-05-14", 1715679240, 1.5, True, (2024, 5, 14)])
def test_what_is_no_date_is_refused(field: str, bad: object) -> None:
    message = f"must be a datetime or a date, not {type(bad).__name__}"
    with pytest.raises(InvalidInputError, match=message) as caught:
        AttributeValueFilter(**{field: bad})  # type: ignore[arg-type]
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("field", "moment"),
    [
        ("date_created", datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1)))),
        ("date_created_max", datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1)))),
        ("date_modified", datetime(9999, 12, 31, 23, 30, tzinfo=timezone(timedelta(hours=-1)))),
        ("date_modified_min", datetime(9999, 12, 31, 23, 59, 59, 1, tzinfo=UTC)),
    ],
)
def test_a_moment_outside_of_the_calendar_is_refused(field: str, moment: datetime) -> None:
    with pytest.raises(InvalidInputError, match="years 1 to 9999") as caught:
        AttributeValueFilter(**{field: moment})  # type: ignore[arg-type]
    assert caught.value.field == field


def test_the_ends_of_the_calendar_are_sent_with_four_digits() -> None:
    ends = AttributeValueFilter(
        date_created_min=datetime.min.replace(tzinfo=UTC),
        date_created_max=datetime.max.replace(tzinfo=UTC),
    )
    assert query_of(ends) == {
        "date_created:min": "0001-01-01T00:00:00Z",
        "date_created:max": "9999-12-31T23:59:59Z",
    }


@pytest.mark.parametrize("what", ["date_created", "date_modified"])
@pytest.mark.parametrize(
    ("lowest", "highest", "nothing"),
    [
        (WHEN, WHEN, False),
        (WHEN, WHEN + timedelta(seconds=1), False),
        (WHEN + timedelta(seconds=1), WHEN, True),
        # No whole second lies between.
        (WHEN + timedelta(seconds=0.2), WHEN + timedelta(seconds=0.8), True),
        (WHEN + timedelta(seconds=0.2), WHEN + timedelta(seconds=1.1), False),
        (WHEN, WHEN.astimezone(timezone(timedelta(hours=5))), False),
    ],
)
def test_a_minimum_above_the_maximum_matches_nothing(
    what: str, lowest: datetime, highest: datetime, nothing: bool
) -> None:
    one = AttributeValueFilter(**{f"{what}_min": lowest, f"{what}_max": highest})  # type: ignore[arg-type]
    assert one.matches_nothing is nothing
    assert len(texts(one, ROOM_BYTES)) == (0 if nothing else 1)


# --- names -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("size", "size"),
        ("a&b=c", "a%26b%3Dc"),
        ("1+1", "1%2B1"),
        ("Shoe size", "Shoe%20size"),
        ("50%", "50%25"),
        ("a#b?c/d", "a%23b%3Fc%2Fd"),
        ("a:b,c", "a%3Ab%2Cc"),
        ("ø☃", "%C3%B8%E2%98%83"),
        ("\n\x00", "%0A%00"),
    ],
)
def test_a_name_is_percent_encoded(name: str, sent: str) -> None:
    assert query_of(AttributeValueFilter(name=name)) == {"name": sent}


@examples(200)
@given(st.text(min_size=1, max_size=100))
def test_any_name_can_be_read_back_from_ascii(name: str) -> None:
    sent = query_of(AttributeValueFilter(name=name, customer_id_in=[1]))["name"]
    assert re.fullmatch(r"(?:[A-Za-z0-9_.~-]|%[0-9A-F]{2})+", sent)
    assert unquote_to_bytes(sent).decode() == name


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("", "must not be empty"),
        ("\ud800", "holds a lone surrogate at character 0"),
        (5, "must be a str, not int"),
        (b"size", "must be a str, not bytes"),
        (["size"], "must be a str, not list"),
    ],
)
def test_a_name_that_is_empty_or_no_text_is_refused(bad: object, message: str) -> None:
    with pytest.raises(InvalidInputError, match=f"^name {message}$") as caught:
        AttributeValueFilter(name=bad)  # type: ignore[arg-type]
    assert caught.value.field == "name"


def test_a_name_longer_than_a_url_is_refused_when_it_is_sent() -> None:
    with pytest.raises(InvalidInputError) as caught:
        texts(AttributeValueFilter(name="ø" * 1_000), ROOM_BYTES)
    assert caught.value.field == "name"


@pytest.mark.parametrize("spare_bytes", [-1, 0, 63, 64, 65, 100])
def test_a_name_leaves_room_for_ids_or_is_refused(spare_bytes: int) -> None:
    name = "x" * (ROOM_BYTES - spare_bytes - len("name="))
    whole = AttributeValueFilter(range(MAX_ID - 9, MAX_ID), range(MAX_ID - 9, MAX_ID), name)
    if spare_bytes < 64:
        with pytest.raises(InvalidInputError, match=r"^name is too long for a URL$"):
            texts(whole, ROOM_BYTES)
    else:
        assert max(map(len, texts(whole, ROOM_BYTES))) <= ROOM_BYTES


def test_keys_dates_and_commas_are_never_percent_encoded() -> None:
    """The service refused `20%3A00`."""
    (query,) = texts(AttributeValueFilter([1, 2], [3, 4], None, *[WHEN] * 6), ROOM_BYTES)
    assert "%" not in query
    assert "+" not in query


# --- splitting -------------------------------------------------------------------------------


def draw_ids(random: Random, count: int, highest: int) -> list[int]:
    drawn = [random.randint(1, highest) for _ in range(count)]
    # Some twice.
    return drawn + drawn[: count // 10]


@examples(120)
@given(
    seed=st.integers(0, 2**32),
    customers=st.none() | st.sampled_from([1, 2, 30, 400, 2_000]),
    attributes=st.none() | st.sampled_from([1, 2, 30, 400, 1_000]),
    highest=st.sampled_from([9, 99_999, MAX_ID]),
    name=st.none() | st.sampled_from(["x", "ø&" * 40, "ø" * 400]),
    dates=st.integers(0, 6),
    base_url=st.sampled_from(["https://api.bigcommerce.com", "http://127.0.0.1:8080/" + "x" * 200]),
)
def test_the_queries_of_a_filter_are_disjoint_and_cover_exactly_the_ids_given(
    seed: int,
    customers: int | None,
    attributes: int | None,
    highest: int,
    name: str | None,
    dates: int,
    base_url: str,
) -> None:
    random = Random(seed)
    customer_ids = None if customers is None else draw_ids(random, customers, highest)
    attribute_ids = None if attributes is None else draw_ids(random, attributes, highest)
    fields = dict.fromkeys(random.sample(DATE_FIELDS, dates), WHEN)
    whole = AttributeValueFilter(customer_ids, attribute_ids, name, **fields)
    builder = RequestBuilder("abc123", base_url)
    queries = [query.text for query in builder.listing_queries(whole)]
    for query in queries:
        url = base_url + builder.page(query, 1_234_567_890, 250).path
        assert len(url.encode()) <= MAX_URL_BYTES < 4_096
        assert url.isascii()
    parsed = [parse(query) for query in queries]
    fixed = {
        tuple(sorted((key, text) for key, text in one.items() if not key.endswith("_id:in")))
        for one in parsed
    }
    assert len(fixed) == 1, "the parts differ in more than their ids"
    assert len(fixed.pop()) == dates + (name is not None)
    parts = [(ids(one.get("customer_id:in")), ids(one.get("attribute_id:in"))) for one in parsed]
    for (customers_1, attributes_1), (customers_2, attributes_2) in combinations(parts, 2):
        assert (customers_1 and not customers_1 & customers_2) or (
            attributes_1 and not attributes_1 & attributes_2
        )
    asked = len(set(customer_ids or [0])) * len(set(attribute_ids or [0]))
    assert sum(len(one or [0]) * len(other or [0]) for one, other in parts) == asked
    assert set().union(*(one for one, _ in parts)) == set(customer_ids or [])
    assert set().union(*(other for _, other in parts)) == set(attribute_ids or [])


@pytest.mark.parametrize("count", [350, 351, 352, 353, 354, 355, 356, 700, 5_000])
def test_no_more_queries_are_made_than_the_room_asks_for(count: int) -> None:
    whole = AttributeValueFilter(range(1_000_000_000, 1_000_000_000 + count), range(1, 51))
    queries = texts(whole, ROOM_BYTES)
    attributes_bytes = len("&attribute_id:in=" + ",".join(map(str, range(1, 51))))
    room = ROOM_BYTES - attributes_bytes - len("customer_id:in=")
    ids_a_query = room // len("1000000000,")
    assert len(queries) == -(-count // ids_a_query)
    assert max(map(len, queries)) <= ROOM_BYTES


def test_a_query_with_all_its_parts_is_filled_to_the_last_byte() -> None:
    customers = range(10**9, 10**9 + 500)
    # Ids of ten digits lie eleven bytes apart, so that with one of these names the room is met.
    filters = [AttributeValueFilter(customers, range(1, 51), "x" * n) for n in range(1, 12)]
    assert max(len(query) for one in filters for query in texts(one, ROOM_BYTES)) == (ROOM_BYTES)


def test_attribute_ids_stay_together_up_to_half_of_the_room() -> None:
    ids_a_half = (ROOM_BYTES // 2 - len("attribute_id:in=") + 1) // len("1000000000,")
    for count, queries in ((ids_a_half, 1), (ids_a_half + 1, 2)):
        attributes = range(10**9, 10**9 + count)
        assert len(texts(AttributeValueFilter([1], attributes), ROOM_BYTES)) == queries


@examples(150)
@given(
    st.lists(st.integers(1, MAX_ID), max_size=60),
    st.integers(10, 120),
    st.none() | st.integers(1, 9),
)
def test_joined_ids_keep_their_order_the_room_and_the_most(
    numbers: list[int], room_bytes: int, most: int | None
) -> None:
    parts = [",".join(part) for part in parts_of(map(str, numbers), room_bytes, most)]
    assert [int(one) for part in parts for one in part.split(",")] == numbers
    assert all(len(part) <= room_bytes for part in parts)
    assert all(part.count(",") < (most or 100) for part in parts)
    for part, following in pairwise(parts):
        longer = f"{part},{following.split(',')[0]}"
        assert len(longer) > room_bytes or part.count(",") + 1 == most, "cut without need"


# --- which rows match ------------------------------------------------------------------------


def at(second: int | None) -> datetime | None:
    return None if second is None else WHEN + timedelta(seconds=second)


SECONDS = st.none() | st.integers(-2, 2)
SMALL_IDS = st.none() | st.lists(st.integers(1, 3), max_size=2)


@examples(500)
@given(
    customers=SMALL_IDS,
    attributes=SMALL_IDS,
    bounds=st.tuples(*[SECONDS] * 6),
    row=st.tuples(st.integers(0, 3), st.integers(0, 3), SECONDS, SECONDS),
    fraction=st.sampled_from([0, 999_999]),
)
def test_a_row_matches_by_what_the_fields_mean(
    customers: list[int] | None,
    attributes: list[int] | None,
    bounds: tuple[int | None, ...],
    row: tuple[int, int, int | None, int | None],
    fraction: int,
) -> None:
    customer, attribute, created, modified = row
    dates = [one and one.replace(microsecond=fraction) for one in (at(created), at(modified))]
    value = AttributeValue(1, customer, attribute, "v", *dates)

    def is_within(second: int | None, exact: int | None, low: int | None, high: int | None) -> bool:
        if exact is None and low is None and high is None:
            return True
        return (
            second is not None
            and (exact is None or second == exact)
            and (low is None or second >= low)
            and (high is None or second <= high)
        )

    expected = (
        (customers is None or customer in customers)
        and (attributes is None or attribute in attributes)
        and is_within(created, *bounds[:3])
        and is_within(modified, *bounds[3:])
    )
    asked = AttributeValueFilter(customers, attributes, "any name", *map(at, bounds))
    assert asked.matches(value) is expected
    query = ListingQuery("text", asked)
    if expected:
        query.check([value])
    else:
        with pytest.raises(FilterIgnoredError, match=r"outside of the filter: \w+ of row 1 @"):
            query.check([value])


def test_every_row_answers_a_query_for_everything() -> None:
    (query,) = split_queries(AttributeValueFilter(), ROOM_BYTES)
    query.check([AttributeValue(-1, 0, 2**40, "")])


def test_a_query_of_many_ids_asks_for_its_own_part_only() -> None:
    customers = range(10**9, 10**9 + 700)
    first, second = split_queries(AttributeValueFilter(customers, [1]), ROOM_BYTES)
    rows = [AttributeValue(n, n, 1, "") for n in customers]
    cut = len(first.filter.customer_id_in or ())
    first.check(rows[:cut])
    second.check(rows[cut:])
    for query, row in ((first, rows[cut]), (second, rows[cut - 1])):
        with pytest.raises(FilterIgnoredError) as caught:
            query.check([*(rows[:cut] if query is first else rows[cut:]), row])
        error = caught.value
        place = cut if query is first else 700 - cut
        assert (error.field, error.row_id) == ("customer_id", row.id)
        assert error.place == f"$.data[{place}]"


@pytest.mark.parametrize(
    ("asked", "named", "expected"),
    [(None, [5, 6], (5, 6)), ([4, 5], [5, 6], (5,)), ([4], [5], ()), ([], [5], ())],
)
def test_a_name_is_checked_by_the_ids_it_stands_for(
    asked: list[int] | None, named: list[int], expected: tuple[int, ...]
) -> None:
    narrow = AttributeValueFilter(attribute_id_in=asked, name="tier").named(named)
    assert (narrow.attribute_id_in, narrow.name) == (expected, "tier")
