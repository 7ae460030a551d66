"""Listings: every page of a filter, fetched ahead and yielded in order.

Queries in, decoded pages out. `page_count` decides which pages to ask for and whether the listing
is complete.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from functools import partial
from typing import Final

from bc_attrvals.core.filters import AttributeValueFilter, ListingQuery
from bc_attrvals.core.models import AttributeValue, Page
from bc_attrvals.errors import APIError
from bc_attrvals.events import ListingDriftSeen
from bc_attrvals.reading.page_count import PageCount
from bc_attrvals.scheduling.calls import Calls, Fetched

#: Pages fetched ahead beyond those that can be on the wire.
_PAGES_IN_HAND: Final = 2
#: About the CPU of a page, in seconds. One worker, and one more for each time this fits into the
#: wait for a page, keep a processor busy.
_PAGE_S: Final = 0.0005
#: What a page takes beyond `_NEAR_S` is lost to waiting, up to `_LATE_S`: one page that is late may
#: be chance. More workers are started once `_WORTH_S` is lost. Each opens a connection, whose TLS
#: handshake costs as much CPU as three pages.
_NEAR_S: Final = 0.001
_WORTH_S: Final = 0.006
#: About what the first page takes longer, because it opens a connection.
_CONNECT_S: Final = 0.005
#: All are started if a page is still on the wire after this many seconds. A server nearby answers
#: the first request, handshake included, within this time.
_LOOK_S: Final = 0.025
#: A timer that fires this much too late was delayed by work on the loop: pages may have arrived.
_LATE_S: Final = 0.005


async def pages(
    calls: Calls, filter: AttributeValueFilter | None, read_ahead: int | None = None
) -> AsyncGenerator[Page]:
    """Yield the pages of a filter, each with its rows that are new in its query.

    Queries are read one after the other. Raises `ListingDriftError` after the last page of a query
    that is not proven complete; see `page_count`.
    """
    if read_ahead is None:
        # A late page delays the pages after it, but they are fetched meanwhile.
        read_ahead = calls.limits.reads + _PAGES_IN_HAND
    for query in calls.queries(filter):
        listing = _ReadAhead(calls, query, read_ahead)
        try:
            while (page := await listing.next()) is not None:
                yield page
        finally:
            await listing.aclose()


def note_drift(calls: Calls, page: int, total: int, new_total: int) -> None:
    """Report to subscribers that the total of a listing has changed."""
    if calls.events:
        calls.events.emit(ListingDriftSeen(page, total, new_total))


class _ReadAhead:
    """The pages of one query, fetched ahead.

    A few workers fetch them. Each goes on with the next page by itself unless too many wait to be
    taken. There is one worker at first, because each opens a connection. If pages are slow, there
    are up to as many workers as requests can be on the wire; a store that answers at once needs
    only one connection. A page is decoded when its turn comes, after its slot was freed. A failure
    is raised when its page's turn comes, so the pages before it are yielded first.
    """

    def __init__(self, calls: Calls, query: ListingQuery, read_ahead: int) -> None:
        self._calls = calls
        self._query = query
        self._read_ahead = read_ahead
        self._most_workers = min(calls.limits.reads, read_ahead) or 1
        # How many workers are worth their connections, and the seconds lost to waiting with one.
        self._worth = 1
        self._lost_s = 0.0
        # The timer that checks whether a page is still on the wire.
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._workers: set[asyncio.Task[None]] = set()
        # Workers that have not ended. asyncio calls `_end` one turn of the loop later.
        self._working = 0
        # Pages asked for and not taken yet, in order.
        self._fetches: deque[asyncio.Future[Fetched]] = deque()
        self._begin()

    def _begin(self) -> None:
        """Start at the first page."""
        self._limit = self._calls.sizes.page
        self._count = PageCount(self._limit)
        self._next_fetch = 1

    async def next(self) -> Page | None:
        """Return the first page, or the next one with new rows; None if there is none."""
        while not self._count.is_over:
            if not self._fetches:
                if self._next_fetch > self._count.last_page:
                    break
                self._start()
            number = self._next_fetch - len(self._fetches)
            try:
                page = await self._calls.decode(await self._fetches[0])
            except APIError as error:
                if number > 1 or not self._calls.sizes.lower_page(self._limit, error):
                    raise
                self._fetches.clear()
                self._begin()
                continue
            self._fetches.popleft()
            rows = self._take(number, page)
            # Before the page is returned, so that fetching goes on while the caller works on it.
            self._start_all()
            if len(rows) == len(page.data):
                if rows or number == 1:
                    return page
            elif rows:
                return Page(rows, page.pagination)
        self._count.check()
        return None

    def _watch(self, fetch: asyncio.Future[Fetched]) -> None:
        """Check a page after `_LOOK_S`, unless another is watched or all workers are started."""
        if self._timer is None and self._worth < self._most_workers:
            due_at = self._loop.time() + _LOOK_S
            self._timer = self._loop.call_at(due_at, self._look, fetch, due_at)

    def _look(self, fetch: asyncio.Future[Fetched], due_at: float) -> None:
        """Start all workers if the watched page is still on the wire, else watch the next one."""
        self._timer = None
        if not fetch.done() and self._loop.time() - due_at < _LATE_S:
            self._open(self._most_workers)
            return
        for one in self._fetches:
            if not one.done():
                self._watch(one)
                return

    def _measure(self, took_s: float) -> None:
        """Start more workers once waiting has lost what their connections cost."""
        self._lost_s = max(self._lost_s + min(took_s, _LATE_S) - _NEAR_S, 0.0)
        if self._lost_s >= _WORTH_S:
            self._open(min(1 + int(took_s / _PAGE_S), self._most_workers))

    def _open(self, workers: int) -> None:
        self._worth = workers
        self._start_all()

    def _take(self, number: int, page: Page) -> list[AttributeValue]:
        """Count a page; report a change of the total."""
        before, total = self._count.total, page.pagination.total
        if before is not None and before != total:
            note_drift(self._calls, number, before, total)
        return self._count.take(number, page.data, total)

    async def aclose(self) -> None:
        """Cancel the workers and the fetched pages, and wait for the workers' ends."""
        if self._timer is not None:
            self._timer.cancel()
        for fetch in self._fetches:
            # Also a failed one, so that asyncio does not log its error as never retrieved.
            fetch.cancel()
        self._fetches.clear()
        workers = list(self._workers)
        for worker in workers:
            worker.cancel()
        if workers:
            await asyncio.gather(*workers, return_exceptions=True)

    def _room(self) -> int:
        """Return how many more pages may be asked for."""
        if self._count.is_over:
            return 0
        return min(
            self._read_ahead - len(self._fetches),
            self._count.last_page + 1 - self._next_fetch,
        )

    def _start_all(self) -> None:
        """Start workers up to `_worth` while there is room for pages."""
        while self._working < self._worth and self._room() > 0:
            self._start()

    def _start(self) -> None:
        """Have the next page fetched by one more worker."""
        number, fetch = self._claim()
        self._working += 1
        worker = self._loop.create_task(self._work(number, fetch))
        # An eager task may be done already, and have fetched further pages.
        if not worker.done():
            self._workers.add(worker)
        worker.add_done_callback(partial(self._end, fetch))

    def _claim(self) -> tuple[int, asyncio.Future[Fetched]]:
        """Return the number of the next page, and the future for it."""
        number = self._next_fetch
        self._next_fetch += 1
        fetch = self._loop.create_future()
        self._fetches.append(fetch)
        self._watch(fetch)
        return number, fetch

    async def _work(self, number: int, fetch: asyncio.Future[Fetched]) -> None:
        """Fetch a page, and those after it while there is room."""
        try:
            while True:
                began_at = self._loop.time()
                fetched = await self._calls.fetch(self._query, number, self._limit)
                if fetch.done():
                    # The caller that waited for it was cancelled.
                    return
                fetch.set_result(fetched)
                del fetched
                if self._worth == 1:
                    took_s = self._loop.time() - began_at
                    self._measure(took_s if number > 1 else took_s - _CONNECT_S)
                if self._room() <= 0:
                    return
                number, fetch = self._claim()
        except Exception as error:  # noqa: BLE001 - raised again where the page is taken
            if not fetch.done():
                fetch.set_exception(error)
            # Breaks the cycle of this frame, the future, its error and the error's traceback.
            del fetch
        except BaseException:
            fetch.cancel()
            raise
        finally:
            self._working -= 1

    def _end(self, first: asyncio.Future[Fetched], worker: asyncio.Task[None]) -> None:
        """Note that a worker has ended; called even if it was cancelled before it began."""
        self._workers.discard(worker)
        if not first.done():
            self._working -= 1
            first.cancel()
        if not worker.cancelled():
            # Such as a KeyboardInterrupt, which asyncio has raised already.
            worker.exception()
