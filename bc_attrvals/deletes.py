"""Bulk deletes: a lazily read input of ids becomes calls of fifty, three at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import TypeAlias

from bc_attrvals.core.models import check_id
from bc_attrvals.core.outcomes import DeleteReport, attach_report
from bc_attrvals.core.requests import Request, RequestBuilder
from bc_attrvals.errors import BCAttrValsError, InvalidInputError
from bc_attrvals.gate import Job, Priority
from bc_attrvals.scheduler import Call, Options, Scheduler

__all__ = ["DeleteJob", "Ids"]

#: What bulk deletes read: any iterable of ids, sync or async.
Ids: TypeAlias = Iterable[int] | AsyncIterable[int]


class DeleteJob:
    """One bulk delete, of one or more runs, one after the other. The first error ends it."""

    def __init__(self, *, scheduler: Scheduler, builder: RequestBuilder, options: Options) -> None:
        self._scheduler = scheduler
        self._builder = builder
        self._options = options
        self._job = Job()
        self._running: dict[asyncio.Task[int], Call] = {}
        self._error: BCAttrValsError | None = None
        self._loop = asyncio.get_running_loop()
        self._started_at = self._loop.time()
        self._deleted = 0
        self._calls = 0
        self._retries = 0

    async def run(self, ids: Ids) -> DeleteReport:
        """Delete all ids; raise the first error with the report of what was confirmed.

        An error of the input itself ends the job, too; calls under way are waited for.
        """
        try:
            try:
                await self._send_all(ids)
            except Exception as error:
                await self._drain()
                attach_report(error, self.report())
                raise
            await self._drain()
        except asyncio.CancelledError:
            for task, call in self._running.items():
                self._scheduler.abandon(task, call)
            raise
        if self._error is not None:
            attach_report(self._error, self.report())
            raise self._error
        return self.report()

    async def _drain(self) -> None:
        while self._running:
            await self._wait()

    async def _send_all(self, ids: Ids) -> None:
        size = self._scheduler.limits.delete_size
        chunk: list[int] = []
        async for number in _checked(ids):
            chunk.append(number)
            if len(chunk) == size:
                await self._send(chunk)
                chunk = []
            if self._error is not None:
                return
        if chunk:
            await self._send(chunk)

    async def _send(self, chunk: list[int]) -> None:
        for request, count in self._builder.deletes(chunk, len(chunk)):
            while len(self._running) > self._scheduler.limits.deletes:
                await self._wait()
            if self._error is not None:
                return
            call = Call(self._job)
            self._running[self._scheduler.start(self._delete(request, count, call))] = call

    async def _delete(self, request: Request, count: int, call: Call) -> int:
        try:
            await self._scheduler.send(request, _ignore, self._options, Priority.BULK, call)
        finally:
            self._calls += call.sent
            self._retries += max(0, call.sent - 1)
        return count

    async def _wait(self) -> None:
        done, _ = await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            del self._running[task]
            try:
                self._deleted += task.result()
            except BCAttrValsError as error:
                self._error = self._error or error

    def report(self) -> DeleteReport:
        """Return the sum up to now."""
        seconds = self._loop.time() - self._started_at
        return DeleteReport(self._deleted, self._calls, self._retries, seconds)


def _ignore(body: bytes) -> None:
    """Read nothing: a delete is answered 204 with an empty body."""
    del body


def check_ids(ids: Iterable[int]) -> None:
    """Raise `InvalidInputError` for the first entry that is no id."""
    for index, number in enumerate(ids):
        check_id(number, "ids", f"ids[{index}]")


async def _checked(ids: Ids) -> AsyncIterator[int]:
    index = 0
    if isinstance(ids, AsyncIterable):
        async for number in ids:
            yield check_id(number, "ids", f"ids[{index}]")
            index += 1
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
