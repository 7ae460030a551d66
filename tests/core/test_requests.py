"""Requests: method, URL and body, as the service wants them."""

from __future__ import annotations

import json
from enum import IntEnum, StrEnum

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.core.models import MAX_ID, AttributeValueUpsert
from bc_attrvals.core.requests import Operation, Request, RequestBuilder
from bc_attrvals.errors import InvalidInputError

BASE_URL = "https://api.bigcommerce.com"
PATH = "/stores/abc123/v3/customers/attribute-values"


@pytest.fixture
def builder() -> RequestBuilder:
    return RequestBuilder("abc123", BASE_URL)


def test_a_page_is_a_get_that_names_limit_and_page(builder: RequestBuilder) -> None:
    assert builder.page("", 1, 250) == Request(
        Operation.READ, "GET", f"{PATH}?limit=250&page=1", None
    )
    assert builder.page("name=x", 3, 50).path == f"{PATH}?name=x&limit=50&page=3"


def test_the_words_for_what_a_call_does_are_fixed() -> None:
    """Statistics are kept by them."""
    assert [str(one) for one in Operation] == ["read", "write", "delete"]


def test_the_resource_of_a_request_has_no_query(builder: RequestBuilder) -> None:
    assert builder.page("name=x", 1, 250).resource == PATH
    assert builder.upsert([AttributeValueUpsert(1, 2, "x")]).resource == PATH


@pytest.mark.parametrize(
    ("store_hash", "sent"),
    [("abc123", "abc123"), ("../v2", "..%2Fv2"), ("a?b#c", "a%3Fb%23c"), ("a b", "a%20b")],
)
def test_the_store_hash_stays_one_segment_of_the_path(store_hash: str, sent: str) -> None:
    path = RequestBuilder(store_hash, BASE_URL).page("", 1, 1).path
    assert path.startswith(f"/stores/{sent}/v3/")


def test_an_upsert_is_a_put_of_an_array_in_the_order_given(builder: RequestBuilder) -> None:
    items = [AttributeValueUpsert(7, 2, "blue"), AttributeValueUpsert(3, 1, "", id=9)]
    request = builder.upsert(items)
    assert (request.operation, request.method, request.path) == (Operation.WRITE, "PUT", PATH)
    assert request.body is not None
    assert json.loads(request.body) == [
        {"attribute_id": 2, "value": "blue", "customer_id": 7},
        {"attribute_id": 1, "value": "", "customer_id": 3, "id": 9},
    ]


IDS = st.integers(1, MAX_ID)
ITEMS = st.builds(AttributeValueUpsert, IDS, IDS, st.text(max_size=255), st.none() | IDS)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.lists(ITEMS, max_size=10))
def test_the_body_of_an_upsert_reads_back_as_the_items(items: list[AttributeValueUpsert]) -> None:
    body = RequestBuilder("abc123", BASE_URL).upsert(items).body
    assert body is not None
    read = json.loads(body.decode("utf-8", errors="strict"))
    assert [
        AttributeValueUpsert(one["customer_id"], one["attribute_id"], one["value"], one.get("id"))
        for one in read
    ] == items
    assert all(one.keys() <= {"customer_id", "attribute_id", "value", "id"} for one in read)


def test_members_of_enums_and_subclasses_of_int_and_str_can_be_sent(
    builder: RequestBuilder,
) -> None:
    class Attribute(IntEnum):
        SIZE = 7

    class Size(StrEnum):
        SMALL = "small"

    class Id(int):
        pass

    class Text(str):
        __slots__ = ()

    items = [
        AttributeValueUpsert(Id(1), Attribute.SIZE, Size.SMALL, Id(4)),
        AttributeValueUpsert(Id(2), Attribute.SIZE, Text("large")),
    ]
    body = builder.upsert(items).body
    assert body is not None
    assert json.loads(body) == [
        {"attribute_id": 7, "value": "small", "customer_id": 1, "id": 4},
        {"attribute_id": 7, "value": "large", "customer_id": 2},
    ]


class Sourced(AttributeValueUpsert, frozen=True):
    """An item that knows where it comes from."""

    source: str = ""


def test_what_a_subclass_adds_to_an_item_is_not_sent(builder: RequestBuilder) -> None:
    items = [AttributeValueUpsert(1, 2, "x"), Sourced(3, 4, "y", id=5, source="crm")]
    body = builder.upsert(items).body
    assert body is not None
    assert json.loads(body) == [
        {"customer_id": 1, "attribute_id": 2, "value": "x"},
        {"customer_id": 3, "attribute_id": 4, "value": "y", "id": 5},
    ]


