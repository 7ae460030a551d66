"""Stores and mirrors to reconcile, and how a reconciliation of them is checked."""

from __future__ import annotations

import random
from collections.abc import Iterable

from hypothesis import settings
from hypothesis import strategies as st

from bc_attrvals.mirror.range_counts import Done, SeenRow, most_reads

from .reconcile_model import PAGE_SIZE, ModelStore, Refreshed, Table, refresh

START = 1_700_000_000
BOTH = [(True, True), (True, False), (False, True), (False, False)]

quick = settings(max_examples=60, deadline=None, derandomize=True)


def customers(
    rows: int, *, attributes: int = 4, per_second: int = 4, step_s: int = 1
) -> list[SeenRow]:
    """Return rows customer by customer, so many in each `step_s` seconds."""
    return [
        SeenRow(index + 1, index % attributes + 1, START + index // per_second * step_s)
        for index in range(rows)
    ]


def store_without(rows: list[SeenRow], gone: Iterable[int], **options: object) -> ModelStore:
    out = set(gone)
    now = max((row.created for row in rows), default=START) + 10
    return ModelStore(Table(row for row in rows if row.id not in out), now, **options)


def reconciled(rows: list[SeenRow], gone: Iterable[int], **options: object) -> Refreshed:
    """Reconcile, check that the mirror is the store's equal, and that the cost is bounded."""
    store, mirror = store_without(rows, gone, **options), Table(rows)
    refreshed = refresh(store, mirror)
    assert refreshed.end == Done()
    assert mirror.rows == store.table.rows
    assert refreshed.reads <= most_reads(len(store.table.rows), PAGE_SIZE, bounds_known=False)
    return refreshed


def of_attribute(attribute_id: int, rows: list[SeenRow]) -> set[int]:
    return {row.id for row in rows if row.attribute_id == attribute_id}


def at_random(count: int, rows: list[SeenRow], seed: int) -> set[int]:
    return set(random.Random(seed).sample([row.id for row in rows], count))


@st.composite
def stores(draw: st.DrawFn) -> tuple[list[SeenRow], set[int], dict[str, object]]:
    """Return rows, the ids of some of them that are gone, and how the service behaves."""
    seconds = draw(st.lists(st.integers(0, 40), max_size=120))
    attributes = draw(st.integers(1, 12))
    rows = [
        SeenRow(index + 1, draw(st.integers(1, attributes)), START + second)
        for index, second in enumerate(seconds)
    ]
    gone = {row.id for row in rows if draw(st.integers(0, 9)) == 0}
    for shape in draw(st.lists(st.sampled_from(["second", "attribute", "range"]), max_size=2)):
        if shape == "second":
            second = START + draw(st.integers(0, 40))
            gone |= {row.id for row in rows if row.created == second}
        elif shape == "attribute":
            gone |= of_attribute(draw(st.integers(1, attributes)), rows)
        else:
            first = draw(st.integers(1, 120))
            gone |= set(range(first, first + draw(st.integers(0, 60)))) & {r.id for r in rows}
    min_inclusive, max_inclusive = draw(st.sampled_from(BOTH))
    options = {
        "min_inclusive": min_inclusive,
        "max_inclusive": max_inclusive,
        "order": draw(st.sampled_from(["id", "shuffled"])),
    }
    return rows, gone, options
