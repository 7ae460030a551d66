"""Ranges of `date_created`, in whole seconds: how a listing is cut so that each part is exact.

A row's `date_created` never changes and new rows get the present, so from a range that lies in the
past rows only disappear. Pure: the requests are made by `exactly_once.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

import attrs

from bc_attrvals.core.filters import ListingQuery
from bc_attrvals.core.models import AttributeValue

_ONE_SECOND: Final = timedelta(seconds=1)


def second_of(moment: datetime) -> datetime:
    """Return the second that a moment is in."""
    return moment.replace(microsecond=0)


def second_after(second: datetime) -> datetime | None:
    """Return the next second; None after the last one of the calendar."""
    try:
        return second + _ONE_SECOND
    except OverflowError:
        return None


def _second_before(second: datetime) -> datetime | None:
    try:
        return second - _ONE_SECOND
    except OverflowError:
        return None


@attrs.frozen
class CreatedRange:
    """Seconds from `first` to `last`, both included; None leaves an end to the filter's own bound.

    `rows` is how many rows are expected, 0 when nothing is known. Rows may be added to a range that
    `is_growing` while it is read. `cuts` counts how often it was cut out of another.
    """

    first: datetime | None = None
    last: datetime | None = None
    rows: int = 0
    is_growing: bool = False
    cuts: int = attrs.field(default=0, eq=False)

    @property
    def is_one_second(self) -> bool:
        """True when it can't be cut any more."""
        return self.first is not None and self.first == self.last

    def clip(self, rows: Iterable[AttributeValue]) -> list[AttributeValue]:
        """Return the rows that are of this range, and not only of the bounds it was asked by."""
        return [
            row
            for row in rows
            if (created := row.date_created) is None
            or (
                (self.first is None or created >= self.first)
                and (self.last is None or second_of(created) <= self.last)
            )
        ]


@attrs.frozen
class Bounds:
    """How `date_created:min` and `:max` are to be sent.

    Whether the service counts a bound itself as inside is not documented ("created after this
    date"). Until an answer has shown that it does, a bound is moved out by one second, so that both
    readings are complete. `least` and `most` are the filter's own, sent as they are.
    """

    least: datetime | None = None
    most: datetime | None = None
    min_inclusive: bool = False
    max_inclusive: bool = False

    def holds_some_of(self, part: CreatedRange) -> bool:
        """Return whether the filter's own bounds leave anything of a range."""
        return not (
            (self.least is not None and part.last is not None and part.last < self.least)
            or (self.most is not None and part.first is not None and part.first > self.most)
        )

    def query(self, query: ListingQuery, part: CreatedRange) -> ListingQuery:
        """Return the query narrowed to a range."""
        least, most = self.least, self.most
        if part.first is not None:
            first = part.first if self.min_inclusive else _second_before(part.first)
            if first is not None:
                least = first if least is None else max(least, first)
        if part.last is not None:
            last = part.last if self.max_inclusive else second_after(part.last)
            if last is not None:
                most = last if most is None else min(most, last)
        return query.narrowed(least, most)


def around_now(
    earliest_now: datetime, latest_now: datetime, slack: timedelta, total: int
) -> tuple[CreatedRange, CreatedRange, CreatedRange]:
    """Return three ranges that cover all dates: the past, what rows are added to, and the future.

    `slack` is how far the clocks of those who write may be off.
    """
    end = earliest_now.replace(microsecond=0) - slack
    begin = latest_now.replace(microsecond=0) + slack
    return (
        CreatedRange(None, end, total),
        CreatedRange(end + _ONE_SECOND, begin, is_growing=True),
        CreatedRange(begin + _ONE_SECOND, None, is_growing=True),
    )


def cut(
    part: CreatedRange, sample: Iterable[datetime], total: int, target: int
) -> list[CreatedRange]:
    """Cut a range of `total` rows into parts of about `target` rows, as a sample of dates tells.

    The parts cover the range without overlap. There are at least two, unless the range is a single
    second, or nothing in the sample lies inside it: then it comes back whole.
    """
    whole = attrs.evolve(part, cuts=part.cuts + 1, rows=0)
    counts = Counter(
        second
        for second in map(second_of, sample)
        if (part.first is None or second >= part.first)
        and (part.last is None or second <= part.last)
    )
    if part.is_one_second or not counts:
        return [part]
    seconds = sorted(counts)
    if len(seconds) == 1:
        return _around(whole, seconds[0], total)
    scale = total / counts.total()
    target = max(1, min(target, total // 2))
    parts: list[CreatedRange] = []
    first = part.first
    expected = 0.0
    previous = seconds[0]
    for second in seconds:
        rows = counts[second] * scale
        if expected and expected + rows > target:
            parts.append(attrs.evolve(whole, first=first, last=previous, rows=int(expected)))
            first, expected = previous + _ONE_SECOND, 0.0
        expected += rows
        previous = second
    if not parts:
        # The sample is of few rows of the range: its middle is the best guess.
        middle = seconds[(len(seconds) - 1) // 2]
        return [
            attrs.evolve(whole, last=middle, rows=total // 2),
            attrs.evolve(whole, first=middle + _ONE_SECOND, rows=total - total // 2),
        ]
    parts.append(attrs.evolve(whole, first=first, rows=int(expected)))
    return parts


def _around(part: CreatedRange, second: datetime, total: int) -> list[CreatedRange]:
    """Cut out the one second that all known rows have in common."""
    parts = [attrs.evolve(part, first=second, last=second, rows=total)]
    before, after = _second_before(second), second_after(second)
    if before is not None and (part.first is None or part.first < second):
        parts.insert(0, attrs.evolve(part, last=before))
    if after is not None and (part.last is None or part.last > second):
        parts.append(attrs.evolve(part, first=after))
    return parts
