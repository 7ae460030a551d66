"""Reads whole listings, many pages at once and in no order, for jobs that need parts of rows.

A sync compares keys and values, and a deletion needs ids, so a row that can be read only in part
stops neither. Unlike `pager.py` it keeps no order, so pages of different listings are fetched at
once. `page_count` decides which pages to ask for and whether a listing is complete.
"""

from __future__ import annotations

import asyncio
from array import array
from collections import Counter, deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import aclosing

from bc_attrvals.core.filters import AttributeValueFilter, ListingQuery
from bc_attrvals.core.models import MAX_ID, AttributeValue, BareRow, Row, whole_row
from bc_attrvals.core.sync_states import from_key, to_key
from bc_attrvals.errors import APIError, BCAttrValsError, DecodeError, ListingDriftError
from bc_attrvals.reading.page_count import MOST_ROWS, PageCount
from bc_attrvals.reading.seen_ids import SeenIds
from bc_attrvals.scheduling.calls import Calls


class Listing:
    """One query of an `UnorderedReader` and the state of its pages, which count from 1."""

    def __init__(self, query: ListingQuery, limit: int, most_rows: int = MOST_ROWS) -> None:
        self.query = query
        self._most_rows = most_rows
        self.begin(limit)

    def begin(self, limit: int) -> None:
        """Start at the first page, with `limit` rows in each."""
        self.limit = limit
        self.count = PageCount(limit, self._most_rows)
        self.next_page = 1
        #: Pages that were asked for and are not answered.
        self.under_way = 0

    @property
    def pages_left(self) -> int:
        """How many pages still have to be asked for."""
        return 0 if self.count.is_over else max(0, self.count.last_page - self.next_page + 1)

    def check(self) -> None:
        """Raise `ListingDriftError` if the listing has ended and is not proven complete."""
        if not self.under_way and not self.pages_left:
            self.count.check()


class UnorderedReader:
    """Reads listings, at most `Limits.reads` pages at once."""

    def __init__(self, calls: Calls, most_rows: int = MOST_ROWS) -> None:
        self._calls = calls
        self._most_rows = most_rows

    def listing(self, query: ListingQuery) -> Listing:
        """Return a listing of a query that has not begun."""
        return Listing(query, self._calls.sizes.page, self._most_rows)

    async def first_page(self, listing: Listing) -> list[Row]:
        """Read the first page alone; then `listing.pages_left` counts the other pages."""
        return await self._fetch(listing, self._claim(listing))

    async def read(
        self,
        listings: AsyncIterator[Listing],
        sink: Callable[[Sequence[Row]], Awaitable[None]],
    ) -> None:
        """Read listings to their ends, and await `sink` with each row once.

        Listings are taken as they are needed. The first error of a page or of `sink` ends the
        reading and cancels the pages under way. A listing that is not proven complete raises
        `ListingDriftError` after its rows went to `sink`.
        """
        begun: deque[Listing] = deque()
        fetches: dict[asyncio.Task[list[Row]], Listing] = {}
        try:
            while True:
                while len(fetches) < self._calls.limits.reads:
                    listing = await _with_pages_left(begun, listings)
                    if listing is None:
                        break
                    fetch = self._fetch(listing, self._claim(listing))
                    fetches[asyncio.create_task(fetch)] = listing
                if not fetches:
                    return
                done, _ = await asyncio.wait(fetches, return_when=asyncio.FIRST_COMPLETED)
                answered = [(fetches.pop(one), one.result()) for one in done]
                await sink([row for _, rows in answered for row in rows])
                for listing, _ in answered:
                    if listing.pages_left and listing not in begun:
                        begun.append(listing)
                    listing.check()
        finally:
            for left in fetches:
                left.cancel()
            if fetches:
                await asyncio.gather(*fetches, return_exceptions=True)

    def _claim(self, listing: Listing) -> int:
        """Return the number of the next page, and count it as under way."""
        number = listing.next_page
        listing.next_page += 1
        listing.under_way += 1
        return number

    async def _fetch(self, listing: Listing, number: int) -> list[Row]:
        try:
            page = await self._calls.bare_page(listing.query, number, listing.limit)
        except APIError as error:
            if number > 1 or not self._calls.sizes.lower_page(listing.limit, error):
                raise
            listing.begin(self._calls.sizes.page)
            return await self._fetch(listing, self._claim(listing))
        listing.under_way -= 1
        return listing.count.take(number, page.data, page.pagination.total)


