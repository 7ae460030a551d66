"""Finds the rows of a mirror that are gone from the store, by counts and few listings.

Pure: the mirror's counts × the store's answers → the next questions, rows to drop, or the end. The
refresh sends the questions; an index counts the mirror's rows, and the replica drops them.

The mirror holds every row of the store up to a second of the past, and rows that are gone. A past
range of `date_created` only loses rows. So:

- A count equal to the mirror's proves the mirror's range equal at that moment.
- A complete listing shows which rows of its range are gone. Nothing else drops a row.
- A count that follows by subtraction guides the search and proves nothing. Ranges that were passed
  over because of it are counted again in the next round, and searched again if they still differ.

A range is halved at its median second. The cost is bounded: a range is counted only while listing
all that is left stays within the limit of the round. Where dates find no cluster, customers near to
those that lost rows are searched (`gone_customers.py`), in a bounded number of reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final

import attrs

from bc_attrvals.mirror.range_counts import SPARE_READS, Done, Search, SearchCustomers, Steps
from bc_attrvals.mirror.range_listing import first_pages, list_ranges
from bc_attrvals.mirror.ranges import Range, RangeCount, expected_reads, hull, join, pages, subtract

#: Rounds before all that is unproven is listed.
_MOST_ROUNDS: Final = 4
#: Counts that look for clusters where a surplus is dense.
_EXPLORING_COUNTS: Final = 5
#: Further such counts for each that found a range equal.
_COUNTS_PER_FIND: Final = 2
#: Below this many pages, halving costs as many reads as listing, even for one row that is gone.
_LEAST_PAGES_TO_EXPLORE: Final = 4
#: Groups of attributes that are counted at once.
_ATTRIBUTE_GROUPS: Final = 8
#: How often customers are searched.
_MOST_CUSTOMER_SEARCHES: Final = 2
#: Customers are searched if at least this many pages are left to list.
_LEAST_PAGES_FOR_CUSTOMERS: Final = 16
#: A search by customers begins at a row that is gone. To find one, this many pages are listed at
#: once, until they should have shown this many such rows.
_SAMPLE_PAGES: Final = 3
_SAMPLE_ROWS: Final = 3
#: The reads of the searches by customers: this many, and one more for so many pages to list.
_CUSTOMER_READS: Final = 16
_PAGES_PER_CUSTOMER_READ: Final = 16
#: At the end of a round, one count of what was passed over.
_RESERVED_READS: Final = 1


def reconcile(search: Search) -> Steps[None]:
    """Yield what to do until each range is proven equal, and `Done` then.

    Raises `ListingDriftError` if that can't be proven, and `FilterIgnoredError`. What was dropped
    before is right.
    """
    rounds = 0
    while rounds < _MOST_ROUNDS:
        search.unproven = [one for one in search.unproven if search.mirror.count(one)]
        if not search.unproven:
            break
        # The second round counts what the first passed over, and mostly finds it equal.
        search.is_moving = rounds > 0
        rounds += yield from _round(search, search.widened(hull(search.unproven)))
    else:
        yield from list_ranges(search, [search.counted(one) for one in search.unproven])
    yield Done(search.deficit)


def _round(search: Search, whole: Range) -> Steps[bool]:
    """Count a range, and search it if the count differs.

    Returns False if most rows were found by customers: a new round then counts what is left.
    """
    before = search.spent
    root = search.counted(whole)
    counts = [root]
    if root.held > search.page_size and (yield from search.can_count([whole])):
        yield from search.count(counts)
        if not root.surplus:
            return True
        search.limit = before + pages(root.stored, search.page_size) + SPARE_READS
        counts = yield from _narrow(search, root)
        if search.customer_searches < _MOST_CUSTOMER_SEARCHES:
            rest = yield from _by_customers(search, root, counts)
            if rest is None:
                return False
            counts = rest
    yield from list_ranges(search, counts)
    return True


def _narrow(search: Search, root: RangeCount) -> Steps[list[RangeCount]]:
    """Return the ranges of a root to list: all that have a surplus, as far as counts show."""
    counts = yield from _by_attribute(search, root)
    # A search by customers follows one that found no cluster by date.
    exploring = 0 if search.customer_searches else _EXPLORING_COUNTS
    while True:
        chosen, explored = _choose(search, counts, exploring)
        if not chosen:
            return counts
        halves = [(one, pair) for one in chosen if (pair := _halves(search, one))]
        if not halves:
            continue
        if not (yield from search.can_count([half.range for _, pair in halves for half in pair])):
            return counts
        exploring -= len(explored)
        yield from search.count([left for _, (left, _) in halves])
        for one, (left, right) in halves:
            right.stored = _possible(right, one.stored - left.stored)
            children = _with_surplus(search, (left, right))
            counts = [other for other in counts if other is not one] + children
            if len(children) < 2 and any(one is other for other in explored):
                exploring += _COUNTS_PER_FIND


def _by_customers(
    search: Search, root: RangeCount, counts: Sequence[RangeCount]
) -> Steps[list[RangeCount] | None]:
    """List a few pages of the ranges, and search near the customers that lost rows there.

    Returns the ranges that are left to list, or None if most rows were found by customers.
    """
    joined = join(counts)
    listing = sum(pages(one.stored, search.page_size) for one in joined)
    most = _CUSTOMER_READS + listing // _PAGES_PER_CUSTOMER_READ - search.asked_of_customers
    if listing < _LEAST_PAGES_FOR_CUSTOMERS or most <= 0:
        return list(counts)
    surplus = sum(one.surplus for one in joined)
    fullest = max(joined, key=lambda one: one.stored)
    left, sample = [fullest.range], fullest.range
    before = held = search.mirror.count(root.range)
    sampled = 0
    while left and held == before and sampled * surplus < _SAMPLE_ROWS * listing:
        sample = first_pages(search, left[0], _SAMPLE_PAGES)
        first = search.counted(sample)
        if first.held > 2 * _SAMPLE_PAGES * search.page_size:
            # Rows of one second can't be listed in part.
            break
        yield from list_ranges(search, [first])
        left = [one for one in subtract(left[0], sample) if search.mirror.count(one)]
        held = search.mirror.count(root.range)
        sampled += _SAMPLE_PAGES
    if held < before:
        search.customer_searches += 1
        yield SearchCustomers(root.range, sample, surplus / before, most)
        if 2 * (search.mirror.count(root.range) - root.stored) < held - root.stored:
            return None
    rest = [search.counted(one) for one in left]
    for one in rest:
        one.stored = _possible(one, fullest.stored - search.mirror.count(fullest.range) + one.held)
    return [one for one in joined if one is not fullest] + rest


def _choose(
    search: Search, counts: Sequence[RangeCount], exploring: int
) -> tuple[list[RangeCount], list[RangeCount]]:
    """Return the ranges to halve next, and those of them whose surplus is dense."""
    most = _affordable_counts(search, counts)
    # Few at once, so that the search goes deep before it goes wide: small ranges are found equal
    # soonest, and each of them makes more counts affordable.
    most = min(most, max(1, most // 4))
    chosen: list[RangeCount] = []
    explored: list[RangeCount] = []
    for one in sorted(counts, key=lambda count: count.stored):
        if len(chosen) >= most:
            break
        listing = pages(one.stored, search.page_size)
        if not one.is_divisible:
            continue
        if expected_reads(one, search.page_size) < listing:
            chosen.append(one)
        elif listing >= _LEAST_PAGES_TO_EXPLORE and len(explored) < exploring:
            explored.append(one)
            chosen.append(one)
    return chosen, explored


def _affordable_counts(search: Search, counts: Iterable[RangeCount]) -> int:
    """Return how many counts may be asked such that listing all ranges then keeps the limit.

    A count costs two reads at most: itself, and a page that is part empty because of the cut.
    """
    listing = sum(pages(one.stored, search.page_size) for one in join(counts))
    return (search.limit - _RESERVED_READS - search.spent - listing) // 2


def _halves(search: Search, count: RangeCount) -> tuple[RangeCount, RangeCount] | None:
    """Return a range cut at its median second, or None and mark it if all rows share a second."""
    whole, mirror = count.range, search.mirror
    if count.held > 1:
        middle = mirror.created_at(whole, count.held // 2)
        before = mirror.count(attrs.evolve(whole, last=middle - 1)) if middle > whole.first else 0
        after = count.held - before - mirror.count(attrs.evolve(whole, first=middle, last=middle))
        if before and before >= after:
            return _pair(count, middle - 1, before)
        if after:
            return _pair(count, middle, count.held - after)
    count.is_divisible = False
    return None


def _pair(count: RangeCount, last: int, held: int) -> tuple[RangeCount, RangeCount]:
    left = RangeCount(attrs.evolve(count.range, last=last), held, count.stored)
    return left, RangeCount(attrs.evolve(count.range, first=last + 1), count.held - held, 0)


def _by_attribute(search: Search, root: RangeCount) -> Steps[list[RangeCount]]:
    """Return the root by groups of attributes if its surplus is then cheaper to find."""
    counts: list[RangeCount] = []
    waiting = [root]
    while waiting:
        one = waiting.pop()
        groups = _attribute_groups(one.range)
        children: list[RangeCount] | None = None
        listing = pages(one.stored, search.page_size)
        if (
            1 < len(groups) < listing
            and len(groups) <= _affordable_counts(search, [*waiting, *counts, one])
            and expected_reads(one, search.page_size) >= listing
        ):
            children = yield from _count_groups(search, one, groups)
        if children is None:
            counts.append(one)
        else:
            waiting += children
    return counts


def _attribute_groups(whole: Range) -> list[Range]:
    ids = whole.attribute_ids
    count = min(len(ids), _ATTRIBUTE_GROUPS)
    cuts = [len(ids) * index // count for index in range(count + 1)]
    return [attrs.evolve(whole, attribute_ids=ids[start:end]) for start, end in pairwise(cuts)]


def _count_groups(
    search: Search, whole: RangeCount, groups: Sequence[Range]
) -> Steps[list[RangeCount] | None]:
    """Return the groups with a surplus, or None if they are no cheaper to search than the whole."""
    if not (yield from search.can_count(groups)):
        return None
    counts = [search.counted(one) for one in groups]
    *counted, last = counts
    for one in counted:
        one.stored = whole.stored
    yield from search.count(counted)
    last.stored = _possible(last, whole.stored - sum(one.stored for one in counted))
    children = _with_surplus(search, counts)
    expected = sum(expected_reads(one, search.page_size) for one in children)
    return children if expected < expected_reads(whole, search.page_size) else None


def _possible(count: RangeCount, stored: int) -> int:
    """Return a count that follows by subtraction, within its bounds: rows may go meanwhile."""
    return max(0, min(count.held, stored))


def _with_surplus(search: Search, counts: Iterable[RangeCount]) -> list[RangeCount]:
    # The surplus of a proven range is rows that went after the proof.
    return [one for one in counts if one.surplus and search.is_unproven(one.range)]
