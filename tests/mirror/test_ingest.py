"""Pages on their way into the replica: rows are checked, and the index follows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.core.models import AttributeValue
from bc_attrvals.errors import DecodeError, FilterIgnoredError, MirrorError, PayloadTooLargeError
from bc_attrvals.mirror.ingest import Ingest
from bc_attrvals.mirror.ranges import BEGINNING, END, Range
from bc_attrvals.mirror.replica import MIRRORS, Replica
from bc_attrvals.mirror.report import Fault, FaultKind
from bc_attrvals.sync.database_thread import DatabaseThread

from .fake_store import START, FakeStore, as_calls, moment
from .opening import held, opened, refreshed

pytestmark = pytest.mark.looptime(noop_cycles=2)


@pytest.fixture
async def database() -> AsyncIterator[DatabaseThread[Replica]]:
    database = DatabaseThread(MIRRORS, None, field="path")
    await database.open()
    yield database
    await database.aclose()


async def test_the_index_follows_what_is_taken_in(database: DatabaseThread[Replica]) -> None:
    store = FakeStore()
    store.seed(40)
    ingest = Ingest(as_calls(store), database)
    ingest.index = await database.run(Replica.created_index)
    await ingest.take(list(store.rows.values()))
    await ingest.take([store.change(5, "changed")])
    whole = Range((1, 2, 3, 4), BEGINNING, END)
    assert ingest.index.count(whole) == 40
    second = Range((1, 2), START + 1, START + 1)
    ingest.follow(await database.run(Replica.drop_range, second, {5}))
    assert ingest.index.count(second) == 1
    assert ingest.count == 41


async def test_rows_that_the_mirror_should_have_had_are_faults(
    database: DatabaseThread[Replica],
) -> None:
    store = FakeStore()
    store.seed(3)
    ingest = Ingest(as_calls(store), database)
    before = store.rows[1]
    await ingest.take([before])
    ingest.settled = START + 100
    after = store.change(1, "silently", moves_date=False)
    await ingest.take([after, store.rows[2], store.change(3, "after that")])
    assert ingest.faults.named == [
        Fault(FaultKind.STALE, before, after),
        Fault(FaultKind.MISSING, None, store.rows[2]),
    ]


async def test_the_ids_of_new_rows_are_noted(database: DatabaseThread[Replica]) -> None:
    store = FakeStore()
    store.seed(12)
    ingest = Ingest(as_calls(store), database)
    ingest.shown_from = START + 2
    await ingest.take(list(store.rows.values()))
    assert ingest.shown == {9, 10, 11, 12}


async def test_a_page_that_is_refused_for_its_size_is_asked_for_smaller(tmp_path: Path) -> None:
    store = FakeStore()
    store.seed(300)

    def refuse() -> None:
        if store.asked[-1][2] > 25:
            raise PayloadTooLargeError(413, "too large", {})

    store.before = refuse
    async with opened(store, tmp_path) as mirror:
        await refreshed(mirror, store)
        assert store.sizes.page == 25


def without_dates(page_rows: list[AttributeValue]) -> list[AttributeValue]:
    return [
        AttributeValue(row.id, row.customer_id, row.attribute_id, row.value) for row in page_rows
    ]


def far_id(page_rows: list[AttributeValue]) -> list[AttributeValue]:
    return [
        AttributeValue(2**63, row.customer_id, row.attribute_id, row.value, moment(1), moment(1))
        for row in page_rows
    ]


@pytest.mark.parametrize(("lie", "error"), [(without_dates, MirrorError), (far_id, DecodeError)])
async def test_rows_that_can_not_be_mirrored_are_refused(
    lie: Callable[[list[AttributeValue]], list[AttributeValue]],
    error: type[Exception],
    tmp_path: Path,
) -> None:
    store = FakeStore()
    store.seed(10)
    store.lie = lambda query, page: type(page)(lie(page.data), page.pagination)
    async with opened(store, tmp_path) as mirror:
        with pytest.raises(error):
            await mirror.refresh()
        assert await held(mirror) == {}
        store.lie = None
        await refreshed(mirror, store)


async def test_rows_outside_of_the_scope_are_an_error_of_the_service(tmp_path: Path) -> None:
    store = FakeStore()
    store.seed(100)
    async with opened(store, tmp_path, AttributeValueFilter(attribute_id_in=[1])) as mirror:
        await mirror.refresh()
        outside = store.rows[2]
        store.lie = lambda query, page: type(page)([*page.data, outside], page.pagination)
        with pytest.raises(FilterIgnoredError):
            await mirror.refresh()
