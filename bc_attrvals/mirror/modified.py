"""Lists the rows of a store that were modified since a second, completely.

`date_modified` of a row is the service's time of its last change. So a range of it whose end is
over only loses rows: to deletions, and to later changes, which the rest of the listing shows. One
page that holds all rows is a snapshot. More are proven by reading such a range while its total
stands still; if it does not, the listing is read exactly once by ranges of `date_created`.

Whether `:min` and `:max` include their own second is not documented (BigCommerce reference, Get
Customer Attribute Values). The ranges overlap, so that both readings are complete.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Final

import attrs

from bc_attrvals.core.filters import AttributeValueFilter, ListingQuery
from bc_attrvals.core.models import AttributeValue, Page
from bc_attrvals.mirror.dated_pages import DatedPages, moment_of, second_of
from bc_attrvals.mirror.parts import pages
from bc_attrvals.mirror.service_clock import ServiceClock
from bc_attrvals.reading.exactly_once import exact_rows
from bc_attrvals.scheduling.at_once import at_once_in_order
from bc_attrvals.scheduling.calls import Calls

#: Is awaited with the rows of each answer. Returns a second that the service had reached when it
#: answered, None if the rows do not show one.
TakeIn = Callable[[Sequence[AttributeValue]], Awaitable[int | None]]

#: How often the newest rows are read as a range of their own before they are read exactly once.
_MOST_RANGES: Final = 3
#: Of so many pages, one is enough to choose a range.
_FEW_PAGES: Final = 2
#: Passes over one range.
_MOST_PASSES: Final = 2
#: Pages of one range. In a longer one something moves while it is read.
_MOST_PAGES: Final = 400


class ModifiedRows:
    """The listing of one filter, which fits into one URL with two dates."""

    def __init__(
        self,
        calls: Calls,
        filter: AttributeValueFilter,
        *,
        dated_pages: DatedPages,
        clock: ServiceClock,
        take: TakeIn,
    ) -> None:
        self._calls = calls
        self._pages = dated_pages
        self._filter = filter
        self._clock = clock
        self._take = take
        self._loop = asyncio.get_running_loop()

    async def read(self, since: int) -> int:
        """Give the rows modified at or after a second to `take`, page by page.

        A row whose last change before the call is at or after `since` is given as it stands after
        that change, unless it is deleted meanwhile. Returns a second, at least `since`: changes
        that the listing may have missed come at or after it.
        """
        minimum = since - 1
        for _ in range(_MOST_RANGES):
            sent_at_s = self._loop.time()
            query = self._query(minimum, None)
            page = await self._pages.first_page(query)
            reached = await self._take(page.data)
            if len({row.id for row in page.data}) == page.pagination.total:
                return max(since, reached or since, self._clock.least(sent_at_s) or since)
            newest = max(
                self._newest(page, since), await self._newest_of_last_page(query, page, minimum)
            )
            # Two seconds later, so that the rest, whatever the bounds include, begins after them.
            maximum = newest + 2
            await self._until_over(maximum)
            if not await self._read_range(minimum, maximum):
                break
            minimum = newest + 1
        began_at_s = self._loop.time()
        modified = attrs.evolve(self._filter, date_modified_min=moment_of(minimum))
        async with aclosing(exact_rows(self._calls, modified)) as parts:
            async for rows in parts:
                await self._take(rows)
        return max(since, self._clock.least(began_at_s) or since)

    async def _newest_of_last_page(self, query: ListingQuery, first: Page, minimum: int) -> int:
        """Return the newest second of the last page. By id, new rows stand there."""
        last = pages(first.pagination.total, max(1, len(first.data)))
        if last <= _FEW_PAGES:
            return minimum
        page = await self._pages.page(query, last, self._calls.sizes.page)
        await self._take(page.data)
        return self._newest(page, minimum)

    def _newest(self, page: Page, default: int) -> int:
        """Return the newest second of a page's rows, but for those dated far in the future."""
        now_s = self._loop.time()
        seconds = (second_of(row.date_modified) for row in page.data)
        return max((one for one in seconds if self._clock.is_near(one, now_s)), default=default)

    async def _read_range(self, minimum: int, maximum: int) -> bool:
        """Read a range that is over; return whether the rows given are proven to be all."""
        query = self._query(minimum, maximum)
        for _ in range(_MOST_PASSES):
            first = await self._pages.first_page(query)
            await self._take(first.data)
            total, size = first.pagination.total, max(1, len(first.data))
            if pages(total, size) > _MOST_PAGES:
                return False
            ids = {row.id for row in first.data}
            totals = {total}

            async def read(number: int) -> Page:
                return await self._pages.page(query, number, self._calls.sizes.page)

            numbers = range(2, pages(total, size) + 1)
            reads = self._calls.limits.reads
            async with aclosing(at_once_in_order(read, numbers, reads)) as answers:
                async for page in answers:
                    await self._take(page.data)
                    ids.update(row.id for row in page.data)
                    totals.add(page.pagination.total)
            if totals == {len(ids)}:
                return True
        return False

    async def _until_over(self, second: int) -> None:
        remaining_s = self._clock.until_over_s(second, self._loop.time())
        if remaining_s > 0:
            await asyncio.sleep(remaining_s)

    def _query(self, minimum: int, maximum: int | None) -> ListingQuery:
        dated = attrs.evolve(
            self._filter,
            date_modified_min=moment_of(minimum),
            date_modified_max=None if maximum is None else moment_of(maximum),
        )
        (query,) = self._calls.queries(dated)
        return query
