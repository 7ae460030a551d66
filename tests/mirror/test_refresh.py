"""A refresh: what it costs, and that the mirror is then the store's equal, whatever moves."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.core.models import AttributeValue
from bc_attrvals.errors import DecodeError, FilterIgnoredError, ListingDriftError, MirrorError
from bc_attrvals.mirror.mirror import Mirror
from bc_attrvals.mirror.report import RefreshReport

from .fake_store import FakeStore, moment
from .opening import held, opened

pytestmark = pytest.mark.looptime(noop_cycles=2)

STORES = {
    "id order, bounds inclusive": {},
    "shuffled, bounds exclusive": {"order": "shuffled", "inclusive": False},
}


async def refreshed(mirror: Mirror, store: FakeStore) -> RefreshReport:
    """Refresh, and check the mirror and the report."""
    before = await held(mirror)
    report = await mirror.refresh()
    after = await held(mirror)
    assert after == store.rows
    assert report.rows == len(after)
    assert report.added == len(after.keys() - before.keys())
    assert report.removed == len(before.keys() - after.keys())
    common = after.keys() & before.keys()
    assert report.changed == sum(before[one] != after[one] for one in common)
    assert report.calls == store.calls
    assert report.ok
    return report


def change_and_insert(store: FakeStore, rng: random.Random, changed: int, added: int) -> None:
    for one in rng.sample(sorted(store.rows), changed):
        store.change(one, f"changed {one}")
    for index in range(added):
        store.insert(500_000 + index, 1, "new")


def delete(store: FakeStore, row_ids: Iterable[int]) -> None:
    for one in row_ids:
        store.delete(one)


@pytest.mark.parametrize("options", STORES.values(), ids=STORES.keys())
async def test_a_refresh_costs_what_changed(options: dict[str, object], tmp_path: Path) -> None:
    # 120 pages, as 30,000 rows in pages of 250 are.
    rng = random.Random(3)
    store = FakeStore(page_size=25, **options)  # type: ignore[arg-type]
    store.seed(3_000)
    async with opened(store, tmp_path) as mirror:
        first = await refreshed(mirror, store)
        assert first.verified
        assert first.added == first.rows == 3_000

        assert (await refreshed(mirror, store)).calls <= 4

        change_and_insert(store, rng, 60, 10)
        report = await refreshed(mirror, store)
        assert report.calls <= 8
        assert (report.changed, report.added, report.verified) == (60, 10, False)

        delete(store, rng.sample(sorted(store.rows), 5))
        report = await refreshed(mirror, store)
        assert report.calls <= 45
        assert report.saved_calls >= 75

        customers = range(600, 604)
        delete(store, [one.id for one in store.rows.values() if one.customer_id in customers])
        assert (await refreshed(mirror, store)).calls <= 30

        delete(store, rng.sample(sorted(store.rows), 60))
        assert (await refreshed(mirror, store)).calls <= 140


async def test_what_changes_in_the_newest_second_is_found_next_time(tmp_path: Path) -> None:
    store = FakeStore()
    store.seed(2_000)
    async with opened(store, tmp_path) as mirror:
        await refreshed(mirror, store)
        for value in ("one", "two", "three"):
            store.change(7, value)
            store.insert(9_000, 1, value)
            await refreshed(mirror, store)
        store.delete(store.next_id - 1)
        await refreshed(mirror, store)


async def test_thousands_of_rows_of_one_second_are_not_listed_each_time(tmp_path: Path) -> None:
    store = FakeStore()
    for index in range(2_000):
        store.insert(index + 1, 1, "x")
    async with opened(store, tmp_path) as mirror:
        await refreshed(mirror, store)
        assert (await refreshed(mirror, store)).calls <= 2
        store.change(5, "y")
        assert (await refreshed(mirror, store)).calls <= 3
        change_and_insert(store, random.Random(1), 600, 0)
        await refreshed(mirror, store)
        assert (await refreshed(mirror, store)).calls <= 2
        delete(store, [17])
        await refreshed(mirror, store)
        delete(store, list(store.rows))
        await refreshed(mirror, store)


@pytest.mark.parametrize("size", [0, 1, 250, 251, 700])
async def test_stores_of_every_size(size: int, tmp_path: Path) -> None:
    store = FakeStore()
    store.seed(size)
    async with opened(store, tmp_path) as mirror:
        await refreshed(mirror, store)
        store.insert(1, 9, "new")
        await refreshed(mirror, store)
        delete(store, list(store.rows))
        await refreshed(mirror, store)
        store.insert(1, 9, "again")
        await refreshed(mirror, store)


async def test_a_scope_of_many_customers_is_refreshed_in_parts(tmp_path: Path) -> None:
    store = FakeStore(room_bytes=400)
    store.seed(2_000)
    scope = AttributeValueFilter(customer_id_in=range(1, 401), attribute_id_in=[1, 2])

    def in_scope() -> dict[int, AttributeValue]:
        rows = store.rows.values()
        return {r.id: r for r in rows if r.customer_id <= 400 and r.attribute_id <= 2}

    async with opened(store, tmp_path, scope) as mirror:
        await mirror.refresh()
        assert await held(mirror) == in_scope()
        store.insert(17, 1, "in the scope")
        store.insert(17, 3, "outside")
        store.insert(450, 1, "outside")
        delete(store, [1, 2, 3, 41, 802, 1_999])
        report = await mirror.refresh()
        assert await held(mirror) == in_scope()
        assert (report.added, report.removed) == (1, 4)


async def test_what_changes_in_a_part_that_was_read_is_seen_next_time(tmp_path: Path) -> None:
    # Longer between the parts than modified rows are listed again.
    store = FakeStore(page_size=20, room_bytes=250, latency_s=150)
    store.seed(800)
    scope = AttributeValueFilter(customer_id_in=range(1, 201))
    async with opened(store, tmp_path, scope) as mirror:
        await refreshed(mirror, store)

        def change_what_was_read() -> None:
            if store.calls == 3:
                store.change(3, "later")

        # Shows in the first part what the time is.
        store.change(5, "now")
        store.before = change_what_was_read
        # Of each of six parts a listing and a count.
        assert (await mirror.refresh()).calls == 12
        assert (await held(mirror))[3].value == "v2"
        store.before = None
        await refreshed(mirror, store)


async def test_writers_whose_clocks_are_behind_are_seen(tmp_path: Path) -> None:
    # Of the last seconds with more rows than a fifth of a page, those after the first.
    store = FakeStore(page_size=25, inclusive=False)
    store.seed(100)
    async with opened(store, tmp_path) as mirror:
        await refreshed(mirror, store)
        await asyncio.sleep(100)
        second = store.now()
        for number in range(10):
            store.insert(200 + number, 1, "new")
        await asyncio.sleep(5)
        store.insert(300, 1, "newest")
        await refreshed(mirror, store)
        store.insert(400, 1, "late", second + 2)
        await refreshed(mirror, store)


async def test_a_second_that_is_not_over_is_not_counted(tmp_path: Path) -> None:
    store = FakeStore(page_size=25, latency_s=0.3)
    store.seed(100)
    async with opened(store, tmp_path) as mirror:
        await mirror.refresh()
        store.before = lambda: store.insert(store.next_id, 1, "in every second")
        for _ in range(12):
            assert (await mirror.refresh()).ok
        store.before = None
        await refreshed(mirror, store)


async def test_a_row_that_changes_again_while_the_newest_rows_are_read(tmp_path: Path) -> None:
    store = FakeStore(order="shuffled", inclusive=False, page_size=20)
    store.seed(300)
    async with opened(store, tmp_path) as mirror:
        await refreshed(mirror, store)
        await asyncio.sleep(100)
        for row_id in range(1, 101):
            store.change(row_id, "before")
        left = set(range(1, 101))

        def change_what_was_not_shown() -> None:
            if "date_modified:max" in store.asked[-1][0] and len(left) == 100:
                for row_id in range(40, 60):
                    store.change(row_id, "meanwhile")
                left.clear()

        store.before = change_what_was_not_shown
        await mirror.refresh()
        assert not left
        values = {row.value for row_id, row in (await held(mirror)).items() if row_id <= 100}
        assert values <= {"before", "meanwhile"}


@pytest.mark.parametrize("after_s", [0.0, 0.3, 0.6, 0.9])
async def test_a_change_in_a_second_that_was_listed_is_seen_next_time(
    after_s: float, tmp_path: Path
) -> None:
    store = FakeStore(inclusive=False, page_size=20, latency_s=0.15)
    store.seed(300)
    async with opened(store, tmp_path) as mirror:
        await refreshed(mirror, store)
        await asyncio.sleep(100 + after_s)
        for row_id in range(1, 101):
            store.change(row_id, "before")
        ranges = 0

        def change_after_the_range() -> None:
            nonlocal ranges
            query = store.asked[-1][0]
            ranges += "date_modified:max" in query
            if ranges and "date_modified:max" not in query and "date_modified:min" in query:
                store.change(50, "meanwhile")
                store.before = None

        store.before = change_after_the_range
        await mirror.refresh()
        assert ranges
        assert store.before is None
        await refreshed(mirror, store)


@pytest.mark.parametrize("how", ["everything", "ranges", "parts"])
async def test_what_changes_after_it_was_read_is_seen_next_time(how: str, tmp_path: Path) -> None:
    # Answers take longer to arrive than the time for which modified rows are listed again. Those
    # before have shown what the time is.
    store = FakeStore(order="shifting" if how == "parts" else "id", page_size=20)
    store.seed(300)
    async with opened(store, tmp_path) as mirror:
        if how != "everything":
            await refreshed(mirror, store)
        for row_id in range(11, 111):
            store.change(row_id, "before")
        changed = 0

        def change() -> None:
            nonlocal changed
            query, asked = store.asked[-1][0], [one[0] for one in store.asked]
            is_late = {
                "everything": True,
                "ranges": ":max" not in query and any("date_modified:max" in one for one in asked),
                "parts": "date_modified" in query and "date_created" in query,
            }[how]
            if is_late:
                changed += 1
                store.slow_s = 200
                store.change(changed % 8 + 2, f"at {changed}")

        store.after = change
        await mirror.refresh()
        assert changed
        store.after = None
        await refreshed(mirror, store)


async def test_pages_of_another_order_each_time_are_read_exactly_once(tmp_path: Path) -> None:
    store = FakeStore(order="shifting")
    store.seed(2_000)
    async with opened(store, tmp_path) as mirror:
        await refreshed(mirror, store)
        change_and_insert(store, random.Random(1), 600, 10)
        await refreshed(mirror, store)


@pytest.mark.parametrize("options", STORES.values(), ids=STORES.keys())
async def test_a_row_dated_tomorrow_hides_no_change(
    options: dict[str, object], tmp_path: Path
) -> None:
    store = FakeStore(page_size=50, **options)  # type: ignore[arg-type]
    store.seed(300)
    tomorrow = moment(store.now() + 86_400)
    for row_id in range(1, 200, 3):
        old = store.rows[row_id]
        store.put(
            AttributeValue(
                row_id,
                old.customer_id,
                old.attribute_id,
                "early",
                old.date_created,
                tomorrow,
            )
        )
    async with opened(store, tmp_path) as mirror:
        await refreshed(mirror, store)
        for value in ("one", "two"):
            change_and_insert(store, random.Random(1), 60, 10)
            store.insert(9_000, 1, value, store.now() + 86_400)
            await refreshed(mirror, store)
            delete(store, [2, store.next_id - 1] if value == "one" else [5])
            await refreshed(mirror, store)


@pytest.mark.parametrize("offset_s", [-7_200, -2, 2, None])
async def test_the_date_of_the_answers_may_be_off_or_missing(
    offset_s: int | None, tmp_path: Path
) -> None:
    store = FakeStore(page_size=50)
    store.has_dates, store.date_offset_s = offset_s is not None, offset_s or 0
    store.seed(300)
    async with opened(store, tmp_path) as mirror:
        await refreshed(mirror, store)
        for number in range(3):
            change_and_insert(store, random.Random(number), 60, 10)
            delete(store, random.Random(number).sample(sorted(store.rows), 5))
            await refreshed(mirror, store)


# A store that never rests.


def matches(scope: AttributeValueFilter | None, row: AttributeValue | None) -> bool:
    assert row is not None
    return scope is None or (
        row.customer_id in (scope.customer_id_in or ())
        and row.attribute_id in (scope.attribute_id_in or ())
    )


class History:
    """What each row was at each change of the store, so that a refresh can be held to it."""

    def __init__(self, store: FakeStore, seed: int) -> None:
        self.store = store
        self.rng = random.Random(seed)
        self.tick = 0
        self.states: dict[int, list[tuple[int, AttributeValue | None]]] = {}
        for row in store.rows.values():
            self.states[row.id] = [(0, row)]

    def move(self) -> None:
        """Two clients insert, change and delete."""
        for _ in range(self.rng.randrange(3)):
            self.tick += 1
            kind = self.rng.random()
            if kind < 0.4 or not self.store.rows:
                customer_id = self.rng.randrange(1, self.rng.choice([60, 100_000]))
                row = self.store.insert(customer_id, self.rng.randrange(1, 5), "new")
                self.states[row.id] = [(self.tick, row)]
                continue
            # Of those in the store, or of those that are new.
            newest = self.rng.random() < 0.3
            row_id = max(self.store.rows) if newest else self.rng.choice(list(self.store.rows))
            if kind < 0.7:
                row = self.store.change(row_id, f"at {self.tick}")
                self.states[row_id].append((self.tick, row))
            else:
                self.store.delete(row_id)
                self.states[row_id].append((self.tick, None))

    def within(self, row_id: int, first: int) -> list[AttributeValue | None]:
        """Return all states of a row from a tick on."""
        states = self.states[row_id]
        earlier = [state for tick, state in states if tick <= first]
        later = [state for tick, state in states if tick > first]
        return [earlier[-1] if earlier else None, *later]

    def in_scope(self, scope: AttributeValueFilter | None) -> dict[int, AttributeValue]:
        return {one: row for one, row in self.store.rows.items() if matches(scope, row)}

    def check(
        self,
        rows: dict[int, AttributeValue],
        first: int,
        scope: AttributeValueFilter | None,
    ) -> None:
        for row_id, (created, *_) in self.states.items():
            if not matches(scope, created[1]):
                assert row_id not in rows
                continue
            states = self.within(row_id, first)
            if row_id in rows:
                assert rows[row_id] in states
            else:
                assert None in states, f"row {row_id} lived through the refresh and is missing"


@pytest.mark.parametrize("seeds", [range(start, start + 6) for start in range(0, 24, 6)])
async def test_a_store_that_never_rests(seeds: range, tmp_path: Path) -> None:
    raised = 0
    for seed in seeds:
        path = tmp_path / str(seed)
        path.mkdir()
        raised += await never_resting(seed, path)
    assert raised <= 2


async def never_resting(seed: int, path: Path) -> int:
    rng = random.Random(seed)
    store = FakeStore(
        order=rng.choice(["id", "shuffled"]),
        inclusive=rng.random() < 0.5,
        page_size=20,
        latency_s=rng.choice([0.005, 0.05, 0.4]),
    )
    store.has_dates = rng.random() < 0.8
    store.date_offset_s = rng.choice([0, 0, -1, 1, 30, -30])
    store.seed(240, step_s=rng.choice([1, 7]))
    history = History(store, seed)
    raised = 0
    scope = None
    if rng.random() < 0.3:
        store.room_bytes = 350
        scope = AttributeValueFilter(customer_id_in=range(1, 51), attribute_id_in=[1, 2, 3])
    async with opened(store, path, scope) as mirror:
        for _ in range(4):
            store.before = history.move
            first = history.tick
            before = await held(mirror)
            try:
                await mirror.refresh(verify=rng.random() < 0.1)
            except ListingDriftError:
                raised += 1
                assert await held(mirror) == before
            else:
                history.check(await held(mirror), first, scope)
            store.before = None
            for _ in range(rng.randrange(30)):
                history.move()
        await mirror.refresh()
        assert await held(mirror) == history.in_scope(scope)
    return raised


# A service that can't be mirrored.


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


async def test_a_filter_by_date_modified_that_is_ignored_is_seen(tmp_path: Path) -> None:
    store = FakeStore()
    store.seed(1_000)
    async with opened(store, tmp_path) as mirror:
        await mirror.refresh()
        store.change(3, "later")
        old = store.rows[900]
        store.lie = lambda query, page: (
            type(page)([old], page.pagination) if "date_modified" in query else page
        )
        with pytest.raises(FilterIgnoredError):
            await mirror.refresh()
