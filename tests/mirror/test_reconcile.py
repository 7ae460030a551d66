"""A mirror made equal to a store at rest by counts and few listings."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bc_attrvals.mirror.range_counts import Answer, Ask, Done, Search, SeenRow, most_reads
from bc_attrvals.mirror.ranges import Range
from bc_attrvals.mirror.reconcile import reconcile

from .reconcile_model import PAGE_SIZE, Table, refresh
from .reconciling import START, customers, quick, store_without, stores


@quick
@given(drawn=stores(), page_size=st.integers(2, 8), seed=st.integers(0, 99))
def test_a_store_at_rest_is_met_exactly_at_bounded_cost(
    drawn: tuple[list[SeenRow], set[int], dict[str, object]], page_size: int, seed: int
) -> None:
    rows, gone, options = drawn
    store, mirror = store_without(rows, gone, **options), Table(rows)
    refreshed = refresh(store, mirror, page_size=page_size, shuffle=random.Random(seed))
    assert refreshed.end == Done()
    assert mirror.rows == store.table.rows
    assert refreshed.dropped == len(gone)
    assert refreshed.reads <= most_reads(len(store.table.rows), page_size, bounds_known=False)


def test_an_error_of_the_replica_never_ends_as_done() -> None:
    class Broken(Table):
        def created_at(self, part: Range, index: int) -> int:
            raise OSError("disk")

    search = Search(Broken(customers(1_000)), until=START + 10_000, page_size=PAGE_SIZE)
    steps = reconcile(search)
    assert isinstance(next(steps), Ask)
    with pytest.raises(OSError, match="disk"):
        steps.send([Answer(999)])
    with pytest.raises(StopIteration):
        next(steps)
