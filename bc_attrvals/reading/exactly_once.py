"""Exact listings: each row that exists throughout is yielded once, while others write.

Page numbers over a changing list skip rows when earlier ones are deleted. These readings are exact
nevertheless:

- One answer is one snapshot. A range of `date_created` that fits into one page is exact, because a
  row keeps its date.
- A range of the past only loses rows. Read in several pages, it is exact if every page reports the
  same total, as many different rows came, and none of them is new. (A filter by `date_modified` or
  `name` may gain rows anywhere, so only single pages are exact there.)
- One second can't be cut by date. Its pages are read from the last to the first: rows that move up
  when others are deleted move to pages that are read later. If rows may be added, a second pass
  must have no row that the first one did not have.

The `Date` header of the answers decides what is past. The dates of rows do not, because a row may
be dated tomorrow. Clocks of writers are often off by seconds, so the minute before and after now is
read as a range that grows, and the future is a range of its own. A clock that is further behind
adds rows to the past. Such a row has a higher id than all rows seen before (the service's ids
ascend). The range is then read again. If that happens twice, or if answers have no `Date`, all
ranges are treated as growing, which costs more pages.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

import attrs

from bc_attrvals.core.filters import AttributeValueFilter, ListingQuery
from bc_attrvals.core.models import AttributeValue, Page
from bc_attrvals.core.rate_limit import service_time
from bc_attrvals.errors import APIError, ListingDriftError
from bc_attrvals.reading.date_ranges import (
    Bounds,
    CreatedRange,
    around_now,
    cut,
    second_after,
    second_of,
)
from bc_attrvals.reading.page_count import PageCount
from bc_attrvals.reading.pager import note_drift
from bc_attrvals.scheduling.calls import Calls
from bc_attrvals.scheduling.parallel_reads import all_at_once

T = TypeVar("T")

#: The most pages of rows that are held back until their range is proven exact.
_MOST_PAGES_HELD: Final = 40
#: Pages read as a sample of the dates in a range longer than that.
_SAMPLE_PAGES: Final = 16
#: How full the page of a part should be. A growing range is cut by guesses, which may be too high.
#: A range that only loses rows was read whole before it is cut.
_FILL: Final = 0.65
_FILL_OF_PAST: Final = 0.9
#: How often a part that can't be cut is read before the listing is given up.
_MOST_PASSES: Final = 10
#: The most probes for the newest row. On average, each probe halves the number of newer rows.
_MOST_PROBES: Final = 50
#: How often a range is cut into smaller ones.
_MOST_CUTS: Final = 20
#: The calls of one query: at most `_MOST_CALLS_PER_PAGE` times the pages of its first total, plus
#: `_MOST_CALLS_MORE`. Correct answers need less than half of that. Without this bound, ranges would
#: be cut and read for ever if each answer invented rows.
_MOST_CALLS_PER_PAGE: Final = 20
_MOST_CALLS_MORE: Final = 200
#: How far the clocks of writers may be off from the clock of the `Date` header.
_CLOCK_SLACK: Final = timedelta(seconds=60)
#: Pauses between passes over a second that rows are still added to: at first, and at most.
_PAUSE_S: Final = 0.1
_MOST_PAUSE_S: Final = 1.0
#: The two date parameters that a range adds to a query.
_RANGE_ROOM_BYTES: Final = len("&date_created:min=&date_created:max=") + 2 * 20


async def exact_rows(
    calls: Calls, filter: AttributeValueFilter | None
) -> AsyncGenerator[list[AttributeValue]]:
    """Yield the rows of a filter in lists, each row that exists throughout exactly once.

    Raises `ListingDriftError` if that can't be proven: if more than a page of rows without
    `date_created` change between all passes, if rows are added to one second all the time, or if an
    answer has fewer rows than its total requires.
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
        async with aclosing(listing.rows(base.date_created)) as parts:
            async for rows in parts:
                yield rows


