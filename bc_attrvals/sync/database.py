"""An SQLite file that one process holds: opened, locked, checked, and its errors named.

`Database` is a connection with notes and transactions; journals (`journal.py`) and mirrors are
subclasses with tables of their own. Everything here blocks; `database_thread.py` runs it.

A file has a write-ahead log and synchronous=NORMAL: "transactions are durable across application
crashes", and one "might roll back following a power loss", never out of order (SQLite, PRAGMA
synchronous). A journal tolerates that: values whose commit is lost are sent again, and so are
deletes, which name row ids. So no PUT has to wait for a flush to the disk.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import Final, Generic, TypeAlias, TypeVar

import attrs
import msgspec

from bc_attrvals.errors import BCAttrValsError, InvalidInputError

#: The path of a database file.
DatabasePath: TypeAlias = str | os.PathLike[str]

#: Exclusive before anything is read, so that nobody gets in between the check and the lock.
_FILE_PRAGMAS: Final = "PRAGMA locking_mode = EXCLUSIVE; PRAGMA synchronous = NORMAL"
# A temporary database need not survive. No log holds its pages whole, so larger ones cost nothing
# and save calls of the system.
_TEMPORARY_PRAGMAS: Final = (
    "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA page_size = 16384"
)

_REASONS: Final = {
    sqlite3.SQLITE_BUSY: "is held by another job",
    sqlite3.SQLITE_LOCKED: "is held by another job",
    sqlite3.SQLITE_FULL: "can't grow: the disk is full",
    sqlite3.SQLITE_READONLY: "can't be written to: the file or its directory is read-only",
    sqlite3.SQLITE_NOTADB: "is no SQLite database",
    sqlite3.SQLITE_CORRUPT: "is damaged",
}

_SEAL_ROWS: Final = 4_096

_encode_lines: Final = msgspec.json.Encoder().encode_lines


class Database:
    """A connection in autocommit mode, with a table of notes (names and values)."""

    #: The statements that create the other tables.
    schema: tuple[str, ...] = ()

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection: Final = connection

    def create(self) -> None:
        """Drop what there is, and create all tables."""
        notes = "CREATE TABLE meta (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID"
        with self.transaction():
            tables = self.connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            for (table,) in tables.fetchall():
                self.connection.execute(f"DROP TABLE {table}")
            for statement in (notes, *self.schema):
                self.connection.execute(statement)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit everything that is done inside, or nothing; an inner one joins the outer."""
        if self.connection.in_transaction:
            yield
            return
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.connection.execute("COMMIT")
        except BaseException:
            # Some errors (a full disk) have rolled back already.
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            raise

    def put(self, /, **values: str | float) -> None:
        """Set notes by name."""
        self.connection.executemany("REPLACE INTO meta VALUES (?, ?)", values.items())

    def add(self, /, **amounts: float) -> None:
        """Add to notes that are numbers; a missing one counts as 0."""
        self.connection.executemany(
            "INSERT INTO meta VALUES (?, ?) "
            "ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
            [(name, amount) for name, amount in amounts.items() if amount],
        )

    def text(self, name: str) -> str:
        """Return a note that is a text, or an empty text if it is missing."""
        found = self._note(name)
        return "" if found is None else str(found)

    def number(self, name: str) -> float:
        """Return a note that is a number, or 0 if it is missing."""
        found = self._note(name)
        return found if isinstance(found, int | float) else 0

    def _note(self, name: str) -> object:
        row = self.connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else row[0]

    def one(self, statement: str, *parameters: str | int) -> int:
        """Return the single integer of a query."""
        (number,) = self.connection.execute(statement, parameters).fetchone()
        return int(number)

    def digest(self, statements: Sequence[str]) -> str:
        """Return a digest of the rows that queries give, in bounded memory.

        SQLite checks the structure of its pages, not their content.
        """
        digest = hashlib.blake2b(digest_size=16)
        for statement in statements:
            cursor = self.connection.execute(statement)
            while rows := cursor.fetchmany(_SEAL_ROWS):
                digest.update(_encode_lines(rows))
            digest.update(b"-")
        return digest.hexdigest()


DatabaseT = TypeVar("DatabaseT", bound=Database)


@attrs.frozen
class DatabaseKind(Generic[DatabaseT]):
    """What marks the files of one kind.

    `noun` names the kind in messages, `application_id` and `version` are SQLite's `application_id`
    and `user_version`, `error` is what is raised, and `other_version` says what to do with a file
    of another format. `cache_kib` bounds the memory of a connection: SQLite caches as many KiB of
    pages, and as many again while it sorts.
    """

    noun: str
    application_id: int
    version: int
    tables: Callable[[sqlite3.Connection], DatabaseT]
    error: type[BCAttrValsError]
    other_version: str
    cache_kib: int

    def name(self, path: DatabasePath | None) -> str:
        """Return what messages call the file at a path; None is a temporary database."""
        if path is None:
            return "the temporary database"
        return f"the {self.noun} {os.fsdecode(path)!r}"

    @contextmanager
    def errors(self, name: str) -> Iterator[None]:
        """Raise errors of SQLite and of the file system as this kind's error."""
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", None)
            # The lower byte of an extended code is the primary one (SQLite, Result Codes).
            reason = None if code is None else _REASONS.get(code & 0xFF)
            raise self.error(f"{name} {reason or f'failed: {error}'}") from error
        except (ValueError, OverflowError) as error:
            # Everything that went in was checked: texts and numbers that fit.
            raise self.error(f"{name} is damaged: {error}") from error
        except OSError as error:
            raise self.error(f"{name} can't be used: {error.strerror or error}") from error

    def check(self, connection: sqlite3.Connection, name: str, *, restart: bool = False) -> None:
        """Raise unless the file is of this kind; without `restart`, of this version and whole."""
        if _pragma(connection, "application_id") != self.application_id:
            raise self.error(f"{name} is no {self.noun} of bc_attrvals")
        if restart:
            return
        version = _pragma(connection, "user_version")
        if version != self.version:
            message = f"{name} has format {version}, and this version of bc_attrvals uses format "
            raise self.error(f"{message}{self.version}: {self.other_version}")
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise self.error(f"{name} is damaged: {verdict}")


