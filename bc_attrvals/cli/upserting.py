"""The job of `upsert`: sends the values of a checked file, and accounts for each of them.

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
from bc_attrvals.cli.running import Job, Result, Work
from bc_attrvals.cli.value_file import Values
from bc_attrvals.core.models import AttributeValueUpsert
from bc_attrvals.core.outcomes import OutcomeStatus, UpsertOutcome
from bc_attrvals.errors import BCAttrValsError, RateLimitError, ServerError, TransportError
from bc_attrvals.tables.text import counted

__all__ = ["UpsertJob"]

#: Values given to the library and not answered yet: enough for three calls of ten and the next.
_MOST_OUTSTANDING: Final = 100


@attrs.define
class _Counts:
    """What became of the values of a file. `unknown` were on the wire when the job was stopped."""

    stored: int = 0
    failed: int = 0
    superseded: int = 0
    not_sent: int = 0
    unknown: int = 0


class UpsertJob(Job):
    """One upsert of a file's values. The failures file gets all that were not stored."""

    command = "upsert"
    what = "Storing"
    #: The calls on the wire are answered before the job stops.
    grace_s = 3.0

    def __init__(self, values: Values) -> None:
        self.total = values.good
        self.files = values.files
        self.summary_to_stderr = values.failures_to_stdout
        self._values = values
        self._counts = _Counts()
        self._first_failure: str | None = None
        # Values read and not yet given to the library.
        self._read: deque[AttributeValueUpsert] = deque()
        # Values given that have no outcome yet. By identity: equal ones may come several times.
        self._outstanding: dict[int, AttributeValueUpsert] = {}
        self._room = asyncio.Event()
        self._breaker = CircuitBreaker()
        self._last_error: BCAttrValsError | None = None
        self._was_cut_off = False

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

    async def _items(self, stopper: Stopper) -> AsyncGenerator[AttributeValueUpsert]:
        while await self._read_on():
            while self._read:
                while len(self._outstanding) >= _MOST_OUTSTANDING and not self._breaker.is_open:
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
            counts.stored += 1
            self._breaker.note(answered=1)
            return
        if outcome.status is OutcomeStatus.SUPERSEDED:
            counts.superseded += 1
            return
        if outcome.status is OutcomeStatus.FAILED:
            counts.failed += 1
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
        counts, values = self._counts, self._values
        return Result(
            headline=f"Stored {counted(counts.stored, 'value')}",
            fields={
                **attrs.asdict(counts),
                "skipped": values.skipped,
                "deleted": None if values.cells is None else values.cells.deleted,
            },
            counts=[
                ("stored", counts.stored),
                ("failed", counts.failed),
                ("superseded by later rows", counts.superseded),
                ("not sent", counts.not_sent),
                ("under way and not known to be stored", counts.unknown),
                *values.counts(),
            ],
            values=counts.stored,
            complete=not (counts.failed or counts.not_sent or counts.unknown or values.skipped),
            first_failure=self._first_failure,
        )
