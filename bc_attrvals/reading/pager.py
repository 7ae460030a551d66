"""Listings: every page of a filter, fetched ahead and yielded in order.

Between the resource above and the scheduler below. Page numbers are all the service has (no
cursor, no sort), so the count of pages is followed as it moves, and never trusted further than the
answers bear out.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from functools import partial
from typing import Final

from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.core.models import Page
from bc_attrvals.errors import PayloadTooLargeError
from bc_attrvals.events import ListingDriftSeen
from bc_attrvals.scheduling.calls import DEFAULT_PAGE_SIZE, Calls, Fetched

__all__ = ["note_drift", "pages"]

#: So many pages more than can be on the wire are fetched ahead.
_PAGES_IN_HAND: Final = 2
#: Of so many pages in a row that bring nothing new, the promise of more is no longer believed.
_MOST_STALE_PAGES: Final = 3
#: So many more where the total grew by as many pages: they are what the rows moved on by.
_MOST_GROWN_PAGES: Final = 10


async def pages(
    calls: Calls, filter: AttributeValueFilter | None, read_ahead: int | None = None
) -> AsyncGenerator[Page]:
    """Yield every page of a filter, of one query after the other."""
    if read_ahead is None:
        # A page that comes late holds up those behind it, but not what is fetched meanwhile.
        read_ahead = calls.limits.reads + _PAGES_IN_HAND
    for query in calls.queries(filter):
        listing = _Listing(calls, query, read_ahead)
        try:
            while (page := await listing.next()) is not None:
                yield page
        finally:
            await listing.aclose()


def note_drift(calls: Calls, page: int, total: int, new_total: int) -> None:
    """Report to subscribers that a listing changed underneath."""
    if calls.events:
        calls.events.emit(ListingDriftSeen(page, total, new_total))


class _Listing:
    """The pages of one query.

    A few workers fetch them, as many as can be on the wire; each goes on with the next page by
    itself as long as few enough wait to be taken. A page is decoded when its turn comes, so that
    its slot is not idle meanwhile, and one that failed fails then, so that errors keep their place.
    """

    def __init__(
        self,
        calls: Calls,
        query: str,
        read_ahead: int,
    ) -> None:
        self._calls = calls
        self._query = query
        self._read_ahead = read_ahead
        self._most_workers = min(calls.limits.reads, read_ahead) or 1
        self._limit = calls.sizes.page
        self._loop = asyncio.get_running_loop()
        self._workers: set[asyncio.Task[None]] = set()
        # How many have not come to their end, which asyncio tells of a turn later.
        self._working = 0
        # Pages asked for and not taken yet, in order.
        self._fetches: deque[asyncio.Future[Fetched]] = deque()
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
                self._start()
            number = self._next_fetch - len(self._fetches)
            try:
                page = await self._calls.decode(await self._fetches[0])
            except PayloadTooLargeError:
                # Too large a `limit` is answered 413 (the service's guide).
                if number > 1 or self._limit <= DEFAULT_PAGE_SIZE:
                    raise
                self._calls.sizes.lower_page()
                self._limit = self._calls.sizes.page
                self._fetches.clear()
                self._next_fetch = 1
                continue
            self._fetches.popleft()
            news = self._brings_news(page, number)
            # Before the page is handed out, so that fetching goes on while it is worked on.
            while self._working < self._most_workers and self._room() > 0:
                self._start()
            if news:
                return page
        return None

    async def aclose(self) -> None:
        """Cancel what is fetched ahead, and wait until it is gone."""
        for fetch in self._fetches:
            # Of one that failed, too: asyncio then takes its error for seen.
            fetch.cancel()
        self._fetches.clear()
        workers = list(self._workers)
        for worker in workers:
            worker.cancel()
        if workers:
            await asyncio.gather(*workers, return_exceptions=True)

    def _room(self) -> int:
        """Return how many more pages may be asked for."""
        return min(
            self._read_ahead - len(self._fetches),
            self._last_page + 1 - self._next_fetch,
        )

    def _start(self) -> None:
        """Have the next page fetched by one more worker."""
        number, fetch = self._claim()
        self._working += 1
        worker = self._loop.create_task(self._work(number, fetch))
        # Where tasks are eager it may be done, and the pages after it as well.
        if not worker.done():
            self._workers.add(worker)
        worker.add_done_callback(partial(self._end, fetch))

    def _claim(self) -> tuple[int, asyncio.Future[Fetched]]:
        """Return the number of the next page, and where it goes."""
        number = self._next_fetch
        self._next_fetch += 1
        fetch = self._loop.create_future()
        self._fetches.append(fetch)
        return number, fetch

    async def _work(self, number: int, fetch: asyncio.Future[Fetched]) -> None:
        """Fetch a page, and those after it while there is room."""
        try:
            while True:
                fetched = await self._calls.fetch(self._query, number, self._limit)
                if fetch.done():
                    # Whoever waited for it was cancelled.
                    return
                fetch.set_result(fetched)
                del fetched
                if self._room() <= 0:
                    return
                number, fetch = self._claim()
        except Exception as error:  # noqa: BLE001 - raised again where the page is taken
            if not fetch.done():
                fetch.set_exception(error)
            # The error's traceback holds this frame, which would hold the error.
            del fetch
        except BaseException:
            fetch.cancel()
            raise
        finally:
            self._working -= 1

    def _end(self, first: asyncio.Future[Fetched], worker: asyncio.Task[None]) -> None:
        """Note that a worker is gone; called even when it was cancelled before it began."""
        self._workers.discard(worker)
        if not first.done():
            self._working -= 1
            first.cancel()
        if not worker.cancelled():
            # A KeyboardInterrupt, say, which asyncio has raised already.
            worker.exception()

    def _brings_news(self, page: Page, number: int) -> bool:
        """Follow the counts of a page; return whether it is one not seen before.

        Past the last page a server may answer an empty page, or one that was answered before. Rows
        that others insert move a page on by one, too, and then more may follow. So such a page
        is followed like any other, but not several in a row: a server may always promise one more.
        The first page is always yielded.
        """
        pagination = page.pagination
        if self._total is not None and pagination.total != self._total:
            note_drift(self._calls, number, self._total, pagination.total)
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
