"""Fetches pages for a refresh, and shows the service's clock the dates of the answers."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

from bc_attrvals.core.filters import ListingQuery
from bc_attrvals.core.models import Page
from bc_attrvals.errors import APIError
from bc_attrvals.mirror.service_clock import ServiceClock
from bc_attrvals.reading.page_count import is_refusal_of_size
from bc_attrvals.scheduling.calls import DEFAULT_PAGE_SIZE, Calls

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class DatedPages:
    """The pages of one refresh."""

    def __init__(self, calls: Calls, clock: ServiceClock) -> None:
        self._calls = calls
        self._clock = clock
        self._loop = asyncio.get_running_loop()

    async def page(self, query: ListingQuery, number: int, limit: int) -> Page:
        """Fetch one page (from 1) of a query, checked against it: see `Calls.page`."""
        fetched = await self._calls.fetch(query, number, limit)
        second = _second_of_header(fetched.answer.headers.get("Date"))
        if second is not None:
            self._clock.observe_date(second, self._loop.time())
        return await self._calls.decode(fetched)

    async def first_page(self, query: ListingQuery) -> Page:
        """Fetch the first page, of fewer rows if the service refuses so many."""
        sizes = self._calls.sizes
        try:
            return await self.page(query, 1, sizes.page)
        except APIError as error:
            if sizes.page <= DEFAULT_PAGE_SIZE or not is_refusal_of_size(error):
                raise
        sizes.lower_page()
        return await self.page(query, 1, sizes.page)


def _second_of_header(header: str | None) -> int | None:
    """Return the UNIX second of a `Date` header; None without one that can be read."""
    if header is None:
        return None
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return None
    return None if moment.tzinfo is None else second_of(moment)


def moment_of(second: int) -> datetime:
    """Return a UNIX second as a moment."""
    return _EPOCH + timedelta(seconds=second)


def second_of(moment: datetime | None) -> int:
    """Return the UNIX second of a moment that is there."""
    assert moment is not None
    return (moment - _EPOCH) // timedelta(seconds=1)
