"""Writes and deletes against a service that lies: nothing outside the filter is touched.

Each answer may drop the filter, cut or repeat a page, count wrong, or say 2xx of nothing. Every job
ends with a report that is true, or with a named error, in a bounded number of calls.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bc_attrvals import (
    AttributeValue,
    AttributeValueFilter,
    BCAttrValsError,
    Limits,
    RetryPolicy,
    Store,
    UpsertReport,
)
from tests.probes import Key, at_rest, upserts
from tests.raw_server import Connection, RawRequest, answer, page_body, row, rows_body, store_on

SCOPE = 7
PER_PAGE = 20
WANTED = AttributeValueFilter(attribute_id_in=[SCOPE])
RETRY = RetryPolicy(attempts=2, base_s=0.0005, cap_s=0.0005)
NOTHING = [
    answer(b"<html>all is well</html>"),
    answer(b""),
    answer(b"{}"),
    answer(b"null"),
    answer(b'{"errors": [{"status": 500}]}'),
    answer(b"", 202),
    answer(b'{"data": null}', 207),
    answer(rows_body([])),
    answer(b'{"title": "no"}', 409),
    answer(b"", 500),
]
EMPTY = {answer(b""), answer(b"{}"), answer(rows_body([]))}


class Liar:
    """A store that applies what it is asked for, or not, and says something else."""

    def __init__(self, seed: int, share: float, inside: int, outside: int) -> None:
        self.random = Random(seed)
        self.share = share
        self.rows = {
            number: row(number, number, SCOPE if number <= inside else 8)
            for number in range(1, inside + outside + 1)
        }
        #: Ids of calls that were answered by 204 or an empty 200.
        self.confirmed: list[int] = []
        self.asked: set[int] = set()
        self.requests = 0
        # Whether each page has rows of the scope that nobody has seen, under a total that grows.
        self.is_endless = self.random.random() < share / 5

    def lies(self) -> bool:
        return self.random.random() < self.share

    async def __call__(self, request: RawRequest, connection: Connection) -> None:
        self.requests += 1
        await connection.say(getattr(self, request.method)(request))

    def GET(self, request: RawRequest) -> bytes:  # noqa: N802
        rows = list(self.rows.values())
        for field in ("customer_id", "attribute_id"):
            if f"{field}:in" in request.query and not self.lies():
                wanted = set(map(int, request.query[f"{field}:in"].split(",")))
                rows = [one for one in rows if one[field] in wanted]
        for field in ("date_created", "date_modified"):
            if not self.lies():
                least = request.query.get(f"{field}:min", "")
                most = request.query.get(f"{field}:max", "9")
                rows = [one for one in rows if least <= one[field] <= most]
        if self.lies():
            self.random.shuffle(rows)
        page = self.random.randint(1, 3) if self.lies() else request.page
        total = self.random.choice([0, 1, len(rows) // 2, 10**6]) if self.lies() else len(rows)
        pages = self.random.choice([0, 1, 10**6]) if self.lies() else -(-total // PER_PAGE)
        shown = rows[(page - 1) * PER_PAGE : page * PER_PAGE]
        if self.is_endless:
            first = 10**6 + self.requests * PER_PAGE
            shown = [row(one, 1_000, SCOPE) for one in range(first, first + PER_PAGE)]
            total = (self.requests + 2) * PER_PAGE
        if self.lies():
            shown = shown[: len(shown) // 2]
        if self.lies() and self.lies():
            return self.random.choice(NOTHING)
        return answer(
            page_body(
                [dict(one) for one in shown],
                total=total,
                per_page=self.random.choice([PER_PAGE, 250]) if self.lies() else PER_PAGE,
                page=page,
                total_pages=pages,
            ),
            headers={"Date": "Tue, 14 Jan 2025 09:34:00 GMT"},
        )

    def DELETE(self, request: RawRequest) -> bytes:  # noqa: N802
        ids = list(map(int, request.query["id:in"].split(",")))
        self.asked |= set(ids)
        lie = self.random.choice(NOTHING) if self.lies() else None
        if lie is None or self.lies():
            for one in ids:
                self.rows.pop(one, None)
        if lie is None or lie in EMPTY:
            self.confirmed += ids
        return b"HTTP/1.1 204 No Content\r\n\r\n" if lie is None else lie

    def PUT(self, request: RawRequest) -> bytes:  # noqa: N802
        stored = [
            row(10_000 + item["customer_id"], item["customer_id"], SCOPE, item["value"])
            for item in request.items
        ]
        lie = self.random.choice(NOTHING) if self.lies() else None
        if lie is None or self.lies():
            self.rows.update((one["id"], one) for one in stored)
        if self.lies() and self.lies():
            stored = [{**one, "attribute_value": "another"} for one in stored]
        if self.lies() and self.lies():
            # The rows of somebody else's call.
            stored = [row(9, 999, SCOPE), *stored[1:]]
        return answer(rows_body(stored)) if lie is None else lie


lying = given(
    seed=st.integers(0, 2**32),
    share=st.sampled_from([0.0, 0.05, 0.2, 0.5, 1.0]),
    inside=st.integers(0, 60),
    outside=st.integers(0, 60),
)


@settings(derandomize=True, deadline=None, max_examples=40)
@lying
def test_a_delete_by_filter_touches_nothing_outside_whatever_is_answered(
    seed: int, share: float, inside: int, outside: int
) -> None:
    async def run() -> None:
        service = Liar(seed, share, inside, outside)
        kept = {one for one, held in service.rows.items() if held["attribute_id"] != SCOPE}
        error = None
        async with store_on(service, retry=RETRY, limits=Limits(page_size=PER_PAGE)) as (store, _):
            try:
                report: Any = await store.attribute_values.delete_where(WANTED)
            except BCAttrValsError as caught:
                error, report = caught, caught.report
            await at_rest(store)
        assert kept <= set(service.rows)
        assert not service.asked & kept
        assert report.deleted <= len(service.confirmed)
        assert service.requests <= 600
        if not share:
            assert error is None
            assert (report.deleted, set(service.rows)) == (inside, kept)

    asyncio.run(run())


@settings(derandomize=True, deadline=None, max_examples=40)
@lying
def test_a_delete_by_ids_counts_what_was_confirmed_and_sends_no_other_id(
    seed: int, share: float, inside: int, outside: int
) -> None:
    async def run() -> None:
        service = Liar(seed, share, inside, outside)
        ids = list(range(1, inside + 2))
        async with store_on(service, retry=RETRY, limits=Limits(delete_size=7)) as (store, _):
            try:
                report: Any = await store.attribute_values.delete(ids)
            except BCAttrValsError as caught:
                report = caught.report
            else:
                assert set(ids) <= set(service.confirmed)
            await at_rest(store)
        assert report.deleted <= len(service.confirmed)
        assert service.asked <= set(ids)
        assert service.requests <= 2 * 10

    asyncio.run(run())


@settings(derandomize=True, deadline=None, max_examples=40)
@lying
def test_what_is_reported_stored_was_held_once_and_every_item_is_accounted_for(
    seed: int, share: float, inside: int, outside: int
) -> None:
    async def run() -> None:
        service = Liar(seed, share, inside, outside)
        before = json.dumps([one for one in service.rows.values() if one["attribute_id"] == 8])
        items = upserts(inside + 1, first=1_000, attribute_id=SCOPE)
        async with store_on(service, retry=RETRY, limits=Limits(page_size=PER_PAGE)) as (store, _):
            outcomes = [one async for one in store.attribute_values.upsert_stream(items)]
            await at_rest(store)
        assert sorted(one.item.key for one in outcomes) == sorted(one.key for one in items)
        held: dict[Key, str] = {
            (one["customer_id"], one["attribute_id"]): one["attribute_value"]
            for one in service.rows.values()
        }
        for one in outcomes:
            if one.status == "stored":
                assert held[one.item.key] == one.item.value
            assert (one.error is None) is one.ok
        after = json.dumps([one for one in service.rows.values() if one["attribute_id"] == 8])
        assert after == before
        assert service.requests <= 60 * (len(items) // 10 + 1)
        report = UpsertReport(stored=sum(one.ok for one in outcomes))
        assert share or report.stored == len(items)

    asyncio.run(run())


async def streamed(store: Store) -> list[AttributeValue]:
    return [one async for one in store.attribute_values.stream(WANTED)]


async def streamed_exactly_once(store: Store) -> list[AttributeValue]:
    return [one async for one in store.attribute_values.stream(WANTED, exactly_once=True)]


@pytest.mark.parametrize("read", [streamed, streamed_exactly_once])
def test_what_is_read_lies_in_the_filter_once_or_it_is_an_error_in_bounded_calls(
    read: Callable[[Store], Awaitable[list[AttributeValue]]],
) -> None:
    @settings(derandomize=True, deadline=None, max_examples=30)
    @lying
    def check(seed: int, share: float, inside: int, outside: int) -> None:
        async def run() -> None:
            service = Liar(seed, share, inside, outside)
            limits = Limits(page_size=PER_PAGE)
            found: list[AttributeValue] | None = None
            async with store_on(service, retry=RETRY, limits=limits) as (store, _):
                with suppress(BCAttrValsError):
                    found = await read(store)
                await at_rest(store)
            # 20 calls for each page of the first total, and 200 more.
            assert service.requests <= 20 * 60 // PER_PAGE + 200 + 20
            assert found is not None or share
            if found is not None:
                assert len({one.id for one in found}) == len(found)
                assert all(one.attribute_id == SCOPE for one in found)
                assert share or len(found) == inside

        asyncio.run(run())

    check()
