"""Listings: every filter against an independent match, pages, links."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from bc_attrvals.sandbox import Quirks, SeedRow, StoredRow
from tests.sandbox.api import Api, item, running

DAY_S = 86_400
START_S = int(datetime(2024, 5, 1, tzinfo=UTC).timestamp())
NAMES = [("tier two", "string", 2), ("attribute_4", "string", 3), ("x+y", "number", 4)]


def iso(moment_s: int, *, zone: str = "Z") -> str:
    return datetime.fromtimestamp(moment_s, UTC).strftime("%Y-%m-%dT%H:%M:%S") + zone


def seed_rows() -> list[SeedRow]:
    rng = random.Random(7)
    rows: list[SeedRow] = []
    for customer_id in range(1, 121):
        for attribute_id in rng.sample(range(1, 6), 3):
            created_s = START_S + rng.randrange(20 * DAY_S)
            modified_s = created_s + rng.choice([0, 5, DAY_S])
            rows.append((customer_id, attribute_id, f"v{customer_id}", created_s, modified_s))
    # Several rows in one second, and one at a full day, for the exact and the day filters.
    rows += [(200 + i, 1, "same", START_S + 777, START_S + 778) for i in range(4)]
    rows.append((300, 1, "midnight", START_S + DAY_S, START_S + 2 * DAY_S))
    return rows


async def all_pages(api: Api, query: str, limit: int = 50) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    page = 1
    while True:
        reply = await api.get(f"{query}&page={page}&limit={limit}".lstrip("&"))
        rows += reply.data
        assert reply.pagination["count"] == len(reply.data)
        if page >= reply.pagination["total_pages"]:
            assert reply.pagination["total"] == len(rows)
            return rows
        page += 1


A, B = START_S + 5 * DAY_S, START_S + 12 * DAY_S
FILTERS: dict[str, Callable[[StoredRow], bool]] = {
    "": lambda _: True,
    "customer_id:in=5": lambda r: r.customer_id == 5,
    "customer_id:in=5,7,9999": lambda r: r.customer_id in (5, 7),
    "customer_id:in=5%2C7": lambda r: r.customer_id in (5, 7),
    "customer_id%3Ain=5": lambda r: r.customer_id == 5,
    "customer_id:in=" + ",".join(map(str, range(1, 1000))): lambda r: r.customer_id < 1000,
    "attribute_id:in=1": lambda r: r.attribute_id == 1,
    "attribute_id:in=1,2,3,4": lambda r: r.attribute_id < 5,
    "attribute_id:in=1&customer_id:in=5,6,7,8": lambda r: (
        r.attribute_id == 1 and 5 <= r.customer_id <= 8
    ),
    "name=attribute_1": lambda r: r.attribute_id == 1,
    "name=tier+two": lambda r: r.attribute_id == 2,
    "name=tier%20two": lambda r: r.attribute_id == 2,
    "name=x%2By": lambda r: r.attribute_id == 4,
    "name=attribute_4": lambda r: r.attribute_id == 3,
    "name=attribute_2": lambda _: False,
    "name=attribute_01": lambda _: False,
    "name=attribute_99999999999999999999": lambda _: False,
    "name=attribute_1&attribute_id:in=2": lambda _: False,
    f"date_created={iso(START_S + 777)}": lambda r: r.date_created_s == START_S + 777,
    f"date_created={START_S + 777}": lambda r: r.date_created_s == START_S + 777,
    "date_created=2024-05-02": lambda r: r.date_created_s == START_S + DAY_S,
    f"date_modified={iso(START_S + 778)}": lambda r: r.date_modified_s == START_S + 778,
    f"date_created:min={iso(A)}": lambda r: r.date_created_s >= A,
    f"date_created:max={iso(A)}": lambda r: r.date_created_s <= A,
    f"date_created:min={iso(START_S + 777)}": lambda r: r.date_created_s >= START_S + 777,
    f"date_created:max={iso(START_S + 777)}": lambda r: r.date_created_s <= START_S + 777,
    f"date_created:min={START_S + 777}.5": lambda r: r.date_created_s > START_S + 777,
    "date_created:max=2024-05-01T00:12:57.5Z": lambda r: r.date_created_s <= START_S + 777,
    f"date_created:min={iso(A, zone='')}": lambda r: r.date_created_s >= A,
    f"date_created:min={iso(A, zone='-05:30')}": lambda r: r.date_created_s >= A + 19_800,
    f"date_created%3Amin={iso(A)}&date_created:max={iso(B)}": lambda r: A <= r.date_created_s <= B,
    f"date_modified:min={iso(A)}&date_modified:max={iso(B)}": lambda r: A <= r.date_modified_s <= B,
    "date_modified:min=2024-05-20T12:00Z": lambda r: (
        r.date_modified_s >= START_S + 19 * DAY_S + DAY_S // 2
    ),
    f"date_modified:min={B}&date_created:max={B}&attribute_id:in=1,2&name=attribute_1": lambda r: (
        r.date_modified_s >= B and r.date_created_s <= B and r.attribute_id == 1
    ),
}


async def test_every_filter_selects_what_an_independent_match_selects() -> None:
    async with running(attributes=NAMES) as (sandbox, api):
        await sandbox.seed(seed_rows())
        stored = await sandbox.rows()
        assert len(stored) == 365
        for query, matches in FILTERS.items():
            expected = [row.id for row in stored if matches(row)]
            found = [row["id"] for row in await all_pages(api, query)]
            assert found == expected, query
        selective = [query for query, matches in FILTERS.items() if any(map(matches, stored))]
        assert len(selective) > 25


async def test_rows_are_shown_as_the_service_shows_them() -> None:
    async with running() as (sandbox, api):
        await sandbox.seed([(7, 3, 'a"\\\n\0é\u2028😀', START_S, START_S + 61)])
        (row,) = (await api.get()).data
    assert row == {
        "id": 1,
        "attribute_id": 3,
        "attribute_value": 'a"\\\n\0é\u2028😀',
        "customer_id": 7,
        "date_created": "2024-05-01T00:00:00Z",
        "date_modified": "2024-05-01T00:01:01Z",
    }


async def test_pages_have_counts_and_links() -> None:
    async with running() as (sandbox, api):
        await sandbox.seed((i, 1, "v") for i in range(1, 121))
        first = await api.get("attribute_id:in=1")
        second = await api.get("page=2&limit=50&attribute_id:in=1")
        last = await api.get("limit=50&page=3")
        beyond = await api.get("limit=50&page=9")
    assert [len(reply.data) for reply in (first, second, last, beyond)] == [50, 50, 20, 0]
    assert first.pagination == {
        "total": 120,
        "count": 50,
        "per_page": 50,
        "current_page": 1,
        "total_pages": 3,
        "links": {
            "current": "?page=1&limit=50&attribute_id:in=1",
            "next": "?page=2&limit=50&attribute_id:in=1",
        },
    }
    assert set(second.pagination["links"]) == {"previous", "current", "next"}
    assert last.pagination["links"] == {
        "previous": "?page=2&limit=50",
        "current": "?page=3&limit=50",
    }
    assert beyond.pagination["current_page"] == 9
    assert "next" not in beyond.pagination["links"]


async def test_an_empty_list_has_no_pages_and_is_on_page_one() -> None:
    async with running() as (_, api):
        pagination = (await api.get("page=4")).pagination
    assert (pagination["total"], pagination["count"]) == (0, 0)
    assert (pagination["total_pages"], pagination["current_page"]) == (0, 1)
    assert pagination["links"] == {"current": "?page=1&limit=50"}


@pytest.mark.parametrize("order", ["id", "id_desc", "shuffled"])
async def test_pages_stay_whole_though_they_are_read_in_any_order(order: Any) -> None:
    async with running(quirks=Quirks(order=order)) as (sandbox, api):
        await sandbox.seed((i, 1 + i % 2, "v") for i in range(1, 200))
        pages = list(range(1, 21))
        random.Random(3).shuffle(pages)
        found: dict[int, list[int]] = {}
        for page in pages + pages:
            rows = (await api.get(f"limit=10&page={page}")).data
            ids = [row["id"] for row in rows]
            assert found.setdefault(page, ids) == ids
    listed = [row_id for page in sorted(found) for row_id in found[page]]
    assert sorted(listed) == list(range(1, 200))
    assert (listed == sorted(listed)) is (order == "id")
    assert (listed == sorted(listed, reverse=True)) is (order == "id_desc")


async def test_a_listing_sees_what_was_written_and_deleted_since() -> None:
    async with running() as (sandbox, api):
        await sandbox.seed((i, 1, "old", START_S) for i in range(1, 41))
        modified = "date_modified:min=" + iso(START_S + 1)

        async def seen() -> tuple[int, int, int]:
            second = await api.get("limit=10&page=2")
            total = (await api.get(modified)).pagination["total"]
            return second.pagination["total"], second.data[0]["id"], total

        assert await seen() == (40, 11, 0)
        await api.put(item(3, value="new"))
        assert await seen() == (40, 11, 1)
        await api.put(item(99))
        assert await seen() == (41, 11, 2)
        await api.delete("id:in=1,2")
        assert await seen() == (39, 13, 2)


async def test_many_rows_are_listed_to_the_last_page() -> None:
    async with running() as (sandbox, api):
        await sandbox.seed((1 + i // 10, 1 + i % 10, "v") for i in range(30_000))
        deep = await api.get("limit=250&page=120")
        assert [row["id"] for row in deep.data] == list(range(29_751, 30_001))
        filtered = await api.get("limit=250&page=12&attribute_id:in=10")
        assert [row["id"] for row in filtered.data] == list(range(27_510, 30_001, 10))
