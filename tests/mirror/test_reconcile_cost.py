"""What it costs to find rows that are gone: never more than listing anew and a stated few."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bc_attrvals.mirror.inquiry import LEARNING_READS
from bc_attrvals.mirror.parts import pages
from bc_attrvals.mirror.questions import Answer, Ask, Bounds, Done, Drop, Question, SeenRow
from bc_attrvals.mirror.reconcile import SPARE_READS, Reconciliation, most_reads

from .model import PAGE_SIZE, Table, refresh
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


def test_known_bounds_need_no_learning() -> None:
    rows = customers(5_000)
    store, mirror = store_without(rows, [2_000], min_inclusive=False), Table(rows)
    learnt = refresh(store, mirror)
    assert learnt.bounds == Bounds(min_inclusive=False, max_inclusive=True)
    store.table.remove(3_000)
    known = refresh(store, mirror, bounds=learnt.bounds)
    assert mirror.rows == store.table.rows
    assert known.reads < learnt.reads


def test_bounds_are_not_learnt_from_an_answer_that_leaves_rows_out() -> None:
    rows = customers(2_000)
    store, mirror = store_without(rows, [3, 500]), Table(rows)
    cut: list[Question] = []

    def leave_out_the_oldest(question: Question, answer: Answer) -> Answer:
        if question.limit == 1 or cut:
            return answer
        cut.append(question)
        oldest = min(row.created for row in answer.rows)
        return Answer(answer.total, [row for row in answer.rows if row.created > oldest])

    store.lie = leave_out_the_oldest
    refreshed = refresh(store, mirror)
    assert cut
    assert refreshed.bounds.min_inclusive is not False
    assert mirror.rows == store.table.rows


def test_bounds_are_not_learnt_from_seconds_whose_rows_are_gone() -> None:
    # Where seconds have the fewest rows, the meaning is looked for first.
    rows = [row for row in customers(2_000) if row.id % 4 == 1 or not 985 <= row.id <= 1_012]
    for second in (START + 251, START + 252):
        refreshed = reconciled(rows, {row.id for row in rows if row.created == second})
        assert refreshed.dropped == 1
        assert refreshed.bounds == Bounds(min_inclusive=True, max_inclusive=True)


def test_a_store_of_one_page_is_listed() -> None:
    assert reconciled(customers(PAGE_SIZE), [3, 5]).reads == 1


def test_an_empty_mirror_asks_nothing() -> None:
    assert reconciled([], []).reads == 0


def test_all_rows_of_one_second_are_listed_in_pages() -> None:
    rows = customers(2_000, per_second=2_000)
    refreshed = reconciled(rows, range(1, 1_000))
    assert refreshed.dropped == 999
    # One count of all, three of attributes, and the pages.
    assert refreshed.reads == 1 + 3 + pages(1_001, PAGE_SIZE)


def test_a_service_of_smaller_pages_is_believed() -> None:
    rows = customers(2_000)
    assert reconciled(rows, range(100, 400), largest_page=100).dropped == 300


def test_the_rows_asked_for_at_once_are_bounded() -> None:
    rows = customers(12_000)
    for gone in (at_random(1_200, rows, 1), of_attribute(2, rows), range(4_000, 12_000)):
        store, mirror = store_without(rows, gone), Table(rows)
        reconciliation = Reconciliation(mirror, until=store.now - 2, page_size=PAGE_SIZE)
        step = reconciliation.advance()
        while isinstance(step, (Ask, Drop)):
            if isinstance(step, Drop):
                step = reconciliation.advance()
                continue
            assert sum(one.limit for one in step.questions) <= 64 * PAGE_SIZE
            step = reconciliation.advance([store.answer(one) for one in step.questions])
        assert step == Done()


def test_the_most_reads_are_those_of_listing_anew_and_a_stated_few() -> None:
    assert most_reads(30_000, 250) == 120 + 3 + SPARE_READS
    assert most_reads(0, 250, bounds_known=False) == 1 + SPARE_READS + LEARNING_READS
