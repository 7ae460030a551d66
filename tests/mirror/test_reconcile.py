"""A mirror made equal to a store at rest by counts and few listings."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bc_attrvals.mirror.parts import Part
from bc_attrvals.mirror.questions import Answer, Ask, Done, Drop, SeenRow
from bc_attrvals.mirror.reconcile import Reconciliation, most_reads

from .model import PAGE_SIZE, Table, refresh
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


@quick
@given(drawn=stores(), page_size=st.integers(2, 8))
def test_bounds_are_learnt_right_or_not_at_all(
    drawn: tuple[list[SeenRow], set[int], dict[str, object]], page_size: int
) -> None:
    rows, gone, options = drawn
    refreshed = refresh(store_without(rows, gone, **options), Table(rows), page_size=page_size)
    assert refreshed.bounds.min_inclusive in (None, options["min_inclusive"])
    assert refreshed.bounds.max_inclusive in (None, options["max_inclusive"])


# The interface.


def test_another_number_of_answers_is_refused() -> None:
    mirror = Table(customers(10))
    reconciliation = Reconciliation(mirror, until=START + 100, page_size=250)
    step = reconciliation.advance()
    assert isinstance(step, Ask)
    with pytest.raises(ValueError, match="1 answers were expected, not 0"):
        reconciliation.advance()
    step = reconciliation.advance([Answer(10, customers(10))])
    assert isinstance(step, Drop)
    assert step.keep == set(range(1, 11))
    assert reconciliation.advance() == Done()


def test_an_error_of_the_replica_never_ends_as_done() -> None:
    class Broken(Table):
        def created_at(self, part: Part, index: int) -> int:
            raise OSError("disk")

    reconciliation = Reconciliation(
        Broken(customers(1_000)), until=START + 10_000, page_size=PAGE_SIZE
    )
    assert isinstance(reconciliation.advance(), Ask)
    with pytest.raises(OSError, match="disk"):
        reconciliation.advance([Answer(999)])
    with pytest.raises(RuntimeError, match="ended by an error"):
        reconciliation.advance([Answer(999)])
