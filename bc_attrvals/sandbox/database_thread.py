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
G = TypeVar("G")
#: Takes the result of a job, or None and its error.
Done = Callable[[Any, Exception | None], None]

_POLL_S: Final = 0.0005
# A client in the same loop takes this many turns from an answer to its next request.
_MOST_TURNS: Final = 4


class DatabaseThread:
    """One thread that does jobs in the order they are given.

    It belongs to the event loop it was made in. A plain queue takes half the CPU of an executor.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[tuple[Callable[[], list[Any]], list[Done]] | None] = SimpleQueue()
        self._unsettled = 0
        # A daemon, so that a sandbox that was not closed does not keep the process alive.
        self._thread = threading.Thread(target=self._work, name="bc-attrvals-sandbox", daemon=True)
        self._thread.start()

    async def run(self, job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do a job in the thread and return its result; if cancelled, the job is still done."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._hand_over(lambda: [job(*args, **kwargs)], [partial(_settle_future, future)])
        return await future

    def start(self, job: Callable[[], list[Any]], waiting: list[Done]) -> None:
        """Do a short job at once, in the loop; in the thread if that has jobs to do before it.

        Each of `waiting` is called in the loop with its result, or with the error.
        """
        if self._unsettled:
            self._hand_over(job, waiting)
        else:
            _settle(waiting, *_outcome(job))

    async def aclose(self) -> None:
        """End the thread after the jobs it was given."""
        self._jobs.put(None)
        # A join would block the loop; the thread ends soon.
        while self._thread.is_alive():  # noqa: ASYNC110 - a thread sets no event when it ends
            await asyncio.sleep(_POLL_S)

    def _hand_over(self, job: Callable[[], list[Any]], waiting: list[Done]) -> None:
        self._unsettled += 1
        self._jobs.put((job, waiting))

    def _work(self) -> None:
        while (given := self._jobs.get()) is not None:
            job, waiting = given
            results, error = _outcome(job)
            # RuntimeError: the loop is closed, so nothing awaits the result.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._hand_back, waiting, results, error)

    def _hand_back(self, waiting: list[Done], results: list[Any], error: Exception | None) -> None:
        self._unsettled -= 1
        _settle(waiting, results, error)


class GroupedJob(Generic[G, T]):
    """A short job that is done once for the items that are given in a few turns of the loop."""

    def __init__(
        self,
        thread: DatabaseThread,
        job: Callable[[list[G]], list[T]],
        may_grow: Callable[[], bool],
    ) -> None:
        """`job` returns a result for each item; `may_grow` says whether others may come soon."""
        self._thread = thread
        self._job = job
        self._may_grow = may_grow
        self._items: list[G] = []
        self._waiting: list[Done] = []

    async def run(self, item: G) -> T:
        """Return the result of an item; if cancelled, the job is still done for it."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.add(item, partial(_settle_future, future))
        return await future

    def add(self, item: G, done: Done) -> None:
        """Do the job for an item; `done` is called in the loop with its result or the error."""
        self._items.append(item)
        self._waiting.append(done)
        if len(self._items) == 1:
            loop = asyncio.get_running_loop()
            loop.call_soon(self._turn, loop, _MOST_TURNS)

    def _turn(self, loop: asyncio.AbstractEventLoop, left: int) -> None:
        if left and self._may_grow():
            loop.call_soon(self._turn, loop, left - 1)
            return
        job, waiting = partial(self._job, self._items), self._waiting
        self._items, self._waiting = [], []
        self._thread.start(job, waiting)


def _outcome(job: Callable[[], list[T]]) -> tuple[list[T], Exception | None]:
    try:
        return job(), None
    except Exception as error:  # noqa: BLE001 - given to those that wait
        return [], error


def _settle(waiting: list[Done], results: list[Any], error: Exception | None) -> None:
    for place, done in enumerate(waiting):
        done(None if error else results[place], error)


def _settle_future(future: asyncio.Future[T], result: T, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
