"""Reads whole listings, many pages at once and in no order: how a sync sees what the store holds.

Between `sync.py` and the scheduler. Unlike `listing.py` it keeps no order, so pages of different
listings are fetched side by side.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import attrs

from bc_attrvals.core.models import AttributeValue, Page
from bc_attrvals.errors import PayloadTooLargeError
from bc_attrvals.scheduling.calls import DEFAULT_PAGE_SIZE, Calls

__all__ = ["Listing", "Sweep"]


@attrs.define(eq=False)
class Listing:
    """One query, and how far it is read; pages count from 1."""

    query: str
    limit: int
    next_page: int = 1
    last_page: int = 1
    # The rows of the last page there was: a server that answers it again has no more.
    last_ids: tuple[int, ...] = ()

    @property
    def pages_left(self) -> int:
        """How many pages are still to be asked for."""
        return max(0, self.last_page - self.next_page + 1)

    def learn(self, number: int, page: Page) -> None:
        """Follow the count of pages as it moves while others write."""
        pagination = page.pagination
        if number < self.last_page:
            self.last_page = min(self.last_page, max(number, pagination.total_pages))
            return
        ids = tuple(row.id for row in page.data)
        # Past the end some servers answer a page that was answered before.
        if ids and ids != self.last_ids and pagination.current_page >= number:
            self.last_page = max(number, pagination.total_pages)
        self.last_ids = ids


class Sweep:
    """Reads listings, at most `Limits.reads` pages at once."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def listing(self, query: str) -> Listing:
        """Return a listing that has not begun."""
        return Listing(query, self._calls.sizes.page)

    async def first_page(self, listing: Listing) -> list[AttributeValue]:
        """Read the first page alone; `listing.pages_left` then says what is left."""
        listing.next_page = 2
        return await self._fetch(listing, 1)

    async def read(
        self,
        listings: AsyncIterator[Listing],
        sink: Callable[[Sequence[AttributeValue]], Awaitable[None]],
    ) -> None:
        """Read listings to their ends, and give the rows to `sink`, which paces it.

        Listings are taken as they are needed. The first error of a page, or of `sink`, ends it;
        what is under way is then cancelled.
        """
        begun: deque[Listing] = deque()
        fetches: dict[asyncio.Task[list[AttributeValue]], Listing] = {}
        try:
            while True:
                while len(fetches) < self._calls.limits.reads:
                    listing = await _with_pages_left(begun, listings)
                    if listing is None:
                        break
                    fetch = self._fetch(listing, listing.next_page)
                    fetches[asyncio.create_task(fetch)] = listing
                    listing.next_page += 1
                if not fetches:
                    return
                done, _ = await asyncio.wait(fetches, return_when=asyncio.FIRST_COMPLETED)
                rows: list[AttributeValue] = []
                for fetch_done in done:
                    listing = fetches.pop(fetch_done)
                    rows += fetch_done.result()
                    if listing.pages_left and listing not in begun:
                        begun.append(listing)
                await sink(rows)
        finally:
            for left in fetches:
                left.cancel()
            if fetches:
                await asyncio.gather(*fetches, return_exceptions=True)

    async def _fetch(self, listing: Listing, number: int) -> list[AttributeValue]:
        try:
            page = await self._calls.page(listing.query, number, listing.limit)
        except PayloadTooLargeError:
            # Too large a `limit` is answered 413 (the service's guide).
            if number > 1 or listing.limit <= DEFAULT_PAGE_SIZE:
                raise
            self._calls.sizes.lower_page()
            listing.limit = self._calls.sizes.page
            page = await self._calls.page(listing.query, number, listing.limit)
        listing.learn(number, page)
        return page.data


async def _with_pages_left(
    begun: deque[Listing], listings: AsyncIterator[Listing]
) -> Listing | None:
    """Return the first listing that has pages left to ask for, a new one if need be."""
    # One that has none now may have again, once a page under way has told of more.
    while begun and not begun[0].pages_left:
        begun.popleft()
    if not begun:
        listing = await anext(listings, None)
        if listing is None:
            return None
        begun.append(listing)
    return begun[0]
