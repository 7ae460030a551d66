"""The mirror: a file with a copy of a store's values, refreshed in few calls, read without any.

The public face of this folder. `Store.mirror` opens it. What needs SQLite is imported where it is
needed, so that importing the package does not load it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Concatenate, Final, ParamSpec, Self, TypeVar

import attrs
import msgspec

from bc_attrvals.core.filters import AttributeValueFilter, check_filter
from bc_attrvals.core.models import AttributeValue, check_id
from bc_attrvals.errors import InvalidInputError, MirrorError, StoreStateError
from bc_attrvals.mirror.report import Change, RefreshReport
from bc_attrvals.scheduling.calls import Calls
from bc_attrvals.scheduling.job_events import BulkJob
from bc_attrvals.sync.known_state import KnownState
from bc_attrvals.sync.options import JournalPath
from bc_attrvals.sync.scope import Scope

if TYPE_CHECKING:
    from bc_attrvals.mirror.replica import Replica
    from bc_attrvals.sync.database_thread import DatabaseThread

P = ParamSpec("P")
T = TypeVar("T")

#: Rows read from the file at once, for a user and for a sync.
_CHUNK: Final = 1_000
_SYNC_CHUNK: Final = 4_096
#: Before all rows by (customer, attribute, id).
_FIRST: Final = (0, 0, 0)


class Mirror:
    """A store's values, or those of a scope, in one file; get it as `Store.mirror`.

    One process at a time holds the file. It holds customers' values, and no access token. What is
    read is the last proven state: reading waits while a refresh runs. Every method raises
    `MirrorError` for a file that is damaged or can't grow, and `StoreStateError` unless it is open.
    """

    def __init__(
        self,
        calls: Calls,
        path: JournalPath,
        scope: AttributeValueFilter | None,
        *,
        place: str,
        ensure_open: Callable[[], None],
        verify_every_s: float | None,
    ) -> None:
        from bc_attrvals.mirror.replica import MIRRORS
        from bc_attrvals.sync.database_thread import DatabaseThread

        self._calls = calls
        self._scope = Scope.of(scope)
        self._place = place
        self._ensure_open = ensure_open
        self._verify_every_s = verify_every_s
        self._database = DatabaseThread(MIRRORS, path, field="path")
        # Held by a refresh, or by a sync that uses the mirror.
        self._sole = asyncio.Lock()
        # Held by one step of those, or by a read.
        self._busy = asyncio.Lock()
        self._is_open = False

    def __repr__(self) -> str:
        return f"<Mirror {self._database.name}, {'open' if self._is_open else 'closed'}>"

    async def __aenter__(self) -> Self:
        """Open the file, and create it for its owner alone if it is missing."""
        try:
            await self._database.open()
            await self._database.run(self._bind)
        except BaseException:
            await self._database.aclose()
            raise
        self._is_open = True
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Close the file, after a refresh of another task that is under way."""
        self._is_open = False
        try:
            async with self._sole, self._busy:
                pass
        finally:
            await self._database.aclose()

    async def refresh(self, *, verify: bool = False) -> RefreshReport:
        """Make the mirror equal to the store, in calls that grow with what changed.

        Afterwards it holds every row that lived through the call, as it stood at some moment
        within it, and none that was gone before it began. The first refresh lists everything.
        `verify=True` does so too and reports what was wrong; so does the first refresh after
        `verify_every` has passed. `mirror/refresh.py` says what the proof assumes.

        Rows modified in the minute before the last refresh are listed again. It is assumed that a
        row is visible a minute after its `date_modified`; BigCommerce documents no such time. All
        changes become visible at the end: on an error, a cancellation or a kill, the mirror stays
        as it was.
        Raises `ListingDriftError` if the store changed too much to prove it, `FilterIgnoredError`
        for a service that answers rows outside of what it was asked for, `InvalidInputError`
        for a scope with more attributes than a URL holds, and the errors of calls.
        """
        self._check_open()
        self._ensure_open()
        async with self._sole:
            with BulkJob(self._calls, "refresh") as bulk:
                report = await self._refresh(bulk.calls, verify=verify)
                bulk.sums = lambda: report
            return report

    async def _refresh(self, calls: Calls, *, verify: bool) -> RefreshReport:
        from bc_attrvals.mirror.refresh import Refresh

        async with self._busy:
            refresh = Refresh(calls, self._database, self._scope)
            return await refresh.run(verify=verify, verify_every_s=self._verify_every_s)

    async def changes_taken(self) -> int:
        """Return the number that `note_changes_taken` noted last, 0 at first."""
        return int(await self._run(lambda replica: replica.number("changes_taken")))

    async def note_changes_taken(self, sequence: int) -> None:
        """Note in the file the last change that a reader took, for readers that keep no state."""
        await self._run(lambda replica: replica.put(changes_taken=sequence))

    @asynccontextmanager
    async def use(self, calls: Calls, scope: Scope, place: str) -> AsyncIterator[KnownState]:
        """Let a sync use the mirror: see `SyncMirror`."""
        self._check_open()
        if place != self._place:
            message = f"the mirror is of another store: {self._place!r}, not {place!r}"
            raise InvalidInputError(message, field="mirror")
        if not self._scope.contains(scope):
            message = "the mirror does not hold the whole scope of the sync"
            raise InvalidInputError(message, field="mirror")
        refresh = partial(self._refresh, calls, verify=False)
        async with self._sole:
            yield _MirrorInSync(self._database, scope.narrowed(None), refresh)

    async def get(self, customer_id: int, attribute_id: int) -> AttributeValue | None:
        """Return the value a customer has for an attribute, or None. It makes no call."""
        check_id(customer_id, "customer_id")
        check_id(attribute_id, "attribute_id")
        return await self._run(lambda replica: replica.find(customer_id, attribute_id))

    async def count(self, filter: AttributeValueFilter | None = None) -> int:
        """Return how many rows match. It makes no call; see `rows` for the filter."""
        _check_filter(filter)
        return await self._run(lambda replica: replica.count(filter))

    async def rows(
        self, filter: AttributeValueFilter | None = None
    ) -> AsyncGenerator[AttributeValue]:
        """Yield the rows of a filter by customer, attribute and id. It makes no call.

        Bounds of dates include their own second. A refresh between two rows shows in those that
        follow. Raises `InvalidInputError` for a filter by `name`, which a mirror does not hold.
        """
        from bc_attrvals.mirror.replica import Replica

        _check_filter(filter)
        after = _FIRST
        while rows := await self._run(Replica.next_rows, filter, after, _CHUNK):
            for row in rows:
                yield row
            after = _position(rows[-1])

    async def changes(self, after: int = 0) -> AsyncGenerator[Change]:
        """Yield the changes with sequence numbers above `after`, in order. It makes no call.

        Each row comes once, with its last change: a put of the row as it is, or the delete. So
        `after=0` yields every row. The number of the last change taken is the next `after`.
        Raises `InvalidInputError` for a number below 0.
        """
        from bc_attrvals.mirror.replica import Replica

        if isinstance(after, bool) or not isinstance(after, int) or after < 0:
            message = f"after must be an int of at least 0, not {after!r}"
            raise InvalidInputError(message, field="after")
        while changes := await self._run(Replica.next_changes, after, _CHUNK):
            for change in changes:
                yield change
            after = changes[-1].sequence

    async def _run(
        self, job: Callable[Concatenate[Replica, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a job on the last proven state."""
        self._check_open()
        async with self._busy:
            return await self._database.run(job, *args, **kwargs)

    def _check_open(self) -> None:
        if not self._is_open:
            raise StoreStateError("the mirror must be entered first (async with)")

    def _bind(self, replica: Replica) -> None:
        """Bind a file to the place and the scope; raise if it has rows of others."""
        name, bound = self._database.name, replica.text("place")
        scope = self._scope.digest()
        # A first refresh that fails, of a mistyped store say, leaves a file without rows.
        if not bound or (replica.known is None and not replica.next_changes(0, 1)):
            ids = msgspec.json.encode(attrs.asdict(self._scope, recurse=False)).decode()
            replica.put(place=self._place, scope=scope, scope_ids=ids)
        elif bound != self._place:
            message = f"{name} is of another store: {bound!r}, not {self._place!r}"
            raise MirrorError(f"{message}; use a file of its own for each store")
        elif replica.text("scope") != scope:
            raise MirrorError(f"{name} is of another scope; use a file of its own for each scope")


class _MirrorInSync:
    """A mirror in use by one sync, as `KnownState`.

    It holds what the store held before, and then what the sync wrote.
    """

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
        from bc_attrvals.mirror.replica import Replica

        after, run = _FIRST, self._database.run
        while rows := await run(Replica.next_rows, self._filter, after, _SYNC_CHUNK):
            yield rows
            after = _position(rows[-1])

    async def note(self, stored: Sequence[AttributeValue], deleted: Sequence[int]) -> None:
        """Note rows that the service stored, as it echoed them, and ids that it deleted.

        An echo without dates is left to the next refresh.
        """
        dated = [row for row in stored if row.date_created and row.date_modified]
        if dated:
            await self._database.run(lambda replica: replica.take(dated))
        if deleted:
            await self._database.run(lambda replica: replica.drop_ids(deleted))


def scope_of(path: JournalPath) -> AttributeValueFilter | None:
    """Read the scope of a mirror's file; None if there is no such file.

    It blocks. Raises `MirrorError` for a file that is no mirror, or that is in use.
    """
    from bc_attrvals.mirror.replica import MIRRORS
    from bc_attrvals.sync.database import check_path, reading_file

    if not os.path.lexists(check_path(path, "path")):
        return None
    with reading_file(MIRRORS, path) as replica:
        ids = msgspec.json.decode(replica.text("scope_ids"), type=dict[str, tuple[int, ...] | None])
        return AttributeValueFilter(ids["customer_ids"], ids["attribute_ids"])


def _check_filter(filter: object) -> None:
    check_filter(filter)
    if isinstance(filter, AttributeValueFilter) and filter.name is not None:
        message = "a mirror holds no names of attributes; filter by attribute_id_in"
        raise InvalidInputError(message, field="name")


def _position(row: AttributeValue) -> tuple[int, int, int]:
    return row.customer_id, row.attribute_id, row.id
