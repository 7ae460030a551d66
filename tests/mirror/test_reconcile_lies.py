"""A store whose counts and listings lie: no stored row is dropped, and the reads are bounded."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from bc_attrvals.mirror.questions import Answer, Ask, Done, Failed, Failure, Question
from bc_attrvals.mirror.reconcile import Reconciliation, most_reads

from .model import PAGE_SIZE, ModelStore, Table, refresh
from .reconciling import at_random, customers, store_without


def date_filters_ignored(question: Question, answer: Answer, store: ModelStore) -> Answer:
    whole = Question(question.attribute_ids, None, 2**40, question.page, question.limit)
    lie, store.lie = store.lie, None
    honest, store.before = store.before, None
    try:
        return store.answer(whole)
    finally:
        store.lie, store.before = lie, honest


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


def test_a_count_that_is_too_high_once_is_asked_for_again() -> None:
    rows = customers(2_000)
    store, mirror = store_without(rows, [1_900]), Table(rows)
    counts: list[int] = []

    def too_high_once(question: Question, answer: Answer) -> Answer:
        counts.append(answer.total)
        return Answer(answer.total + 7 * (len(counts) == 1), answer.rows)

    store.lie = too_high_once
    assert refresh(store, mirror).end == Done(deficit=0)
    assert counts[0] == counts[1]
    assert mirror.rows == store.table.rows


@pytest.mark.parametrize("gone", [0, 1])
def test_a_service_that_ignores_dates_fails_by_name(gone: int) -> None:
    rows = customers(2_000)
    store, mirror = store_without(rows, range(gone)), Table(rows)
    new = store.insert(1)
    mirror.add(new)

    def ignoring(question: Question, answer: Answer) -> Answer:
        return date_filters_ignored(question, answer, store)

    store.lie = ignoring
    before = store.reads
    reconciliation = Reconciliation(mirror, until=store.now - 2, page_size=PAGE_SIZE)
    step = reconciliation.advance()
    while isinstance(step, Ask):
        step = reconciliation.advance([store.answer(one) for one in step.questions])
    assert step == Failed(Failure.OUTSIDE_OF_FILTER)
    assert store.reads - before < 20
    assert mirror.rows.keys() >= store.table.rows.keys()


def test_rows_that_the_mirror_lacks_are_seen_and_counted() -> None:
    rows = customers(2_000)
    store, mirror = store_without(rows, []), Table(rows[:1_000] + rows[1_010:])
    refreshed = refresh(store, mirror)
    assert refreshed.end == Done(deficit=10)
    assert mirror.rows == store.table.rows
