"""A thread of its own for one SQLite database, and coroutines to run jobs in it one by one.

Between asyncio code and `database.py`, whose functions block.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

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
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"bc-attrvals-{kind.noun}")
        self._database: DatabaseT | None = None
        self._job: asyncio.Future[Any] | None = None

    @property
    def is_file(self) -> bool:
        """Whether it outlives the process."""
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
        """Close the database after the jobs that have begun; a long query of a cancelled one ends.

        A cancelled caller returns at once, and the database is closed all the same.
        """
        if self._database is not None and self._job is not None and self._job.cancelled():
            # The thread may be at work on it still.
            self._database.connection.interrupt()
        closing = asyncio.ensure_future(
            asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        )
        self._thread.shutdown(wait=False)
        await asyncio.shield(closing)

    async def _call(self, job: Callable[[], T]) -> T:
        def work() -> T:
            with self._kind.errors(self.name):
                return job()

        self._job = done = asyncio.get_running_loop().run_in_executor(self._thread, work)
        return await done

    def _open(self) -> None:
        if self._path is None:
            self._database = open_temporary(self._kind)
        else:
            self._database = open_file(self._kind, self._path, restart=self._restart)

    def _close(self) -> None:
        if self._database is not None:
            with suppress(sqlite3.Error):
                # Ends an interruption, which would keep the log from being checkpointed.
                self._database.connection.execute("SELECT 1")
            self._database.connection.close()
