"""Lists the rows of a store that were modified since a second, completely.

`date_modified` of a row is the service's time of its last change. So a range of it in the past
only loses rows: to deletions, and to later changes, which the rest of the listing shows. One page
that holds all rows is a snapshot. More pages are proven by reading such a range while its total
stands still. If the total moves, the listing is read exactly once by ranges of `date_created`.

Whether `:min` and `:max` include their own second is not documented (BigCommerce reference, Get
All Customer Attribute Values). The ranges overlap, so that both readings are complete.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Final

import attrs

from bc_attrvals.core.filters import AttributeValueFilter, ListingQuery
from bc_attrvals.mirror.ingest import Ingest
from bc_attrvals.mirror.ranges import pages
from bc_attrvals.mirror.service_clock import moment_of
from bc_attrvals.reading.exactly_once import exact_rows

#: How often the newest rows are read as a range of their own before they are read exactly once.
_MOST_RANGES: Final = 3
#: Up to this many pages, the first one is enough to choose a range.
_FEW_PAGES: Final = 2
#: Passes over one range.
_MOST_PASSES: Final = 2
#: The most pages of one range. Rows move while a longer one is read.
_MOST_PAGES: Final = 400


async def take_modified(ingest: Ingest, filter: AttributeValueFilter, since: int) -> int:
    """Take in the rows of a filter, which fits into one URL, that were modified since a second.

    A row whose last change before the call is at or after `since` is taken in as it stands after
    that change, unless it is deleted meanwhile. Returns a second, at least `since`: changes that
    the listing may have missed come at or after it.
    """
    loop, clock = asyncio.get_running_loop(), ingest.clock
    minimum = since - 1
    for _ in range(_MOST_RANGES):
        sent_at_s = loop.time()
        query = _query(ingest, filter, minimum)
        page, reached = await ingest.first_page(query)
        total = page.pagination.total
        if len({row.id for row in page.data}) == total:
            return max(since, reached or since, clock.least(sent_at_s) or since)
        seconds = ingest.near_seconds(page.data) or [since]
        if pages(total, max(1, len(page.data))) > _FEW_PAGES:
            last = await ingest.last_page(query, page)
            seconds += ingest.near_seconds(last.data)
        # Two seconds later: the rest begins after them, whether bounds include their second or not.
        maximum = max(seconds) + 2
        await ingest.until_over(maximum)
        if not await _take_range(ingest, _query(ingest, filter, minimum, maximum)):
            break
        minimum = maximum - 1
    began_at_s = loop.time()
    modified = attrs.evolve(filter, date_modified_min=moment_of(minimum))
    async with aclosing(exact_rows(ingest.calls, modified)) as parts:
        async for rows in parts:
            await ingest.take(rows)
    return max(since, clock.least(began_at_s) or since)


async def _take_range(ingest: Ingest, query: ListingQuery) -> bool:
    """Take in a range that is over; return whether the rows are proven to be all."""
    for _ in range(_MOST_PASSES):
        first, _ = await ingest.first_page(query)
        total = first.pagination.total
        last = pages(total, max(1, len(first.data)))
        if last > _MOST_PAGES:
            return False
        ids = {row.id for row in first.data}
        totals = {total}
        numbers = range(2, last + 1)
        asked = [(query, number, ingest.calls.sizes.page) for number in numbers]
        async with aclosing(ingest.pages(asked)) as answers:
            async for page in answers:
                ids.update(row.id for row in page.data)
                totals.add(page.pagination.total)
        if totals == {len(ids)}:
            return True
    return False


def _query(
    ingest: Ingest, filter: AttributeValueFilter, minimum: int, maximum: int | None = None
) -> ListingQuery:
    dated = attrs.evolve(
        filter,
        date_modified_min=moment_of(minimum),
        date_modified_max=None if maximum is None else moment_of(maximum),
    )
    (query,) = ingest.calls.queries(dated)
    return query
