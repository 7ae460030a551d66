"""Exact listings: each row that exists throughout is yielded once, while others write.

Built on `listing.py`. Page numbers over a changing list skip rows when earlier ones are deleted.
What is exact all the same:

- One answer is one snapshot: a range that fits into one page is exact.
- A range of `date_created` in the past only loses rows. Read in several pages, it is exact when
  every page reports the same total and as many different rows came. (A filter by `date_modified`
  or `name` may gain rows anywhere: there only single pages count.)
- One second of the past is not divisible by date. Its pages are read from the last to the first:
  rows that move up when others go, move to pages still to be read.

No clock is compared with the service's: a row of second `s` that was seen `t` seconds ago says that
there it is at least `s + t` now.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncGenerator, Coroutine, Iterable, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Any, Final, TypeVar

import attrs

from bc_attrvals.core.filters import AttributeValueFilter, ListingQuery
from bc_attrvals.core.models import AttributeValue, Page
from bc_attrvals.errors import ListingDriftError, PayloadTooLargeError
from bc_attrvals.reading.date_ranges import ONE_SECOND, Bounds, CreatedRange, cut
from bc_attrvals.reading.pager import note_drift
from bc_attrvals.scheduling.calls import Calls

__all__ = ["exact_rows"]

T = TypeVar("T")

#: Rows of a range that are held back until it has proved exact.
_MOST_PAGES_HELD: Final = 40
#: Pages looked at to learn how dates are spread over a listing longer than that.
_SAMPLE_PAGES: Final = 16
#: How full a page is aimed at where only single pages are exact: guesses err both ways.
_FILL: Final = 0.65
#: How often a part that can't be cut is read before the listing is given up.
_MOST_PASSES: Final = 10
#: How often the newest row is looked for. Each probe halves what is newer, by chance at least.
_MOST_PROBES: Final = 50
#: How long after its end a second is taken for past.
_MARGIN_S: Final = 0.01
#: The two date parameters that a range adds to a query.
_RANGE_ROOM_BYTES: Final = len("&date_created:min=&date_created:max=") + 2 * 20


async def exact_rows(
    calls: Calls, filter: AttributeValueFilter | None
) -> AsyncGenerator[list[AttributeValue]]:
    """Yield the rows of a filter in lists, each row that exists throughout exactly once.

    Raises `ListingDriftError` where that can't be had: more than a page of rows without
    `date_created`, or of one second under a filter by `date_modified` or `name`, that do
    not stand still for two passes.
    """
    base = filter or AttributeValueFilter()
    bounds = Bounds(base.date_created_min, base.date_created_max)
    gains_rows = any(
        value is not None
        for value in (base.name, base.date_modified, base.date_modified_min, base.date_modified_max)
    )
    if not base.matches_nothing:
        base = attrs.evolve(base, date_created_min=None, date_created_max=None)
    for query in calls.queries(base, spare_bytes=_RANGE_ROOM_BYTES):
        listing = _ExactListing(calls, query, bounds, gains_rows=gains_rows)
        if base.date_created is not None:
            listing.pin(base.date_created)
        async with aclosing(listing.rows()) as parts:
            async for rows in parts:
                yield rows


class _ExactListing:
    """One query of a filter."""

    def __init__(
        self,
        calls: Calls,
        query: ListingQuery,
        bounds: Bounds,
        *,
        gains_rows: bool,
    ) -> None:
        self._calls = calls
        self._query = query
        self._bounds = bounds
        self._gains_rows = gains_rows
        self._loop = asyncio.get_running_loop()
        # At least so much is the service's clock ahead of the loop's.
        self._lead_s = -math.inf
        self._whole = CreatedRange()

    def pin(self, second: datetime) -> None:
        """Take the listing for one second, as a filter by `date_created` makes it."""
        self._whole = CreatedRange(second, second)
        self._bounds = Bounds()

    async def rows(self) -> AsyncGenerator[list[AttributeValue]]:
        """Yield the rows, range by range."""
        try:
            first = await self._page(self._whole, 1)
        except PayloadTooLargeError:
            # Too large a `limit` is answered 413; raised again if the default is refused, too.
            self._calls.sizes.lower_page()
            first = await self._page(self._whole, 1)
        if _is_snapshot(first):
            yield first.data
            return
        # In the most likely order, by id, the newest rows stand last.
        last = await self._page(self._whole, first.pagination.total_pages)
        seen = [row.date_created for row in (*first.data, *last.data)]
        dates = [moment for moment in seen if moment is not None]
        if len(dates) < len(seen):
            yield await self._without_dates()
            return
        total = first.pagination.total
        newest = max(dates).replace(microsecond=0)
        tail: CreatedRange | None = None
        if self._whole.last is not None:
            await self._until_past(self._whole.last)
            closed = attrs.evolve(self._whole, rows=total)
        else:
            await self._learn_bounds(dates[0])
            if self._bounds.most is not None and self._is_past(self._bounds.most):
                # The end was given, and is over: nothing can be added.
                closed = CreatedRange(rows=total)
            else:
                end = newest - (ONE_SECOND if self._bounds.max_inclusive else 2 * ONE_SECOND)
                closed = CreatedRange(None, end, total)
                tail = CreatedRange(end + ONE_SECOND, None)
        async with aclosing(self._closed(closed)) as parts:
            async for rows in parts:
                yield rows
        if tail is not None:
            async with aclosing(self._tail(tail)) as parts:
                async for rows in parts:
                    yield rows

    async def _learn_bounds(self, moment: datetime) -> None:
        """See whether bounds count as inside, by asking for a second that has a row."""
        second = moment.replace(microsecond=0)
        loose = attrs.evolve(self._bounds, min_inclusive=True, max_inclusive=False)
        by_min = await self._page(CreatedRange(second, second), 1, loose)
        loose = attrs.evolve(self._bounds, min_inclusive=False, max_inclusive=True)
        by_max = await self._page(CreatedRange(second, second), 1, loose)
        self._bounds = attrs.evolve(
            self._bounds,
            min_inclusive=_has_row_of(by_min, second),
            max_inclusive=_has_row_of(by_max, second),
        )

    async def _closed(self, part: CreatedRange) -> AsyncGenerator[list[AttributeValue]]:
        """Yield the rows of a range of the past, several parts of it read at once."""
        waiting = deque([part])
        page_size = self._calls.sizes.page
        while waiting:
            wave: list[CreatedRange] = []
            pages = 0
            while waiting and (not wave or pages < _MOST_PAGES_HELD):
                wave.append(waiting.popleft())
                pages += 1 + wave[-1].rows // page_size
            again: list[CreatedRange] = []
            for rows, parts in await _gather([self._read(one) for one in wave]):
                if rows:
                    yield rows
                again += parts
            waiting.extendleft(reversed(again))

    async def _read(self, part: CreatedRange) -> tuple[list[AttributeValue], list[CreatedRange]]:
        """Return the rows of a range when they are exact, else the parts to read instead."""
        first = await self._page(part, 1)
        if _is_snapshot(first):
            return _clip(part, first.data), []
        count, total = first.pagination.total_pages, first.pagination.total
        if part.is_one_second:
            return _clip(part, await self._one_second(part)), []
        if count > _MOST_PAGES_HELD:
            step = count / _SAMPLE_PAGES
            numbers = [1 + int(step * index) for index in range(1, _SAMPLE_PAGES)]
            target = self._calls.sizes.page * _MOST_PAGES_HELD // 2
        else:
            numbers = list(range(2, count + 1))
            target = int(self._calls.sizes.page * _FILL)
        pages = [first, *await self._pages(part, numbers)]
        if count <= _MOST_PAGES_HELD and not self._gains_rows and _stood_still(pages):
            return _clip(part, [row for page in pages for row in page.data]), []
        note_drift(self._calls, count, total, pages[-1].pagination.total)
        dates = _dates(row for page in pages for row in page.data)
        parts = cut(part, dates, total, target)
        if len(parts) == 1:
            raise ListingDriftError("the service answers rows of other dates than asked for")
        return [], parts

    async def _one_second(self, part: CreatedRange) -> list[AttributeValue]:
        """Return the rows of a second that has more than a page of them."""
        previous: set[int] = set()
        for _ in range(_MOST_PASSES):
            rows: dict[int, AttributeValue] = {}
            page = await self._page(part, 1)
            number = page.pagination.total_pages
            while number > 0:
                page = await self._page(part, number)
                rows.update((row.id, row) for row in page.data)
                number = min(number - 1, page.pagination.total_pages)
            # What was there at the end was there all the time, for nothing is added to the past.
            complete = len(rows) >= page.pagination.total
            if complete and (not self._gains_rows or previous == rows.keys()):
                return list(rows.values())
            previous = set(rows)
        message = "the rows of one second kept changing while they were listed"
        raise ListingDriftError(message, passes=_MOST_PASSES)

    async def _tail(self, tail: CreatedRange) -> AsyncGenerator[list[AttributeValue]]:
        """Yield the rows from a second on that may not be over yet.

        Rows beyond a moment for which an answer shows none are new, and need not be listed: so the
        tail is cut there, and read as a range of the past when that moment is over.
        """
        page = await self._page(tail, 1)
        if _is_snapshot(page):
            yield _clip(tail, page.data)
            return
        last = await self._page(tail, page.pagination.total_pages)
        end = await self._end_of_old_rows(max(_dates((*page.data, *last.data))))
        await self._until_past(end)
        closed = CreatedRange(tail.first, end, page.pagination.total)
        async with aclosing(self._closed(closed)) as parts:
            async for rows in parts:
                yield rows

    async def _end_of_old_rows(self, newest: datetime) -> datetime:
        """Return a second beyond which no answer shows a row: those that come there are new."""
        as_given = attrs.evolve(self._bounds, min_inclusive=True, max_inclusive=True)
        for _ in range(_MOST_PROBES):
            end = newest.replace(microsecond=0) + ONE_SECOND
            if self._bounds.most is not None and end > self._bounds.most:
                return end
            beyond = await self._page(CreatedRange(end, None), 1, as_given)
            # In whatever order rows come, each probe shows some that are newer than all before.
            newest = max((one for one in _dates(beyond.data) if one > end), default=newest)
            if newest <= end:
                return end
        message = "the newest rows kept growing while they were listed"
        raise ListingDriftError(message, passes=_MOST_PROBES)

    async def _without_dates(self) -> list[AttributeValue]:
        """Return all rows once two passes over them were the same."""
        previous: set[int] = set()
        for _ in range(_MOST_PASSES):
            first = await self._page(self._whole, 1)
            numbers = list(range(2, first.pagination.total_pages + 1))
            pages = [first, *await self._pages(self._whole, numbers)]
            rows = {row.id: row for page in pages for row in page.data}
            if _stood_still(pages) and previous == rows.keys():
                return list(rows.values())
            previous = set(rows)
        message = "rows without date_created kept changing while they were listed"
        raise ListingDriftError(message, passes=_MOST_PASSES)

    async def _page(self, part: CreatedRange, number: int, bounds: Bounds | None = None) -> Page:
        pinned = part.is_one_second and self._whole.is_one_second
        query = self._query if pinned else (bounds or self._bounds).query(self._query, part)
        page = await self._calls.page(query, number, self._calls.sizes.page)
        self._observe(page.data)
        return page

    async def _pages(self, part: CreatedRange, numbers: Sequence[int]) -> list[Page]:
        return await _gather([self._page(part, number) for number in numbers])

    def _observe(self, rows: Iterable[AttributeValue]) -> None:
        newest = max((row.date_created for row in rows if row.date_created), default=None)
        if newest is not None:
            self._lead_s = max(self._lead_s, newest.timestamp() - self._loop.time())

    def _over_in_s(self, second: datetime) -> float:
        """Return the seconds until nothing can be added to a range that ends with `second`.

        Where bounds may not count as inside, the range is asked for one second wider.
        """
        wider_s = 0 if self._bounds.max_inclusive else 1
        over_at_s = second.timestamp() + 1 + wider_s + _MARGIN_S
        return over_at_s - self._lead_s - self._loop.time()

    def _is_past(self, second: datetime) -> bool:
        return self._over_in_s(second) <= 0

    async def _until_past(self, second: datetime) -> None:
        remaining_s = self._over_in_s(second)
        if remaining_s > 0:
            await asyncio.sleep(remaining_s)


def _is_snapshot(page: Page) -> bool:
    """Whether one answer holds all there was at its moment."""
    return page.pagination.total_pages <= 1 and len(page.data) >= page.pagination.total


def _stood_still(pages: Sequence[Page]) -> bool:
    """Whether all pages report one total, and as many different rows came."""
    totals = {page.pagination.total for page in pages}
    return len(totals) == 1 and {len({row.id for page in pages for row in page.data})} == totals


def _has_row_of(page: Page, second: datetime) -> bool:
    return any(moment.replace(microsecond=0) == second for moment in _dates(page.data))


def _dates(rows: Iterable[AttributeValue]) -> list[datetime]:
    return [row.date_created for row in rows if row.date_created is not None]


def _clip(part: CreatedRange, rows: Sequence[AttributeValue]) -> list[AttributeValue]:
    if any(row.date_created is None for row in rows):
        # It would belong to every range.
        raise ListingDriftError("some rows have a date_created, and some have none")
    return part.clip(rows)


async def _gather(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run all at once; the first error in order ends the others, and comes as it is."""
    tasks = [asyncio.ensure_future(one) for one in coroutines]
    try:
        return [await task for task in tasks]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
