"""Opens the sandbox's SQLite database. Everything here blocks.

Statements are few and large, because SQLite releases the interpreter lock at each step, and a busy
event loop is slow to return it. A page is one JSON text made in SQL; an upsert is one SELECT and
one INSERT.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Final

import msgspec

_APPLICATION_ID: Final = 0x42434156  # "BCAV"
_SCHEMA_VERSION: Final = 2
# Version 1 lacks two tables, which the schema adds.
_READABLE_VERSIONS: Final = (1, _SCHEMA_VERSION)

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS attribute_values (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    customer_id INTEGER NOT NULL,
    attribute_id INTEGER NOT NULL,
    value TEXT NOT NULL,
    date_created INTEGER NOT NULL,
    date_modified INTEGER NOT NULL,
    UNIQUE (customer_id, attribute_id)
);
CREATE TABLE IF NOT EXISTS attributes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    type TEXT NOT NULL,
    date_created INTEGER NOT NULL,
    date_modified INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS customers (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    email TEXT NOT NULL,
    email_key TEXT NOT NULL UNIQUE,
    date_created INTEGER NOT NULL,
    date_modified INTEGER NOT NULL
);
"""

# The indexes of attribute values beside those of the table. Each costs a write as much as the table
# does, so it is made when a listing first needs it.
_INDEXES: Final = {
    "attribute_id": "by_attribute",
    "date_created": "by_date_created",
    "date_modified": "by_date_modified",
}

#: UNIX seconds, or an aware datetime.
Moment = int | datetime


class Database:
    """One connection, the clock for dates, and two versions. Use it in one thread at a time.

    `membership_version` counts the changes that inserted or deleted attribute values,
    `modification_version` all changes.
    """

    def __init__(self, path: str, wall_clock: Callable[[], float] = time.time) -> None:
        """Open the database; a new file is readable by its owner only."""
        self.wall_clock = wall_clock
        self.membership_version = 0
        self.modification_version = 0
        self._last_ids: dict[str, int] | None = None
        self._unindexed = dict(_INDEXES)
        self.is_in_memory = path == ":memory:"
        if not self.is_in_memory:
            # SQLite would create the file with the umask's mode; its WAL files copy the mode of the
            # file.
            os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        self.connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            self._prepare()
        except BaseException:
            self.connection.close()
            raise

    def close(self) -> None:
        """Close the database."""
        self.connection.close()

    def now_s(self) -> int:
        """Return whole UNIX seconds."""
        return int(self.wall_clock())

    def last_ids(self) -> dict[str, int]:
        """Return the largest id that each table ever held; ids are never reused.

        An insert outside of a `transaction` must update it.
        """
        if self._last_ids is None:
            statement = "SELECT name, seq FROM sqlite_sequence WHERE seq > 0"
            self._last_ids = dict(self.connection.execute(statement).fetchall())
        return self._last_ids

    def index(self, columns: Iterable[str]) -> None:
        """Make the indexes that conditions on these columns of attribute values need."""
        for column in self._unindexed.keys() & columns:
            name = self._unindexed.pop(column)
            self.connection.execute(
                f"CREATE INDEX IF NOT EXISTS {name} ON attribute_values ({column})"
            )

    def count(self, table: str, where: str = "", bound: Sequence[str | float] = ()) -> int:
        """Return how many rows of a table match."""
        statement = f"SELECT count(*) FROM {table}{where}"  # noqa: S608 - placeholders and constants
        return int(self.connection.execute(statement, bound).fetchone()[0])

    def clear(self, table: str) -> None:
        """Delete a table's rows and restart its ids."""
        self.connection.execute(f"DELETE FROM {table}")  # noqa: S608 - a constant
        self.connection.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
        self._last_ids = None
        self.note_change(membership=True)

    def note_change(self, *, membership: bool) -> None:
        """Count a change; `membership` if attribute values came or went."""
        self.membership_version += membership
        self.modification_version += 1

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit the block's statements together, or none if it raises."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.connection.execute("COMMIT")
        finally:
            # A failed COMMIT may have ended the transaction, or not.
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            self._last_ids = None

    def _prepare(self) -> None:
        connection = self.connection
        application_id = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        is_ours = application_id == _APPLICATION_ID and version in _READABLE_VERSIONS
        if tables and not is_ours:
            raise ValueError("the database is not a sandbox's, or one of another version")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.executescript(_SCHEMA)
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")


def json_list(items: Iterable[int] | Iterable[str]) -> str:
    """Return a JSON array for SQLite's `json_each`."""
    return msgspec.json.encode(list(items)).decode()


def seconds_of(moment: Moment) -> int:
    """Return whole UNIX seconds; raises ValueError for a naive datetime or another type."""
    if isinstance(moment, datetime) and moment.tzinfo is not None:
        return int(moment.timestamp())
    if isinstance(moment, int) and not isinstance(moment, bool):
        return moment
    raise ValueError(f"a date must be an aware datetime or whole UNIX seconds, not {moment!r}")
