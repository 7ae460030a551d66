"""Bulk upserts: a lazily read input becomes calls of ten, three at once, one outcome per item.

Between the resource above and the scheduler below. One `UpsertJob` reads its input no further
than it can send, keeps equal keys apart, and finds the bad items of a refused call.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import (
    Awaitable,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import aclosing
from contextvars import copy_context
from functools import partial
from typing import Final, TypeAlias

import attrs

from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.core.models import AttributeValue, AttributeValueUpsert, Key
from bc_attrvals.core.outcomes import OutcomeStatus, UpsertOutcome, UpsertReport
from bc_attrvals.core.responses import Echo, decode_echoes, decode_rows, indexes_named
from bc_attrvals.core.retry import ends_job
from bc_attrvals.errors import (
    BCAttrValsError,
    ConnectionLostError,
    PayloadTooLargeError,
    StoreStateError,
    UnconfirmedError,
    UnprocessableError,
)
from bc_attrvals.reading.pager import pages
from bc_attrvals.scheduling.calls import Calls
from bc_attrvals.scheduling.scheduler import Worker
from bc_attrvals.writing.bad_items import Bisection, Suspects
from bc_attrvals.writing.batching import Batcher, KeyRegistry
from bc_attrvals.writing.sources import LOOK_AHEAD, Items, open_input

__all__ = ["Outcomes", "UpsertJob"]

#: How often an item is sent whose value the service then does not hold.
_MOST_SENDINGS: Final = 2
# Asked for with each call, and an enum's members take their time.
_STORED: Final = OutcomeStatus.STORED

#: What is told of a stored value.
_Row: TypeAlias = AttributeValue | Echo


class Outcomes:
    """Where a job puts what became of its items; counts them all."""

    __slots__ = ("_failures", "_most_failures", "_queue", "counts", "decode")

    def __init__(self, most_failures: int, queue: deque[UpsertOutcome] | None = None) -> None:
        self.counts = dict.fromkeys(OutcomeStatus, 0)
        self._failures: list[UpsertOutcome] = []
        self._most_failures = most_failures
        # Outcomes are made one by one only where somebody reads them one by one.
        self._queue = queue
        #: Reads the rows of an answer, whole only where somebody reads them.
        self.decode: Callable[[bytes], Sequence[_Row]]
        self.decode = decode_echoes if queue is None else decode_rows

    @property
    def untaken(self) -> int:
        """How many outcomes nobody has read yet; none where nobody reads them."""
        return len(self._queue) if self._queue is not None else 0

    def stored(self, items: Sequence[AttributeValueUpsert], rows: Sequence[_Row]) -> None:
        """Note items as stored, each with its row."""
        self.counts[_STORED] += len(items)
        if self._queue is not None:
            for item, row in zip(items, rows, strict=True):
                assert isinstance(row, AttributeValue)
                self._queue.append(UpsertOutcome(item, _STORED, row))

    def superseded(self, item: AttributeValueUpsert) -> None:
        """Note an item as superseded."""
        self.counts[OutcomeStatus.SUPERSEDED] += 1
        if self._queue is not None:
            self._queue.append(UpsertOutcome(item, OutcomeStatus.SUPERSEDED))

    def lost(
        self, items: Iterable[AttributeValueUpsert], status: OutcomeStatus, error: BCAttrValsError
    ) -> None:
        """Note items as failed or not sent, for one reason."""
        for item in items:
            self.counts[status] += 1
            wanted = len(self._failures) < self._most_failures
            if not wanted and self._queue is None:
                continue
            outcome = UpsertOutcome(item, status, None, error)
            if wanted:
                self._failures.append(outcome)
            if self._queue is not None:
                self._queue.append(outcome)

    def report(self, calls: int, retries: int, seconds: float) -> UpsertReport:
        """Return the sum."""
        return UpsertReport(
            stored=self.counts[OutcomeStatus.STORED],
            failed=self.counts[OutcomeStatus.FAILED],
            superseded=self.counts[OutcomeStatus.SUPERSEDED],
            not_sent=self.counts[OutcomeStatus.NOT_SENT],
            failures=tuple(self._failures),
            calls=calls,
            retries=retries,
            seconds=seconds,
        )


@attrs.define(eq=False)
class _Batch:
    """One batch under way, with all the calls it comes to; then the next of the same task."""

    keyed: dict[Key, AttributeValueUpsert]
    worker: Worker
    # What has no outcome yet, and the part of it that is sent now.
    open: Bisection
    part: list[AttributeValueUpsert] = attrs.field(factory=list)
    # Keys that went out before, in a call that was refused or not confirmed.
    tried: set[Key] = attrs.field(factory=set)

    def begin(self, keyed: dict[Key, AttributeValueUpsert]) -> None:
        """Go on with the next items."""
        self.keyed, self.part = keyed, []
        self.open.begin(keyed.values())
        self.tried.clear()


class UpsertJob:
    """One bulk upsert. Step it until it is done, then look at `error`.

    Cancelling `step` and then `abandon` leave the job at once: calls on the wire end by themselves
    and keep their slots and keys until then; nothing else is sent.

    `before_send` is awaited with the items of each batch before any of them is sent; an error of
    it ends the job. `most_running` bounds the batches that are begun and not settled. Unless
    `in_step_alone`, what is done with one batch begins the next by itself, as long as the outcomes
    are taken.
    """

    def __init__(
        self,
        items: Items,
        calls: Calls,
        *,
        registry: KeyRegistry,
        outcomes: Outcomes,
        before_send: Callable[[Sequence[AttributeValueUpsert]], Awaitable[None]] | None = None,
        most_running: int | None = None,
        in_step_alone: bool = False,
    ) -> None:
        self._calls = calls
        self._size = calls.sizes.batch
        self._registry = registry
        self._outcomes = outcomes
        self._batcher = Batcher(registry, self._size, self._wake)
        self._running: set[_Batch] = set()
        # As many again while others wait for their next try. Where batches are begun in steps, one
        # more than can be on the wire, so that a slot that falls free is taken at once.
        writes = calls.limits.writes
        self._in_step_alone = in_step_alone
        self._most_running = most_running or writes + in_step_alone
        self._most_waiting = 0 if most_running else writes
        self._before_send = before_send
        self._budget = LOOK_AHEAD
        self._wakeup: asyncio.Event = asyncio.Event()
        self._suspects = Suspects()
        self._stopped_by: BCAttrValsError | None = None
        self._crash: BaseException | None = None
        self._abandoned = False
        # One for all that reads the input: what a generator sets, it can reset.
        self._context = copy_context()
        self._loop = asyncio.get_running_loop()
        self._started_at = self._loop.time()
        # Last, for a loop with eager tasks begins to read at once.
        self._input = open_input(items, self._wake)

    @property
    def error(self) -> BaseException | None:
        """What ended the job early: an error of the service, or of the input itself."""
        return self._crash or self._stopped_by or self._input.error

    @property
    def calls(self) -> int:
        """Requests sent."""
        return self._calls.calls

    @property
    def retries(self) -> int:
        """Those of the requests that were sent again."""
        return self._calls.retries

    @property
    def appetite(self) -> int:
        """The most items that one `step` reads of its input."""
        return (self._most_running + 1) * LOOK_AHEAD

    def report(self) -> UpsertReport:
        """Return the sum up to now."""
        return self._outcomes.report(self.calls, self.retries, self._loop.time() - self._started_at)

    async def step(self) -> bool:
        """Send what can be sent and wait until something has changed; False when all is done."""
        self._wakeup.clear()
        self._launch()
        if not self._running and not self._more_to_come():
            await self._input.close()
            if self._stopped_by is not None:
                unsent = self._input.drain()
                self._outcomes.lost(unsent, OutcomeStatus.NOT_SENT, self._stopped_by)
            return False
        if not self._wakeup.is_set():
            await self._wakeup.wait()
        return True

    async def abandon(self) -> None:
        """Let go: see the class."""
        self._abandoned = True
        for batch in list(self._running):
            batch.worker.abandon()
        self._batcher.drain()
        await self._input.close()

    def _wake(self) -> None:
        self._wakeup.set()

    def _more_to_come(self) -> bool:
        if self._abandoned or self._stopped_by is not None or self._crash is not None:
            return False
        return not self._input.exhausted or bool(self._batcher)

    def _launch(self) -> None:
        while self._room() > 0 and (keyed := self._context.run(self._next)):
            # While one waits for its next try, another batch may go.
            worker = Worker(on_pause=self._wake)
            batch = _Batch(keyed, worker, Bisection(keyed.values(), self._suspects))
            self._running.add(batch)
            task = self._calls.start(self._work(batch), worker, self._context)
            task.add_done_callback(partial(self._end, batch))

    def _next(self) -> dict[Key, AttributeValueUpsert] | None:
        """Read on, and return what is to be sent next; None when there is nothing now."""
        while self._more_to_come():
            self._read()
            ready = len(self._batcher.ready)
            if not ready or (ready < self._size and not self._send_partial()):
                return None
            self._budget = LOOK_AHEAD
            if keyed := self._batcher.take():
                return keyed
        return None

    def _room(self) -> int:
        """Return how many more batches may be under way; below zero, how many are too many."""
        room = self._most_running - len(self._running)
        if room > 0 or not self._most_waiting:
            return room
        waiting = 0
        for batch in self._running:
            waiting += batch.worker.has_failed and not batch.worker.on_wire
        return room + min(waiting, self._most_waiting)

    def _send_partial(self) -> bool:
        return self._input.exhausted or self._input.pausing or self._budget <= 0

    def _read(self) -> None:
        # An item adds one to what is ready at most, so that many are read before looking again.
        while (most := min(self._budget, self._size - len(self._batcher.ready))) > 0:
            items = self._input.pull(most)
            self._budget -= len(items)
            for superseded in self._batcher.fill(items):
                self._outcomes.superseded(superseded)
            if len(items) < most:
                return

    async def _work(self, batch: _Batch) -> None:
        """Send a batch and, unless it is for `step` to begin them, those that come after it."""
        while True:
            await self._send_all(batch)
            awaited = self._close(batch)
            untaken = self._outcomes.untaken
            if untaken:
                self._wake()
            # Whoever waited for a key has its turn before this job takes it again.
            if self._in_step_alone or awaited or untaken > self._size:
                return
            if len(self._running) > self._most_running and self._room() < 0:
                return
            keyed = self._next()
            if keyed is None:
                return
            batch.begin(keyed)

    def _close(self, batch: _Batch) -> bool:
        """Close the books on a batch; return whether anybody waited for its keys."""
        awaited = self._registry.release(batch.keyed)
        if self._stopped_by is not None:
            self._give_up(batch.open.items(), batch, self._stopped_by)
        batch.keyed = {}
        return awaited

    def _end(self, batch: _Batch, task: asyncio.Task[None]) -> None:
        """Note that a task is gone; called even when it was cancelled before it began."""
        self._running.discard(batch)
        left = batch.open.items()
        if batch.keyed:
            self._close(batch)
        self._wake()
        if not task.cancelled():
            if (crash := task.exception()) is not None:
                # A fault of our own: it must not pass for a finished batch.
                self._crash = crash
        elif not self._abandoned and self._stopped_by is None:
            # By somebody who cancels all tasks there are, say.
            self._crash = asyncio.CancelledError("a task of the upsert was cancelled")
            message = "the task that sent it was cancelled"
            lost = ConnectionLostError(message, may_have_been_applied=True)
            self._give_up(left, batch, lost)

    async def _send_all(self, batch: _Batch) -> None:
        """Send a batch, and the parts of it that are left when bad items are taken out."""
        left = batch.open
        sendings: dict[Key, int] = {}
        if self._before_send is not None:
            await self._before_send(left.items())
        while self._stopped_by is None and (part := left.take()):
            batch.part = part
            try:
                rows = await self._calls.put(part, self._outcomes.decode, batch.worker)
                unconfirmed = self._note_stored(part, rows)
                left.settle(part)
                if unconfirmed:
                    left.again(unconfirmed)
                    await self._read_back(unconfirmed, batch, sendings)
            except UnprocessableError as error:
                bad = left.refused(part, indexes_named(error.errors, len(part)))
                self._outcomes.lost(bad, OutcomeStatus.FAILED, error)
                batch.tried.update(item.key for item in part)
            except PayloadTooLargeError as error:
                bad = left.too_large(part)
                self._outcomes.lost(bad, OutcomeStatus.FAILED, error)
                batch.tried.update(item.key for item in part)
            except BCAttrValsError as error:
                if isinstance(error, StoreStateError):
                    self._give_up(part, batch, error)
                else:
                    self._outcomes.lost(part, OutcomeStatus.FAILED, error)
                left.lost(part)
                if ends_job(error):
                    self._stop(error, batch)

    def _give_up(
        self, items: Sequence[AttributeValueUpsert], batch: _Batch, error: BCAttrValsError
    ) -> None:
        """Note what is left when the job has ended: failed if it ever went out, else not sent."""
        if batch.worker.was_sent:
            batch.tried.update(item.key for item in batch.part)
        for item in items:
            tried = item.key in batch.tried
            status = OutcomeStatus.FAILED if tried else OutcomeStatus.NOT_SENT
            self._outcomes.lost([item], status, error)

    def _note_stored(
        self, part: Sequence[AttributeValueUpsert], rows: Sequence[_Row]
    ) -> list[AttributeValueUpsert]:
        """Pair the answer with what was sent; return the items it does not confirm."""
        if _are_echoes(part, rows):
            self._outcomes.stored(part, rows)
            if self._suspects.known:
                self._suspects.clear(part)
            return []
        by_key = {row.key: row for row in rows}
        confirmed = [item for item in part if _is_held(item, by_key)]
        self._outcomes.stored(confirmed, [by_key[item.key] for item in confirmed])
        self._suspects.clear(confirmed)
        return [item for item in part if not _is_held(item, by_key)]

    async def _read_back(
        self, items: Sequence[AttributeValueUpsert], batch: _Batch, sendings: dict[Key, int]
    ) -> None:
        """Read unconfirmed items, and settle those that are not to be sent again."""
        wanted = AttributeValueFilter(
            customer_id_in={item.customer_id for item in items},
            attribute_id_in={item.attribute_id for item in items},
        )
        by_key: dict[Key, AttributeValue] = {}
        try:
            async with aclosing(pages(self._calls, wanted)) as found:
                async for page in found:
                    by_key.update((row.key, row) for row in page.data)
        except BCAttrValsError as error:
            self._outcomes.lost(items, OutcomeStatus.FAILED, error)
            batch.open.settle(items)
            if ends_job(error):
                self._stop(error, batch)
            return
        confirmed = [item for item in items if _is_held(item, by_key)]
        self._outcomes.stored(confirmed, [by_key[item.key] for item in confirmed])
        batch.open.settle(confirmed)
        for item in items:
            if _is_held(item, by_key):
                continue
            sendings[item.key] = sendings.get(item.key, 1) + 1
            if sendings[item.key] <= _MOST_SENDINGS:
                batch.tried.add(item.key)
                continue
            held = "another value" if item.key in by_key else "no value"
            message = f"sent {_MOST_SENDINGS} times with success, yet the service holds {held}"
            self._outcomes.lost([item], OutcomeStatus.FAILED, UnconfirmedError(message))
            batch.open.settle([item])

    def _stop(self, error: BCAttrValsError, batch: _Batch) -> None:
        """End the job: what waits is not sent, what is on the wire is waited for, once."""
        if self._stopped_by is not None:
            return
        self._stopped_by = error
        self._input.stop()
        self._outcomes.lost(self._batcher.drain(), OutcomeStatus.NOT_SENT, error)
        for other in self._running:
            if other is not batch:
                other.worker.finish()


def _are_echoes(items: Sequence[AttributeValueUpsert], rows: Sequence[_Row]) -> bool:
    if len(items) != len(rows):
        return False
    # As long as each other: being told so costs as much as all the rest.
    for item, row in zip(items, rows):  # noqa: B905
        if (
            item.value != row.attribute_value
            or item.customer_id != row.customer_id
            or item.attribute_id != row.attribute_id
        ):
            return False
    return True


def _is_held(item: AttributeValueUpsert, by_key: Mapping[Key, _Row]) -> bool:
    row = by_key.get(item.key)
    return row is not None and row.attribute_value == item.value
