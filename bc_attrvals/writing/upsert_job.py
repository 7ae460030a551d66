"""Bulk upserts: a lazily read input becomes calls of ten, three at once, one outcome per item.

Between the resource above and the scheduler below. One `UpsertJob` reads its input only as far as
it can send, keeps equal keys apart, and gives each batch to `batch_sender`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from contextvars import copy_context
from functools import partial
from typing import Final, Protocol

from bc_attrvals.core.models import AttributeValueUpsert, Key
from bc_attrvals.core.outcomes import OutcomeStatus, UpsertReport
from bc_attrvals.errors import BCAttrValsError, ConnectionLostError
from bc_attrvals.scheduling.calls import Calls
from bc_attrvals.scheduling.exchange import Worker
from bc_attrvals.writing.batch_sender import Batch, BatchSender
from bc_attrvals.writing.batching import MOST_BY_CUSTOMERS, Batcher, KeyRegistry
from bc_attrvals.writing.outcomes import Outcomes
from bc_attrvals.writing.sources import LOOK_AHEAD, OpenSource

#: By customers, the items that are read at once, and the seconds after which reading stops.
_READ_AT_ONCE: Final = 50
_LONGEST_READ_S: Final = 0.01


class BatchLog(Protocol):
    """Records the batches and outcomes of a job; several workers call it at once."""

    async def begin(self, items: Sequence[AttributeValueUpsert]) -> None:
        """Record all outcomes so far, together with a batch that is not sent yet."""

    async def end(self) -> None:
        """Record all outcomes so far."""


class UpsertJob:
    """One bulk upsert: `run` it, or `step` it until it is done; then check `error`.

    A few workers send its batches. Each begins the next batch by itself while the outcomes are
    taken and the input has entries ready; `step` starts workers that have stopped.

    With a `log`, each batch is noted before it is sent, together with the outcomes of its worker's
    last one. At most `Limits.writes` batches are begun and not noted. An error of the
    log ends the job.
    """

    def __init__(
        self,
        open_source: OpenSource,
        calls: Calls,
        *,
        registry: KeyRegistry,
        outcomes: Outcomes,
        log: BatchLog | None = None,
    ) -> None:
        self._calls = calls
        self._registry = registry
        self._outcomes = outcomes
        self._log = log
        self._sender = BatchSender(calls, outcomes, self._stop)
        self._batcher = Batcher(registry, calls.sizes.batch, self._wake)
        self._running: set[Batch] = set()
        writes = calls.limits.writes
        self._most_running = writes
        # As many more batches while others wait for their next try.
        self._most_waiting = 0 if log is not None else writes
        self._budget = MOST_BY_CUSTOMERS if calls.sizes.customers else LOOK_AHEAD
        self._wakeup: asyncio.Event = asyncio.Event()
        self._crash: BaseException | None = None
        self._abandoned = False
        # Whether it begins no further batch.
        self._is_over = False
        # All reads of the input share one context, so that a generator can reset what it has set.
        # Each worker sends in its own copy, so that traces of different calls do not see each
        # other's variables.
        self._context = copy_context()
        self._loop = asyncio.get_running_loop()
        self._started_at = self._loop.time()
        # Last, because a loop with eager tasks begins to read at once.
        self._input = open_source(self._wake, self._context)

    @property
    def error(self) -> BaseException | None:
        """What ended the job early: an error of a call, of the input, or of our own."""
        return self._crash or self._sender.stopped_by or self._input.error

    def report(self) -> UpsertReport:
        """Return the report of the job so far."""
        seconds = self._loop.time() - self._started_at
        return self._outcomes.report(self._calls.calls, self._calls.retries, seconds)

    async def run(self, after_step: Callable[[], Awaitable[None]] | None = None) -> None:
        """Step until all is done, and await `after_step` after each.

        An error of `after_step` ends the job like one of the log. Cancelled, it abandons the job.
        """
        try:
            while await self.step():
                if after_step is not None:
                    try:
                        await after_step()
                    except Exception as error:  # noqa: BLE001 - see `error`
                        self._crash, self._is_over = error, True
        except BaseException:
            await self.abandon()
            raise

    async def step(self) -> bool:
        """Start what can be sent and wait for a change; return False when all is done."""
        self._wakeup.clear()
        self._launch()
        if not self._running and not self._more_to_come():
            await self._input.close()
            if (ended_by := self._sender.stopped_by or self._crash) is not None:
                unsent = [*self._batcher.drain(), *self._input.drain()]
                reason = _reason(ended_by, was_sent=False)
                self._outcomes.lost(unsent, OutcomeStatus.NOT_SENT, reason)
            return False
        if not self._wakeup.is_set():
            await self._wakeup.wait()
        return True

    async def abandon(self) -> None:
        """Stop waiting for the job: calls on the wire end by themselves, and no others are sent.

        They keep their slots and keys until they have ended.
        """
        self._abandoned = self._is_over = True
        for batch in list(self._running):
            batch.worker.abandon()
        self._batcher.drain()
        await self._input.close()

    def _wake(self) -> None:
        self._wakeup.set()

    def _more_to_come(self) -> bool:
        return not self._is_over and (not self._input.exhausted or bool(self._batcher))

    def _launch(self) -> None:
        while self._room() > 0 and (keyed := self._context.run(self._next)):
            # `on_pause`: while a batch waits for its next try, another may start.
            worker = Worker(on_pause=self._wake)
            batch = self._sender.batch(keyed, worker)
            self._running.add(batch)
            task = self._calls.start(self._work(batch), worker, self._context.copy())
            task.add_done_callback(partial(self._end, batch))

    def _next(self) -> dict[Key, AttributeValueUpsert] | None:
        """Read on and return the next batch, by key; None if there is none now."""
        batcher, sizes = self._batcher, self._calls.sizes
        batcher.size, batcher.customers = sizes.batch, sizes.customers
        if not (self._is_over or batcher.ready or batcher.customers) and self._budget > 0:
            # The usual case: the next items make one full batch.
            items = self._input.pull(batcher.size)
            if (keyed := batcher.pass_through(items)) is not None:
                self._budget = LOOK_AHEAD
                return keyed
            self._fill(items)
        while self._more_to_come():
            room = self._read()
            is_whole = not room or self._budget <= 0 or self._input.exhausted or self._input.pausing
            if not batcher.ready or not is_whole:
                return None
            self._budget = MOST_BY_CUSTOMERS if batcher.customers else LOOK_AHEAD
            if keyed := batcher.take():
                return keyed
        return None

    def _room(self) -> int:
        """Return how many more batches may start; negative if too many are under way."""
        room = self._most_running - len(self._running)
        if room > 0 or not self._most_waiting:
            return room
        waiting = 0
        for batch in self._running:
            waiting += batch.worker.has_failed and not batch.worker.on_wire
        return room + min(waiting, self._most_waiting)

    def _read(self) -> int:
        """Read the entries that are ready and that there is room for; return the room left."""
        batcher = self._batcher
        room = batcher.room
        enough_at = self._loop.time() + _LONGEST_READ_S if batcher.customers else math.inf
        while room and self._budget > 0:
            most = min(room, self._budget, _READ_AT_ONCE)
            items = self._input.pull(most)
            self._fill(items)
            room = batcher.room
            if len(items) < most:
                break
            if batcher.customers and self._loop.time() > enough_at:
                # An input that computes its items must not block the loop for all of them.
                self._budget = 0
        return room

    def _fill(self, items: Sequence[AttributeValueUpsert]) -> None:
        self._budget -= len(items)
        for superseded in self._batcher.fill(items):
            self._outcomes.superseded(superseded)

    async def _work(self, batch: Batch) -> None:
        """Send a batch, and then further ones while their items are ready."""
        log = self._log
        while True:
            if log is not None:
                batch.is_noted = False
                await log.begin(batch.open.items())
                batch.is_noted = True
            await self._sender.send(batch)
            awaited = self._close(batch)
            untaken = self._outcomes.untaken
            if untaken and log is None:
                self._wake()
            # A job that waited for a key gets it before this job takes it again.
            is_surplus = len(self._running) > self._most_running and self._room() < 0
            stops = awaited or untaken > self._outcomes.most_untaken or is_surplus
            keyed = None if stops else self._context.run(self._next)
            if keyed is None:
                if log is not None:
                    batch.is_noted = False
                    await log.end()
                return
            batch.begin(keyed)

    def _close(self, batch: Batch) -> bool:
        """Settle the rest of a batch; return whether another item waited for one of its keys."""
        awaited = self._registry.release(batch.keyed)
        if self._sender.stopped_by is not None:
            self._sender.give_up(batch.open.items(), batch, self._sender.stopped_by)
        batch.keyed = {}
        return awaited

    def _end(self, batch: Batch, task: asyncio.Task[None]) -> None:
        """Note that a task has ended; called even if it was cancelled before it began."""
        self._running.discard(batch)
        left = batch.open.items()
        if batch.keyed:
            self._close(batch)
        self._wake()
        crash: BaseException | None = None
        if not task.cancelled():
            # An error of our own must not look like a finished batch.
            crash = task.exception()
        elif not self._abandoned and self._sender.stopped_by is None:
            # A program that cancels all tasks of the loop does this.
            crash = asyncio.CancelledError("a task of the upsert was cancelled")
        if crash is not None:
            self._crash, self._is_over = crash, True
            if self._sender.stopped_by is None:
                self._sender.give_up(left, batch, _reason(crash, was_sent=True))

    def _stop(self, error: BCAttrValsError, batch: Batch) -> None:
        """End the job: waiting items are not sent; calls on the wire are awaited, not retried."""
        self._is_over = True
        self._input.stop()
        self._outcomes.lost(self._batcher.drain(), OutcomeStatus.NOT_SENT, error)
        for other in self._running:
            # A batch that is being noted sees afterwards that the job has ended.
            if other is not batch and other.is_noted:
                other.worker.finish()


def _reason(error: BaseException, *, was_sent: bool) -> BCAttrValsError:
    """Return the error of the items that are left when an error ends the job."""
    if isinstance(error, BCAttrValsError):
        return error
    message = f"the job was ended by {type(error).__name__}"
    return ConnectionLostError(message, may_have_been_applied=was_sent)
