"""Other clients write while a mirror is reconciled: no row is wrong, and the end is bounded."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bc_attrvals.errors import ListingDriftError
from bc_attrvals.mirror.range_counts import Done, SeenRow
from bc_attrvals.mirror.ranges import pages

from .reconcile_model import PAGE_SIZE, ModelStore, Table, refresh
from .reconciling import at_random, customers, quick, store_without, stores


class Writers:
    """Other clients: some deletions, insertions and seconds between every two answers."""

    def __init__(self, seed: int, *, deletions: float, most: int = 3) -> None:
        self._random = random.Random(seed)
        self._deletions = deletions
        self._most = most

    def __call__(self, store: ModelStore) -> None:
        store.now += self._random.randrange(3)
        for _ in range(self._random.randint(1, self._most)):
            if store.table.rows and self._random.random() < self._deletions:
                self._delete(store)
            row = store.insert(self._random.randint(1, 5))
            if self._random.random() < 0.3:
                store.table.remove(row.id)

    def _delete(self, store: ModelStore) -> None:
        row_id = self._random.randrange(store.next_id)
        while row_id not in store.table.rows:
            row_id = (row_id + 1) % store.next_id
        row = store.table.rows[row_id]
        gone = [row]
        if self._random.random() < 0.2:
            gone = store.table.within([row.attribute_id], row.created, row.created + 3)
        for one in gone:
            store.table.remove(one.id)


def check_lives(mirror: Table, before: set[int], store: ModelStore, until: int) -> None:
    """Rows that lived through the call are in the mirror, and none that was gone before it."""
    held = {row.id for row in mirror.rows.values() if row.created <= until}
    assert before & store.table.rows.keys() <= mirror.rows.keys()
    assert held <= before


@quick
@given(
    drawn=stores(),
    page_size=st.integers(2, 8),
    seed=st.integers(0, 10**6),
    deletions=st.sampled_from([0.02, 0.2, 0.9]),
)
def test_under_writers_that_never_rest_no_row_is_wrong(
    drawn: tuple[list[SeenRow], set[int], dict[str, object]],
    page_size: int,
    seed: int,
    deletions: float,
) -> None:
    rows, gone, options = drawn
    store, mirror = store_without(rows, gone, **options), Table(rows)
    before = set(store.table.rows)
    until = store.now - 2
    store.before = Writers(seed, deletions=deletions)
    refreshed = refresh(store, mirror, page_size=page_size, shuffle=random.Random(seed))
    if isinstance(refreshed.end, ListingDriftError):
        # Only many rows of one second can't be read in pieces that stand still.
        assert "kept changing" in str(refreshed.end)
        assert before & store.table.rows.keys() <= mirror.rows.keys()
    else:
        check_lives(mirror, before, store, until)


@pytest.mark.parametrize("order", ["id", "shuffled"])
@pytest.mark.parametrize("deletions", [0.05, 0.5, 3])
def test_a_large_store_under_deletions_is_proven_at_bounded_cost(
    deletions: float, order: str
) -> None:
    rows = customers(6_000)
    gone = at_random(20, rows, seed=4)
    worst = 0
    for seed in range(3):
        store, mirror = store_without(rows, gone, order=order), Table(rows)
        before = set(store.table.rows)
        until = store.now - 2
        store.before = Writers(seed, deletions=deletions, most=max(1, int(deletions)))
        refreshed = refresh(store, mirror)
        assert isinstance(refreshed.end, Done)
        check_lives(mirror, before, store, until)
        worst = max(worst, refreshed.reads)
    print(f"{deletions} deletions a read, {order}: {worst}")
    # Without shorter listings after the first round it would be more than 300.
    assert worst <= 2.4 * pages(6_000, PAGE_SIZE)


def test_a_row_deleted_while_halves_are_subtracted_hides_none_that_was_gone() -> None:
    # One row is gone at first. After the count of all, one of the other half goes, too: by
    # subtraction the half with the first looks equal.
    rows = customers(2_000)
    store, mirror = store_without(rows, [1_900]), Table(rows)
    went: list[int] = []

    def delete_one(store: ModelStore) -> None:
        if store.reads > 1 and not went:
            store.table.remove(100)
            went.append(100)

    store.before = delete_one
    assert refresh(store, mirror).end == Done()
    assert 1_900 not in mirror.rows
