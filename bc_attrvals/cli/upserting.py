"""The jobs of `upsert`: send the values of a checked file, and account for each of them.

Rows are read in a thread, a few hundred at a time, and no further ahead than calls are answered: so
little is left over when a job stops.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

import attrs

from bc_attrvals.cli.breaker import CircuitBreaker
from bc_attrvals.cli.interrupts import Stopper
from bc_attrvals.cli.journalled import JournalledJob
from bc_attrvals.cli.running import Job, Result, Work
from bc_attrvals.cli.value_file import Values
from bc_attrvals.core.limits import Limits
from bc_attrvals.core.named_value import Item, NamedValue
from bc_attrvals.core.outcomes import OutcomeStatus, UpsertOutcome, UpsertReport
from bc_attrvals.core.sync_plan import calls_for
from bc_attrvals.errors import (
    BCAttrValsError,
    RateLimitError,
    ServerError,
    TransportError,
    UnresolvedError,
)
from bc_attrvals.store import Store
from bc_attrvals.tables.text import counted

#: Values given to the library and not answered yet: enough for three calls of ten and the next.
_MOST_OUTSTANDING: Final = 100
#: The same where more go together: names and addresses, looked up as many as a URL holds at once,
#: and calls of all rows of ten customers.
_MOST_OUTSTANDING_TOGETHER: Final = 1_000


@attrs.define
class _Counts:
    """What became of the values of a file. `unknown` were on the wire when the job was stopped."""

    stored: int = 0
    #: The store keeps another form of them.
    altered: int = 0
    failed: int = 0
    #: Of the failed ones, those whose customer or attribute is not known.
    unresolved: int = 0
    superseded: int = 0
    not_sent: int = 0
    unknown: int = 0


class UpsertJob(Job):
    """One upsert of a file's values. The failures file gets all that were not stored."""

    command = "upsert"
    what = "Storing"
    #: The calls on the wire are answered before the job stops.
    grace_s = 3.0

    def __init__(self, values: Values, limits: Limits) -> None:
        self.total = values.good
        self.files = values.files
        self._values = values
        self._most_outstanding = (
            _MOST_OUTSTANDING_TOGETHER
            if values.is_named or limits.batch_by == "customers"
            else _MOST_OUTSTANDING
        )
        self._counts = _Counts()
        self._first_failure: str | None = None
        # Values read and not yet given to the library.
        self._read: deque[Item] = deque()
        # Values given that have no outcome yet. By identity: equal ones may come several times.
        self._outstanding: dict[int, Item] = {}
        self._room = asyncio.Event()
        self._breaker = CircuitBreaker()
        self._last_error: BCAttrValsError | None = None
        self._was_cut_off = False

    async def prepare(self, store: Store) -> None:
        """Check the names of attributes."""
        await self._values.attribute_ids(store)

    async def run(self, work: Work) -> None:
        """Send all, then delete the values of empty cells.

        A stop lets the calls under way be answered until the stopper cancels.
        """
        items = self._items(work.stopper)
        try:
            async with aclosing(work.store.attribute_values.upsert_stream(items)) as outcomes:
                async for outcome in outcomes:
                    self._note(outcome)
                    work.progress.advance()
        except asyncio.CancelledError:
            self._was_cut_off = True
            raise
        self._breaker.check(self._last_error)
        if self._values.cells is not None and not work.stopper.stopped:
            await self._values.cells.delete_stored(work)

    async def _items(self, stopper: Stopper) -> AsyncGenerator[Item]:
        while await self._read_on():
            while self._read:
                while (
                    len(self._outstanding) >= self._most_outstanding and not self._breaker.is_open
                ):
                    self._room.clear()
                    await self._room.wait()
                if self._breaker.is_open or stopper.stopped:
                    return
                item = self._read.popleft()
                self._outstanding[id(item)] = item
                yield item

    async def _read_on(self) -> bool:
        """Read some rows, unless some are left; False at the end of the file."""
        while not self._read:
            chunk = await self._values.next_chunk()
            if chunk is None:
                return False
            self._read.extend(chunk)
        return True

    def _note(self, outcome: UpsertOutcome) -> None:
        counts, error = self._counts, outcome.error
        self._outstanding.pop(id(outcome.item), None)
        self._room.set()
        if outcome.ok:
            counts.altered += outcome.status is OutcomeStatus.ALTERED
            counts.stored += outcome.status is OutcomeStatus.STORED
            self._breaker.note(answered=1)
            return
        if outcome.status is OutcomeStatus.SUPERSEDED:
            counts.superseded += 1
            return
        if outcome.status is OutcomeStatus.FAILED:
            counts.failed += 1
            counts.unresolved += isinstance(error, UnresolvedError)
            self._first_failure = self._first_failure or str(error)
        else:
            counts.not_sent += 1
        self._values.note_failure(outcome.item, str(error))
        if isinstance(error, TransportError | ServerError | RateLimitError):
            self._breaker.note(unanswered=1)
            self._last_error = error

    async def settle(self, reason: str) -> None:
        """Count what has no outcome and what was never read, and write both to the failures."""
        for item in self._outstanding.values():
            if self._was_cut_off:
                self._counts.unknown += 1
                self._values.note_failure(item, "interrupted; it may have been stored")
            else:
                # A job that ends by itself has an outcome for all it took; this it never took.
                self._counts.not_sent += 1
                self._values.note_failure(item, reason)
        while await self._read_on():
            while self._read:
                self._counts.not_sent += 1
                self._values.note_failure(self._read.popleft(), reason)

    def result(self) -> Result:
        """Return the counts."""
        return _result(self._counts, self._values, self._first_failure)


