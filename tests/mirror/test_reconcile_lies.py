"""A store whose counts and listings lie: no stored row is dropped, and the reads are bounded."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable

import pytest

from bc_attrvals import ListingDriftError
from bc_attrvals.mirror.range_counts import Answer, Done, Question, SeenRow, most_reads

from .reconcile_model import ModelStore, Table, refresh
from .reconciling import START, at_random, customers, store_without


def lies(seed: int) -> dict[str, Callable[[Question, Answer], Answer]]:
    rng = random.Random(seed)

    def more(question: Question, answer: Answer) -> Answer:
        return Answer(answer.total + 1, answer.rows) if question.limit == 1 else answer

    def fewer(question: Question, answer: Answer) -> Answer:
        total = max(0, answer.total - 1)
        return Answer(total, answer.rows) if question.limit == 1 else answer

    def none(question: Question, answer: Answer) -> Answer:
        return Answer(0, answer.rows) if question.limit == 1 else answer

    def chance(question: Question, answer: Answer) -> Answer:
        total = rng.randrange(10_000)
        return Answer(total, answer.rows) if question.limit == 1 else answer

    def short(question: Question, answer: Answer) -> Answer:
        return Answer(answer.total, answer.rows[1:] if question.limit > 1 else answer.rows)

    def never_the_same_total(question: Question, answer: Answer) -> Answer:
        return Answer(answer.total + rng.randrange(1, 10), answer.rows)

    return {
        "counts one more": more,
        "counts one less": fewer,
        "counts none": none,
        "counts anything": chance,
        "leaves a row out of each page": short,
        "never the same total": never_the_same_total,
    }


@pytest.mark.parametrize("lie", lies(0))
@pytest.mark.parametrize("page_size", [5, 250])
@pytest.mark.parametrize("gone", [0, 3, 400])
def test_no_lie_about_totals_drops_a_row_or_asks_without_end(
    lie: str, page_size: int, gone: int
) -> None:
    rows = customers(2_000)
    store, mirror = store_without(rows, at_random(gone, rows, 1)), Table(rows)
    store.lie = lies(1)[lie]
    refreshed = refresh(store, mirror, page_size=page_size)
    assert store.table.rows.keys() <= mirror.rows.keys()
    assert refreshed.reads <= 6 * most_reads(2_000, page_size, bounds_known=False)
    if isinstance(refreshed.end, Done) and lie in {"counts none", "counts anything"}:
        assert mirror.rows == store.table.rows


def test_a_total_far_above_any_stores_ends_the_reading_and_takes_no_memory() -> None:
    rows = customers(200)
    store, mirror = store_without(rows, at_random(3, rows, 1)), Table(rows)
    store.lie = lambda _, answer: Answer(answer.total + 3_000_000, answer.rows)
    tracemalloc.start()
    try:
        refreshed = refresh(store, mirror, page_size=5)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(refreshed.end, ListingDriftError)
    assert refreshed.reads <= 6 * most_reads(200, 5, bounds_known=False)
    assert peak < 2_000_000


def test_counts_a_tenth_too_low_are_met_by_listing_where_the_last_second_has_pages_of_rows() -> (
    None
):
    rows = [
        SeenRow(100 * attribute + index, attribute, START + min(index, 12))
        for attribute in range(1, 5)
        for index in range(27)
    ]
    store, mirror = ModelStore(Table(rows), now=START + 1_000), Table(rows)
    store.lie = lambda question, answer: (
        Answer(int(answer.total * 0.9), answer.rows) if question.limit == 1 else answer
    )
    refreshed = refresh(store, mirror, page_size=3)
    assert (refreshed.end, refreshed.dropped) == (Done(), 0)
