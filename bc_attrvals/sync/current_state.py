"""Finds out what the store holds of what is desired, in the cheapest way.

Between `job.py` and `reading/unordered.py`: weighs listing the scope, looking the desired customers
up, and reading nothing (the arithmetic is in `core/diff.py`), and reads into the working set.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing

from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.core.models import MAX_ID, AttributeValue
from bc_attrvals.core.sync_plan import (
    MAX_VALUES_PER_CUSTOMER,
    Reading,
    calls_for,
    choose_reading,
    customers_per_listing,
    is_worth_probing,
    look_up_calls,
)
from bc_attrvals.core.sync_states import DesiredFacts, Phase, to_key
from bc_attrvals.events import SyncProgressed
from bc_attrvals.reading.unordered import Listing, UnorderedReader
from bc_attrvals.scheduling.calls import Calls
from bc_attrvals.sync.database import WorkSet
from bc_attrvals.sync.journal import Desk
from bc_attrvals.sync.scope import Scope

__all__ = ["Survey"]

#: No URL takes the ids of more customers.
_MOST_CUSTOMERS = 2_000
#: Customers taken from the working set at once, or a little more.
_CHUNK = 4_096


class Survey:
    """One reading of the store."""

    def __init__(
        self,
        calls: Calls,
        scope: Scope,
        desk: Desk,
    ) -> None:
        self._calls = calls
        self._scope = scope
        self._desk = desk
        self._reader = UnorderedReader(calls)
        self._noted = (0, 0)
        self._rows = 0

    @property
    def calls(self) -> int:
        """Requests sent."""
        return self._calls.calls

    async def read(self, *, prune: bool) -> Reading:
        """Read, and note rows and calls in the working set; return in which way it was done."""
        try:
            return await (self._read_scope() if prune else self._read_cheaply())
        finally:
            await self._take_in([])

    async def _read_scope(self) -> Reading:
        # What is to be deleted is known only by listing it.
        queries = self._calls.queries(self._scope.narrowed(None))
        await self._read_all(_each(map(self._reader.listing, queries)))
        return Reading.LIST

    async def _read_cheaply(self) -> Reading:
        facts = await self._desk.run(WorkSet.facts, _MOST_CUSTOMERS)
        if not facts.values:
            return Reading.NOTHING
        attributes = len(facts.attribute_ids or range(MAX_VALUES_PER_CUSTOMER))
        per_listing = self._customers_per_listing(facts, attributes)
        blind = calls_for(facts.values, self._calls.sizes.batch)
        look_up = look_up_calls(facts.customers, per_listing, attributes, self._calls.sizes.page)
        listing: Listing | None = None
        rows: list[AttributeValue] = []
        if is_worth_probing(blind_calls=blind, look_up_calls=look_up):
            listing = self._only_listing(facts)
        if listing is not None:
            rows = await self._reader.first_page(listing)
        reading = choose_reading(
            blind_calls=blind,
            look_up_calls=look_up,
            list_calls=None if listing is None else listing.pages_left,
        )
        if reading is Reading.LIST and listing is not None:
            await self._take_in(rows)
            await self._read_all(_each([listing]))
        elif reading is Reading.LOOK_UP:
            await self._read_all(self._look_ups(facts, per_listing))
        return reading

    def _customers_per_listing(self, facts: DesiredFacts, attributes: int) -> int:
        """Return how many customers to look up at once: what a URL takes, and fills its pages."""
        fitting, too_many = 1, len(facts.last_customers) + 1
        while too_many - fitting > 1:
            middle = (fitting + too_many) // 2
            part = facts.last_customers[:middle]
            if len(self._queries(part, facts)) > 1:
                too_many = middle
            else:
                fitting = middle
        if fitting == facts.customers:
            return fitting
        return customers_per_listing(fitting, attributes, self._calls.sizes.page)

    def _queries(self, customers: Sequence[int], facts: DesiredFacts) -> list[str]:
        return self._calls.queries(AttributeValueFilter(customers, facts.attribute_ids))

    def _only_listing(self, facts: DesiredFacts) -> Listing | None:
        """Return the listing of the scope, or None when it takes several.

        Those are of so many customers that looking up the desired ones of them costs no more.
        """
        customers = self._scope.customer_ids
        if customers is not None and len(customers) > _MOST_CUSTOMERS:
            return None
        queries = self._calls.queries(self._scope.narrowed(facts.attribute_ids))
        return self._reader.listing(queries[0]) if len(queries) == 1 else None

    async def _look_ups(self, facts: DesiredFacts, per_listing: int) -> AsyncGenerator[Listing]:
        after = 0
        # Whole listings, so that only the very last one is not full.
        most = per_listing * calls_for(_CHUNK, per_listing)
        while customers := await self._desk.run(WorkSet.customers, after, most):
            after = customers[-1]
            for start in range(0, len(customers), per_listing):
                part = customers[start : start + per_listing]
                for query in self._queries(part, facts):
                    yield self._reader.listing(query)

    async def _read_all(self, listings: AsyncGenerator[Listing]) -> None:
        async with aclosing(listings):
            await self._reader.read(listings, self._take_in)

    async def _take_in(self, rows: Sequence[AttributeValue]) -> None:
        calls, retries = self._calls.calls - self._noted[0], self._calls.retries - self._noted[1]
        self._noted = (self._calls.calls, self._calls.retries)
        if not rows and not calls:
            return
        # Whatever the service answers: nothing outside of the scope is compared or pruned.
        current = [
            (to_key(row.customer_id, row.attribute_id), row.id, row.attribute_value)
            for row in rows
            if self._scope.holds(row.customer_id, row.attribute_id) and 0 < row.id <= MAX_ID
        ]
        await self._desk.run(WorkSet.add_current, current, calls, retries)
        self._rows += len(rows)
        if self._calls.events:
            self._calls.events.emit(SyncProgressed(Phase.READING, self._rows))


async def _each(listings: Iterable[Listing]) -> AsyncGenerator[Listing]:
    for listing in listings:
        yield listing
