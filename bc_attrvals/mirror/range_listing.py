"""Lists ranges of the mirror completely, and drops the rows that the listing did not show.

Pure. A range that fits a page is listed by one answer, which is a snapshot. The mirror has at least
as many rows of a range of the past as the store, so it is known where to cut. Larger ranges are
listed by page numbers only where cutting costs more, and are cut if their pages do not fit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

import attrs

from bc_attrvals.errors import ListingDriftError
from bc_attrvals.mirror.range_counts import PAGES_PER_SPARE_READ, Drop, Search, Steps
from bc_attrvals.mirror.ranges import Range, RangeCount, join, pages

#: Pages asked for at once, and pages of a listing by page numbers. It bounds the rows in memory.
_MOST_PAGES_HELD: Final = 64
#: Passes over a range that can't be cut.
_MOST_PASSES: Final = 8


def list_ranges(search: Search, counts: Sequence[RangeCount]) -> Steps[None]:
    """List all ranges completely, and drop what is not shown.

    Raises `ListingDriftError` for a range that can't be cut and that no pass lists completely.
    """
    planned: list[RangeCount] = []
    for one in join(counts):
        planned += yield from _plan(search, one)
    while planned:
        cut_again: list[RangeCount] = []
        for wave in _waves(search, planned):
            for range_ in (yield from _list_wave(search, wave)):
                cuts = list(_cut(search, range_, search.page_size, may_overlap=True))
                if len(cuts) > 1:
                    cut_again += cuts
                else:
                    yield from _list_again(search, range_)
        planned = cut_again


def first_pages(search: Search, range_: Range, count: int) -> Range:
    """Return the first pages of a range, as it is cut to be listed."""
    cuts = list(islice(_cut(search, range_, search.page_size, may_overlap=True), count))
    return attrs.evolve(range_, last=cuts[-1].range.last)


def _plan(search: Search, count: RangeCount) -> Steps[list[RangeCount]]:
    """Return a range in ranges of a page each, or in larger ones where that costs too much more."""
    cuts = list(_cut(search, count.range, search.page_size, may_overlap=True))
    if len(cuts) == 1 or search.is_moving:
        return cuts
    by_numbers = pages(count.stored, search.page_size)
    reads = sum(pages(one.held, search.page_size) for one in cuts)
    if reads - by_numbers <= by_numbers // PAGES_PER_SPARE_READ and (
        yield from search.can_count([one.range for one in cuts])
    ):
        return cuts
    size = -(-count.held // pages(by_numbers, _MOST_PAGES_HELD))
    return list(_cut(search, count.range, size, may_overlap=False))


def _waves(search: Search, counts: Iterable[RangeCount]) -> Iterator[list[Range]]:
    """Yield ranges that are listed at once."""
    wave: list[Range] = []
    held = 0
    for one in counts:
        count = pages(one.held, search.page_size)
        if wave and held + count > _MOST_PAGES_HELD:
            yield wave
            wave, held = [], 0
        wave.append(one.range)
        held += count
    if wave:
        yield wave


def _list_wave(search: Search, ranges: Sequence[Range]) -> Steps[list[Range]]:
    """List ranges, all first pages at once and then all others; return those not complete.

    A listing is complete if all answers report one total, and as many different rows came.
    """
    size = search.page_size
    first = yield from search.ask([search.question(one, 1, size) for one in ranges])
    for answer in first:
        if len(answer.rows) < min(answer.total, search.page_size):
            # The service gives smaller pages than it was asked for.
            search.page_size = max(1, len(answer.rows))
    size = search.page_size
    # A total may be far above any store's.
    search.check_limit(sum(pages(answer.total, size) - 1 for answer in first))
    answers_of = [[answer] for answer in first]
    waiting = [
        (index, number)
        for index, answer in enumerate(first)
        for number in range(2, pages(answer.total, size) + 1)
    ]
    for start in range(0, len(waiting), _MOST_PAGES_HELD):
        wave = waiting[start : start + _MOST_PAGES_HELD]
        answers = yield from search.ask(
            [search.question(ranges[index], number, size) for index, number in wave]
        )
        for (index, _), answer in zip(wave, answers, strict=True):
            answers_of[index].append(answer)
    incomplete = []
    for range_, shown in zip(ranges, answers_of, strict=True):
        ids = frozenset(row.id for answer in shown for row in answer.rows)
        if {answer.total for answer in shown} == {len(ids)}:
            yield Drop(range_, ids)
            search.prove(range_)
        else:
            incomplete.append(range_)
    return incomplete


def _cut(search: Search, range_: Range, size: int, *, may_overlap: bool) -> Iterator[RangeCount]:
    """Yield a range in ranges of at most `size` rows of the mirror, or of one second.

    Unless they `may_overlap`, a range is extended until it can be told apart from the next one;
    else a listing would show rows of both.
    """
    mirror = search.mirror
    rest, rows = range_, mirror.count(range_)
    while rows > size:
        last = mirror.created_at(rest, size) - 1
        if last < rest.first or not mirror.count(attrs.evolve(rest, last=last)):
            last += 1
        while last < rest.last and not (may_overlap or search.is_clear(rest, last)):
            last += 1
        piece = search.counted(attrs.evolve(rest, last=last))
        yield piece
        rest, rows = attrs.evolve(rest, first=last + 1), rows - piece.held
    if rows:
        yield RangeCount(rest, rows, rows)


def _list_again(search: Search, range_: Range) -> Steps[None]:
    """List a range that can't be cut until a pass over it is complete."""
    for _ in range(_MOST_PASSES):
        if not (yield from _list_wave(search, [range_])):
            return
    raise ListingDriftError(
        "a part that can't be cut by date_created kept changing while it was listed",
        passes=_MOST_PASSES,
    )