async def _with_pages_left(
    begun: deque[Listing], listings: AsyncIterator[Listing]
) -> Listing | None:
    """Return the first listing that has pages left to ask for, if need be a new one."""
    while True:
        # A listing without pages left may get some again from the answer of a page under way.
        while begun and not begun[0].pages_left:
            begun.popleft()
        if begun:
            return begun[0]
        listing = await anext(listings, None)
        if listing is None:
            return None
        if listing.pages_left:
            begun.append(listing)
        else:
            # Its first page was read before, and is its only one.
            listing.check()


async def read_filter(
    calls: Calls,
    filter: AttributeValueFilter | None,
    sink: Callable[[Sequence[Row]], Awaitable[None]],
    most_rows: int = MOST_ROWS,
) -> None:
    """Give each row of a filter once to `sink`; raises as `UnorderedReader.read`."""
    reader = UnorderedReader(calls, most_rows)
    async with aclosing(each(map(reader.listing, calls.queries(filter)))) as listings:
        await reader.read(listings, sink)


async def read_back(
    calls: Calls, filter: AttributeValueFilter
) -> tuple[list[AttributeValue], BCAttrValsError | None]:
    """Return the rows of customers and attributes, and the error that ended the listing.

    Each row that came confirms its value, even if the listing is not complete. Only key and value
    are needed: a row with an unreadable value is left out; an unreadable id is 0, an unreadable
    date None.
    """
    found: list[AttributeValue] = []

    async def take(rows: Sequence[Row]) -> None:
        found.extend(whole for row in rows if (whole := whole_row(row)) is not None)

    # A key has one row, and rarely a second one that was left behind.
    keys = len(filter.customer_id_in or ()) * len(filter.attribute_id_in or ())
    try:
        await read_filter(calls, filter, take, 4 * keys)
    except BCAttrValsError as error:
        return found, error
    return found, None


async def row_ids(calls: Calls, filter: AttributeValueFilter | None) -> array[int]:
    """Return the ids of all rows of a filter; other fields of the rows may be unreadable.

    Raises `DecodeError` with the place of an unreadable id, and as `check_shared_keys` and
    `UnorderedReader.read`.
    """
    ids, keys = array("q"), array("q")
    seen = SeenIds()
    shared: set[int] = set()

    async def take(rows: Sequence[Row]) -> None:
        for row in rows:
            if isinstance(row, BareRow) and not row.id:
                raise DecodeError("the id of a row can't be read", place=f"{row.place}.id")
        ids.extend(row.id for row in rows)
        of_page = [_key_of(row) for row in rows]
        keys.extend(of_page)
        counts = Counter(key for key in of_page if key)
        shared.update(counts.keys() - seen.add(counts))
        shared.update(key for key, count in counts.items() if count > 1)

    await read_filter(calls, filter, take)
    if shared:
        rows = zip(ids, keys, strict=True)
        await check_shared_keys(calls, {one: key for one, key in rows if key in shared})
    return ids


async def check_shared_keys(calls: Calls, keys: Mapping[int, int]) -> None:
    """Raise `ListingDriftError` unless a look-up of their customers has all these rows.

    `keys` are the integer keys of rows that share their customer and attribute with another row,
    by id. The service keeps one row for each, so a listing may have repeated rows under ids of
    other ones. These must not be deleted.
    """
    found: set[int] = set()

    async def take(rows: Sequence[Row]) -> None:
        found.update(row.id for row in rows if keys.get(row.id) == _key_of(row))

    customers, attributes = zip(*map(from_key, keys.values()), strict=True)
    await read_filter(calls, AttributeValueFilter(set(customers), set(attributes)), take)
    for one in keys.keys() - found:
        customer, attribute = from_key(keys[one])
        raise ListingDriftError(
            f"row {one} was listed for customer {customer}, attribute {attribute}, which have "
            "another row, and a look-up of the customer does not have it"
        )


def _key_of(row: Row) -> int:
    """Return the integer key of a row; 0 if an id of it can't be read."""
    has_key = 0 < row.customer_id <= MAX_ID and 0 < row.attribute_id <= MAX_ID
    return to_key(row.customer_id, row.attribute_id) if has_key else 0


async def each(listings: Iterable[Listing]) -> AsyncGenerator[Listing]:
    """Yield listings for `UnorderedReader.read`."""
    for listing in listings:
        yield listing
