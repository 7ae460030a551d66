"""Ranges of a mirror: attributes × seconds of `date_created`, and what it costs to read them.

Pure. `reconcile.py` decides with it which ranges to count and which to list.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import attrs

#: The first second of a range without a lower bound, and the last of one without an upper bound.
BEGINNING: Final = -(2**62)
END: Final = 2**62


@attrs.frozen
class Range:
    """Rows of some attributes that were created from second `first` to second `last`.

    Seconds are UNIX seconds, both included. `attribute_ids` are in ascending order.
    """

    attribute_ids: tuple[int, ...]
    first: int
    last: int

    def meets(self, other: Range) -> bool:
        """Return whether a row can belong to both."""
        return (
            self.first <= other.last
            and other.first <= self.last
            and not set(self.attribute_ids).isdisjoint(other.attribute_ids)
        )


@attrs.define
class RangeCount:
    """A range, the rows that the mirror holds of it, and the rows stored by the last count."""

    range: Range
    held: int
    stored: int
    is_divisible: bool = True

    @property
    def surplus(self) -> int:
        """The difference of the two counts."""
        return abs(self.held - self.stored)


def subtract(range_: Range, other: Range) -> list[Range]:
    """Return the parts of a range outside of another, as ranges that do not overlap."""
    if not range_.meets(other):
        return [range_]
    common = tuple(one for one in range_.attribute_ids if one in other.attribute_ids)
    rest = tuple(one for one in range_.attribute_ids if one not in other.attribute_ids)
    outside = []
    if rest:
        outside.append(attrs.evolve(range_, attribute_ids=rest))
    if range_.first < other.first:
        outside.append(Range(common, range_.first, other.first - 1))
    if other.last < range_.last:
        outside.append(Range(common, other.last + 1, range_.last))
    return outside


def hull(ranges: Sequence[Range]) -> Range:
    """Return the smallest range that contains all of the ranges."""
    attribute_ids = {attribute_id for one in ranges for attribute_id in one.attribute_ids}
    first = min(one.first for one in ranges)
    return Range(tuple(sorted(attribute_ids)), first, max(one.last for one in ranges))


def join(counts: Iterable[RangeCount]) -> list[RangeCount]:
    """Return the ranges with neighbours joined, so that fewer pages are part empty."""
    joined: list[RangeCount] = []
    for one in sorted(counts, key=lambda count: (count.range.attribute_ids, count.range.first)):
        before = joined[-1] if joined else None
        if (
            before is not None
            and before.range.attribute_ids == one.range.attribute_ids
            and before.range.last + 1 == one.range.first
        ):
            whole = attrs.evolve(before.range, last=one.range.last)
            joined[-1] = RangeCount(whole, before.held + one.held, before.stored + one.stored)
        else:
            joined.append(one)
    return joined


def pages(rows: int, page_size: int) -> int:
    """Return the reads that list a number of rows. An empty listing takes one, too."""
    return max(1, -(-rows // page_size))


def expected_reads(count: RangeCount, page_size: int) -> float:
    """Return the reads that find a range's surplus, if it is spread by chance over the range.

    The range is halved to the depth that costs least, and each part that then has a surplus is
    listed. Each part with a surplus costs one count: the other half's count follows by subtraction.
    """
    if not count.surplus:
        return 0.0
    least = float(pages(count.stored, page_size))
    counts = 0.0
    parts = 1
    while count.stored > page_size * parts:
        counts += _parts_hit(parts, count.surplus)
        if counts >= least:
            break
        parts *= 2
        listing = pages(-(-count.stored // parts), page_size)
        least = min(least, counts + _parts_hit(parts, count.surplus) * listing)
    return least


def _parts_hit(parts: int, rows: int) -> float:
    """Return the expected number of equal parts that hold at least one of the rows."""
    return parts * (1.0 - (1.0 - 1.0 / parts) ** rows)
