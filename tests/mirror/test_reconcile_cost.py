"""What it costs to find rows that are gone: never more than listing anew and a stated few."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bc_attrvals.mirror.range_counts import Done, SeenRow, most_reads

from .reconcile_model import Table, refresh
from .reconciling import (
    BOTH,
    START,
    at_random,
    customers,
    of_attribute,
    quick,
    reconciled,
    store_without,
)

# 6,000 rows are 120 pages.

LOST: dict[str, tuple[Callable[[list[SeenRow], int], Iterable[int]], int]] = {
    "nothing": (lambda rows, seed: (), 1),
    "one": (lambda rows, seed: at_random(1, rows, seed), 16),
    "5 at random": (lambda rows, seed: at_random(5, rows, seed), 43),
    "8 customers in a row": (lambda rows, seed: range(4 * seed + 1, 4 * seed + 33), 20),
    "six runs of 10 customers": (
        lambda rows, seed: {
            4 * ((seed + 200 * run) % 1_400) + 1 + n for run in range(6) for n in range(40)
        },
        60,
    ),
    "20 at random": (lambda rows, seed: at_random(20, rows, seed), 105),
    "60 at random": (lambda rows, seed: at_random(60, rows, seed), 137),
    "200 at random": (lambda rows, seed: at_random(200, rows, seed), 137),
    "an attribute": (lambda rows, seed: of_attribute(seed % 4 + 1, rows), 8),
    "an attribute, and 5 at random": (
        lambda rows, seed: of_attribute(2, rows) | at_random(5, rows, seed),
        42,
    ),
    "the older half": (lambda rows, seed: range(1, len(rows) // 2 + 1), 14),
    "everything": (lambda rows, seed: range(1, len(rows) + 1), 2),
}

STORES: dict[str, tuple[dict[str, int], dict[str, object]]] = {
    "id order, bounds inclusive": ({}, {}),
    "shuffled, bounds exclusive": (
        {},
        {"order": "shuffled", "min_inclusive": False, "max_inclusive": False},
    ),
    "a customer in 5 seconds": ({"step_s": 5}, {"max_inclusive": False}),
    "20 rows in each second": ({"per_second": 20}, {"order": "shuffled"}),
}


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("lost", LOST)
def test_reads_to_find_what_is_gone(lost: str, store: str) -> None:
    shape, options = STORES[store]
    rows = customers(6_000, **shape)
    gone, most = LOST[lost]
    reads = [reconciled(rows, gone(rows, seed), **options).reads for seed in (1, 1_400)]
    print(f"{lost:32} {store:28} {reads} <= {most}")
    assert max(reads) <= most


def test_20_of_4000_pages_are_found_in_few_reads() -> None:
    # As many pages as a million rows in pages of 250.
    rows = customers(200_000)
    reads = reconciled(rows, at_random(20, rows, seed=1)).reads
    print(f"20 of 4,000 pages: {reads}")
    assert reads < 230


# Rows of one second can't be told apart by date. Next to a second with rows, a bound means two
# things until it is learnt, and it can't be learnt where the listings for it are too long.

CROWDED = {
    "one second": [0],
    "neighbours": [0, 1],
    "eight neighbours": [*range(8)],
    "two pairs": [0, 1, 100, 101],
    "one and few others": [0] * 50 + [*range(1, 200)],
}


@pytest.mark.parametrize("inclusive", BOTH)
@pytest.mark.parametrize("order", ["id", "shuffled"])
@pytest.mark.parametrize("seconds", CROWDED.values(), ids=CROWDED.keys())
def test_crowded_seconds_cost_no_more_than_listing_anew(
    seconds: list[int], order: str, inclusive: tuple[bool, bool]
) -> None:
    rng = random.Random(2)
    created = sorted(rng.choice(seconds) for _ in range(2_000))
    rows = [SeenRow(index + 1, index % 4 + 1, START + one) for index, one in enumerate(created)]
    minimum, maximum = inclusive
    options = {"order": order, "min_inclusive": minimum, "max_inclusive": maximum}
    for gone in (1, 5, 60):
        reconciled(rows, at_random(gone, rows, seed=gone), **options)


def spread(rng: random.Random) -> list[int]:
    """Return seconds of rows: of one, of few, of a run, or far apart, and mixtures."""
    kinds = [
        lambda: 0,
        lambda: rng.randrange(2),
        lambda: rng.randrange(8) * rng.choice([1, 100]),
        lambda: rng.choice([0, 1, 2, 50, 51, 1_000]),
        lambda: rng.randrange(20),
        lambda: rng.randrange(300),
        lambda: rng.randrange(10**5),
        lambda: int(rng.expovariate(1) * 20),
    ]
    some = rng.sample(kinds, rng.choice([1, 1, 2]))
    seconds = [rng.choices(some, [9, 1][: len(some)])[0]() for _ in range(rng.randint(20, 600))]
    return sorted(seconds) if rng.random() < 0.7 else seconds


@quick
@given(seed=st.integers(0, 10**6))
def test_no_distribution_of_rows_costs_more_than_listing_anew(seed: int) -> None:
    rng = random.Random(seed)
    attributes = rng.choice([1, 2, 4, 40])
    rows = [
        SeenRow(index + 1, rng.randint(1, attributes), START + second)
        for index, second in enumerate(spread(rng))
    ]
    count = min(len(rows), rng.choice([1, 1, 2, 5, 20, len(rows) // 4, len(rows)]))
    store = store_without(
        rows,
        at_random(count, rows, seed),
        min_inclusive=rng.random() < 0.5,
        max_inclusive=rng.random() < 0.5,
        order=rng.choice(["id", "shuffled"]),
    )
    store.now -= rng.choice([0, 6, 7, 8])
    page_size = rng.choice([2, 3, 5, 10])
    mirror = Table(rows)
    refreshed = refresh(store, mirror, page_size=page_size)
    assert refreshed.end == Done()
    until = store.now - 2
    assert {one for one in mirror.rows.values() if one.created <= until} == {
        one for one in store.table.rows.values() if one.created <= until
    }
    assert refreshed.reads <= most_reads(len(store.table.rows), page_size, bounds_known=False)


def test_an_empty_mirror_asks_nothing() -> None:
    assert reconciled([], []).reads == 0
