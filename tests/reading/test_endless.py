"""A server that brings new rows on every page, for ever: each job that lists ends in an error."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from bc_attrvals import (
    AttributeValueFilter,
    AttributeValueUpsert,
    Limits,
    ListingDriftError,
    PartialFailureError,
    Store,
)
from tests.raw_server import Connection, RawRequest, answer, page_body, row, rows_body, store_on

pytestmark = pytest.mark.usefixtures("no_task_left")

PER_PAGE = 5
#: 8 times the pages of the first total, 100 more, and those under way.
MOST_CALLS = 8 * 3 + 100 + 10
WANTED = AttributeValueFilter([3], [7])


@attrs.define
class Endless:
    """Rows of the filter, all new on each page, under a total that stands still or grows."""

    grows: bool
    listed: int = 0
    changed: list[str] = attrs.field(factory=list)

    async def __call__(self, request: RawRequest, connection: Connection) -> None:
        if request.method != "GET":
            self.changed.append(request.method)
            await connection.say(answer(rows_body([])))
            return
        self.listed += 1
        first = PER_PAGE * self.listed
        rows: list[dict[str, Any]]
        rows = [row(number, 3, 7, "held") for number in range(first, first + PER_PAGE)]
        if "/attribute-values" not in request.target:
            rows = [{"id": one["id"], "email": f"{one['id']}@example.org"} for one in rows]
        for one in rows:
            one["date_created"] = request.query.get("date_created:min", "2024-10-24T04:32:20Z")
        total = 12 + PER_PAGE * self.listed * self.grows
        await connection.say(
            answer(page_body(rows, total=total, per_page=PER_PAGE, page=1, total_pages=3))
        )


Job = Callable[[Store, Path], Awaitable[object]]


async def stream(store: Store, path: Path) -> None:
    async for _ in store.attribute_values.stream(WANTED):
        pass


async def stream_exactly_once(store: Store, path: Path) -> None:
    async for _ in store.attribute_values.stream(WANTED, exactly_once=True):
        pass


async def delete_where(store: Store, path: Path) -> None:
    await store.attribute_values.delete_where(WANTED)


async def sync(store: Store, path: Path) -> None:
    desired = [AttributeValueUpsert(3, 7, "x")]
    await store.attribute_values.sync(desired, scope=WANTED, prune=True)


async def refresh(store: Store, path: Path) -> None:
    async with store.mirror(path / "mirror.db", scope=WANTED) as mirror:
        await mirror.refresh()


async def customers(store: Store, path: Path) -> None:
    async for _ in store.customers.stream():
        pass


@pytest.mark.parametrize("grows", [False, True], ids=["total too small", "total grows"])
@pytest.mark.parametrize(
    "job", [stream, stream_exactly_once, delete_where, sync, refresh, customers]
)
async def test_a_listing_without_end_ends_in_an_error_and_changes_nothing(
    job: Job, grows: bool, tmp_path: Path
) -> None:
    server = Endless(grows)
    async with store_on(server, limits=Limits(page_size=PER_PAGE)) as (store, _):
        with pytest.raises(ListingDriftError):
            await job(store, tmp_path)
    is_exact = job in {stream_exactly_once, refresh}
    assert server.listed <= (MOST_CALLS if grows or is_exact else 3 + 3 + 10)
    assert not server.changed


@pytest.mark.parametrize("grows", [False, True], ids=["total too small", "total grows"])
async def test_a_read_back_without_end_fails_the_item(grows: bool) -> None:
    server = Endless(grows)
    async with store_on(server, limits=Limits(page_size=PER_PAGE)) as (store, _):
        with pytest.raises(PartialFailureError) as caught:
            await store.attribute_values.upsert([AttributeValueUpsert(3, 7, "x")])
    report = caught.value.report
    assert (report.failed, report.stored) == (1, 0)
    assert isinstance(report.failures[0].error, ListingDriftError)
    # Twelve rows are more than one key can have.
    assert server.listed == 1
    assert server.changed == ["PUT"]