def _result(counts: _Counts, values: Values, first_failure: str | None) -> Result:
    done = counts.stored + counts.altered
    return Result(
        headline=f"Stored {counted(done, 'value')}",
        fields={
            **attrs.asdict(counts),
            "skipped": values.skipped,
            "deleted": None if values.cells is None else values.cells.deleted,
        },
        counts=[
            ("stored", counts.stored),
            ("stored in another form", counts.altered),
            ("failed", counts.failed),
            ("of them unknown or of a wrong type", counts.unresolved),
            ("superseded by later rows", counts.superseded),
            ("not sent", counts.not_sent),
            ("under way and not known to be stored", counts.unknown),
            *values.counts(),
        ],
        values=done,
        complete=not (counts.failed or counts.not_sent or counts.unknown or values.skipped),
        first_failure=first_failure,
    )


class JournalledUpsertJob(JournalledJob):
    """An upsert with a journal: the library keeps account of each value, and of what is left."""

    command = "upsert"

    async def carry_out(self, work: Work) -> None:
        """Send all that the journal does not have as confirmed, then empty cells as `UpsertJob`."""
        self.report = await work.store.attribute_values.upsert(
            self.items(),
            raise_on_failure=False,
            journal=self.source.journal,
            restart=self.source.restart,
            max_failures=self.max_failures,
        )
        if self.values.cells is not None:
            await self.values.cells.delete_stored(work)

    def result(self) -> Result | None:
        """Return the counts of the report."""
        report = self.report
        if isinstance(report, UpsertReport):
            names = ("stored", "altered", "failed", "superseded", "not_sent")
            counts = _Counts(**{name: getattr(report, name) for name in names})
            counts.unresolved = self.unresolved or 0
            return _result(counts, self.values, self.first_failure)
        if not self.was_cut_off:
            return None
        fields = {"done": self.done(), "skipped": self.values.skipped}
        return Result(headline=self.text_when_cut_off(), fields=fields, counts=None)


class UpsertDryRunJob(Job):
    """What an upsert would send. Only the names of attributes are looked up in the store."""

    command = "upsert"
    what = "Reading"

    def __init__(self, values: Values, limits: Limits) -> None:
        self.total = values.good
        self.files = values.files
        self._values = values
        self._limits = limits
        self._count = 0
        # How often one customer's values give way to another's.
        self._customers = 0
        self._last: object = None

    async def prepare(self, store: Store) -> None:
        """Check the names of attributes."""
        await self._values.attribute_ids(store)

    async def run(self, work: Work) -> None:
        """Read the file to its end."""
        while (chunk := await self._values.next_chunk()) is not None:
            self._count += len(chunk)
            for item in chunk:
                customer = item.customer if isinstance(item, NamedValue) else item.customer_id
                self._customers += customer != self._last
                self._last = customer
            work.progress.advance(len(chunk))

    def result(self) -> Result:
        """Return how many values and calls it would be."""
        values = self._values
        by_customers = self._limits.batch_by == "customers"
        calls = calls_for(self._customers if by_customers else self._count, self._limits.batch_size)
        text = f"Would store {counted(self._count, 'value')} in at most {counted(calls, 'call')}."
        if values.cells is not None:
            text += f" Would then look up {counted(values.cells.count, 'empty cell')}."
        return Result(
            headline=text,
            fields={
                "dry_run": True,
                "values": self._count,
                "planned_calls": calls,
                "empty_cells": None if values.cells is None else values.cells.count,
                "skipped": values.skipped,
            },
            counts=None,
            complete=not values.skipped,
        )
