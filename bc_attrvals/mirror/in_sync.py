"""A mirror in use by a sync: what the store held before, and then what the sync wrote."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Final

from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.core.models import AttributeValue
from bc_attrvals.mirror.reading import next_rows
from bc_attrvals.mirror.replica import Replica
from bc_attrvals.mirror.report import RefreshReport
from bc_attrvals.sync.db_thread import DatabaseThread

#: Rows read from the file at once.
_CHUNK: Final = 4_096


class MirrorInSync:
    """The `KnownState` of one sync."""

    def __init__(
        self,
        database: DatabaseThread[Replica],
        filter: AttributeValueFilter,
        refresh: Callable[[], Awaitable[RefreshReport]],
    ) -> None:
        self._database = database
        self._filter = filter
        self._refresh = refresh

    async def refresh(self) -> int:
        """Make the mirror equal to the store; return how many calls listing it anew takes."""
        return (await self._refresh()).anew_calls

    async def row_lists(self) -> AsyncGenerator[Sequence[AttributeValue]]:
        """Yield the rows of the sync's scope in lists, in the order of their keys."""
        after = (0, 0, 0)
        while rows := await self._database.run(next_rows, self._filter, after, _CHUNK):
            yield rows
            after = (rows[-1].customer_id, rows[-1].attribute_id, rows[-1].id)

    async def note(self, stored: Sequence[AttributeValue], deleted: Sequence[int]) -> None:
        """Note rows that the service stored, as it echoed them, and ids that it deleted.

        An echo without dates is left to the next refresh.
        """
        dated = [row for row in stored if row.date_created and row.date_modified]
        if dated:
            await self._database.run(Replica.take, dated)
        if deleted:
            await self._database.run(Replica.drop_ids, deleted)