class _ExactListing:
    """The exact listing of one query of a filter."""

    def __init__(
        self, calls: Calls, query: ListingQuery, bounds: Bounds, *, gains_rows: bool
    ) -> None:
        self._calls = calls
        self._query = query
        self._bounds = bounds
        self._gains_rows = gains_rows
        # Whether a range of the past had a row that may have been added while it was read.
        self._past_has_grown = False
        self._highest_id = 0
        # The most rows of an answer.
        self._most_rows = 0
        self._is_pinned = False
        self._calls_left = _MOST_CALLS_MORE
        # The latest `Date` header; None if there was none.
        self._now: datetime | None = None

    async def rows(self, second: datetime | None) -> AsyncGenerator[list[AttributeValue]]:
        """Yield the rows, range by range; `second` is the filter's `date_created`, if any."""
        whole = CreatedRange(second, second, is_growing=True)
        if second is not None:
            self._is_pinned, self._bounds = True, Bounds()
        first = await self._first_page(whole)
        count, rows = self._counted(first)
        if count.is_complete:
            yield rows
            return
        total = first.pagination.total
        self._calls_left += _MOST_CALLS_PER_PAGE * count.last_page
        # In the most likely order, by id, the newest rows come last.
        last = await self._page(whole, count.last_page)
        _new_rows(count, count.last_page, last)
        dates = _dates((*first.data, *last.data))
        if len(dates) < len(first.data) + len(last.data):
            yield await self._without_dates(whole)
            return
        if second is None:
            await self._learn_bounds(dates[0])
            ranges = await self._ranges(total, dates)
        else:
            ranges = [attrs.evolve(whole, rows=total, is_growing=not self._is_past(second))]
        for one in ranges:
            async with aclosing(self._read_all(one)) as parts:
                async for rows in parts:
                    yield rows

    async def _first_page(self, whole: CreatedRange) -> Page:
        limit = self._calls.sizes.page
        try:
            return await self._page(whole, 1)
        except APIError as error:
            if not self._calls.sizes.lower_page(limit, error):
                raise
        return await self._first_page(whole)

    async def _ranges(self, total: int, dates: Sequence[datetime]) -> list[CreatedRange]:
        """Return the ranges to read, the future first, because it grows when it is reached."""
        if self._now is None:
            end = await self._end_of_old_rows(max(dates), None)
            return [CreatedRange(None, end, total, is_growing=True)]
        # A `Date` header that is ahead would put rows of the present into the past.
        earliest = min(self._now, datetime.now(UTC))
        past, present, future = around_now(earliest, self._now, _CLOCK_SLACK, total)
        past = attrs.evolve(past, is_growing=self._gains_rows)
        return [one for one in (future, past, present) if self._bounds.holds_some_of(one)]

    def _is_past(self, second: datetime) -> bool:
        """Return whether a second is so far in the past that no writer adds rows to it."""
        if self._now is None or self._gains_rows:
            return False
        return second < min(self._now, datetime.now(UTC)) - _CLOCK_SLACK

    async def _learn_bounds(self, moment: datetime) -> None:
        """Learn whether bounds count as inside, by asking for a second that has a row."""
        second = second_of(moment)
        loose = attrs.evolve(self._bounds, min_inclusive=True, max_inclusive=False)
        by_min = await self._page(CreatedRange(second, second), 1, loose)
        loose = attrs.evolve(self._bounds, min_inclusive=False, max_inclusive=True)
        by_max = await self._page(CreatedRange(second, second), 1, loose)
        self._bounds = attrs.evolve(
            self._bounds,
            min_inclusive=_has_row_of(by_min, second),
            max_inclusive=_has_row_of(by_max, second),
        )

    async def _read_all(self, part: CreatedRange) -> AsyncGenerator[list[AttributeValue]]:
        """Yield the rows of a range; several parts of it are read at once."""
        waiting = deque([part])
        page_size = self._calls.sizes.page
        while waiting:
            wave: list[CreatedRange] = []
            pages = 0
            while waiting and (not wave or pages < _MOST_PAGES_HELD):
                wave.append(waiting.popleft())
                pages += 1 + wave[-1].rows // page_size
            again: list[CreatedRange] = []
            for rows, parts in await all_at_once([self._read(one) for one in wave]):
                if rows:
                    yield rows
                again += parts
            waiting.extendleft(reversed(again))

    async def _read(self, part: CreatedRange) -> tuple[list[AttributeValue], list[CreatedRange]]:
        """Return the rows of a range if they are exact, else the parts to read instead."""
        highest_before = self._highest_id
        part = attrs.evolve(part, is_growing=part.is_growing or self._gains_rows)
        first = await self._page(part, 1)
        count, rows = self._counted(first)
        if count.is_complete:
            return part.clip(rows), []
        if part.is_one_second:
            return part.clip(await self._one_second(part, count.last_page)), []
        total, pages = first.pagination.total, count.last_page
        if pages > _MOST_PAGES_HELD:
            step = pages / _SAMPLE_PAGES
            numbers = [1 + int(step * index) for index in range(1, _SAMPLE_PAGES)]
            target = count.page_size * _MOST_PAGES_HELD // 2
        else:
            # A range that grows is cut in any case, and every other page is sample enough.
            numbers = list(range(2, pages + 1, 2 if part.is_growing else 1))
            target = int(count.page_size * (_FILL if part.is_growing else _FILL_OF_PAST))
        found = await all_at_once([self._page(part, number) for number in numbers])
        for number, page in zip(numbers, found, strict=True):
            rows += _new_rows(count, number, page)
        if count.is_complete and not part.is_growing:
            if not self._has_grown((row.id for row in rows), highest_before):
                return part.clip(rows), []
            return [], [attrs.evolve(part, cuts=part.cuts + 1)]
        if count.has_moved:
            note_drift(self._calls, numbers[-1], total, found[-1].pagination.total)
        return [], await self._cut(part, _dates(rows), total, target)

    def _has_grown(self, ids: Iterable[int], highest_before: int) -> bool:
        """Return whether some rows may be new since the highest id was `highest_before`.

        Rows that are not in the order of their ids may cause this once without a writer. The second
        time a writer's clock is behind, and all ranges are treated as growing from then on.
        """
        if all(one <= highest_before for one in ids):
            return False
        self._gains_rows |= self._past_has_grown
        self._past_has_grown = True
        return True

    async def _cut(
        self, part: CreatedRange, dates: Sequence[datetime], total: int, target: int
    ) -> list[CreatedRange]:
        if part.is_growing and part.last is not None and not self._is_past(part.last):
            # An answer without rows after `end` proves that all later rows are new.
            end = await self._end_of_old_rows(max(dates), part.last)
            part = attrs.evolve(part, last=min(end, part.last))
        parts = cut(part, dates, total, target)
        if parts == [part]:
            # Its rows were deleted meanwhile, so it is read again as it is.
            parts = [attrs.evolve(part, cuts=part.cuts + 1)]
        if part.cuts >= _MOST_CUTS:
            message = "a range of date_created could not be cut into parts that stand still"
            raise ListingDriftError(message, passes=part.cuts + 1)
        return parts

    async def _one_second(self, part: CreatedRange, pages: int) -> list[AttributeValue]:
        """Return the rows of a second that has more than one page; `pages` is the first count."""
        # The rows of this pass and of the one before it, each once.
        held: dict[int, AttributeValue] = {}
        for index in range(_MOST_PASSES):
            highest_before, before = self._highest_id, len(held)
            seen, total, pages = await self._pass_over(part, pages, held)
            # If nothing is added, the rows at the end were there all the time. If an added row
            # pushes another to a page already read, the added row is on a page still to read.
            complete = len(seen) >= total
            has_stood = len(held) == before
            if not (has_stood or part.is_growing):
                has_stood = not self._has_grown(seen, highest_before)
            if complete and has_stood:
                # A row that was moved by an addition and by its deletion is in one of the passes.
                return list(held.values())
            for gone in held.keys() - seen:
                del held[gone]
            if index and part.is_growing and part.last and not self._is_past(part.last):
                await asyncio.sleep(min(_MOST_PAUSE_S, _PAUSE_S * 2**index))
        message = "the rows of one second kept changing while they were listed"
        raise ListingDriftError(message, passes=_MOST_PASSES)

    async def _pass_over(
        self, part: CreatedRange, number: int, held: dict[int, AttributeValue]
    ) -> tuple[set[int], int, int]:
        """Read all pages of a range from the last, `number`, to the first, into `held`.

        Return the ids of the rows, the newest total, and how many pages it needs.
        """
        seen: set[int] = set()
        limit = self._calls.sizes.page
        # The last page comes first. It shows no size: another page did before.
        count = PageCount(limit, size=min(limit, self._most_rows))
        total = pages = 0
        while number > 0:
            page = await self._page(part, number)
            _new_rows(count, number, page)
            held.update((row.id, row) for row in page.data)
            seen.update(row.id for row in page.data)
            total = page.pagination.total
            pages = max(1, -(-total // count.page_size))
            number = min(number - 1, pages)
        return seen, total, pages

    async def _end_of_old_rows(self, newest: datetime, last: datetime | None) -> datetime:
        """Return a second, at most `last`, after which an answer has no row: later rows are new."""
        limits = [one for one in (last, self._bounds.most) if one is not None]
        for _ in range(_MOST_PROBES):
            end = second_after(second_of(newest)) or second_of(newest)
            after = second_after(end)
            if after is None or any(end >= one for one in limits):
                return end
            beyond = _dates((await self._page(CreatedRange(after, last), 1)).data)
            if not beyond:
                return end
            # In any order of rows, each probe finds rows newer than all found before.
            newest = max(beyond)
        message = "the newest rows kept growing while they were listed"
        raise ListingDriftError(message, passes=_MOST_PROBES)

    async def _without_dates(self, whole: CreatedRange) -> list[AttributeValue]:
        """Return all rows once two passes have found the same ones."""
        previous: set[int] = set()
        for _ in range(_MOST_PASSES):
            first = await self._page(whole, 1)
            count, new = self._counted(first)
            rows = {row.id: row for row in new}
            for start in range(2, count.last_page + 1, _MOST_PAGES_HELD):
                numbers = range(start, min(count.last_page + 1, start + _MOST_PAGES_HELD))
                pages = await all_at_once([self._page(whole, number) for number in numbers])
                for number, page in zip(numbers, pages, strict=True):
                    _new_rows(count, number, page)
                    rows.update((row.id, row) for row in page.data)
            if count.is_complete and previous == rows.keys():
                return list(rows.values())
            previous = set(rows)
        message = "rows without date_created kept changing while they were listed"
        raise ListingDriftError(message, passes=_MOST_PASSES)

    def _counted(self, first: Page) -> tuple[PageCount, list[AttributeValue]]:
        """Return the `PageCount` of a listing with this first page, and the rows of the page."""
        count = PageCount(self._calls.sizes.page)
        return count, _new_rows(count, 1, first)

    async def _page(self, part: CreatedRange, number: int, bounds: Bounds | None = None) -> Page:
        if not self._calls_left:
            message = "the listing takes many times the calls that its first total needs"
            raise ListingDriftError(message)
        self._calls_left -= 1
        query = self._query
        if not self._is_pinned:
            query = (bounds or self._bounds).query(query, part)
        fetched = await self._calls.fetch(query, number, self._calls.sizes.page)
        now = service_time(fetched.answer.headers)
        if now is not None:
            self._now = now if self._now is None else max(self._now, now)
        page = await self._calls.decode(fetched)
        self._most_rows = max(self._most_rows, len(page.data))
        self._highest_id = max(self._highest_id, *(row.id for row in page.data), 0)
        return page


def _new_rows(count: PageCount, number: int, page: Page) -> list[AttributeValue]:
    """Count a page, and return its new rows.

    Raises `ListingDriftError` if the page has fewer rows than its own total requires, or more: an
    answer is one snapshot, so no writer can cause that. Also raises it if `PageCount` gives the
    listing up, because reading all pages of a wrong total might not end.
    """
    rows = count.take(number, page.data, page.pagination.total)
    if count.is_short_page or len(rows) > page.pagination.total:
        raise ListingDriftError(
            f"page {number} has {len(page.data)} rows, and its total says {page.pagination.total}"
        )
    if count.is_given_up:
        count.check()
    return rows


def _has_row_of(page: Page, second: datetime) -> bool:
    return any(second_of(moment) == second for moment in _dates(page.data))


def _dates(rows: Iterable[AttributeValue]) -> list[datetime]:
    return [row.date_created for row in rows if row.date_created is not None]
