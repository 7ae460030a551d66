"""A mirror made equal to a store by counts and few listings: exact, bounded, whatever moves."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bc_attrvals.mirror.inquiry import LEARNING_READS
from bc_attrvals.mirror.parts import Part, pages
from bc_attrvals.mirror.questions import (
    Answer,
    Ask,
    Bounds,
    Done,
    Drop,
    Failed,
    Failure,
    Question,
    SeenRow,
)
from bc_attrvals.mirror.reconcile import SPARE_READS, Reconciliation, most_reads

from .model import PAGE_SIZE, ModelStore, Refreshed, Table, refresh

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


# What it costs. 30,000 rows are 120 pages.


def of_attribute(attribute_id: int, rows: list[SeenRow]) -> set[int]:
    return {row.id for row in rows if row.attribute_id == attribute_id}


def at_random(count: int, rows: list[SeenRow], seed: int) -> set[int]:
    return set(random.Random(seed).sample([row.id for row in rows], count))


LOST: dict[str, tuple[Callable[[list[SeenRow], int], Iterable[int]], int]] = {
    "nothing": (lambda rows, seed: (), 1),
    "one": (lambda rows, seed: at_random(1, rows, seed), 16),
    "5 at random": (lambda rows, seed: at_random(5, rows, seed), 43),
    "40 customers in a row": (lambda rows, seed: range(4 * seed + 1, 4 * seed + 161), 20),
    "20 at random": (lambda rows, seed: at_random(20, rows, seed), 105),
    "60 at random": (lambda rows, seed: at_random(60, rows, seed), 137),
    "1,000 at random": (lambda rows, seed: at_random(1_000, rows, seed), 137),
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
    "100 rows in each second": ({"per_second": 100}, {"order": "shuffled"}),
}


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("lost", LOST)
def test_reads_to_find_what_is_gone(lost: str, store: str) -> None:
    shape, options = STORES[store]
    rows = customers(30_000, **shape)
    gone, most = LOST[lost]
    reads = [reconciled(rows, gone(rows, seed), **options).reads for seed in (1, 7_000)]
    print(f"{lost:32} {store:28} {reads} <= {most}")
    assert max(reads) <= most


def test_20_of_a_million_are_found_in_few_reads() -> None:
    # Listing is 4,000 reads. The refresh reads 4 pages more for 1,000 changed rows.
    million = customers(1_000_000)
    reads = reconciled(million, at_random(20, million, seed=1)).reads
    print(f"20 of a million: {reads}")
    assert reads < 230


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


def test_a_store_of_one_page_is_listed() -> None:
    assert reconciled(customers(200), [3, 5]).reads == 1


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
    rows = customers(60_000)
    for gone in (at_random(6_000, rows, 1), of_attribute(2, rows), range(20_000, 60_000)):
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


# Any store at rest.


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


def test_the_most_reads_are_those_of_listing_anew_and_a_stated_few() -> None:
    assert most_reads(30_000, 250) == 120 + 3 + SPARE_READS
    assert most_reads(0, 250, bounds_known=False) == 1 + SPARE_READS + LEARNING_READS


# Writers that never rest.


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
    if isinstance(refreshed.end, Failed):
        # Only many rows of one second can't be read in pieces that stand still.
        assert refreshed.end.reason is Failure.KEPT_CHANGING
        assert before & store.table.rows.keys() <= mirror.rows.keys()
    else:
        check_lives(mirror, before, store, until)


@pytest.mark.parametrize("order", ["id", "shuffled"])
@pytest.mark.parametrize("deletions", [0.05, 0.5, 3])
def test_a_large_store_under_deletions_is_proven_at_bounded_cost(
    deletions: float, order: str
) -> None:
    rows = customers(30_000)
    gone = at_random(20, rows, seed=4)
    worst = 0
    for seed in range(5):
        store, mirror = store_without(rows, gone, order=order), Table(rows)
        before = set(store.table.rows)
        until = store.now - 2
        store.before = Writers(seed, deletions=deletions, most=max(1, int(deletions)))
        refreshed = refresh(store, mirror)
        assert isinstance(refreshed.end, Done)
        check_lives(mirror, before, store, until)
        worst = max(worst, refreshed.reads)
    print(f"{deletions} deletions a read, {order}: {worst}")
    assert worst <= 3 * pages(30_000, PAGE_SIZE)


def test_many_rows_of_one_second_that_never_rest_fail_by_name() -> None:
    rows = customers(1_000, per_second=1_000)
    store, mirror = store_without(rows, [7]), Table(rows)

    def delete_one(store: ModelStore) -> None:
        store.table.remove(max(store.table.rows))

    store.before = delete_one
    assert refresh(store, mirror).end == Failed(Failure.KEPT_CHANGING)
    assert len(mirror.rows) == 1_000
    store.before = None
    assert refresh(store, mirror).end == Done()
    assert mirror.rows == store.table.rows


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


# A store that lies.


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
