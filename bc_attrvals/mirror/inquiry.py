"""The state that the steps of a reconciliation share: what was asked, learnt and proven.

Pure. It turns parts into questions. Whether the service's date bounds include their own second is
not documented. An edge is asked one second further out where the mirror has no row of that second,
for then both readings are the same. Else the meaning is learnt from what two listings show.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from typing import Final, TypeAlias, TypeVar

import attrs

from bc_attrvals.mirror.parts import BEGINNING, Node, Part, pages, subtract
from bc_attrvals.mirror.questions import (
    Answer,
    Ask,
    Bounds,
    Drop,
    Failure,
    MirrorCounts,
    Question,
    SeenRow,
)

T = TypeVar("T")
Steps: TypeAlias = Generator[Ask | Drop, Sequence[Answer], T]

#: The most reads that learning the meaning of the bounds takes.
LEARNING_READS: Final = 8
#: The most pages of one listing for learning it.
_LEARNING_PAGES: Final = 4
#: Places of the mirror among which the one with the fewest rows is taken for learning.
_PLACES: Final = 8


class UnprovenError(Exception):
    """Ends a reconciliation by a failure."""

    def __init__(self, reason: Failure) -> None:
        super().__init__(reason.value)
        self.reason = reason


class Inquiry:
    """Asks the store about parts of the mirror, and notes which are proven equal."""

    def __init__(
        self, mirror: MirrorCounts, *, until: int, page_size: int, bounds: Bounds, most_asked: int
    ) -> None:
        self.mirror = mirror
        self.page_size = page_size
        self.bounds = bounds
        self.asked = 0
        self.asked_to_learn = 0
        self.deficit = 0
        # Reads, those to learn apart, that narrowing and listing what is left may come to.
        self.limit = 0
        # Rows went while they were counted or listed: pages of one listing would not fit together.
        self.is_moving = False
        self.attribute_ids = tuple(sorted(mirror.attribute_ids()))
        self.unproven = [Part(self.attribute_ids, BEGINNING, until)]
        self._until = until
        self._most_asked = most_asked
        self._places: list[tuple[int, int]] | None = None

    @property
    def spent(self) -> int:
        """Reads that count towards the limit."""
        return self.asked - self.asked_to_learn

    def node(self, part: Part, stored: int | None = None) -> Node:
        """Return a part with the mirror's count, and the store's if it is known."""
        rows = self.mirror.count(part)
        return Node(part, rows, rows if stored is None else stored)

    def is_unproven(self, part: Part) -> bool:
        """Return whether not all of a part is proven."""
        return any(part.meets(one) for one in self.unproven)

    def prove(self, part: Part) -> None:
        """Note that a part was equal at some moment."""
        self.unproven = [rest for one in self.unproven for rest in subtract(one, part)]

    def settle(self, part: Part, rows: Iterable[SeenRow]) -> Steps[None]:
        """Drop what a complete listing of a part did not show."""
        yield Drop(part, frozenset(row.id for row in rows))
        self.prove(part)

    def ask(self, questions: Sequence[Question]) -> Steps[Sequence[Answer]]:
        """Return the answers. Rows outside of the filter end the reconciliation."""
        if self.asked + len(questions) > self._most_asked:
            raise UnprovenError(Failure.TOO_MANY_READS)
        answers = yield Ask(tuple(questions))
        self.asked += len(questions)
        for question, answer in zip(questions, answers, strict=True):
            if any(_is_outside(question, row) for row in answer.rows):
                raise UnprovenError(Failure.OUTSIDE_OF_FILTER)
        return answers

    def count(self, nodes: Sequence[Node]) -> Steps[None]:
        """Ask for the store's counts of nodes; those equal to the mirror's are proven.

        A count above the mirror's, or above what the node had so far, is asked for once more: past
        ranges only lose rows.
        """
        most = [min(node.rows, node.stored) for node in nodes]
        waiting = list(nodes)
        for _ in range(2):
            answers = yield from self.ask([self._count_question(node.part) for node in waiting])
            for node, answer in zip(waiting, answers, strict=True):
                node.stored = answer.total
            waiting = [node for node, bound in zip(nodes, most, strict=True) if node.stored > bound]
            if not waiting:
                break
        for node in nodes:
            self.deficit = max(self.deficit, node.stored - node.rows)
            if not node.surplus:
                self.prove(node.part)

    def can_count(self, parts: Sequence[Part]) -> Steps[bool]:
        """Return whether counts of the parts can be told apart from their neighbours' rows.

        The meaning of the bounds is learnt first where that is needed.
        """
        if any(map(self._is_ambiguous, parts)):
            yield from self._learn()
        return not any(map(self._is_ambiguous, parts))

    def listing_question(self, part: Part, page: int) -> Question:
        """Return the question for one page of a part, or of a second more at each end."""
        minimum, maximum = self._edges(part)
        return self._question(part.attribute_ids, minimum, maximum, page, self.page_size)

    def _count_question(self, part: Part) -> Question:
        minimum, maximum = self._edges(part)
        return self._question(part.attribute_ids, minimum, maximum, page=1, limit=1)

    def _question(
        self, ids: tuple[int, ...], minimum: int | None, maximum: int, page: int, limit: int
    ) -> Question:
        attribute_ids = None if ids == self.attribute_ids else ids
        return Question(attribute_ids, minimum, maximum, page, limit)

    def _edges(self, part: Part) -> tuple[int | None, int]:
        """Return the bounds to ask a part with.

        A second without rows is a bound that means the same whether it is included or not.
        """
        first, last = part.first, part.last
        is_minimum_in, is_maximum_in = self.bounds.min_inclusive, self.bounds.max_inclusive
        if is_minimum_in is False or (is_minimum_in is None and self._has_rows(part, first)):
            first -= 1
        if is_maximum_in is False or (is_maximum_in is None and self._has_rows(part, last)):
            last += 1
        return (None if part.first == BEGINNING else first), last

    def _is_ambiguous(self, part: Part) -> bool:
        return not (self.is_clear(part, part.first - 1) and self.is_clear(part, part.last))

    def is_clear(self, part: Part, second: int) -> bool:
        """Return whether a part's rows up to a second can be told apart from its later ones."""
        return (
            self.bounds.are_known
            or second < BEGINNING
            or not self._has_rows(part, second)
            or not self._has_rows(part, second + 1)
        )

    def widened(self, part: Part) -> Part:
        """Return a part with so many seconds more that it can be told apart from its neighbours.

        None is after the last second to search: rows may still be created then.
        """
        first, last = part.first, part.last
        while not self.is_clear(part, first - 1):
            first -= 1
        while last < self._until and not self.is_clear(part, last):
            last += 1
        return attrs.evolve(part, first=first, last=last)

    def _has_rows(self, part: Part, second: int) -> bool:
        return self.mirror.count(attrs.evolve(part, first=second, last=second)) > 0

    def _learn(self) -> Steps[None]:
        """Learn the meaning of the bounds, as far as rows are there to show it."""
        if self._places is None:
            self._places = self._places_to_learn()
        while self._places and not self.bounds.are_known and self.asked_to_learn < LEARNING_READS:
            yield from self._learn_at(*self._places.pop())

    def _places_to_learn(self) -> list[tuple[int, int]]:
        """Return pairs of neighbouring seconds that have rows, those with the fewest last."""
        whole = Part(self.attribute_ids, BEGINNING, self._until + 1)
        rows = self.mirror.count(whole)
        newest = self.mirror.created_at(whole, rows - 1)
        places: dict[tuple[int, int], int] = {}
        for index in range(_PLACES):
            first = self.mirror.created_at(whole, rows * index // _PLACES)
            if first == newest:
                break
            last = self.mirror.created_at(attrs.evolve(whole, first=first + 1), 0)
            around = attrs.evolve(whole, first=first - 1, last=last + 1)
            places[first, last] = self.mirror.count(around)
        return sorted(places, key=places.__getitem__, reverse=True)

    def _learn_at(self, first: int, last: int) -> Steps[None]:
        """Learn from two seconds: ask with them for bounds, then with one second more each way.

        A row of a bound that the first listing shows proves the bound inclusive. A row that it
        does not show, and the second shows, proves it exclusive: the row was there both times.
        """
        seen = yield from self._seconds_seen(first, last)
        if seen is None:
            return
        if first in seen:
            self.bounds = attrs.evolve(self.bounds, min_inclusive=True)
        if last in seen:
            self.bounds = attrs.evolve(self.bounds, max_inclusive=True)
        if first in seen and last in seen:
            return
        around = yield from self._seconds_seen(first - 1, last + 1)
        if around is None:
            return
        if first in around - seen:
            self.bounds = attrs.evolve(self.bounds, min_inclusive=False)
        if last in around - seen:
            self.bounds = attrs.evolve(self.bounds, max_inclusive=False)

    def _seconds_seen(self, minimum: int, maximum: int) -> Steps[set[int] | None]:
        """Return the seconds of all rows between two bounds, or None if they can't be listed."""
        rows: dict[int, SeenRow] = {}
        total, number, count = 0, 1, 1
        while number <= count and self.asked_to_learn < LEARNING_READS:
            question = self._question(self.attribute_ids, minimum, maximum, number, self.page_size)
            (answer,) = yield from self.ask([question])
            self.asked_to_learn += 1
            if number > 1 and answer.total != total:
                return None
            total, count = answer.total, pages(answer.total, self.page_size)
            if count > _LEARNING_PAGES:
                return None
            rows.update((row.id, row) for row in answer.rows)
            number += 1
        return {row.created for row in rows.values()} if len(rows) == total else None


def _is_outside(question: Question, row: SeenRow) -> bool:
    return (
        row.created > question.maximum
        or (question.minimum is not None and row.created < question.minimum)
        or (question.attribute_ids is not None and row.attribute_id not in question.attribute_ids)
    )
