"""Reads what the store holds of the desired values, in the fewest calls.

Between `job.py` and the listings of `reading/`. It weighs listing the scope, looking up the
desired customers and reading nothing (the arithmetic is in `core/sync_plan.py`), and reads into
the working set. Every row is checked against the scope before it is compared or pruned.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Final

from bc_attrvals.core.filters import AttributeValueFilter, ListingQuery
from bc_attrvals.core.models import MAX_ID, Row
from bc_attrvals.core.sync_plan import (
    MAX_VALUES_PER_CUSTOMER,
    Reading,
    calls_for,
    choose_reading,
    customers_per_listing,
    is_worth_probing,
    look_up_calls,
)
from bc_attrvals.core.sync_states import CurrentRow, DesiredFacts, Phase, to_key
from bc_attrvals.errors import DecodeError, FilterIgnoredError
from bc_attrvals.events import SyncProgressed
from bc_attrvals.reading.unordered import Listing, UnorderedReader, each
from bc_attrvals.scheduling.calls import Calls
from bc_attrvals.sync.database_thread import DatabaseThread
from bc_attrvals.sync.known_state import KnownState
from bc_attrvals.sync.scope import Scope
from bc_attrvals.sync.working_set import WorkingSet

#: No URL takes the ids of more customers.
_MOST_CUSTOMERS: Final = 2_000
#: Customers taken from the working set at once, or a few more.
_CHUNK: Final = 4_096

_logger = logging.getLogger(__name__)


class CurrentState:
    """One reading of the store, or of a mirror, into a working set.

    With `prune` the whole scope is read. Raises `FilterIgnoredError` for a row outside of the
    scope, and with `prune` `DecodeError` for one whose ids can't be read: what to delete is unknown
    then.
    """

    def __init__(
        self,
        calls: Calls,
        *,
        scope: Scope,
        database: DatabaseThread[WorkingSet],
        prune: bool,
    ) -> None:
        self._calls = calls
        self._scope = scope
        self._database = database
        self._reader = UnorderedReader(calls)
        self._prune = prune
        self._rows = 0
        self._unreadable = 0

    async def read(self, *, always: bool) -> Reading:
        """Read, note the rows in the working set, and return how it was done.

        With `always` the store is read even where writing everything costs less. Raises
        `ListingDriftError` for a listing that did not prove complete.
        """
        try:
            if not self._prune:
                return await self._read_cheaply(always=always)
            # Only a listing shows what is to be deleted.
            queries = self._calls.queries(self._scope.narrowed(None))
            await self._read_all(each(map(self._reader.listing, queries)))
            return Reading.LIST
        finally:
            if self._unreadable:
                _logger.warning("rows with ids that can't be read: %d", self._unreadable)

    async def read_mirror(self, known: KnownState) -> int:
        """Refresh a mirror and take its rows; return how many calls listing it anew takes.

        Raises what a refresh raises.
        """
        listing_calls = await known.refresh()
        async with aclosing(known.row_lists()) as lists:
            async for rows in lists:
                await self._take_in(rows)
        return listing_calls

    async def _read_cheaply(self, *, always: bool) -> Reading:
        facts = await self._database.run(WorkingSet.facts, _MOST_CUSTOMERS)
        if not facts.values:
            return Reading.NOTHING
        attributes = len(facts.attribute_ids or range(MAX_VALUES_PER_CUSTOMER))
        per_listing = self._customers_per_listing(facts, attributes)
        blind = self._calls.sizes.write_calls(facts.values, facts.customers)
        look_up = look_up_calls(facts.customers, per_listing, attributes, self._calls.sizes.page)
        listing: Listing | None = None
        rows: list[Row] = []
        if is_worth_probing(blind_calls=blind, look_up_calls=look_up):
            listing = self._only_listing(facts)
        if listing is not None:
            rows = await self._reader.first_page(listing)
        reading = choose_reading(
            blind_calls=blind,
            look_up_calls=look_up,
            list_calls=None if listing is None else listing.pages_left,
            always=always,
        )
        if reading is Reading.LIST and listing is not None:
            await self._take_in(rows)
            await self._read_all(each([listing]))
        elif reading is Reading.LOOK_UP:
            await self._read_all(self._look_ups(facts, per_listing))
        return reading

    def _customers_per_listing(self, facts: DesiredFacts, attributes: int) -> int:
        """Return how many customers to look up at once: as fit a URL and fill its pages."""
        first = self._queries(facts.last_customers, facts)[0]
        fitting = len(first.filter.customer_id_in or ())
        if fitting == facts.customers:
            return fitting
        return customers_per_listing(fitting, attributes, self._calls.sizes.page)

    def _queries(self, customers: Sequence[int], facts: DesiredFacts) -> list[ListingQuery]:
        return self._calls.queries(AttributeValueFilter(customers, facts.attribute_ids))

    def _only_listing(self, facts: DesiredFacts) -> Listing | None:
        """Return the listing of the scope, or None when it takes several.

        A scope of several listings has so many customers that looking up the desired ones costs no
        more.
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
        while customers := await self._database.run(WorkingSet.customers, after, most):
            after = customers[-1]
            for start in range(0, len(customers), per_listing):
                part = customers[start : start + per_listing]
                for query in self._queries(part, facts):
                    yield self._reader.listing(query)

    async def _read_all(self, listings: AsyncGenerator[Listing]) -> None:
        async with aclosing(listings):
            await self._reader.read(listings, self._take_in)

    async def _take_in(self, rows: Sequence[Row]) -> None:
        current = [one for one in map(self._checked, rows) if one is not None]
        await self._database.run(WorkingSet.add_current, current)
        self._rows += len(rows)
        if self._calls.events:
            self._calls.events.emit(SyncProgressed(Phase.READING, self._rows))

    def _checked(self, row: Row) -> CurrentRow | None:
        """Return a row to compare with the desired values, or None for one that can't be.

        Pruning must not delete a row outside of the scope, even if the service listed it.
        """
        customer_id, attribute_id = row.customer_id, row.attribute_id
        if not self._scope.matches(customer_id, attribute_id):
            raise FilterIgnoredError(
                f"the service listed a row outside of the scope (customer {customer_id}, attribute "
                f"{attribute_id}); it ignores the filter, so nothing was changed"
            )
        has_key = 0 < customer_id <= MAX_ID and 0 < attribute_id <= MAX_ID
        # An id that can't be read is 0.
        if not (has_key and row.id > 0):
            if self._prune:
                raise DecodeError(
                    f"customer {customer_id}, attribute {attribute_id}: an id can't be read, so "
                    "what to prune can't be decided; nothing was changed",
                    place=f"row {row.id}",
                )
            self._unreadable += 1
        if not has_key:
            return None
        return to_key(customer_id, attribute_id), row.id, row.value
