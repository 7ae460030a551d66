"""The journal of a sync: one SQLite file, held by one job, from which a killed one goes on.

`Desk` runs the working set of `workset.py` in a thread of its own, over a journal or over a
temporary database that goes with the process. What is committed to a journal outlives the process
(SQLite's write-ahead log, synchronous=NORMAL); a power cut may lose the last commits, never the
order of them, so rows are sent again then and none is forgotten. There is no access token in it,
but there are customers' values: it is made for its owner alone.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from functools import partial
from typing import Any, Concatenate, Final, ParamSpec, TypeAlias, TypeVar

import attrs

from bc_attrvals.core.sync_states import Phase
from bc_attrvals.errors import InvalidInputError, JournalError
from bc_attrvals.sync.database import WorkSet

__all__ = [
    "Desk",
    "Identity",
    "JournalPath",
    "finish",
    "reading_finished",
]

P = ParamSpec("P")
T = TypeVar("T")

#: Where a journal lies.
JournalPath: TypeAlias = str | os.PathLike[str]

_APPLICATION_ID: Final = 0x42434A4C  # "BCJL"
_FORMAT_VERSION: Final = 1

# Negative: KiB of page cache, the better part of what a sync takes of memory.
_CACHE: Final = "PRAGMA cache_size = -16384"
#: Exclusive before anything is read, so that no one gets between the look and the lock.
_JOURNAL_PRAGMAS: Final = (
    "PRAGMA locking_mode = EXCLUSIVE",
    "PRAGMA synchronous = NORMAL",
    _CACHE,
)
# Nothing of it need survive.
_SCRATCH_PRAGMAS: Final = ("PRAGMA journal_mode = OFF", "PRAGMA synchronous = OFF", _CACHE)

_WORDS: Final = {
    sqlite3.SQLITE_BUSY: "is held by another job",
    sqlite3.SQLITE_LOCKED: "is held by another job",
    sqlite3.SQLITE_FULL: "can't grow: the disk is full",
    sqlite3.SQLITE_NOTADB: "is no SQLite database",
    sqlite3.SQLITE_CORRUPT: "is damaged",
}


@attrs.frozen
class Identity:
    """What a journal is bound to, besides its input."""

    store: str
    scope: str
    prune: bool

    def note(self, workset: WorkSet) -> None:
        """Write it down."""
        workset.put(store=self.store, scope=self.scope, prune=int(self.prune))

    def check(self, workset: WorkSet, name: str) -> None:
        """Raise `JournalError` naming what differs from what was written down."""
        if workset.text("store") != self.store:
            message = f"{name} is of another store: {workset.text('store')!r}, not {self.store!r}"
            raise JournalError(message)
        if workset.text("scope") != self.scope:
            raise JournalError(f"{name} is of a sync with another scope")
        if bool(workset.number("prune")) != self.prune:
            was = "with" if workset.number("prune") else "without"
            raise JournalError(f"{name} is of a sync {was} prune")


class Desk:
    """A working set, and the thread in which all work on it is done, one job after the other."""

    def __init__(self, path: JournalPath | None) -> None:
        self._path = None if path is None else _plain(path)
        #: What error messages call it.
        self.name = "the working set" if path is None else _name(path)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="bc-attrvals-sync")
        self._workset: WorkSet | None = None
        self._job: asyncio.Future[Any] | None = None

    @property
    def is_journal(self) -> bool:
        """Whether it outlives the process."""
        return self._path is not None

    async def open(self) -> None:
        """Open the file, or make a temporary one. Raises `JournalError`; close it in any case."""
        await self._call(self._open)

    async def run(
        self, job: Callable[Concatenate[WorkSet, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Do a job in the thread and return its result; errors of SQLite become `JournalError`.

        Cancelled, it returns at once, and a job that has begun is still done.
        """
        assert self._workset is not None
        return await self._call(partial(job, self._workset, *args, **kwargs))

    async def aclose(self) -> None:
        """Let go of the file, after the jobs that have begun; a long query is stopped."""
        if self._workset is not None and self._job is not None and self._job.cancelled():
            # It may be at work still, though its caller is gone.
            self._workset.connection.interrupt()
        ending = asyncio.ensure_future(
            asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        )
        self._thread.shutdown(wait=False)
        await asyncio.shield(ending)

    async def _call(self, job: Callable[[], T]) -> T:
        def work() -> T:
            with _as_journal_errors(self.name):
                return job()

        self._job = job_done = asyncio.get_running_loop().run_in_executor(self._thread, work)
        return await job_done

    def _open(self) -> None:
        if self._path is None:
            connection = sqlite3.connect("", isolation_level=None)
            workset = self._workset = WorkSet(connection)
            _run_all(connection, _SCRATCH_PRAGMAS)
            workset.create()
            return
        full = os.path.abspath(self._path)  # noqa: PTH100 - must not follow links
        _make_file(full, self.name)
        before = os.lstat(full)
        connection = sqlite3.connect(full, timeout=0, isolation_level=None)
        workset = self._workset = WorkSet(connection)
        _run_all(connection, _JOURNAL_PRAGMAS)
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("COMMIT")
        after = os.lstat(full)
        if (before.st_dev, before.st_ino) != (after.st_dev, after.st_ino):
            raise JournalError(f"{self.name} was replaced while it was opened")
        is_new = _is_blank(connection)
        if not is_new:
            _check_format(connection, self.name)
            if _phase_of(workset, self.name) is Phase.FINISHED:
                return
        connection.execute("PRAGMA journal_mode = WAL")
        if is_new:
            with workset.transaction():
                connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {_FORMAT_VERSION}")
                workset.create()

    def _close(self) -> None:
        if self._workset is not None:
            connection = self._workset.connection
            with suppress(sqlite3.Error):
                # Ends an interruption, which would keep the log from being folded in.
                connection.execute("SELECT 1")
            connection.close()


