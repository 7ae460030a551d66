"""Runs the blocking database work in one thread, in the order of the jobs.

The event loop never waits for a disk, and calls that arrive together are in flight together. Run in
the loop, a PUT would end before the next one is read, and three would never be in flight.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S")

_POLL_S: Final = 0.0005


class DatabaseThread:
    """One thread that does jobs in the order they are given.

    It belongs to the event loop it was made in. A plain queue takes half the CPU of an executor.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        # A daemon, so that a sandbox that was not closed does not keep the process alive.
        self._thread = threading.Thread(target=self._work, name="bc-attrvals-sandbox", daemon=True)
        self._thread.start()

    async def run(self, job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do a job in the thread and return its result; if cancelled, the job is still done."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put(partial(self._do, future, partial(job, *args, **kwargs)))
        return await future

    async def aclose(self) -> None:
        """End the thread after the jobs it was given."""
        self._jobs.put(None)
        # A join would block the loop; the thread ends soon.
        while self._thread.is_alive():  # noqa: ASYNC110 - a thread sets no event when it ends
            await asyncio.sleep(_POLL_S)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            # RuntimeError: the loop is closed, so nothing awaits the result.
            with suppress(RuntimeError):
                job()

    def _do(self, future: asyncio.Future[T], job: Callable[[], T]) -> None:
        try:
            result = job()
        except Exception as error:  # noqa: BLE001 - raised again where the job was given
            self._loop.call_soon_threadsafe(_settle, future, future.set_exception, error)
        else:
            self._loop.call_soon_threadsafe(_settle, future, future.set_result, result)


def _settle(future: asyncio.Future[T], settle: Callable[[S], None], outcome: S) -> None:
    if not future.done():
        settle(outcome)
