"""Counts of ranges: which questions are asked, and what their answers prove."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bc_attrvals.errors import FilterIgnoredError
from bc_attrvals.mirror.range_counts import (
    LEARNING_READS,
    SPARE_READS,
    Answer,
    Ask,
    Bounds,
    Done,
    Question,
    Search,
    SeenRow,
    most_reads,
)
from bc_attrvals.mirror.ranges import BEGINNING, Range
from bc_attrvals.mirror.reconcile import reconcile

from .reconcile_model import PAGE_SIZE, ModelStore, Table, refresh
from .reconciling import BOTH, START, customers, quick, reconciled, store_without, stores


def searched(rows: list[SeenRow], *, until: int, bounds: Bounds | None = None) -> Search:
    return Search(Table(rows), until=until, page_size=250, bounds=bounds)


def test_another_number_of_answers_is_refused() -> None:
    for answers in ([], [Answer(10), Answer(10)]):
        steps = reconcile(searched(customers(10), until=START + 100))
        assert isinstance(next(steps), Ask)
        with pytest.raises(ValueError, match="zip"):
            steps.send(answers)


def test_an_edge_is_asked_where_both_meanings_of_a_bound_are_the_same() -> None:
    # Rows in the seconds 0 to 9, and 20 to 29.
    rows = [SeenRow(one, 1, one + (10 if one > 9 else 0)) for one in range(20)]
    search = searched(rows, until=100)
    for first, last, minimum, maximum in (
        (BEGINNING, 9, None, 10),
        (20, 100, 19, 100),
        (10, 19, 10, 19),
        (12, 12, 12, 12),
    ):
        question = search.question(Range((1,), first, last), 1, 250)
        assert question == Question(None, minimum, maximum, 1, 250)


@pytest.mark.parametrize("inclusive", BOTH)
def test_with_known_bounds_an_edge_is_asked_as_it_is_meant(inclusive: tuple[bool, bool]) -> None:
    search = searched(customers(40), until=START + 100, bounds=Bounds(*inclusive))
    question = search.question(Range((2, 3), START + 2, START + 5), 4, 1)
    least, most = START + 2 - (not inclusive[0]), START + 5 + (not inclusive[1])
    assert question == Question((2, 3), least, most, 4, 1)


def test_a_range_is_widened_to_where_it_can_be_told_apart() -> None:
    rows = [SeenRow(one, 1, one + (10 if one > 9 else 0)) for one in range(20)]
    search = searched(rows, until=24)
    assert search.widened(Range((1,), 3, 5)) == Range((1,), 0, 9)
    # Rows may still be created after the last second.
    assert search.widened(Range((1,), 22, 23)) == Range((1,), 20, 24)


def test_equal_counts_prove_and_others_do_not() -> None:
    search = searched(customers(40), until=START + 100)
    counts = [search.counted(Range((one,), BEGINNING, START + 100)) for one in (1, 2, 3)]
    asking = search.count(counts)
    assert [one.limit for one in next(asking).questions] == [1, 1, 1]
    # More than the mirror has is asked for once more.
    again = asking.send([Answer(10), Answer(7), Answer(12)])
    assert again == Ask([search.question(counts[2].range, 1, 1)])
    with pytest.raises(StopIteration):
        asking.send([Answer(13)])
    assert [one.surplus for one in counts] == [0, 3, 3]
    assert [search.is_unproven(one.range) for one in counts] == [False, True, True]
    assert (search.asked, search.spent, search.deficit) == (4, 4, 3)


# The meaning of the bounds.


@quick
@given(drawn=stores(), page_size=st.integers(2, 8))
def test_bounds_are_learnt_right_or_not_at_all(
    drawn: tuple[list[SeenRow], set[int], dict[str, object]], page_size: int
) -> None:
    rows, gone, options = drawn
    refreshed = refresh(store_without(rows, gone, **options), Table(rows), page_size=page_size)
    assert refreshed.bounds.min_inclusive in (None, options["min_inclusive"])
    assert refreshed.bounds.max_inclusive in (None, options["max_inclusive"])


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


def test_bounds_are_not_learnt_from_pages_that_do_not_fit_together() -> None:
    # Of the seconds 1 and 2, in pages of two, row 1 goes after the first page: row 3 is not shown.
    rows = [SeenRow(1, 1, 1), SeenRow(2, 1, 1), SeenRow(3, 1, 2), SeenRow(4, 1, 2)]
    search = Search(Table(rows), until=2, page_size=2)
    asking = search.can_count([Range((1,), 1, 1)])
    assert next(asking) == Ask([Question(None, 1, 2, 1, 2)])
    asking.send([Answer(4, rows[:2])])
    with pytest.raises(StopIteration) as ended:
        asking.send([Answer(3, rows[3:])])
    assert ended.value.value is False
    assert search.bounds == Bounds()


# Counts that are wrong.


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


def date_filters_ignored(question: Question, answer: Answer, store: ModelStore) -> Answer:
    whole = Question(question.attribute_ids, None, 2**40, question.page, question.limit)
    lie, store.lie = store.lie, None
    honest, store.before = store.before, None
    try:
        return store.answer(whole)
    finally:
        store.lie, store.before = lie, honest


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
    steps = reconcile(Search(mirror, until=store.now - 2, page_size=PAGE_SIZE))
    step = next(steps)
    error: FilterIgnoredError | None = None
    while error is None:
        try:
            step = steps.send([store.answer(one) for one in step.questions])
        except FilterIgnoredError as caught:
            error = caught
    assert store.reads - before < 20
    assert mirror.rows.keys() >= store.table.rows.keys()


def test_rows_that_the_mirror_lacks_are_seen_and_counted() -> None:
    rows = customers(2_000)
    store, mirror = store_without(rows, []), Table(rows[:1_000] + rows[1_010:])
    refreshed = refresh(store, mirror)
    assert refreshed.end == Done(deficit=10)
    assert mirror.rows == store.table.rows


def test_the_most_reads_are_those_of_listing_anew_and_a_stated_few() -> None:
    assert most_reads(30_000, 250) == 120 + 3 + SPARE_READS
    assert most_reads(0, 250, bounds_known=False) == 1 + SPARE_READS + LEARNING_READS
