"""Bulk deletes: a lazily read input of ids becomes calls of fifty, three at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from contextlib import aclosing
from typing import TypeAlias

import attrs

from bc_attrvals.core.models import check_id
from bc_attrvals.core.outcomes import DeleteReport, attach_report
from bc_attrvals.errors import BCAttrValsError, InvalidInputError, PayloadTooLargeError
from bc_attrvals.scheduling.calls import Calls
from bc_attrvals.scheduling.scheduler import Worker

__all__ = ["DeleteJob", "Ids"]

#: What bulk deletes read: any iterable of ids, sync or async.
Ids: TypeAlias = Iterable[int] | AsyncIterable[int]


@attrs.define(eq=False)
class _Part:
    """Ids of one call, or of several where the service refused so many; the next stand last."""

    chunks: list[list[int]]
    worker: Worker = attrs.field(factory=Worker)


class DeleteJob:
    """One bulk delete, of one or more runs, one after the other. The first error ends it."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        # The most ids a call may name is not documented: lowered when the service says so.
        self._size = calls.sizes.delete
        self._reader: asyncio.Task[None] | None = None
        self._running: dict[asyncio.Task[None], _Part] = {}
        self._error: BCAttrValsError | None = None
        self._loop = asyncio.get_running_loop()
        self._started_at = self._loop.time()
        self._deleted = 0

    async def run(self, ids: Ids) -> DeleteReport:
        """Delete all ids; raise the first error with the report of what was confirmed.

        An error of the input itself ends the job, too; calls under way are waited for.
        """
        # A task of its own, so that an input that pauses does not hide an error.
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
        error: BaseException | None = self._error
        if error is None:
            # Raises CancelledError where the input itself ended so: that is no end of the input.
            error = reader.exception()
        if error is not None:
            attach_report(error, self.report())
            raise error
        return self.report()

    async def _send_all(self, ids: Ids) -> None:
        task = asyncio.current_task()
        assert task is not None
        chunk: list[int] = []
        async with aclosing(_checked(ids)) as numbers:
            async for number in numbers:
                if task.cancelling():
                    # The input swallowed its cancellation.
                    return
                chunk.append(number)
                if len(chunk) >= self._size:
                    await self._send(chunk)
                    chunk = []
        if chunk:
            await self._send(chunk)

    async def _send(self, chunk: list[int]) -> None:
        begin = 0
        for _, count in self._calls.delete_parts(chunk, len(chunk)):
            # One more than can be on the wire, so that a slot that falls free is taken at once.
            while len(self._running) > self._calls.limits.deletes:
                await self._wait()
            part = _Part([chunk[begin : begin + count]])
            begin += count
            self._running[self._calls.start(self._delete(part), part.worker)] = part

    async def _delete(self, part: _Part) -> None:
        while part.chunks and self._error is None:
            chunk = part.chunks[-1]
            if len(chunk) > self._size:
                # Lowered since this one was read.
                part.chunks[-1:] = [
                    chunk[begin : begin + self._size] for begin in range(0, len(chunk), self._size)
                ]
                continue
            ((request, _),) = self._calls.delete_parts(chunk, len(chunk))
            try:
                await self._calls.delete(request, part.worker)
            except PayloadTooLargeError as error:
                middle = len(chunk) // 2
                if not middle:
                    self._stop(error, part)
                    return
                self._size = min(self._size, middle)
            except BCAttrValsError as error:
                self._stop(error, part)
            else:
                part.chunks.pop()
                self._deleted += len(chunk)

    def _stop(self, error: BCAttrValsError, part: _Part) -> None:
        """End the job: what is on the wire is waited for, once, and nothing else is sent."""
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
            del self._running[task]
            if not task.cancelled():
                task.result()

    def report(self) -> DeleteReport:
        """Return the sum up to now."""
        seconds = self._loop.time() - self._started_at
        return DeleteReport(self._deleted, self._calls.calls, self._calls.retries, seconds)


def check_ids(ids: Iterable[int]) -> None:
    """Raise `InvalidInputError` for the first entry that is no id."""
    for index, number in enumerate(ids):
        check_id(number, "ids", f"ids[{index}]")


async def _checked(ids: Ids) -> AsyncGenerator[int]:
    index = 0
    if isinstance(ids, AsyncIterable):
        iterator = aiter(ids)
        try:
            async for number in iterator:
                yield check_id(number, "ids", f"ids[{index}]")
                index += 1
        finally:
            close = getattr(iterator, "aclose", None)
            if close is not None:
                await close()
        return
    if isinstance(ids, str | bytes) or not isinstance(ids, Iterable):
        message = f"ids must be an iterable of ints, sync or async, not {type(ids).__name__}"
        raise InvalidInputError(message, field="ids")
    if isinstance(ids, list | tuple | set | frozenset | range):
        # All at hand, so a bad one is found before anything is sent.
        check_ids(ids)
    for number in ids:
        yield check_id(number, "ids", f"ids[{index}]")
        index += 1
