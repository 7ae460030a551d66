"""Bulk deletes: a lazily read input of ids becomes calls of fifty, three at once.

Between the resource above and the scheduler below. Only confirmed ids are counted as deleted. A
call that is refused for its size is halved, and the Store keeps the smaller size.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Iterable
from contextlib import aclosing
from functools import partial
from typing import Final, TypeAlias

import attrs

from bc_attrvals.core.models import MAX_ROW_ID, check_id
from bc_attrvals.core.outcomes import DeleteReport, attach_report
from bc_attrvals.core.refusals import Fault, fault_of, size_allowed
from bc_attrvals.errors import APIError, BCAttrValsError, ConnectionLostError
from bc_attrvals.scheduling.calls import Calls
from bc_attrvals.scheduling.exchange import OutdatedError, Worker
from bc_attrvals.writing.sources import chunks

#: The input of bulk deletes: any iterable of ids, sync or async.
Ids: TypeAlias = Iterable[int] | AsyncIterable[int]

#: Refusals that may mean too many ids. 409 is not among them: it may mean a locked row, and is
#: retried.
_MAYBE_SIZE: Final = frozenset({400, 422})


@attrs.define(eq=False)
class _Part:
    """The ids of one call, in several chunks once the service refused them; the next is last."""

    chunks: list[list[int]]
    worker: Worker = attrs.field(factory=Worker)
    #: How many ids the present call has, until they are confirmed or it is made smaller.
    asked: int = 0
    #: How many of the next ids were sent in a call that was cut before its next try.
    sent: int = 0
    #: The most ids in an accepted call, counted after a refusal that may have meant the size.
    accepted: int = 0
    is_halved: bool = False

    def cut(self, size: int) -> None:
        """Split the next chunk into chunks of at most this size."""
        ids = self.chunks.pop()
        self.chunks += [ids[begin : begin + size] for begin in range(0, len(ids), size)]


class DeleteJob:
    """One bulk delete. `run` may be called several times in turn; the first error ends the job."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._reader: asyncio.Task[None] | None = None
        self._running: dict[asyncio.Task[None], _Part] = {}
        self._error: BCAttrValsError | None = None
        self._input_error: BaseException | None = None
        self._loop = asyncio.get_running_loop()
        self._started_at = self._loop.time()
        self._deleted = 0
        #: Ids that were sent and not confirmed when the job ended: they may be deleted.
        self.unconfirmed = 0

    async def run(self, ids: Ids) -> DeleteReport:
        """Delete all ids. Raises the first error, with the report of the confirmed ids.

        An error of the input also ends the job, after all ids read before it were sent.
        """
        # A task of its own, so that an error is seen while the input pauses.
        self._reader = reader = self._loop.create_task(self._send_all(ids))
        try:
            await asyncio.wait([reader])
            while self._running:
                await self._wait()
        except asyncio.CancelledError:
            reader.cancel()
            for part in self._running.values():
                part.worker.abandon()
            await asyncio.wait([reader])
            raise
        error = self._error or self._input_error
        if error is not None:
            attach_report(error, self.report())
            raise error
        return self.report()

    def revoke(self, count: int) -> None:
        """Count so many confirmed ids no more: the service still lists them."""
        self._deleted -= count

    async def _send_all(self, ids: Ids) -> None:
        sizes = self._calls.sizes
        lists = chunks(ids, _checked, "ids", lambda: sizes.delete, check_first=True)
        try:
            async with aclosing(lists):
                async for numbers in lists:
                    await self._send(numbers)
        except BaseException as error:  # noqa: BLE001 - raised again by `run`
            # If the error of a call cancelled this task, `run` raises that error.
            self._input_error = error

    async def _send(self, numbers: list[int]) -> None:
        begin = 0
        for _, count in self._calls.delete_parts(numbers, len(numbers)):
            # One more than can be on the wire, so that a free slot is taken at once.
            while len(self._running) > self._calls.limits.deletes:
                await self._wait()
            part = _Part([numbers[begin : begin + count]])
            part.worker.is_outdated = partial(self._is_outdated, part)
            begin += count
            self._running[self._calls.start(self._delete(part), part.worker)] = part

    async def _delete(self, part: _Part) -> None:
        while part.chunks and self._error is None:
            ids = part.chunks[-1]
            size = min(self._calls.sizes.delete, part.accepted or len(ids))
            if len(ids) > size:
                part.cut(size)
                continue
            ((request, _),) = self._calls.delete_parts(ids, len(ids))
            part.asked = len(ids)
            try:
                await self._calls.delete(request, part.worker)
            except OutdatedError:
                if part.worker.was_sent:
                    part.sent = max(part.sent, len(ids))
                continue
            except BCAttrValsError as error:
                if self._halve(part, ids, error):
                    part.asked = 0
                else:
                    self._stop(error, part)
                continue
            part.chunks.pop()
            part.asked = 0
            part.sent = max(0, part.sent - len(ids))
            self._deleted += len(ids)
            if part.is_halved:
                part.accepted = max(part.accepted, len(ids))
        if part.accepted and not part.chunks:
            # No single id was refused, so the number of ids was.
            self._calls.sizes.lower_delete(part.accepted)

    def _is_outdated(self, part: _Part) -> bool:
        """Return whether the present call is larger than the size learnt since it was cut."""
        return part.asked > self._calls.sizes.delete

    def _halve(self, part: _Part, ids: list[int], error: BCAttrValsError) -> bool:
        """Make a refused call smaller; return False if that can't help."""
        if len(ids) == 1 or not isinstance(error, APIError):
            return False
        half = (len(ids) + 1) // 2
        if fault_of(error, len(ids)) is Fault.SIZE:
            self._calls.sizes.lower_delete(size_allowed(error, len(ids)) or half)
            return True
        if error.status not in _MAYBE_SIZE:
            return False
        part.is_halved = True
        part.cut(half)
        return True

    def _stop(self, error: BCAttrValsError, part: _Part) -> None:
        """End the job: calls on the wire are waited for and not retried; no others are sent."""
        if self._error is not None:
            return
        self._error = error
        assert self._reader is not None
        self._reader.cancel()
        for other in self._running.values():
            if other is not part:
                other.worker.finish()

    async def _wait(self) -> None:
        done, _ = await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            part = self._running.pop(task)
            if task.cancelled() and self._error is None:
                # A program that cancels all tasks of the loop does this.
                message = "the task that sent a delete was cancelled"
                self._stop(ConnectionLostError(message, may_have_been_applied=True), part)
            self.unconfirmed += max(part.asked if part.worker.was_sent else 0, part.sent)
            if not task.cancelled():
                task.result()

    def report(self) -> DeleteReport:
        """Return the report of the job so far."""
        seconds = self._loop.time() - self._started_at
        return DeleteReport(self._deleted, self._calls.calls, self._calls.retries, seconds)


def check_ids(ids: Iterable[int]) -> None:
    """Raise `InvalidInputError` for the first entry that is not an id."""
    for index, number in enumerate(ids):
        _checked(number, index)


def _checked(number: object, index: int) -> int:
    return check_id(number, "ids", f"ids[{index}]", most=MAX_ROW_ID)
