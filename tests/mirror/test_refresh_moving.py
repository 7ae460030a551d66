"""A refresh of a store that changes meanwhile: nothing is wrong, and the next one sees the rest."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.core.models import AttributeValue
from bc_attrvals.errors import ListingDriftError

from .fake_store import FakeStore
from .opening import held, opened, refreshed

pytestmark = pytest.mark.looptime(noop_cycles=2)


async def test_what_changes_in_a_part_that_was_read_is_seen_next_time(tmp_path: Path) -> None:
    # Longer between the parts than modified rows are listed again.
    store = FakeStore(page_size=20, room_bytes=825, latency_s=150)
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


@pytest.mark.parametrize("behind_s", [5, 30, 59])
async def test_a_change_that_is_dated_back_is_seen_after_any_number_of_others(
    behind_s: int, tmp_path: Path
) -> None:
    store = FakeStore(page_size=25, inclusive=False)
    store.seed(300)
    async with opened(store, tmp_path) as mirror:
        await refreshed(mirror, store)
        for _ in range(3):
            store.lags_s = (0,)
            for row_id in range(1, 101):
                store.change(row_id, f"at {store.now()}")
            await refreshed(mirror, store)
            store.lags_s = (behind_s,)
            store.change(200, f"at {store.now()}")
            store.insert(900, 1, "late")
            store.delete(250 + store.next_id % 10)
            await refreshed(mirror, store)
            await asyncio.sleep(20)


async def test_a_change_that_is_dated_back_into_what_was_read_is_no_deletion(
    tmp_path: Path,
) -> None:
    store = FakeStore(page_size=20)
    store.seed(300)
    new = [store.insert(1_000 + number, 1, "new").id for number in range(60)]
    async with opened(store, tmp_path) as mirror:
        await refreshed(mirror, store)

        def date_back() -> None:
            # Whatever was read last, its seconds of `date_modified` gain a row that moves there.
            if store.calls > 1:
                store.change(new[store.calls % 60], "later")
                store.lags_s = (40,)
                store.change(new[(store.calls + 7) % 60], "back")
                store.lags_s = (0,)

        store.before = date_back
        for _ in range(3):
            for row_id in new:
                store.change(row_id, "before")
            await asyncio.sleep(1)
            await mirror.refresh()
            rows = await held(mirror)
            assert rows.keys() == store.rows.keys()
            assert {rows[one].value for one in new} <= {"before", "later", "back"}
        store.before = None
        await refreshed(mirror, store)


async def test_a_row_whose_change_is_dated_before_its_creation_is_found_gone(
    tmp_path: Path,
) -> None:
    store = FakeStore(page_size=20)
    store.seed(300)
    async with opened(store, tmp_path) as mirror:
        await refreshed(mirror, store)
        row = store.insert(900, 1, "new")
        store.lags_s = (30,)
        store.change(row.id, "dated back")
        await asyncio.sleep(40)
        store.lags_s = (0,)
        store.change(5, "shows the time")
        await refreshed(mirror, store)
        store.delete(row.id)
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
        if how == "ranges":
            # Until those changes are of the past for every clock.
            await asyncio.sleep(200)
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
    store.lags_s = rng.choice([(0,), (0, 5), (0, 29)])
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
                await asyncio.sleep(rng.choice([0, 0, 1]))
        await mirror.refresh()
        assert await held(mirror) == history.in_scope(scope)
    return raised
