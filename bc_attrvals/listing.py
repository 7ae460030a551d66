"""Listings: every page of a filter, fetched ahead and yielded in order.

Between the resource above and the scheduler below. Page numbers are all the service has (no
cursor, no sort), so the count of pages is followed as it moves, and never trusted further than the
answers bear out.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from typing import Final

from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.core.models import Page
from bc_attrvals.core.requests import RequestBuilder
from bc_attrvals.core.responses import decode_page
from bc_attrvals.errors import PayloadTooLargeError
from bc_attrvals.events import EventBus, ListingDriftSeen
from bc_attrvals.gate import Job, Priority
from bc_attrvals.scheduler import Call, Options, Scheduler

__all__ = ["DEFAULT_PAGE_SIZE", "Lister"]

#: The `limit` the service takes when none is given, which no plan can refuse.
DEFAULT_PAGE_SIZE: Final = 50
#: Of so many pages in a row that bring nothing new, the promise of more is no longer believed.
_MOST_STALE_PAGES: Final = 3
#: So many more where the total grew by as many pages: they are what the rows moved on by.
_MOST_GROWN_PAGES: Final = 10


class Lister:
    """Lists the values of one store."""

    __slots__ = ("_builder", "_events", "_scheduler", "page_size")

    def __init__(self, scheduler: Scheduler, builder: RequestBuilder, events: EventBus) -> None:
        self._scheduler = scheduler
        self._builder = builder
        self._events = events
        #: Rows asked for in a page.
        self.page_size = scheduler.limits.page_size

    async def page(
        self,
        query: str,
        page: int,
        limit: int,
        options: Options,
        priority: Priority,
        job: Job | None = None,
        *,
        call: Call | None = None,
    ) -> Page:
        """Fetch one page (from 1) of a query; `call` is made of `job` unless it is given."""
        request = self._builder.page(query, page, limit)
        call = Call(job) if call is None else call
        return await self._scheduler.send(request, decode_page, options, priority, call)

    async def pages(
        self,
        filter: AttributeValueFilter | None,
        options: Options,
        job: Job,
        read_ahead: int | None = None,
        calls: list[Call] | None = None,
    ) -> AsyncGenerator[Page]:
        """Yield every page of a filter, of one query after the other.

        Each call made is appended to `calls`, if given.
        """
        if read_ahead is None:
            read_ahead = self._scheduler.limits.reads
        for query in self._builder.listing_queries(filter):
            listing = _Listing(self, query, options, job, read_ahead, calls)
            try:
                while (page := await listing.next()) is not None:
                    yield page
            finally:
                await listing.aclose()

    def queries(self, filter: AttributeValueFilter | None, spare_bytes: int = 0) -> list[str]:
        """Return the queries that list a filter, with room for more parameters."""
        return self._builder.listing_queries(filter, spare_bytes)

    def note_drift(self, page: int, total: int, new_total: int) -> None:
        """Tell subscribers that a listing changed underneath."""
        if self._events:
            self._events.emit(ListingDriftSeen(page, total, new_total))

    def lower_page_size(self) -> None:
        """Ask for fewer rows from now on: the store has refused more."""
        self.page_size = min(self.page_size, DEFAULT_PAGE_SIZE)


class _Listing:
    """The pages of one query.

    Each page is fetched by a task of its own; a failed one fails here when its turn comes, so that
    errors keep their place.
    """

    def __init__(
        self,
        lister: Lister,
        query: str,
        options: Options,
        job: Job,
        read_ahead: int,
        calls: list[Call] | None,
    ) -> None:
        self._lister = lister
        self._query = query
        self._options = options
        self._job = job
        self._read_ahead = read_ahead
        self._calls = calls
        self._limit = lister.page_size
        self._fetches: deque[asyncio.Task[Page]] = deque()
        self._next_fetch = 1
        # The last page there is, by the newest answer.
        self._last_page = 1
        self._total: int | None = None
        # One hash for each page: of all pages, for some servers answer a few in turn.
        self._seen: set[int] = set()
        # Stale pages in a row, and the total at the last page that was none.
        self._stale = 0
        self._total_at_news = 0
        self._given_up = False

    async def next(self) -> Page | None:
        """Return the next page that brings something new; None when there is none."""
        while not self._given_up:
            if not self._fetches:
                if self._next_fetch > self._last_page:
                    return None
                self._fetch()
            number = self._next_fetch - len(self._fetches)
            try:
                page = await self._fetches[0]
            except PayloadTooLargeError:
                # Too large a `limit` is answered 413 (the service's guide).
                if number > 1 or self._limit <= DEFAULT_PAGE_SIZE:
                    raise
                self._lister.lower_page_size()
                self._limit = self._lister.page_size
                self._fetches.clear()
                self._next_fetch = 1
                continue
            self._fetches.popleft()
            news = self._brings_news(page, number)
            # Before the page is handed out, so that fetching goes on while it is worked on.
            while self._next_fetch <= self._last_page and len(self._fetches) < self._read_ahead:
                self._fetch()
            if news:
                return page
        return None

    async def aclose(self) -> None:
        """Cancel what is fetched ahead, and wait until it is gone."""
        fetches = list(self._fetches)
        self._fetches.clear()
        for fetch in fetches:
            fetch.cancel()
        if fetches:
            await asyncio.gather(*fetches, return_exceptions=True)

    def _fetch(self) -> None:
        call = Call(self._job)
        if self._calls is not None:
            self._calls.append(call)
        fetch = self._lister.page(
            self._query, self._next_fetch, self._limit, self._options, Priority.BULK, call=call
        )
        self._fetches.append(asyncio.get_running_loop().create_task(fetch))
        self._next_fetch += 1

    def _brings_news(self, page: Page, number: int) -> bool:
        """Follow the counts of a page; return whether it is one not seen before.

        Past the last page a server may answer an empty page, or one that was answered before. Rows
        that others insert move a page on by one, too, and then more may follow. So such a page
        is followed like any other, but not several in a row: a server may always promise one more.
        The first page is always yielded.
        """
        pagination = page.pagination
        if self._total is not None and pagination.total != self._total:
            self._lister.note_drift(number, self._total, pagination.total)
        self._total = pagination.total
        seen = hash(tuple([row.id for row in page.data]))
        clamped = pagination.current_page < number
        stale = not page.data or clamped or seen in self._seen
        self._seen.add(seen)
        pages = pagination.total_pages
        if not stale or number == 1:
            self._stale = 0
            self._total_at_news = pagination.total
            self._last_page = pages
            return True
        grown = (pagination.total - self._total_at_news) // max(1, pagination.per_page)
        self._stale += 1
        self._given_up = self._stale >= _MOST_STALE_PAGES + min(max(0, grown), _MOST_GROWN_PAGES)
        self._last_page = min(self._last_page, pages) if clamped else pages
        return False
