"""Deletes the values that empty cells say shall not exist (`--empty delete`).

Beside the upsert or the sync of the same file: `watch` hears of the cells while the file is
checked, `find` looks up what is stored for them once the values are sent, `delete` deletes it.
Keys and ids are kept in a temporary database on disk, so memory stays bounded.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing
from typing import Final, Self

import anyio.to_thread

from bc_attrvals.cli.interrupts import Stopper
from bc_attrvals.cli.progress import Progress
from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.core.models import AttributeValue, Key
from bc_attrvals.core.outcomes import DeleteReport
from bc_attrvals.errors import BCAttrValsError
from bc_attrvals.store import StoreView
from bc_attrvals.tables.rows import Absent, BadRow, Cell, Entry

__all__ = ["EmptyCells", "told_of_empty_cells"]

_CHUNK_KEYS: Final = 5_000
#: Customers of one lookup; the library splits it into listings whose URLs fit.
_CHUNK_CUSTOMERS: Final = 5_000
_CHUNK_IDS: Final = 500
#: About as many ids fit in one URL, and so many rows on a page: what the choice of a way costs by.
_IDS_A_LISTING: Final = 450
_ROWS_A_PAGE: Final = 250

_TABLES: Final = (
    "PRAGMA journal_mode = OFF",
    "PRAGMA synchronous = OFF",
    "CREATE TABLE cells (customer INTEGER, attribute INTEGER, PRIMARY KEY (customer, attribute))",
    "CREATE TABLE rows (id INTEGER PRIMARY KEY)",
)


class EmptyCells:
    """The empty cells of one file, and what became of the values stored for them.

    `count` is how many values shall not exist, known once `watch` is at its end. `found` is how
    many of them are stored, None until all are looked up; `deleted` those whose deletion the
    service confirmed.
    """

    def __init__(self) -> None:
        self.count = 0
        self.found: int | None = None
        self.deleted = 0
        # An empty name is a private file of SQLite's own, removed when it is closed.
        self._connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        for statement in _TABLES:
            self._connection.execute(statement)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._connection.close()

    def watch(self, cells: Iterable[Cell]) -> Iterator[Entry]:
        """Hand on the values and bad rows of a file, and keep the keys of its empty cells. Blocks.

        Of cells with the same key the last one counts: a value behind an empty cell stays.
        """
        latest: dict[Key, bool] = {}
        for cell in cells:
            if isinstance(cell, Absent):
                latest[cell.customer_id, cell.attribute_id] = True
            else:
                if not isinstance(cell, BadRow):
                    latest[cell.customer_id, cell.attribute_id] = False
                yield cell
            if len(latest) >= _CHUNK_KEYS:
                self._keep(latest)
                latest = {}
        self._keep(latest)
        self.count = self._number("SELECT count(*) FROM cells")

    def _keep(self, latest: dict[Key, bool]) -> None:
        execute = self._connection.execute
        execute("BEGIN")
        if execute("SELECT 1 FROM cells LIMIT 1").fetchone() is not None:
            self._connection.executemany(
                "DELETE FROM cells WHERE customer = ? AND attribute = ?",
                (key for key, empty in latest.items() if not empty),
            )
        self._connection.executemany(
            "INSERT OR IGNORE INTO cells VALUES (?, ?)",
            (key for key, empty in latest.items() if empty),
        )
        execute("COMMIT")

    def _number(self, statement: str) -> int:
        (number,) = self._connection.execute(statement).fetchone()
        return int(number)

    async def find(self, store: StoreView, stopper: Stopper | None = None) -> int:
        """Look up what is stored for the empty cells, in few calls; return how many values.

        By customers or, where that takes fewer calls, by listing their attributes whole. A stop
        ends it early, with `found` None. Raises what the listing raises.
        """
        async for wanted in self._filters(store):
            async with aclosing(store.attribute_values.pages(wanted)) as pages:
                async for page in pages:
                    if stopper is not None and stopper.stopped:
                        return 0
                    await anyio.to_thread.run_sync(self._note, page.data)
        self.found = await anyio.to_thread.run_sync(self._number, "SELECT count(*) FROM rows")
        return self.found

    async def _filters(self, store: StoreView) -> AsyncGenerator[AttributeValueFilter]:
        attributes = await self._column("SELECT DISTINCT attribute FROM cells ORDER BY attribute")
        if not attributes:
            return
        whole = AttributeValueFilter(attribute_id_in=attributes)
        customers = await anyio.to_thread.run_sync(
            self._number, "SELECT count(DISTINCT customer) FROM cells"
        )
        listings = -(-customers // _IDS_A_LISTING)
        # Counting is a call, too.
        if listings > 2 and await store.attribute_values.count(whole) / _ROWS_A_PAGE <= listings:
            yield whole
            return
        last = 0
        while chunk := await self._column(
            f"SELECT DISTINCT customer FROM cells WHERE customer > {last:d}"  # noqa: S608 - a number
            f" ORDER BY customer LIMIT {_CHUNK_CUSTOMERS:d}"
        ):
            last = chunk[-1]
            yield AttributeValueFilter(customer_id_in=chunk, attribute_id_in=attributes)

    async def _column(self, statement: str) -> list[int]:
        def read() -> list[int]:
            return [number for (number,) in self._connection.execute(statement)]

        return await anyio.to_thread.run_sync(read)

    def _note(self, values: list[AttributeValue]) -> None:
        execute = self._connection.execute
        execute("BEGIN")
        for value in values:
            execute(
                "INSERT OR IGNORE INTO rows"
                " SELECT ? FROM cells WHERE customer = ? AND attribute = ?",
                (value.id, *value.key),
            )
        execute("COMMIT")

    async def delete(
        self, store: StoreView, stopper: Stopper | None = None, progress: Progress | None = None
    ) -> int:
        """Delete what was found; return how many values, which `deleted` says after errors, too.

        A stop lets the calls under way be answered. What was on the wire when this was cancelled
        may have been deleted without being counted. Raises what the deletion raises.
        """
        last = 0
        while not (stopper is not None and stopper.stopped):
            ids = await self._column(
                f"SELECT id FROM rows WHERE id > {last:d} ORDER BY id LIMIT {_CHUNK_IDS:d}"  # noqa: S608
            )
            if not ids:
                break
            last = ids[-1]
            try:
                report = await store.attribute_values.delete(ids)
            except BCAttrValsError as error:
                if isinstance(error.report, DeleteReport):
                    self.deleted += error.report.deleted
                raise
            self.deleted += report.deleted
            if progress is not None:
                progress.advance(report.deleted)
        return self.deleted


def told_of_empty_cells(cells: EmptyCells) -> list[tuple[str, str]]:
    """Return the rows of a summary that say what became of the values of empty cells."""
    rows = [("deleted for empty cells", f"{cells.deleted:,}")]
    if cells.found is None and cells.count:
        rows.append(("empty cells not looked up", f"{cells.count:,}"))
    elif cells.found is not None and cells.found > cells.deleted:
        rows.append(("not known to be deleted", f"{cells.found - cells.deleted:,}"))
    return rows
