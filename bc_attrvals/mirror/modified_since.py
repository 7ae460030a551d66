"""Lists the rows of a store that were modified since a second, completely.

A row is visible at most `LAG_S` after its `date_modified` (`service_clock.py`). So a range of
`date_modified` that ended longer ago only loses rows: to deletions, and to later changes, which the
rest of the listing shows. It is proven complete by pages of one total and as many different rows.

A later range gains rows at any of its seconds. An answer that holds all rows is a snapshot of it.
More rows are cut by `date_created`, which never changes, into parts that fit one answer each.

Whether `:min` and `:max` include their own second is not documented (BigCommerce reference, Get
All Customer Attribute Values). The ranges overlap, so that both readings are complete.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Final

import attrs

from bc_attrvals.core.filters import AttributeValueFilter, ListingQuery
from bc_attrvals.core.models import Page
from bc_attrvals.errors import ListingDriftError
from bc_attrvals.mirror.created_parts import CreatedPart, cut
from bc_attrvals.mirror.ingest import Ingest
from bc_attrvals.mirror.ranges import pages
from bc_attrvals.mirror.replica import Replica
from bc_attrvals.mirror.service_clock import LAG_S, moment_of, second_of
from bc_attrvals.reading.exactly_once import exact_rows

#: Passes over a range of the past.
_MOST_PASSES: Final = 2
#: The most pages of such a range. Rows move while a longer one is read.
_MOST_PAGES: Final = 400
#: Pages that show where to cut.
_SAMPLE_PAGES: Final = 16
#: No page is read to show where to cut if the mirror knows this part of the rows.
_KNOWN_SHARE: Final = 0.8
#: How full the page of a part should be.
_FILL: Final = 0.95
#: The calls for each page of the rows at first. Only contradictory answers reach it.
_MOST_CALLS_PER_PAGE: Final = 20


async def take_modified(ingest: Ingest, filter: AttributeValueFilter, since: int) -> int:
    """Take in the rows of a filter, which fits into one URL, that were modified since a second.

    A row whose last change before the call is at or after `since` is taken in as it stands after
    that change, unless it is deleted meanwhile. Returns a second, at least `since`, that the
    service had reached before the listing began.
    """
    loop, clock = asyncio.get_running_loop(), ingest.clock
    sent_at_s = loop.time()
    minimum = since - 1
    page, reached = await ingest.first_page(_query(ingest, filter, minimum))
    if _is_complete(page):
        return max(since, reached or since, clock.least(sent_at_s) or since)
    # Changes after the first answer have a later date.
    end = (clock.least(sent_at_s) or since) - LAG_S - 1
    if any(second_of(row.date_modified) <= end for row in page.data):
        if not await _take_past(ingest, _query(ingest, filter, minimum, end)):
            await _take_exactly(ingest, filter, minimum)
            return max(since, clock.least(sent_at_s) or since)
        minimum = end - 1
        page, _ = await ingest.first_page(_query(ingest, filter, minimum))
    if not _is_complete(page):
        await _take_parts(ingest, filter, minimum, page)
    return max(since, clock.least(sent_at_s) or since)


async def _take_past(ingest: Ingest, query: ListingQuery) -> bool:
    """Take in a range that only loses rows; return whether the rows are proven to be all."""
    for _ in range(_MOST_PASSES):
        first, _ = await ingest.first_page(query)
        total = first.pagination.total
        last = pages(total, max(1, len(first.data)))
        if last > _MOST_PAGES:
            return False
        ids = {row.id for row in first.data}
        totals = {total}
        asked = [(query, number, ingest.calls.sizes.page) for number in range(2, last + 1)]
        async with aclosing(ingest.pages(asked)) as answers:
            async for page in answers:
                ids.update(row.id for row in page.data)
                totals.add(page.pagination.total)
        if totals == {len(ids)}:
            return True
    return False


async def _take_parts(
    ingest: Ingest, filter: AttributeValueFilter, minimum: int, first: Page
) -> None:
    """Take in more rows than a page, by parts of `date_created` that fit one answer each."""
    size, total = max(1, len(first.data)), first.pagination.total
    limit = ingest.calls.sizes.page
    created = await ingest.database.run(Replica.created_of, minimum)
    if len(created) < _KNOWN_SHARE * total:
        # Other pages show where the rows were created that the mirror did not have.
        query, count = _query(ingest, filter, minimum), pages(total, size)
        step = max(1, count // _SAMPLE_PAGES)
        numbers = range(2, count + 1, step)[:_SAMPLE_PAGES]
        async with aclosing(ingest.pages((query, one, limit) for one in numbers)) as answers:
            async for _ in answers:
                pass
        created = await ingest.database.run(Replica.created_of, minimum)
    calls_left = _MOST_CALLS_PER_PAGE * (1 + pages(len(created), size))
    waiting = [(CreatedPart(), total)]
    while waiting:
        parts: list[CreatedPart] = []
        for one, rows in waiting:
            share = min(1.0, one.count(created) / rows)
            found = cut(one, created, max(1, int(_FILL * size * share)))
            parts += found if len(found) > 1 else [attrs.evolve(one, is_crowded=True)]
        calls_left -= len(parts)
        if calls_left < 0:
            raise ListingDriftError("the rows modified last kept changing while they were listed")
        crowded = [one for one in parts if one.is_crowded]
        parts = [one for one in parts if not one.is_crowded]
        waiting = []
        asked = [(_query(ingest, _narrowed(filter, one), minimum), 1, limit) for one in parts]
        async with aclosing(ingest.pages(asked)) as answers:
            part = iter(parts)
            async for page in answers:
                one = next(part)
                if not _is_complete(page):
                    waiting.append((one, page.pagination.total))
        for one in crowded:
            await _take_exactly(ingest, _narrowed(filter, one), minimum)
        created = await ingest.database.run(Replica.created_of, minimum)


async def _take_exactly(ingest: Ingest, filter: AttributeValueFilter, minimum: int) -> None:
    modified = attrs.evolve(filter, date_modified_min=moment_of(minimum))
    async with aclosing(exact_rows(ingest.calls, modified)) as parts:
        async for rows in parts:
            await ingest.take(rows)


def _is_complete(page: Page) -> bool:
    return len({row.id for row in page.data}) == page.pagination.total


def _narrowed(filter: AttributeValueFilter, part: CreatedPart) -> AttributeValueFilter:
    """Return a filter narrowed to a part, and to one second more at each end."""
    return attrs.evolve(
        filter,
        date_created_min=None if part.first is None else moment_of(part.first - 1),
        date_created_max=None if part.last is None else moment_of(part.last + 1),
    )


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
