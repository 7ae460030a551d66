"""Runs jobs on one SQLite database one by one, in a thread of its own.

Between asyncio code and `database.py`, whose functions block.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any, Concatenate, Generic, ParamSpec, TypeAlias, TypeVar

from bc_attrvals.sync.database import (
    DatabaseKind,
    DatabasePath,
    DatabaseT,
    check_path,
    open_file,
    open_temporary,
)

P = ParamSpec("P")
T = TypeVar("T")
#: What to do, and where its result goes; None ends the thread.
_Job: TypeAlias = tuple[Callable[[], Any], asyncio.Future[Any]] | None


class DatabaseThread(Generic[DatabaseT]):
    """A database, and the one thread in which all work on it is done.

    `path` None is a temporary database. `field` names the argument that holds the path in errors.
    """

    def __init__(
        self,
        kind: DatabaseKind[DatabaseT],
        path: DatabasePath | None,
        *,
        field: str,
        restart: bool = False,
    ) -> None:
        self._kind = kind
        self._path = None if path is None else check_path(path, field)
        self._restart = restart
        #: What error messages call it.
        self.name = kind.name(path)
        # A `ThreadPoolExecutor` takes twice the CPU for each job, and a sync has one for each PUT.
        self._jobs: SimpleQueue[_Job] = SimpleQueue()
        self._is_closed = False
        self._database: DatabaseT | None = None
        self._last: asyncio.Future[Any] | None = None

    @property
    def is_file(self) -> bool:
        """Whether the database is a file, which outlives the process."""
        return self._path is not None

    async def open(self) -> None:
        """Open the file, or a temporary database; call `aclose` whether it succeeds or not.

        Raises the kind's error: see `database.open_file`.
        """
        await self._call(self._open)

    async def run(
        self, job: Callable[Concatenate[DatabaseT, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a job in the thread and return its result; SQLite's errors become the kind's error.

        Cancelled, it returns at once, and a job that has begun goes on to its end.
        """
        assert self._database is not None
        return await self._call(partial(job, self._database, *args, **kwargs))

    async def aclose(self) -> None:
        """Close the database after the jobs that have begun, and interrupt a cancelled one.

        Cancelled, it returns at once, and the database is closed all the same.
        """
        if self._database is not None and self._last is not None and self._last.cancelled():
            # The thread may still run the cancelled job.
            self._database.connection.interrupt()
        closed = self._call(self._close)
        self._is_closed = True
        self._jobs.put(None)
        await asyncio.shield(closed)

    def _call(self, job: Callable[[], T]) -> asyncio.Future[T]:
        if self._is_closed:
            raise RuntimeError(f"{self.name} is closed")
        if self._last is None:
            # A daemon: a process that ends waits for no query, and what is committed survives it.
            name = f"bc-attrvals-{self._kind.noun}"
            Thread(target=_work, args=(self._jobs,), name=name, daemon=True).start()
        self._last = done = asyncio.get_running_loop().create_future()
        self._jobs.put((partial(self._named_errors, job), done))
        return done

    def _named_errors(self, job: Callable[[], T]) -> T:
        with self._kind.errors(self.name):
            return job()

    def _open(self) -> None:
        if self._path is None:
            self._database = open_temporary(self._kind)
        else:
            self._database = open_file(self._kind, self._path, restart=self._restart)

    def _close(self) -> None:
        if self._database is not None:
            with suppress(sqlite3.Error):
                # Clears a pending interrupt, which would prevent the checkpoint of the log.
                self._database.connection.execute("SELECT 1")
            self._database.connection.close()


def _work(jobs: SimpleQueue[_Job]) -> None:
    while _do(jobs.get()):
        pass


def _do(job: _Job) -> bool:
    """Do a job and return whether to go on; no variable keeps the job alive afterwards."""
    if job is None:
        return False
    work, done = job
    if not done.cancelled():
        try:
            settle = partial(done.set_result, work())
        except BaseException as error:  # noqa: BLE001 - raised where the job is awaited
            settle = partial(done.set_exception, error)
        with suppress(RuntimeError):
            # Its loop may be closed.
            done.get_loop().call_soon_threadsafe(_settle, done, settle)
    return True


def _settle(done: asyncio.Future[Any], settle: Callable[[], None]) -> None:
    if not done.cancelled():
        settle()
