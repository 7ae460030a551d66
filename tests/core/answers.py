"""Answers of the service, in order, odd and damaged: what decoding is tested with."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from random import Random

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from bc_attrvals.core.models import AttributeValue


def examples(count: int) -> settings:
    return settings(
        max_examples=count,
        derandomize=True,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


# As recorded in October 2024, `value` apart.
ROW = {
    "id": 41,
    "attribute_id": 2,
    "attribute_value": "blue",
    "customer_id": 7,
    "date_created": "2024-10-24T04:32:20Z",
    "date_modified": "2024-10-25T05:00:00Z",
}
PAGINATION = {
    "total": 1,
    "count": 1,
    "per_page": 50,
    "current_page": 1,
    "total_pages": 1,
    "links": {"current": "?page=1&limit=50"},
}
#: A key given this value is left out.
ABSENT = object()


def row(**changes: object) -> dict[str, object]:
    return {key: text for key, text in {**ROW, **changes}.items() if text is not ABSENT}


def rows_body(*rows: object) -> bytes:
    return json.dumps({"data": rows, "meta": {}}).encode()


def page_body(*rows: object, **changes: object) -> bytes:
    pagination = {**PAGINATION, **changes}
    pagination = {key: value for key, value in pagination.items() if value is not ABSENT}
    return json.dumps({"data": rows, "meta": {"pagination": pagination}}).encode()


VALUE = AttributeValue(
    41,
    7,
    2,
    "blue",
    datetime(2024, 10, 24, 4, 32, 20, tzinfo=UTC),
    datetime(2024, 10, 25, 5, tzinfo=UTC),
)


DATES = [
    "2024-10-24T04:32:20Z",
    "2024-10-24t04:32:20z",
    "2024-10-24 04:32:20Z",
    "2024-10-24T04:32:20",
    "2024-10-24T04:32:20.5",
    "2024-10-24T04:32:20.123456789Z",
    "2024-10-24T04:32:20+14:00",
    "2024-10-24T04:32:20-00:00",
    "2024-10-24T04:32:20+0530",
    "2024-10-24",
    "2024-02-30T00:00:00Z",
    "0001-01-01T00:00:00+00:01",
    "9999-12-31T23:59:59-00:01",
    "9999-12-31T23:59:59.9999999Z",
    "",
]
SCALARS = [
    None,
    True,
    False,
    0,
    1,
    -1,
    2**31,
    2**64,
    10**40,
    1.0,
    1.5,
    1e300,
    "",
    "1",
    "ø☃",
    "null",
]
IDS = st.integers(1, 2**70)
ODD = st.sampled_from(SCALARS) | st.text(max_size=5)
UNKNOWN = ODD | st.lists(ODD, max_size=2) | st.dictionaries(st.text(max_size=3), ODD, max_size=2)


def odd(random: Random, depth: int = 0) -> object:
    """Any JSON."""
    kind = random.randrange(6)
    if kind < 4 or depth > 3:
        return random.choice(SCALARS + DATES)
    if kind == 4:
        return [odd(random, depth + 1) for _ in range(random.randrange(4))]
    names = [*ROW, "value", "data", "meta", "pagination", "new", ""]
    return {random.choice(names): odd(random, depth + 1) for _ in range(random.randrange(4))}


def damaged(random: Random, body: bytes) -> bytes:
    """Cut, flip, double or swap in a few bytes."""
    changed = bytearray(body)
    for _ in range(random.randint(1, 3)):
        at = random.randrange(len(changed) or 1)
        kind = random.randrange(5)
        if kind == 0:
            del changed[at:]
        elif kind == 1:
            changed[at : at + 1] = bytes([random.randrange(256)])
        elif kind == 2:
            changed[at : at + random.randint(1, 9)] = b""
        elif kind == 3:
            changed[at:at] = random.choice(
                [b"null", b"1e999", b"-", b'"', b"\\ud800", b"\x00", b"{", b"]", b"9" * 400, b"NaN"]
            )
        else:
            changed[at:at] = changed[random.randrange(len(changed) or 1) :][:30]
    return bytes(changed)


#: Of JSON: some that Python can hold and some that it can't.
DEPTHS = [10, 500, 900, 990, 1_100, 3_000, 20_000, 200_000]
