"""Fetches pages for a refresh, checks their rows, and takes them into the replica.

Between the listings of a refresh and the replica. The service's clock and the index of the mirror
follow what answers show.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing

from bc_attrvals.core.filters import ListingQuery
from bc_attrvals.core.models import MAX_ROW_ID, AttributeValue, Page
from bc_attrvals.core.rate_limit import service_time
from bc_attrvals.errors import APIError, DecodeError, MirrorError
from bc_attrvals.events import MirrorProgressed
from bc_attrvals.mirror.created_index import CreatedIndex
from bc_attrvals.mirror.replica import Replica, Taken
from bc_attrvals.mirror.replica_schema import row_of
from bc_attrvals.mirror.report import Faults
from bc_attrvals.mirror.service_clock import ServiceClock, second_of
from bc_attrvals.scheduling.calls import Calls
from bc_attrvals.scheduling.parallel_reads import at_once_in_order
from bc_attrvals.sync.database_thread import DatabaseThread


class Ingest:
    """The pages of one refresh, and their rows on the way into the replica."""

    def __init__(self, calls: Calls, database: DatabaseThread[Replica]) -> None:
        self.calls = calls
        self.database = database
        self.clock = ServiceClock()
        self._loop = asyncio.get_running_loop()
        #: Rows that answers showed.
        self.count = 0
        #: The mirror's rows by attribute and date, during a reconciliation.
        self.index: CreatedIndex | None = None
        #: The ids shown of the rows created from `shown_from` on.
        self.shown: set[int] = set()
        self.shown_from: int | None = None
        #: The mirror was complete up to this second: every row modified before it was there, as it
        #: is.
        self.settled: int | None = None
        self.faults = Faults()
        #: Customers that lost rows in this refresh.
        self.gone_customers: set[int] = set()

    async def first_page(self, query: ListingQuery) -> Page:
        """Take in the first page, of fewer rows if the service refuses the size. See `take`."""
        sizes = self.calls.sizes
        limit = sizes.page
        try:
            page = await self._fetch((query, 1, limit))
        except APIError as error:
            if not sizes.lower_page(limit, error):
                raise
            return await self.first_page(query)
        await self.take(page.data)
        return page

    async def pages(self, asked: Iterable[tuple[ListingQuery, int, int]]) -> AsyncGenerator[Page]:
        """Yield pages (query, number from 1, limit) in order, after taking them in."""
        reads = self.calls.limits.reads
        async with aclosing(at_once_in_order(self._fetch, asked, reads)) as found:
            async for page in found:
                await self.take(page.data)
                yield page

    async def _fetch(self, asked: tuple[ListingQuery, int, int]) -> Page:
        fetched = await self.calls.fetch(*asked)
        date = service_time(fetched.answer.headers)
        if date is not None:
            self.clock.observe_date(second_of(date), self._loop.time(), our_second=int(time.time()))
        return await self.calls.decode(fetched)

    async def take(self, rows: Sequence[AttributeValue]) -> None:
        """Take in rows.

        Raises `MirrorError` for a row without dates, `DecodeError` for an id out of range.
        """
        self.check(rows)
        taken = await self.database.run(Replica.take, rows)
        self.follow(taken)
        if self.settled is not None:
            for held, row in taken.unmoved:
                if second_of(row.date_modified) < self.settled:
                    self.faults.add(None if held is None else row_of(held), row)

    def check(self, rows: Sequence[AttributeValue]) -> None:
        """Check rows, and note what they show. See `take`."""
        for row in rows:
            if row.date_created is None or row.date_modified is None:
                raise MirrorError(
                    "the service leaves out date_created or date_modified, which a mirror needs"
                )
            if not 0 < row.id <= MAX_ROW_ID:
                raise DecodeError("a row's id is out of range", place=f"row {row.id}")
        self.count += len(rows)
        if rows:
            newest = max(second_of(row.date_modified) for row in rows)
            self.clock.observe(newest, self._loop.time(), our_second=int(time.time()))
        if self.shown_from is not None:
            first = self.shown_from
            self.shown.update(row.id for row in rows if second_of(row.date_created) >= first)
        if self.calls.events:
            self.calls.events.emit(MirrorProgressed(self.count))

    def follow(self, taken: Taken) -> None:
        """Make the index follow a change of the replica."""
        self.gone_customers |= taken.gone_customers
        if self.index is not None:
            self.index.remove(taken.removed)
            self.index.add(taken.added)
