"""Refusals: what is at fault, which size is allowed, and what confirms a deletion."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bc_attrvals.core.refusals import Fault, check_deleted, fault_of, is_of_page_size, size_allowed
from bc_attrvals.errors import (
    APIError,
    AuthenticationError,
    BCAttrValsError,
    ConnectionLostError,
    DecodeError,
    NotFoundError,
    PayloadTooLargeError,
    RateLimitError,
    ServerError,
    StoreStateError,
    StoreSuspendedError,
    UnconfirmedError,
    UnprocessableError,
)

FAULTS: list[tuple[BCAttrValsError, Fault]] = [
    (AuthenticationError(401, "t"), Fault.JOB),
    (APIError(403, "t"), Fault.JOB),
    (NotFoundError(404, "t"), Fault.JOB),
    (APIError(302, "t"), Fault.JOB),
    (StoreSuspendedError(503, "The store is suspended"), Fault.JOB),
    (StoreStateError("closed"), Fault.JOB),
    (PayloadTooLargeError(413, "t"), Fault.SIZE),
    (APIError(414, "t"), Fault.SIZE),
    (UnprocessableError(422, "Max batch size allowed is 5"), Fault.SIZE),
    (APIError(400, "t"), Fault.ITEM),
    (APIError(409, "t"), Fault.ITEM),
    (UnprocessableError(422, "t"), Fault.ITEM),
    (APIError(423, "t"), Fault.ITEM),
    (APIError(405, "t"), Fault.ITEM_OR_SERVICE),
    (ServerError(500, "t"), Fault.ITEM_OR_SERVICE),
    (ServerError(501, "t"), Fault.ITEM_OR_SERVICE),
    (ServerError(502, "t"), Fault.ITEM_OR_SERVICE),
    (ServerError(504, "t"), Fault.ITEM_OR_SERVICE),
    (APIError(408, "t"), Fault.SERVICE),
    (RateLimitError(429, "t"), Fault.SERVICE),
    (ServerError(503, "t"), Fault.SERVICE),
    (ConnectionLostError("t"), Fault.SERVICE),
    (DecodeError("t"), Fault.SERVICE),
]


@pytest.mark.parametrize(("error", "fault"), FAULTS, ids=lambda one: repr(one)[:30])
def test_each_error_has_its_fault(error: BCAttrValsError, fault: Fault) -> None:
    assert fault_of(error, 10) is fault


@pytest.mark.parametrize(
    ("title", "size"),
    [
        ("Max batch size allowed is 1", 1),
        ("Max batch size allowed is 9", 9),
        ("max batch size: 5", 5),
        ("At most 7 items per call.", 7),
        ("No more than 3 records per request", 3),
        ("Limit of 4 customers per call", 4),
        ("The batch size of 10 exceeds the limit of 6", 6),
        # As many as were sent, or more: that was not it.
        ("Max batch size allowed is 10", None),
        ("Max batch size allowed is 50", None),
        ("Max batch size allowed is 0", None),
        # Numbers of something else.
        ("value must be at most 5 characters", None),
        ("a customer has at most 5 attributes", None),
        ("version 2.5 of the batch size limit", None),
        ("Set customer attribute values failed.", None),
    ],
)
def test_a_size_is_read_where_a_refusal_names_one(title: str, size: int | None) -> None:
    assert size_allowed(UnprocessableError(422, title), 10) == size
    assert size_allowed(PayloadTooLargeError(413, "no", {".data": title}), 10) == size
    assert size_allowed(ServerError(500, title), 10) is None


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.text(), st.integers(1, 50))
def test_any_title_gives_a_smaller_size_or_none(title: str, count: int) -> None:
    size = size_allowed(UnprocessableError(422, title), count)
    assert size is None or 0 < size < count


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.integers(200, 299), st.binary(max_size=60))
def test_a_deletion_is_confirmed_by_204_and_an_empty_200_alone(status: int, body: bytes) -> None:
    empty = not body.strip() or re.fullmatch(rb"[ \t\n\r]*\{[ \t\n\r]*\}[ \t\n\r]*", body)
    if status == 204 or (status == 200 and empty):
        check_deleted(status, body)
        return
    with pytest.raises(UnconfirmedError, match=str(status)):
        check_deleted(status, body)


# --- pages -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (PayloadTooLargeError(413, "too large"), True),
        (UnprocessableError(422, "Invalid filter", {"limit": "must be at most 50"}), True),
        (UnprocessableError(422, "The Limit may not be over 100"), True),
        (UnprocessableError(422, "Invalid filter", {"name": "unknown"}), False),
        (UnprocessableError(422, "unlimited nonsense"), False),
        (ServerError(500, "limit"), False),
    ],
)
def test_a_refusal_of_a_pages_size_is_told_from_others(error: APIError, is_one: bool) -> None:
    assert is_of_page_size(error) is is_one
