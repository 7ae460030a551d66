"""The reader that keeps no order: every row once, and no counter believed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest

from bc_attrvals import AttributeValue, AttributeValueFilter, Limits, ListingDriftError, Store
from bc_attrvals.core.filters import ListingQuery
from bc_attrvals.reading.unordered import UnorderedReader
from bc_attrvals.sandbox import Quirks, Sandbox
from tests.conftest import make_store
from tests.reading.page_server import Pager, listing

pytestmark = pytest.mark.usefixtures("no_task_left")


async def read(store: Store, *queries: str, first_alone: bool = False) -> list[int]:
    """Return the ids that one reader brings, in the order it brings them."""
    reader = UnorderedReader(store.attribute_values._calls.for_job())
    listings = [reader.listing(ListingQuery(query)) for query in queries or ("",)]
    ids: list[int] = []

    async def sink(rows: Sequence[AttributeValue]) -> None:
        ids.extend(row.id for row in rows)

    async def each() -> AsyncIterator[object]:
        for one in listings:
            yield one

    if first_alone:
        await sink(await reader.first_page(listings[0]))
    await reader.read(each(), sink)  # type: ignore[arg-type]
    return ids


@pytest.mark.parametrize("first_alone", [False, True])
@pytest.mark.parametrize("count", [0, 1, 50, 51, 350])
async def test_each_row_comes_once_in_the_pages_they_fill(count: int, first_alone: bool) -> None:
    async with (
        Sandbox(quota=None) as sandbox,
        make_store(sandbox, limits=Limits(page_size=50, reads=4)) as store,
    ):
        await sandbox.seed((customer, 1, "v") for customer in range(1, count + 1))
        assert sorted(await read(store, first_alone=first_alone)) == list(range(1, count + 1))
        assert sandbox.calls["list"] == max(1, -(-count // 50))


@pytest.mark.parametrize("most", [100, 50, 10])
@pytest.mark.parametrize("over_limit", ["refuse", "clamp"])
async def test_a_smaller_page_than_asked_for_is_followed(over_limit: str, most: int) -> None:
    quirks = Quirks(max_limit=most, over_limit=over_limit)  # type: ignore[arg-type]
    async with Sandbox(quota=None, quirks=quirks) as sandbox, make_store(sandbox) as store:
        await sandbox.seed((customer, 1, "v") for customer in range(1, 301))
        assert sorted(await read(store)) == list(range(1, 301))
        assert sandbox.calls["list"] == 300 // most + (over_limit == "refuse")


@pytest.mark.parametrize("current_page", [1, 0])
async def test_a_capped_page_with_counters_of_the_page_asked_for_hides_no_row(
    current_page: int,
) -> None:
    """Fifty rows come, and `total_pages` is of 250; `current_page` always the same."""
    pager = Pager(
        list(range(1, 1_001)),
        per_page=50,
        lie=lambda page, ids, total, pages: (ids, current_page, total, 4),
    )
    async with listing(pager) as store:
        assert sorted(await read(store)) == list(range(1, 1_001))
    assert sorted(pager.asked) == list(range(1, 21))


async def test_pages_of_the_whole_store_are_not_read() -> None:
    pager = Pager(
        list(range(1, 401)),
        per_page=250,
        lie=lambda page, ids, total, pages: (ids, page, total, 26_000),
    )
    async with listing(pager) as store:
        assert sorted(await read(store)) == list(range(1, 401))
    assert sorted(pager.asked) == [1, 2]


async def test_a_total_of_the_whole_store_is_an_error_after_a_few_calls() -> None:
    pager = Pager(
        list(range(1, 401)),
        per_page=250,
        lie=lambda page, ids, total, pages: (ids, page, 6_500_000, 26_000),
    )
    async with listing(pager) as store:
        with pytest.raises(ListingDriftError, match="brought 400 different rows"):
            await read(store)
    assert len(pager.asked) <= 2 + 3 + 10


async def test_a_first_page_alone_that_lacks_rows_is_an_error() -> None:
    pager = Pager([1], lie=lambda page, ids, total, pages: ([1], 1, 2, 1))
    async with listing(pager) as store:
        with pytest.raises(ListingDriftError):
            await read(store, first_alone=True)
    assert len(pager.asked) <= 5


async def test_a_sync_fails_rather_than_prune_by_a_short_listing() -> None:
    pager = Pager(
        list(range(1, 1_001)),
        per_page=250,
        lie=lambda page, ids, total, pages: (ids if page < 4 else [], page, total, pages),
    )
    async with listing(pager) as store:
        with pytest.raises(ListingDriftError):
            await store.attribute_values.sync(
                [], scope=AttributeValueFilter(), prune=True, allow_empty=True
            )
