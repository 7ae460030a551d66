"""Deletes the values that empty cells say shall not exist (`--empty delete`).

Part of the upsert or the sync of the same file. `watch` collects the cells while the file is
checked, `find` looks up what is stored for them, and `delete_stored` deletes it once the values are
sent. Values that are stored for them in between stay. Keys and ids are kept in a temporary database
on disk, so memory stays bounded.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing
from typing import Final, Self, cast

import anyio.to_thread

from bc_attrvals.cli.console import Failure
from bc_attrvals.cli.deletion_limit import DeletionLimit
from bc_attrvals.cli.job_runner import Work
from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.core.limits import MAX_PAGE_SIZE
from bc_attrvals.core.models import AttributeValue, AttributeValueUpsert, Key
from bc_attrvals.core.named_value import NamedValue
from bc_attrvals.core.outcomes import DeleteReport
from bc_attrvals.errors import BCAttrValsError, ListingDriftError
from bc_attrvals.store import StoreView
from bc_attrvals.tables.rows import Absent, BadRow, Cell, Entry
from bc_attrvals.tables.spool import scratch_database

_CHUNK_KEYS: Final = 5_000
#: Customers of one look-up; the library splits it into listings whose URLs fit.
_CHUNK_CUSTOMERS: Final = 5_000
_CHUNK_IDS: Final = 500
#: Roughly, the ids that a URL holds, to compare the cost of the two ways to look up.
_IDS_A_LISTING: Final = 450

_TABLES: Final = (
    "CREATE TABLE cells (customer INTEGER, attribute INTEGER, PRIMARY KEY (customer, attribute))",
    "CREATE TABLE rows (id INTEGER PRIMARY KEY, customer INTEGER, attribute INTEGER)",
)


class EmptyCells:
    """The empty cells of one file, and the values that are stored for them.

    `count` is how many values shall not exist, known at the end of `watch`. `found` is how many of
    them are stored, None until all are looked up. `deleted` counts confirmed deletions, and
    `superseded` the values that `leave_out` left out.
    """

    def __init__(self) -> None:
        self.count = 0
        self.superseded = 0
        self.found: int | None = None
        self.deleted = 0
        self._connection = scratch_database(*_TABLES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._connection.close()

    def watch(self, cells: Iterable[Cell]) -> Iterator[Entry]:
        """Yield the values and bad rows of a file, and keep the keys of its empty cells. Blocks.

        The last of several cells with one key counts: a value after an empty cell stays.
        """
        latest: dict[Key, bool] = {}
        for cell in cells:
            if isinstance(cell, Absent):
                latest[_key(cell)] = True
            else:
                if not isinstance(cell, BadRow):
                    latest[_key(cell)] = False
                yield cell
            if len(latest) >= _CHUNK_KEYS:
                self._keep(latest)
                latest = {}
        self._keep(latest)
        (self.count,) = self._numbers("SELECT count(*) FROM cells")

    def _keep(self, latest: dict[Key, bool]) -> None:
        if self._numbers("SELECT 1 FROM cells LIMIT 1"):
            self._connection.executemany(
                "DELETE FROM cells WHERE customer = ? AND attribute = ?",
                (key for key, empty in latest.items() if not empty),
            )
        self._connection.executemany(
            "INSERT OR IGNORE INTO cells VALUES (?, ?)",
            (key for key, empty in latest.items() if empty),
        )

    def leave_out(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Yield what `watch` did, less the values whose key is that of a later, empty cell. Blocks.

        They would be stored after the look-up, and stay.
        """
        statement = "SELECT 1 FROM cells WHERE customer = ? AND attribute = ?"
        for entry in entries:
            if isinstance(entry, BadRow) or not self._numbers(statement, *_key(entry)):
                yield entry
            else:
                self.superseded += 1

    def _numbers(self, statement: str, *parameters: int) -> list[int]:
        return [number for (number,) in self._connection.execute(statement, parameters)]

    async def _column(self, statement: str, *parameters: int) -> list[int]:
        return await anyio.to_thread.run_sync(self._numbers, statement, *parameters)

    async def find(self, store: StoreView) -> int:
        """Look up what is stored for the empty cells, in few calls; return how many values.

        By customers or, where that takes fewer calls, by listing their attributes whole. Raises
        what the listing raises.
        """
        async for wanted in self._filters(store):
            async with aclosing(store.attribute_values.pages(wanted)) as pages:
                async for page in pages:
                    await anyio.to_thread.run_sync(self._note, page.data)
        await self._check_shared_cells(store)
        (self.found,) = await self._column("SELECT count(*) FROM rows")
        return self.found

    async def find_within(self, limit: DeletionLimit, store: StoreView, values: int) -> None:
        """Look up as `find` does, before these many values of the file are sent.

        Raises `Failure` where the deletions exceed the limit.
        """
        found = await self.find(store)
        problem = limit.problem(found, found + values)
        if problem is not None:
            raise Failure(f"{problem}; nothing was sent")

    async def _filters(self, store: StoreView) -> AsyncGenerator[AttributeValueFilter]:
        attributes = await self._column("SELECT DISTINCT attribute FROM cells ORDER BY attribute")
        if not attributes:
            return
        whole = AttributeValueFilter(attribute_id_in=attributes)
        (customers,) = await self._column("SELECT count(DISTINCT customer) FROM cells")
        listings = -(-customers // _IDS_A_LISTING)
        # The count is a call, too.
        if listings > 2 and await store.attribute_values.count(whole) / MAX_PAGE_SIZE <= listings:
            yield whole
            return
        last = 0
        while chunk := await self._column(
            "SELECT DISTINCT customer FROM cells WHERE customer > ? ORDER BY customer LIMIT ?",
            last,
            _CHUNK_CUSTOMERS,
        ):
            last = chunk[-1]
            yield AttributeValueFilter(customer_id_in=chunk, attribute_id_in=attributes)

    def _note(self, values: list[AttributeValue]) -> None:
        self._connection.executemany(
            "INSERT OR IGNORE INTO rows "
            "SELECT ?, customer, attribute FROM cells WHERE customer = ? AND attribute = ?",
            ((value.id, *value.key) for value in values),
        )

    def _rows_that_share(self) -> set[tuple[int, int, int]]:
        """Return (id, customer, attribute) of the rows that share their cell with another row."""
        return set(
            self._connection.execute(
                "SELECT id, customer, attribute FROM rows WHERE (customer, attribute) IN "
                "(SELECT customer, attribute FROM rows GROUP BY 1, 2 HAVING count(*) > 1)"
            )
        )

    async def _check_shared_cells(self, store: StoreView) -> None:
        """Raise `ListingDriftError` unless a second look-up has all rows that share a cell.

        A listing may have repeated rows under the ids of other ones.
        """
        if shared := await anyio.to_thread.run_sync(self._rows_that_share):
            _, customers, attributes = zip(*shared, strict=True)
            wanted = AttributeValueFilter(set(customers), set(attributes))
            stream = store.attribute_values.stream(wanted)
            shared -= {(value.id, *value.key) async for value in stream}
        if shared:
            message = f"{len(shared)} rows were listed that a look-up of their customers lacks"
            raise ListingDriftError(message)

    async def delete_stored(self, work: Work) -> None:
        """Delete what `find` has found.

        A stop lets the calls under way be answered. What was on the wire when this was cancelled
        may have been deleted without being counted. Raises what the calls raise.
        """
        work.progress.begin("Deleting", self.found)
        last = 0
        while not work.stopper.stopped:
            ids = await self._column(
                "SELECT id FROM rows WHERE id > ? ORDER BY id LIMIT ?", last, _CHUNK_IDS
            )
            if not ids:
                break
            last = ids[-1]
            try:
                report = await work.store.attribute_values.delete(ids)
            except BCAttrValsError as error:
                if isinstance(error.report, DeleteReport):
                    self.deleted += error.report.deleted
                raise
            self.deleted += report.deleted
            work.progress.advance(report.deleted)

    def counts(self) -> list[tuple[str, int]]:
        """Return the rows of a summary."""
        open_cells = self.count if self.found is None else 0
        return [
            ("deleted for empty cells", self.deleted),
            ("empty cells not looked up", open_cells),
            ("not known to be deleted", (self.found or 0) - self.deleted),
        ]


def _key(cell: AttributeValueUpsert | NamedValue | Absent) -> Key:
    # The options of names and addresses do not go with --empty delete.
    assert not isinstance(cell, NamedValue)
    return cast(Key, (cell.customer_id, cell.attribute_id))
