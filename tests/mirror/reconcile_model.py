"""A store and a mirror in memory, and the refresh that a reconciliation belongs to."""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable

import attrs

from bc_attrvals.errors import ListingDriftError
from bc_attrvals.mirror.range_counts import (
    Answer,
    Ask,
    Bounds,
    Done,
    Drop,
    Question,
    Search,
    SearchCustomers,
    SeenRow,
)
from bc_attrvals.mirror.ranges import Range
from bc_attrvals.mirror.reconcile import reconcile

#: A fifth of the service's, so that stores of a fifth of the rows have as many pages.
PAGE_SIZE = 50


class Table:
    """Rows by attribute, each in order of `date_created`: the mirror's index, and the store's."""

    def __init__(self, rows: Iterable[SeenRow] = ()) -> None:
        self.rows: dict[int, SeenRow] = {}
        self.version = 0
        self._created: dict[int, list[tuple[int, int]]] = {}
        for row in rows:
            self.rows[row.id] = row
            self._created.setdefault(row.attribute_id, []).append((row.created, row.id))
        for created in self._created.values():
            created.sort()

    def add(self, row: SeenRow) -> None:
        if row.id not in self.rows:
            self.version += 1
            self.rows[row.id] = row
            insort(self._created.setdefault(row.attribute_id, []), (row.created, row.id))

    def remove(self, id: int) -> None:
        row = self.rows.pop(id)
        self.version += 1
        created = self._created[row.attribute_id]
        del created[bisect_left(created, (row.created, id))]

    def within(self, attribute_ids: Iterable[int], first: int, last: int) -> list[SeenRow]:
        found = []
        for attribute_id in attribute_ids:
            created = self._created.get(attribute_id, [])
            start, end = bisect_left(created, (first, -1)), bisect_left(created, (last + 1, -1))
            found += [self.rows[row_id] for _, row_id in created[start:end]]
        return found

    def one_within(self, attribute_ids: Iterable[int], first: int, last: int) -> list[SeenRow]:
        for attribute_id in attribute_ids:
            created = self._created.get(attribute_id, [])
            start = bisect_left(created, (first, -1))
            if start < len(created) and created[start][0] <= last:
                return [self.rows[created[start][1]]]
        return []

    def attribute_ids(self) -> tuple[int, ...]:
        return tuple(sorted(one for one, created in self._created.items() if created))

    def count(self, range_: Range) -> int:
        return self.count_within(range_.attribute_ids, range_.first, range_.last)

    def count_within(self, attribute_ids: Iterable[int], first: int, last: int) -> int:
        columns = [self._created.get(one, []) for one in attribute_ids]
        return sum(
            max(0, bisect_left(one, (last + 1, -1)) - bisect_left(one, (first, -1)))
            for one in columns
        )

    def created_at(self, range_: Range, index: int) -> int:
        assert 0 <= index < self.count(range_)
        columns = [self._created.get(one, []) for one in range_.attribute_ids]
        seconds = range(
            max(range_.first, min(one[0][0] for one in columns if one)),
            min(range_.last, max(one[-1][0] for one in columns if one)) + 1,
        )

        def up_to(second: int) -> int:
            return self.count_within(range_.attribute_ids, range_.first, second)

        return seconds[bisect_right(seconds, index, key=up_to)]


@attrs.define
class ModelStore:
    """The service: its rows, how it reads bounds, in which order it lists, and what it hides."""

    table: Table
    now: int
    min_inclusive: bool = True
    max_inclusive: bool = True
    order: str = "id"
    largest_page: int = PAGE_SIZE
    reads: int = 0
    next_id: int = 0
    #: Runs before each answer: other clients, or a lie about the answer.
    before: Callable[[ModelStore], None] | None = None
    lie: Callable[[Question, Answer], Answer] | None = None

    _listed: tuple[object, list[SeenRow]] = (None, [])

    def __attrs_post_init__(self) -> None:
        self.next_id = max(self.table.rows, default=0) + 1

    def insert(self, attribute_id: int) -> SeenRow:
        row = SeenRow(self.next_id, attribute_id, self.now)
        self.next_id += 1
        self.table.add(row)
        return row

    def answer(self, question: Question) -> Answer:
        self.reads += 1
        if self.before is not None:
            self.before(self)
        answer = self._answer(question)
        return answer if self.lie is None else self.lie(question, answer)

    def _answer(self, question: Question) -> Answer:
        first = -(2**40) if question.minimum is None else question.minimum
        first += question.minimum is not None and not self.min_inclusive
        last = question.maximum - (not self.max_inclusive)
        ids = question.attribute_ids
        ids = self.table.attribute_ids() if ids is None else ids
        total = self.table.count_within(ids, first, last)
        if question.limit == 1:
            return Answer(total, self.table.one_within(ids, first, last))
        listing = (self.table.version, tuple(ids), first, last)
        if self._listed[0] != listing:
            found = self.table.within(ids, first, last)
            if self.order == "id":
                found.sort()
            else:
                found.sort(key=lambda row: row.id * 2654435761 % 2**32)
            self._listed = (listing, found)
        found = self._listed[1]
        size = min(question.limit, self.largest_page)
        start = (question.page - 1) * size
        return Answer(total, found[start : start + size])


@attrs.frozen
class Refreshed:
    end: Done | ListingDriftError
    reads: int
    dropped: int
    bounds: Bounds


def refresh(
    store: ModelStore,
    mirror: Table,
    *,
    shuffle: random.Random | None = None,
    page_size: int = PAGE_SIZE,
    bounds: Bounds | None = None,
) -> Refreshed:
    """Reconcile a mirror that has taken in all new rows, as the refresh does."""
    before = store.reads
    until = store.now - 2
    held = len(mirror.rows)
    search = Search(mirror, until=until, page_size=page_size, bounds=bounds)  # type: ignore[arg-type]
    steps = reconcile(search)
    end: Done | ListingDriftError | None = None
    try:
        step = next(steps)
        while not isinstance(step, Done):
            if isinstance(step, Drop):
                ids = step.range.attribute_ids
                for row in mirror.within(ids, step.range.first, step.range.last):
                    if row.id not in step.keep:
                        mirror.remove(row.id)
                step = next(steps)
                continue
            if isinstance(step, SearchCustomers):
                # The model has no customers; no row is found by them.
                step = next(steps)
                continue
            assert isinstance(step, Ask)
            order = list(range(len(step.questions)))
            if shuffle is not None:
                shuffle.shuffle(order)
            answers = {index: store.answer(step.questions[index]) for index in order}
            for answer in answers.values():
                for row in answer.rows:
                    mirror.add(row)
            step = steps.send([answers[index] for index in range(len(order))])
        end = step
    except ListingDriftError as error:
        end = error
    assert next(steps, None) is None
    assert search.asked == store.reads - before
    return Refreshed(end, search.asked, held - len(mirror.rows), search.bounds)
