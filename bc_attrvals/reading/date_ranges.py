"""Ranges of `date_created`, in whole seconds, into which a listing is cut for exact reading.

A row's `date_created` never changes and new rows get the present time, so a range of the past only
loses rows. Pure: `exactly_once.py` makes the requests.
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
    """Return the whole second of a moment."""
    return moment.replace(microsecond=0)


def second_after(second: datetime) -> datetime | None:
    """Return the next second; None after the calendar's last one."""
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
    """Seconds from `first` to `last`, both included; None stands for the filter's own bound.

    `rows` is how many rows are expected, 0 if unknown. Rows may be added to a range that
    `is_growing` while it is read. `cuts` counts the cuts that led to the range.
    """

    first: datetime | None = None
    last: datetime | None = None
    rows: int = 0
    is_growing: bool = False
    cuts: int = attrs.field(default=0, eq=False)

    @property
    def is_one_second(self) -> bool:
        """True if the range can't be cut further."""
        return self.first is not None and self.first == self.last

    def clip(self, rows: Iterable[AttributeValue]) -> list[AttributeValue]:
        """Return the rows inside of this range; the query's bounds may be wider."""
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
    """How `date_created:min` and `:max` are sent.

    It is not documented whether the service counts a bound itself as inside ("created after this
    date"; BigCommerce reference, Get Customer Attribute Values). Until an answer has shown that it
    does, a bound is moved out by one second, so that the listing is complete in both cases. `least`
    and `most` are the filter's own bounds, sent unchanged.
    """

    least: datetime | None = None
    most: datetime | None = None
    min_inclusive: bool = False
    max_inclusive: bool = False

    def holds_some_of(self, part: CreatedRange) -> bool:
        """Return whether a range overlaps the filter's own bounds."""
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
    """Return three ranges that cover all dates: past, present (rows are added) and future.

    `slack` is how far the clocks of writers may be off.
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
    """Cut a range of `total` rows into parts of about `target` rows, by a sample of its dates.

    The parts cover the range without overlap. There are at least two. A range that is a single
    second, or has no date of the sample inside, is returned whole.
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
        # The sample has too few rows of the range, so its middle is the best guess.
        middle = seconds[(len(seconds) - 1) // 2]
        return [
            attrs.evolve(whole, last=middle, rows=total // 2),
            attrs.evolve(whole, first=middle + _ONE_SECOND, rows=total - total // 2),
        ]
    parts.append(attrs.evolve(whole, first=first, rows=int(expected)))
    return parts


def _around(part: CreatedRange, second: datetime, total: int) -> list[CreatedRange]:
    """Cut a range around the one second of all known rows."""
    parts = [attrs.evolve(part, first=second, last=second, rows=total)]
    before, after = _second_before(second), second_after(second)
    if before is not None and (part.first is None or part.first < second):
        parts.insert(0, attrs.evolve(part, last=before))
    if after is not None and (part.last is None or part.last > second):
        parts.append(attrs.evolve(part, first=after))
    return parts