def check_path(path: DatabasePath, field: str) -> str:
    """Return a path as a text; raise `InvalidInputError` naming `field` if it is no path."""
    if not isinstance(path, str | bytes | os.PathLike):
        message = f"{field} must be the path of a file, not {type(path).__name__}"
        raise InvalidInputError(message, field=field)
    plain = os.fsdecode(path)
    if not plain or "\0" in plain:
        message = f"{field} must be the path of a file, not {plain!r}"
        raise InvalidInputError(message, field=field)
    return plain


def open_temporary(kind: DatabaseKind[DatabaseT]) -> DatabaseT:
    """Open a database that ends with its connection."""
    connection = sqlite3.connect("", isolation_level=None)
    connection.executescript(f"{_TEMPORARY_PRAGMAS}; PRAGMA cache_size = -{kind.cache_kib}")
    database = kind.tables(connection)
    database.create()
    return database


def open_file(kind: DatabaseKind[DatabaseT], path: str, *, restart: bool = False) -> DatabaseT:
    """Open a file for this process alone, and create it for its owner alone if it is missing.

    With `restart` a file of this kind is emptied, whatever its version and state. Raises the
    kind's error for a file that is damaged, of another kind or version, or held by another job.
    """
    name = kind.name(path)
    full = os.path.abspath(path)  # noqa: PTH100 - must not follow links
    _make_file(kind, full, name)
    before = os.lstat(full)
    if not os.access(full, os.W_OK):
        # SQLite would report an I/O error, because the lock of the file is a write lock.
        raise kind.error(f"{name} {_REASONS[sqlite3.SQLITE_READONLY]}")
    with ExitStack() as stack:
        connection = stack.enter_context(
            closing(sqlite3.connect(full, timeout=0, isolation_level=None))
        )
        connection.executescript(f"{_FILE_PRAGMAS}; PRAGMA cache_size = -{kind.cache_kib}")
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("COMMIT")
        if not os.path.samestat(before, os.lstat(full)):
            raise kind.error(f"{name} was replaced while it was opened")
        is_new = _is_blank(connection)
        if not is_new:
            kind.check(connection, name, restart=restart)
            if restart:
                _empty(connection)
                is_new = True
        connection.execute("PRAGMA journal_mode = WAL")
        database = kind.tables(connection)
        if is_new:
            with database.transaction():
                connection.execute(f"PRAGMA application_id = {kind.application_id}")
                connection.execute(f"PRAGMA user_version = {kind.version}")
                database.create()
        stack.pop_all()
    return database


@contextmanager
def reading_file(kind: DatabaseKind[DatabaseT], path: DatabasePath) -> Iterator[DatabaseT]:
    """Open a file for reading alone; `path` is checked already."""
    name = kind.name(path)
    full = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - must not follow links
    with kind.errors(name):
        if not _is_there(kind, full, name):
            raise kind.error(f"{name} does not exist")
        with closing(sqlite3.connect(full, timeout=0, isolation_level=None)) as connection:
            connection.execute("PRAGMA query_only = ON")
            kind.check(connection, name)
            yield kind.tables(connection)


def _make_file(kind: DatabaseKind[DatabaseT], path: str, name: str) -> None:
    """Create the file for its owner alone unless it is there; follow no symbolic link."""
    # An existing file is not opened: closing it would drop the locks that another job of this
    # process may hold on it (POSIX advisory locks, fcntl(2)).
    if not _is_there(kind, path, name):
        with suppress(FileExistsError):
            # O_EXCL follows no link, a dangling one included (open(2)).
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            return
        _is_there(kind, path, name)


def _is_there(kind: DatabaseKind[DatabaseT], path: str, name: str) -> bool:
    """Return whether the file is there; raise if it is no regular one."""
    found = False
    # SQLite opens the files beside it by name.
    for suffix in ("-wal", "-journal", "-shm", ""):
        try:
            mode = os.lstat(path + suffix).st_mode
        except FileNotFoundError:
            continue
        if not stat.S_ISREG(mode):
            what = "a symbolic link" if stat.S_ISLNK(mode) else "no regular file"
            raise kind.error(f"{name}{' with ' + suffix if suffix else ''} is {what}")
        found = not suffix
    return found


def _is_blank(connection: sqlite3.Connection) -> bool:
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return not tables and _pragma(connection, "application_id") == 0


def _empty(connection: sqlite3.Connection) -> None:
    """Overwrite the file with an empty database; damage to its pages does not matter."""
    with closing(sqlite3.connect(":memory:")) as empty:
        empty.backup(connection)


def _pragma(connection: sqlite3.Connection, pragma: str) -> int:
    (number,) = connection.execute(f"PRAGMA {pragma}").fetchone()
    return int(number)