@contextmanager
def reading_finished(path: JournalPath) -> Iterator[WorkSet]:
    """Open the journal of a finished sync, only to read it; see `SyncReport.from_journal`."""
    name = _name(path)
    full = os.path.abspath(_plain(path))  # noqa: PTH100 - must not follow links
    with _as_journal_errors(name):
        if not _is_there(full, name):
            raise JournalError(f"{name} does not exist")
        with closing(sqlite3.connect(full, timeout=0, isolation_level=None)) as connection:
            connection.execute("PRAGMA query_only = ON")
            _check_format(connection, name)
            workset = WorkSet(connection)
            phase = _phase_of(workset, name)
            if phase is not Phase.FINISHED:
                raise JournalError(f"{name} is of a sync that is not finished ({phase})")
            if not workset.is_intact():
                raise JournalError(f"{name} is damaged: its rows are not as they were written")
            yield workset


def finish(workset: WorkSet, seconds: float) -> None:
    """Note that all is done, after so many more seconds, and leave one plain file behind."""
    with workset.transaction():
        if workset.tally().open:
            raise JournalError("the sync can't be finished: some of its changes were not made")
        workset.add(seconds=seconds)
        workset.put(phase=Phase.FINISHED)
    with suppress(sqlite3.OperationalError):
        workset.connection.execute("PRAGMA journal_mode = DELETE")


def _plain(path: JournalPath) -> str:
    if not isinstance(path, str | bytes | os.PathLike):
        message = f"journal must be the path of a file, not {type(path).__name__}"
        raise InvalidInputError(message, field="journal")
    plain = os.fsdecode(path)
    if not plain or "\0" in plain:
        message = f"journal must be the path of a file, not {plain!r}"
        raise InvalidInputError(message, field="journal")
    return plain


def _name(path: JournalPath) -> str:
    return f"the journal {os.fsdecode(path)!r}"


@contextmanager
def _as_journal_errors(name: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        # The lower byte of an extended code is the plain one.
        words = None if code is None else _WORDS.get(code & 0xFF)
        raise JournalError(f"{name} {words or f'failed: {error}'}") from error
    except (ValueError, OverflowError) as error:
        # All that went in was checked before, and was text and numbers of that size.
        raise JournalError(f"{name} is damaged: {error}") from error
    except OSError as error:
        raise JournalError(f"{name} can't be used: {error.strerror or error}") from error


def _run_all(connection: sqlite3.Connection, statements: tuple[str, ...]) -> None:
    for statement in statements:
        connection.execute(statement)


def _make_file(path: str, name: str) -> None:
    """Make the file for its owner alone, unless it is there; a symbolic link is not followed."""
    # An existing file is not opened: closing it would drop the locks that another sync of this
    # process may hold on it (POSIX advisory locks, fcntl(2)).
    if not _is_there(path, name):
        with suppress(FileExistsError):
            # O_EXCL follows no link, not even one that leads nowhere (open(2)).
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            return
        _is_there(path, name)


def _is_there(path: str, name: str) -> bool:
    """Return whether the file is there; raise `JournalError` if it is no regular one."""
    found = False
    # SQLite opens its companions by name.
    for suffix in ("-wal", "-journal", "-shm", ""):
        try:
            mode = os.lstat(path + suffix).st_mode
        except FileNotFoundError:
            continue
        if not stat.S_ISREG(mode):
            what = "a symbolic link" if stat.S_ISLNK(mode) else "no regular file"
            raise JournalError(f"{name}{' with ' + suffix if suffix else ''} is {what}")
        found = not suffix
    return found


def _is_blank(connection: sqlite3.Connection) -> bool:
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return not tables and _pragma(connection, "application_id") == 0


def _check_format(connection: sqlite3.Connection, name: str) -> None:
    if _pragma(connection, "application_id") != _APPLICATION_ID:
        raise JournalError(f"{name} is no journal of bc_attrvals")
    version = _pragma(connection, "user_version")
    if version != _FORMAT_VERSION:
        message = f"{name} has format {version}; this version reads {_FORMAT_VERSION}"
        raise JournalError(message)
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise JournalError(f"{name} is damaged: {verdict}")


def _pragma(connection: sqlite3.Connection, pragma: str) -> int:
    (number,) = connection.execute(f"PRAGMA {pragma}").fetchone()
    return int(number)


def _phase_of(workset: WorkSet, name: str) -> Phase:
    try:
        return workset.phase
    except ValueError as error:
        raise JournalError(f"{name} is damaged: {error}") from error
