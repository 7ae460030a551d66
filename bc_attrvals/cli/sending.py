"""Sends the values of a checked file, and keeps count of what became of each.

Between the file formats and the library's `upsert_stream`. Rows are read in a thread, a few hundred
at a time, and no further ahead than calls are answered: so little is left over when a job stops.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from itertools import islice
from typing import Final

import anyio.to_thread
import attrs

from bc_attrvals.cli.failures import FailureWriter
from bc_attrvals.cli.interrupts import Stopper
from bc_attrvals.cli.progress import Progress
from bc_attrvals.core.models import AttributeValueUpsert
from bc_attrvals.core.outcomes import OutcomeStatus, UpsertOutcome
from bc_attrvals.errors import BCAttrValsError, RateLimitError, ServerError, TransportError
from bc_attrvals.store import Store
from bc_attrvals.tables.reading import BadRow, Entry

__all__ = ["Sender", "Totals"]

_CHUNK_ROWS: Final = 500
#: Values given to the library and not answered yet: enough for three calls of ten and the next.
_MOST_OUTSTANDING: Final = 100
#: So many values lost in a row, for want of any answer or to errors of the service, each after
#: all its tries: nobody is there, and going on would take hours to say so.
_MOST_LOST_IN_A_ROW: Final = 30


@attrs.define
class Totals:
    """What became of the values of a file; `skipped` rows were bad and left out."""

    stored: int = 0
    failed: int = 0
    superseded: int = 0
    not_sent: int = 0
    unknown: int = 0
    skipped: int = 0
    #: What ended the job early.
    error: BCAttrValsError | None = None
    #: The first reason a value failed for.
    first_reason: str | None = None

    @property
    def complete(self) -> bool:
        """Whether every row was stored or gave way to a later one."""
        return not (self.failed or self.not_sent or self.unknown or self.skipped)

    def as_dict(self) -> dict[str, object]:
        """Return the counts for a machine."""
        return {
            "stored": self.stored,
            "failed": self.failed,
            "superseded": self.superseded,
            "not_sent": self.not_sent,
            "unknown": self.unknown,
            "skipped": self.skipped,
            "error": None if self.error is None else str(self.error),
        }


class Sender:
    """One upsert of a file's values. `failures`, if any, gets all that were not stored."""

    def __init__(self, entries: Iterator[Entry], failures: FailureWriter | None = None) -> None:
        self.totals = Totals()
        self._entries = entries
        self._failures = failures
        # Values read and not yet given to the library.
        self._read: deque[AttributeValueUpsert] = deque()
        # Values given and not yet told of. By identity: equal ones may come several times.
        self._outstanding: dict[int, AttributeValueUpsert] = {}
        self._room = asyncio.Event()
        self._lost_in_a_row = 0
        self._ending = False

    async def run(self, store: Store, stopper: Stopper, progress: Progress) -> Totals:
        """Send all; return early, with everything accounted for, when the job ends or is stopped.

        A stop lets the calls under way be answered until the stopper cancels; what was on the wire
        then is counted as unknown. Errors of the service end in `totals.error`.
        """
        totals = self.totals
        try:
            async with aclosing(store.attribute_values.upsert_stream(self._items(stopper))) as told:
                async for outcome in told:
                    self._note(outcome)
                    progress.advance()
        except asyncio.CancelledError:
            if not stopper.stopped:
                raise
        except BCAttrValsError as error:
            totals.error = error
        await self._account_for_the_rest(totals.error)
        return totals

    async def _items(self, stopper: Stopper) -> AsyncGenerator[AttributeValueUpsert]:
        while await self._read_on():
            while self._read:
                while len(self._outstanding) >= _MOST_OUTSTANDING and not self._ending:
                    self._room.clear()
                    await self._room.wait()
                if self._ending or stopper.stopped:
                    return
                item = self._read.popleft()
                self._outstanding[id(item)] = item
                yield item

    async def _read_on(self) -> bool:
        """Read some rows, unless some are left; False at the end of the file."""
        if self._read:
            return True
        chunk = await anyio.to_thread.run_sync(lambda: list(islice(self._entries, _CHUNK_ROWS)))
        for entry in chunk:
            if isinstance(entry, BadRow):
                self.totals.skipped += 1
                if self._failures is not None:
                    self._failures.bad_row(entry)
            else:
                self._read.append(entry)
        return bool(chunk)

    def _note(self, outcome: UpsertOutcome) -> None:
        totals = self.totals
        self._outstanding.pop(id(outcome.item), None)
        self._room.set()
        if outcome.status is OutcomeStatus.STORED:
            totals.stored += 1
            self._lost_in_a_row = 0
            return
        if outcome.status is OutcomeStatus.SUPERSEDED:
            totals.superseded += 1
            return
        reason = str(outcome.error)
        if outcome.status is OutcomeStatus.FAILED:
            totals.failed += 1
            totals.first_reason = totals.first_reason or reason
        else:
            totals.not_sent += 1
        self._write(outcome.item, reason)
        if isinstance(outcome.error, TransportError | ServerError | RateLimitError):
            self._lost_in_a_row += 1
            if self._lost_in_a_row >= _MOST_LOST_IN_A_ROW or not totals.stored:
                totals.error = totals.error or outcome.error
                self._ending = True

    async def _account_for_the_rest(self, error: BCAttrValsError | None) -> None:
        """Count what had no outcome and what was never read, and write both to the failures."""
        reason = "not sent: interrupted" if error is None else f"not sent: {error}"
        for item in self._outstanding.values():
            if error is None:
                self.totals.unknown += 1
                self._write(item, "interrupted; it may have been stored")
            else:
                # A job that ends by itself tells of all it took; this it never took.
                self.totals.not_sent += 1
                self._write(item, reason)
        while await self._read_on():
            while self._read:
                self.totals.not_sent += 1
                self._write(self._read.popleft(), reason)

    def _write(self, item: AttributeValueUpsert, reason: str) -> None:
        if self._failures is not None:
            self._failures.item(item, reason)
