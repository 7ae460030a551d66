"""Runs the database work, in the order of the jobs: short writes in the loop, the rest in a thread.

A hand-over to a thread and back costs as much as a short write itself. So the writes that arrive in
one turn of the loop are done together in the next turn, in the loop, if the thread has nothing to
do. They are in flight together for that turn. Long reads stay in the thread: SQLite runs beside
the loop there.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any, Final, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")

_POLL_S: Final = 0.0005


class DatabaseThread:
    """One thread that does jobs in the order they are given.

    It belongs to the event loop it was made in. A plain queue takes half the CPU of an executor.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._unsettled = 0
        # A daemon, so that a sandbox that was not closed does not keep the process alive.
        self._thread = threading.Thread(target=self._work, name="bc-attrvals-sandbox", daemon=True)
        self._thread.start()

    async def run(self, job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do a job in the thread and return its result; if cancelled, the job is still done."""
        return await self._hand_over(partial(job, *args, **kwargs))

    def start(self, job: Callable[[], T]) -> asyncio.Future[T]:
        """Do a short job at once, in the loop; in the thread if that has jobs to do before it."""
        if self._unsettled:
            return self._hand_over(job)
        done: asyncio.Future[T] = self._loop.create_future()
        try:
            done.set_result(job())
        except Exception as error:  # noqa: BLE001 - raised again where the result is awaited
            done.set_exception(error)
        return done

    async def aclose(self) -> None:
        """End the thread after the jobs it was given."""
        self._jobs.put(None)
        # A join would block the loop; the thread ends soon.
        while self._thread.is_alive():  # noqa: ASYNC110 - a thread sets no event when it ends
            await asyncio.sleep(_POLL_S)

    def _hand_over(self, job: Callable[[], T]) -> asyncio.Future[T]:
        done: asyncio.Future[T] = self._loop.create_future()
        self._unsettled += 1
        self._jobs.put(partial(self._do, done, job))
        return done

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            # RuntimeError: the loop is closed, so nothing awaits the result.
            with suppress(RuntimeError):
                job()

    def _do(self, done: asyncio.Future[T], job: Callable[[], T]) -> None:
        try:
            result = job()
        except Exception as error:  # noqa: BLE001 - raised again where the job was given
            self._loop.call_soon_threadsafe(self._settle, done, done.set_exception, error)
        else:
            self._loop.call_soon_threadsafe(self._settle, done, done.set_result, result)

    def _settle(self, done: asyncio.Future[Any], settle: Callable[[R], None], outcome: R) -> None:
        self._unsettled -= 1
        if not done.done():
            settle(outcome)


class _Group(Generic[T, R]):
    """The items of one turn of the loop, and the results in their order once it has begun."""

    def __init__(self) -> None:
        self.items: list[T] = []
        self.results: asyncio.Future[list[R]] | None = None


class GroupedJob(Generic[T, R]):
    """A short job that is done once for all the items that are given in one turn of the loop."""

    def __init__(self, thread: DatabaseThread, job: Callable[[list[T]], list[R]]) -> None:
        """`job` returns a result for each item."""
        self._thread = thread
        self._job = job
        self._group: _Group[T, R] = _Group()

    async def run(self, item: T) -> R:
        """Return the result of an item; cancelled before the next turn, it may not be done."""
        group, place = self._group, len(self._group.items)
        group.items.append(item)
        await asyncio.sleep(0)
        if group.results is None:
            # The first to be resumed does the work of all.
            self._group = _Group()
            group.results = self._thread.start(partial(self._job, group.items))
        if not group.results.done():
            # Unlike `await`, this leaves the future alone if one of those that wait is cancelled.
            await asyncio.wait([group.results])
        return group.results.result()[place]