def test_deletes_name_at_most_so_many_ids_and_say_how_many(builder: RequestBuilder) -> None:
    requests = list(builder.deletes([5, 4, 3, 2, 1], 2))
    assert requests == [
        (Request(Operation.DELETE, "DELETE", f"{PATH}?id:in=5,4"), 2),
        (Request(Operation.DELETE, "DELETE", f"{PATH}?id:in=3,2"), 2),
        (Request(Operation.DELETE, "DELETE", f"{PATH}?id:in=1"), 1),
    ]


def test_no_ids_are_no_delete(builder: RequestBuilder) -> None:
    """For without ids a sibling endpoint answers 204, and another might delete everything."""
    assert list(builder.deletes([], 50)) == []


@pytest.mark.parametrize("host_characters", range(22))
def test_the_url_of_a_delete_stays_below_2000_bytes(host_characters: int) -> None:
    # Ids of ten digits lie eleven bytes apart, so that one of these hosts meets the bound itself.
    base_url = "https://" + "x" * (1 + host_characters)
    ids = range(1_000_000_000, 1_000_001_000)
    builder = RequestBuilder("abc123", base_url)
    requests = list(builder.deletes(ids, 10_000))
    lengths = [len((base_url + request.path).encode()) for request, _ in requests]
    assert max(lengths) < 2_000
    assert max(lengths) >= 2_000 - 12, "room is left for one more"
    sent = [
        int(one) for request, _ in requests for one in request.path.partition("=")[2].split(",")
    ]
    assert sent == list(ids)
    assert sum(count for _, count in requests) == len(ids)


def test_the_room_of_a_delete_is_used_to_the_last_byte() -> None:
    longest = 0
    for host_characters in range(11):
        base_url = "https://" + "x" * (1 + host_characters)
        requests = RequestBuilder("abc123", base_url).deletes(range(10**9, 10**9 + 400), 10_000)
        longest = max(longest, *(len(base_url + request.path) for request, _ in requests))
    assert longest == 1_999


def test_the_room_of_a_listing_is_used_to_the_last_byte() -> None:
    whole = AttributeValueFilter(range(10**9, 10**9 + 400), name="x")
    longest = 0
    for host_characters in range(11):
        base_url = "https://" + "x" * (1 + host_characters)
        builder = RequestBuilder("abc123", base_url)
        requests = [
            builder.page(query.text, 1_234_567_890, 250) for query in builder.listing_queries(whole)
        ]
        longest = max(longest, *(len(base_url + request.path) for request in requests))
    # A byte is kept for the second of two lists of ids.
    assert longest == 3_999


def test_the_room_asked_for_is_spared_in_every_query(builder: RequestBuilder) -> None:
    whole = AttributeValueFilter(range(10**9, 10**9 + 2_000))
    longest = [
        max(len(BASE_URL + builder.page(query.text, 1, 250).path) for query in queries)
        for queries in (builder.listing_queries(whole), builder.listing_queries(whole, 500))
    ]
    assert longest[0] <= 4_000
    # To within one id and its comma.
    assert 500 - 11 <= longest[0] - longest[1] <= 500 + 11
    assert longest[1] <= 3_500


def test_the_query_of_a_filter_goes_into_the_path_as_it_is(builder: RequestBuilder) -> None:
    (query,) = builder.listing_queries(AttributeValueFilter([1, 2], name="a b"))
    assert builder.page(query.text, 2, 250).path == (
        f"{PATH}?customer_id:in=1,2&name=a%20b&limit=250&page=2"
    )


@pytest.mark.parametrize("characters", range(3_820, 3_846))
def test_a_name_fills_a_url_up_to_the_bound_or_is_refused(
    builder: RequestBuilder, characters: int
) -> None:
    whole = AttributeValueFilter(
        range(MAX_ID - 5, MAX_ID), range(MAX_ID - 5, MAX_ID), "x" * characters
    )
    if characters > 3_833:
        with pytest.raises(InvalidInputError, match="name is too long"):
            builder.listing_queries(whole)
        return
    for query in builder.listing_queries(whole):
        url = BASE_URL + builder.page(query.text, 1_234_567_890, 250).path
        assert len(url) < 4_096
