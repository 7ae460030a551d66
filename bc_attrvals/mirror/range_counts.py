"""Counts ranges of the store against those of the mirror, and notes which are proven equal.

Pure. It turns ranges into questions. Whether the service's date bounds include their own second is
not documented (BigCommerce reference, Get All Customer Attribute Values). So an edge is asked one
second further out where the mirror has no row of that second: both readings are the same there.
Otherwise the meaning is learnt from two listings.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Final, NamedTuple, TypeAlias, TypeVar

import attrs

from bc_attrvals.errors import FilterIgnoredError, ListingDriftError
from bc_attrvals.mirror.created_index import CreatedIndex
from bc_attrvals.mirror.ranges import BEGINNING, Range, RangeCount, pages, subtract

#: Reads above those of listing anew, on a store at rest.
SPARE_READS: Final = 14
#: Listing in ranges may take one read more for each of these pages: cuts leave pages part empty.
PAGES_PER_SPARE_READ: Final = 32
#: The limit of all reads, in multiples of `most_reads`. Only contradictory answers reach it.
_MOST_READS_FACTOR: Final = 6
#: The most reads that learning the meaning of the bounds takes.
LEARNING_READS: Final = 8
#: The most pages of one listing for learning it.
_LEARNING_PAGES: Final = 4
#: Places of the mirror among which the one with the fewest rows is taken for learning.
_PLACES: Final = 8


@attrs.frozen
class Bounds:
    """Whether `date_created:min` and `:max` include their own second; None is not known."""

    min_inclusive: bool | None = None
    max_inclusive: bool | None = None

    @property
    def are_known(self) -> bool:
        """True when both are known."""
        return self.min_inclusive is not None and self.max_inclusive is not None


@attrs.frozen
class Question:
    """One page (from 1) of a listing; a `limit` of 1 is for the total.

    `minimum` and `maximum` are `date_created:min` and `:max` in UNIX seconds, to be sent as they
    are; a minimum of None is left out, and `attribute_ids` of None likewise.
    """

    attribute_ids: tuple[int, ...] | None
    minimum: int | None
    maximum: int
    page: int
    limit: int


class SeenRow(NamedTuple):
    """A row that an answer showed. `created` is its `date_created` in UNIX seconds."""

    id: int
    attribute_id: int
    created: int


@attrs.frozen
class Answer:
    """The total that an answer reported, and the rows that it showed, for a `limit` of 1 too."""

    total: int
    rows: Sequence[SeenRow] = ()


@attrs.frozen
class Ask:
    """Send these questions, in any order; take the rows into the mirror; send back the answers."""

    questions: Sequence[Question]


@attrs.frozen
class Drop:
    """Drop the mirror's rows of `range` that are not in `keep`.

    A complete listing of the range showed the rows of `keep` and no others. So each drop is right
    by itself, and may be committed at once.
    """

    range: Range
    keep: frozenset[int]


@attrs.frozen
class Done:
    """Each range of the mirror equalled the store's at some moment since the start.

    `deficit` is the largest number of rows by which the store's count of a range was above the
    mirror's. It is 0 unless the mirror lacked rows, or the service's counts are wrong. Such ranges
    were listed; but gains and losses of other ranges may have cancelled out.
    """

    deficit: int = 0


@attrs.frozen
class SearchCustomers:
    """Drop rows of `range` by listing customers near those that lost rows, in `most_reads` reads.

    By chance a customer lacks `gone_share` of its rows. The mirror's rows of `sample` were just
    seen. Add the reads to `Search.asked_of_customers`.
    """

    range: Range
    sample: Range
    gone_share: float
    most_reads: int


T = TypeVar("T")
#: Yields what to do next, and is sent the answers of an `Ask`. `Done` is the last one.
Steps: TypeAlias = Generator[Ask | Drop | SearchCustomers | Done, Sequence[Answer], T]


def most_reads(stored: int, page_size: int, *, bounds_known: bool = True) -> int:
    """Return the most reads of a reconciliation while no other client deletes.

    They are those of listing the `stored` rows, 1/32 more, and `SPARE_READS`; if the bounds are
    not known, `LEARNING_READS` more. Those of a search by customers come on top.
    """
    anew = pages(stored, page_size)
    learning = 0 if bounds_known else LEARNING_READS
    return anew + anew // PAGES_PER_SPARE_READ + SPARE_READS + learning


class Search:
    """What one reconciliation asked, learnt and proved.

    `until` is the last second to search, in UNIX seconds. No row can be created any more at or
    before second `until + 1`, and the mirror holds every row of the store up to there. `bounds`
    are those that an earlier reconciliation of the same store has proven.
    """

    def __init__(
        self, mirror: CreatedIndex, *, until: int, page_size: int, bounds: Bounds | None = None
    ) -> None:
        self.mirror = mirror
        self.page_size = page_size
        self.bounds = bounds or Bounds()
        self.asked = 0
        self.asked_of_customers = 0
        self.customer_searches = 0
        self.deficit = 0
        # The most reads for halving and for listing what is left, without those for learning.
        self.limit = 0
        # Rows went while they were counted or listed: pages of one listing may not fit together.
        self.is_moving = False
        self.attribute_ids = mirror.attribute_ids()
        self._until = until
        whole = Range(self.attribute_ids, BEGINNING, until)
        self.unproven = [whole]
        most = most_reads(mirror.count(whole), page_size, bounds_known=False)
        self._most_asked = _MOST_READS_FACTOR * most
        self._asked_to_learn = 0
        self._places: list[tuple[int, int]] | None = None

    @property
    def spent(self) -> int:
        """Reads that count towards the limit."""
        return self.asked - self._asked_to_learn

    def counted(self, range_: Range) -> RangeCount:
        """Return a range with the mirror's count as both, until the store is asked."""
        held = self.mirror.count(range_)
        return RangeCount(range_, held, held)

    def is_unproven(self, range_: Range) -> bool:
        """Return whether not all of a range is proven."""
        return any(range_.meets(one) for one in self.unproven)

    def prove(self, range_: Range) -> None:
        """Note that a range was equal at some moment."""
        self.unproven = [rest for one in self.unproven for rest in subtract(one, range_)]

    def question(self, range_: Range, page: int, limit: int) -> Question:
        """Return the question for one page of a range.

        Beyond an end it asks for a second without rows, too: then the answer is the same whether
        bounds include their own second or not.
        """
        minimum: int | None = range_.first
        maximum = range_.last
        if range_.first == BEGINNING:
            minimum = None
        elif self._asks_further(self.bounds.min_inclusive, range_, range_.first):
            minimum = range_.first - 1
        if self._asks_further(self.bounds.max_inclusive, range_, maximum):
            maximum += 1
        is_whole = range_.attribute_ids == self.attribute_ids
        return Question(None if is_whole else range_.attribute_ids, minimum, maximum, page, limit)

    def _asks_further(self, is_inclusive: bool | None, range_: Range, second: int) -> bool:
        return self._has_rows(range_, second) if is_inclusive is None else not is_inclusive

    def ask(self, questions: Sequence[Question]) -> Steps[Sequence[Answer]]:
        """Return the answers.

        Raises `FilterIgnoredError` for a row outside of its question, and `ListingDriftError` at
        the limit of all reads.
        """
        self.check_limit(len(questions))
        answers = yield Ask(questions)
        self.asked += len(questions)
        for question, answer in zip(questions, answers, strict=True):
            if any(_is_outside(question, row) for row in answer.rows):
                raise FilterIgnoredError(
                    "the service answered rows outside of the filter it was asked for"
                )
        return answers

    def check_limit(self, more: int) -> None:
        """Raise `ListingDriftError` if this many more questions exceed the limit of all reads."""
        if self.asked + more > self._most_asked:
            raise ListingDriftError(
                "the service's counts and listings did not agree in a bounded number of reads"
            )

    def count(self, counts: Sequence[RangeCount]) -> Steps[None]:
        """Ask for the store's counts of ranges; those equal to the mirror's are proven.

        A count above the mirror's, or above what was known so far, is asked for once more: past
        ranges only lose rows.
        """
        most = [min(one.held, one.stored) for one in counts]
        waiting = list(counts)
        for _ in range(2):
            answers = yield from self.ask([self.question(one.range, 1, 1) for one in waiting])
            for one, answer in zip(waiting, answers, strict=True):
                one.stored = answer.total
            waiting = [one for one, bound in zip(counts, most, strict=True) if one.stored > bound]
            if not waiting:
                break
        for one in counts:
            self.deficit = max(self.deficit, one.stored - one.held)
            if not one.surplus:
                self.prove(one.range)

    # The meaning of the bounds.

    def can_count(self, ranges: Sequence[Range]) -> Steps[bool]:
        """Return whether counts of the ranges can be told apart from their neighbours' rows.

        The meaning of the bounds is learnt first where that is needed.
        """
        if any(map(self._is_ambiguous, ranges)):
            if self._places is None:
                self._places = self._places_to_learn()
            while self._places and not self.bounds.are_known and self._may_learn:
                yield from self._learn_at(*self._places.pop())
        return not any(map(self._is_ambiguous, ranges))

    def is_clear(self, range_: Range, second: int) -> bool:
        """Return whether a range's rows up to a second can be told apart from its later ones."""
        return (
            self.bounds.are_known
            or second < BEGINNING
            or not self._has_rows(range_, second)
            or not self._has_rows(range_, second + 1)
        )

    def widened(self, range_: Range) -> Range:
        """Return a range extended until it can be told apart from its neighbours.

        It ends at the last second to search: rows may still be created after it.
        """
        first, last = range_.first, range_.last
        while not self.is_clear(range_, first - 1):
            first -= 1
        while last < self._until and not self.is_clear(range_, last):
            last += 1
        return attrs.evolve(range_, first=first, last=last)

    def _is_ambiguous(self, range_: Range) -> bool:
        return not (self.is_clear(range_, range_.first - 1) and self.is_clear(range_, range_.last))

    def _has_rows(self, range_: Range, second: int) -> bool:
        return self.mirror.count(attrs.evolve(range_, first=second, last=second)) > 0

    @property
    def _may_learn(self) -> bool:
        return self._asked_to_learn < LEARNING_READS

    def _places_to_learn(self) -> list[tuple[int, int]]:
        """Return pairs of neighbouring seconds that have rows, those with the fewest last."""
        whole = Range(self.attribute_ids, BEGINNING, self._until + 1)
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
        self._note(first in seen, last in seen, is_inclusive=True)
        if first in seen and last in seen:
            return
        around = yield from self._seconds_seen(first - 1, last + 1)
        if around is not None:
            hidden = around - seen
            self._note(first in hidden, last in hidden, is_inclusive=False)

    def _note(self, shows_min: bool, shows_max: bool, *, is_inclusive: bool) -> None:
        self.bounds = Bounds(
            is_inclusive if shows_min else self.bounds.min_inclusive,
            is_inclusive if shows_max else self.bounds.max_inclusive,
        )

    def _seconds_seen(self, minimum: int, maximum: int) -> Steps[set[int] | None]:
        """Return the seconds of all rows between two bounds, or None if they can't be listed."""
        rows: dict[int, SeenRow] = {}
        total, number, count = 0, 1, 1
        while number <= count and self._may_learn:
            question = Question(None, minimum, maximum, number, self.page_size)
            (answer,) = yield from self.ask([question])
            self._asked_to_learn += 1
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
