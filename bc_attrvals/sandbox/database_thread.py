"""Runs the database work, in the order of the jobs: short writes in the loop, the rest in a thread.

A hand-over to a thread and back costs as much as a short write itself. So the writes that arrive
within a few turns of the loop are done together, in the loop, if the thread has nothing to do. They
are in flight together meanwhile. Long reads stay in the thread: SQLite runs beside the loop there.
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
# A client in the same loop takes this many turns from an answer to its next request.
_MOST_TURNS: Final = 4


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


class GroupedJob(Generic[T, R]):
    """A short job that is done once for the items that are given in a few turns of the loop."""

    def __init__(
        self,
        thread: DatabaseThread,
        job: Callable[[list[T]], list[R]],
        may_grow: Callable[[], bool],
    ) -> None:
        """`job` returns a result for each item; `may_grow` says whether others may come soon."""
        self._thread = thread
        self._job = job
        self._may_grow = may_grow
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []

    async def run(self, item: T) -> R:
        """Return the result of an item; if cancelled, the job is still done for it."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[R] = loop.create_future()
        self._waiting.append((item, done))
        if len(self._waiting) == 1:
            loop.call_soon(self._turn, loop, _MOST_TURNS)
        return await done

    def _turn(self, loop: asyncio.AbstractEventLoop, left: int) -> None:
        if left and self._may_grow():
            loop.call_soon(self._turn, loop, left - 1)
            return
        waiting, self._waiting = self._waiting, []
        results = self._thread.start(partial(self._job, [item for item, _ in waiting]))
        if results.done():
            _settle_all(waiting, results)
        else:
            results.add_done_callback(partial(_settle_all, waiting))


def _settle_all(
    waiting: list[tuple[T, asyncio.Future[R]]], results: asyncio.Future[list[R]]
) -> None:
    error = results.exception()
    for place, (_, done) in enumerate(waiting):
        if done.done():
            continue
        if error is None:
            done.set_result(results.result()[place])
        else:
            done.set_exception(error)
