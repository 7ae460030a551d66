"""Takes the rows of answers into the mirror, after checking them, and keeps the index equal to it.

Between the listings of a refresh and the replica.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from bc_attrvals.core.models import AttributeValue
from bc_attrvals.errors import DecodeError, MirrorError
from bc_attrvals.events import EventBus, MirrorProgressed
from bc_attrvals.mirror.created_index import CreatedIndex
from bc_attrvals.mirror.dated_pages import second_of
from bc_attrvals.mirror.faults import Faults
from bc_attrvals.mirror.replica import Replica, Taken, row_of
from bc_attrvals.mirror.service_clock import ServiceClock
from bc_attrvals.sync.db_thread import DatabaseThread

#: SQLite's integers are signed and have 64 bits.
_MAX_ROW_ID: Final = 2**63 - 1


class RowSink:
    """The rows of one refresh on their way into the replica."""

    def __init__(
        self,
        database: DatabaseThread[Replica],
        clock: ServiceClock,
        events: EventBus,
    ) -> None:
        self._database = database
        self._clock = clock
        self._events = events
        self._loop = asyncio.get_running_loop()
        #: Rows that answers showed.
        self.count = 0
        #: Where the mirror's rows stand, while that is needed.
        self.index: CreatedIndex | None = None
        #: The ids shown of the rows created from `shown_from` on.
        self.shown: set[int] = set()
        self.shown_from: int | None = None
        #: Of rows modified before this second the mirror had every one, as it is.
        self.settled: int | None = None
        self.faults = Faults()

    async def take(self, rows: Sequence[AttributeValue]) -> int | None:
        """Take in rows; return a second that the service had reached when it showed them.

        Raises for one that can't be mirrored.
        """
        reached = self.check(rows)
        taken = await self._database.run(Replica.take, rows)
        self.apply(taken)
        if self.settled is not None:
            for held, row in taken.unmoved:
                if second_of(row.date_modified) < self.settled:
                    self.faults.add(None if held is None else row_of(held), row)
        return reached

    def check(self, rows: Sequence[AttributeValue]) -> int | None:
        """Check rows, and note what they show. See `take`."""
        for row in rows:
            self._check(row)
        self.count += len(rows)
        reached: int | None = None
        if rows:
            newest = max(second_of(row.date_modified) for row in rows)
            reached = self._clock.observe(newest, self._loop.time())
        if self.shown_from is not None:
            first = self.shown_from
            self.shown.update(row.id for row in rows if second_of(row.date_created) >= first)
        if self._events:
            self._events.emit(MirrorProgressed(self.count))
        return reached

    def apply(self, taken: Taken) -> None:
        """Make the index follow a change of the replica."""
        if self.index is not None:
            self.index.remove(taken.removed)
            self.index.add(taken.added)

    def _check(self, row: AttributeValue) -> None:
        if row.date_created is None or row.date_modified is None:
            raise MirrorError(
                "the service leaves out date_created or date_modified, which a mirror needs"
            )
        if not 0 < row.id <= _MAX_ROW_ID:
            raise DecodeError("a row's id is out of range", place=f"row {row.id}")
