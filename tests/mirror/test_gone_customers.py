"""Customers that are gone together are found by their ids where their rows are of any date."""

from __future__ import annotations

import random
from collections.abc import Collection
from pathlib import Path

import pytest

from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.errors import APIError, PermissionDeniedError, UnprocessableError
from bc_attrvals.mirror.report import RefreshReport

from .fake_store import START, FakeStore
from .opening import delete, held, opened, refreshed

pytestmark = pytest.mark.looptime(noop_cycles=2)

CUSTOMERS = 400


def store_of_random_dates(**options: object) -> FakeStore:
    """Return a store of 64 pages, whose rows were created at random times."""
    store = FakeStore(page_size=25, **options)  # type: ignore[arg-type]
    seconds = random.Random(7).sample(range(900_000), 4 * CUSTOMERS)
    for index, second in enumerate(sorted(seconds)):
        # In a random order of customers.
        customer = index * 7_919 % CUSTOMERS + 1
        store.insert(customer, index // CUSTOMERS + 1, f"v{index}", START + second)
    return store


def of_customers(store: FakeStore, customers: Collection[int]) -> list[int]:
    return [row.id for row in store.rows.values() if row.customer_id in customers]


async def refreshed_without(
    store: FakeStore, customers: Collection[int], path: Path
) -> RefreshReport:
    async with opened(store, path) as mirror:
        await refreshed(mirror, store)
        await refreshed(mirror, store)
        delete(store, of_customers(store, customers))
        report = await refreshed(mirror, store)
    print(f"{len(customers)} customers: {report.calls} reads")
    return report


@pytest.mark.parametrize(("first", "count", "most"), [(1, 16, 25), (200, 16, 25), (392, 9, 40)])
async def test_customers_in_a_row_cost_few_reads(
    first: int, count: int, most: int, tmp_path: Path
) -> None:
    store = store_of_random_dates(order="shuffled", inclusive=False)
    customers = range(first, first + count)
    assert (await refreshed_without(store, customers, tmp_path)).calls <= most


async def test_a_run_of_many_groups_is_followed_to_both_ends(tmp_path: Path) -> None:
    report = await refreshed_without(store_of_random_dates(), range(100, 300), tmp_path)
    assert report.calls <= 40


async def test_several_runs_are_found(tmp_path: Path) -> None:
    customers = {*range(50, 62), *range(300, 314)}
    assert (await refreshed_without(store_of_random_dates(), customers, tmp_path)).calls <= 35


async def test_customers_far_apart_cost_no_more_than_listing_anew(tmp_path: Path) -> None:
    customers = random.Random(3).sample(range(1, CUSTOMERS), 40)
    report = await refreshed_without(store_of_random_dates(), customers, tmp_path)
    assert report.calls <= report.anew_calls + 20


@pytest.mark.parametrize("most_ids", [1, 12, 25])
async def test_ids_that_the_service_ignores_drop_no_row(most_ids: int, tmp_path: Path) -> None:
    store = store_of_random_dates()
    store.most_ids = most_ids
    await refreshed_without(store, range(300, 308), tmp_path)


@pytest.mark.parametrize("error", [UnprocessableError, PermissionDeniedError])
async def test_a_refusal_of_the_ids_ends_the_search_and_another_error_the_refresh(
    error: type[APIError], tmp_path: Path
) -> None:
    store = store_of_random_dates()

    def refuse() -> None:
        if "customer_id:in" in store.asked[-1][0]:
            status = 422 if error is UnprocessableError else 403
            raise error(status, "not so many", {})

    store.before = refuse
    async with opened(store, tmp_path) as mirror:
        await refreshed(mirror, store)
        delete(store, of_customers(store, range(300, 310)))
        if error is UnprocessableError:
            await refreshed(mirror, store)
        else:
            with pytest.raises(error):
                await mirror.refresh()


async def test_customers_of_a_scope_are_searched_in_the_scope(tmp_path: Path) -> None:
    store = store_of_random_dates()
    scope = AttributeValueFilter(customer_id_in=range(1, 351), attribute_id_in=[1, 2, 3])

    def in_scope() -> dict[int, object]:
        rows = store.rows.values()
        return {r.id: r for r in rows if r.customer_id <= 350 and r.attribute_id <= 3}

    async with opened(store, tmp_path, scope) as mirror:
        await mirror.refresh()
        delete(store, of_customers(store, range(330, 370)))
        report = await mirror.refresh()
        assert await held(mirror) == in_scope()
        assert report.calls <= 30


async def test_writers_meanwhile_make_no_row_wrong(tmp_path: Path) -> None:
    for seed in range(2):
        path = tmp_path / str(seed)
        path.mkdir()
        store, rng = store_of_random_dates(), random.Random(seed)
        async with opened(store, path) as mirror:
            await refreshed(mirror, store)
            delete(store, of_customers(store, range(300, 312)))
            before = set(store.rows)

            def delete_near(store: FakeStore = store, rng: random.Random = rng) -> None:
                near = of_customers(store, range(280, 330))
                if near and rng.random() < 0.3:
                    store.delete(rng.choice(near))

            store.before = delete_near
            await mirror.refresh()
            rows = set(await held(mirror))
            assert store.rows.keys() <= rows <= before
            store.before = None
            await refreshed(mirror, store)
