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
from collections.abc import Sequence
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
#: The most parts that the mirror's rows are cut into before the service is asked.
_MOST_KNOWN_PARTS: Final = 8
#: If the parts have this many times more rows than the mirror knows, all are asked for at once.
_GROWN: Final = 2
#: No page is read to show where to cut if the mirror knows this part of the rows.
_KNOWN_SHARE: Final = 0.8
#: How full the page of a part should be.
_FILL: Final = 0.95
#: The calls for each page of the rows at first. Only contradictory answers reach it.
_MOST_CALLS_PER_PAGE: Final = 20


@attrs.frozen
class _Asked:
    """A part, and what its first page showed: the total, its rows, and the first second of them."""

    part: CreatedPart
    total: int
    rows: int
    first_modified: int

    @classmethod
    def of(cls, part: CreatedPart, page: Page) -> _Asked:
        modified = [second_of(row.date_modified) for row in page.data]
        rows = len({row.id for row in page.data})
        return cls(part, page.pagination.total, rows, min(modified, default=0))

    @property
    def is_complete(self) -> bool:
        return self.rows == self.total

    @property
    def size(self) -> int:
        return max(1, self.rows)


async def take_modified(ingest: Ingest, filter: AttributeValueFilter, since: int) -> int:
    """Take in the rows of a filter, which fits into one URL, that were modified since a second.

    A row whose last change before the call is at or after `since` is taken in as it stands after
    that change, unless it is deleted meanwhile. Returns a second, at least `since`, that the
    service had reached before the listing began.
    """
    sent_at_s = asyncio.get_running_loop().time()
    await _take_all(ingest, filter, since - 1, sent_at_s)
    return max(since, ingest.clock.least(sent_at_s) or since)


async def _take_all(
    ingest: Ingest, filter: AttributeValueFilter, minimum: int, sent_at_s: float
) -> None:
    known = await ingest.database.run(Replica.created_of, minimum)
    parts = cut(CreatedPart(), known, int(_FILL * ingest.calls.sizes.page))
    if len(parts) > _MOST_KNOWN_PARTS or any(one.is_crowded for one in parts):
        parts = [CreatedPart()]
    asked = await _ask(ingest, filter, minimum, parts)
    if len(parts) > 1 and sum(one.total for one in asked) > _GROWN * len(known):
        # Most rows are new to the mirror.
        asked = await _ask(ingest, filter, minimum, [CreatedPart()])
    # Changes after the first answer have a later date.
    end = (ingest.clock.least(sent_at_s) or minimum) - LAG_S - 1
    if len(asked) == 1 and not asked[0].is_complete and asked[0].first_modified <= end:
        if not await _take_past(ingest, _query(ingest, filter, minimum, end)):
            await _take_exactly(ingest, filter, minimum)
            return
        minimum = end - 1
        asked = await _ask(ingest, filter, minimum, [CreatedPart()])
    await _take_parts(ingest, filter, minimum, asked)


async def _take_past(ingest: Ingest, query: ListingQuery) -> bool:
    """Take in a range that only loses rows; return whether the rows are proven to be all."""
    for _ in range(_MOST_PASSES):
        first = await ingest.first_page(query)
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
    ingest: Ingest, filter: AttributeValueFilter, minimum: int, asked: Sequence[_Asked]
) -> None:
    """Take in the parts that did not fit one answer each: cut them until they do."""
    waiting = [one for one in asked if not one.is_complete]
    created = await ingest.database.run(Replica.created_of, minimum)
    for one in waiting:
        if one.part.count(created) < _KNOWN_SHARE * one.total:
            # Other pages show where the rows were created that the mirror did not have.
            query, count = (
                _query(ingest, _narrowed(filter, one.part), minimum),
                pages(one.total, one.size),
            )
            numbers = range(2, count + 1, max(1, count // _SAMPLE_PAGES))[:_SAMPLE_PAGES]
            limit = ingest.calls.sizes.page
            async with aclosing(ingest.pages((query, n, limit) for n in numbers)) as answers:
                async for _ in answers:
                    pass
    calls_left: int | None = None
    while waiting:
        created = await ingest.database.run(Replica.created_of, minimum)
        if calls_left is None:
            calls_left = _MOST_CALLS_PER_PAGE * (1 + pages(len(created), waiting[0].size))
        parts: list[CreatedPart] = []
        for one in waiting:
            share = min(1.0, one.part.count(created) / max(1, one.total))
            found = cut(one.part, created, max(1, int(_FILL * one.size * share)))
            parts += found if len(found) > 1 else [attrs.evolve(one.part, is_crowded=True)]
        calls_left -= len(parts)
        if calls_left < 0:
            raise ListingDriftError("the rows modified last kept changing while they were listed")
        fitting = [one for one in parts if not one.is_crowded]
        asked = await _ask(ingest, filter, minimum, fitting)
        waiting = [one for one in asked if not one.is_complete]
        for part in parts:
            if part.is_crowded:
                await _take_exactly(ingest, _narrowed(filter, part), minimum)


async def _ask(
    ingest: Ingest, filter: AttributeValueFilter, minimum: int, parts: Sequence[CreatedPart]
) -> list[_Asked]:
    """Take in the first page of each part."""
    queries = [_query(ingest, _narrowed(filter, one), minimum) for one in parts]
    asked = [_Asked.of(parts[0], await ingest.first_page(queries[0]))] if parts else []
    limit = ingest.calls.sizes.page
    async with aclosing(ingest.pages((one, 1, limit) for one in queries[1:])) as answers:
        async for page in answers:
            asked.append(_Asked.of(parts[len(asked)], page))
    return asked


async def _take_exactly(ingest: Ingest, filter: AttributeValueFilter, minimum: int) -> None:
    modified = attrs.evolve(filter, date_modified_min=moment_of(minimum))
    async with aclosing(exact_rows(ingest.calls, modified)) as parts:
        async for rows in parts:
            await ingest.take(rows)


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
