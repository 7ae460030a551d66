"""Fills a keyed table from rows in any order, in linear time.

Random inserts into a large B-tree rewrite its pages again and again. So rows are appended while
they come in the order of their keys. From the first row out of order on, they are staged, and
sorted into place once all are there (SQLite sorts in files, so memory stays bounded).
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import lt
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import sqlite3


_Row: TypeAlias = tuple[object, ...]


class Staging:
    """The writer of one table; of rows with equal keys the last one stays.

    `columns` maps names to SQLite types. The first `key_columns` of them, integers, are the
    primary key. Call it in the database's thread, inside a transaction.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        table: str,
        columns: dict[str, str],
        *,
        key_columns: int = 1,
    ) -> None:
        self._connection = connection
        self._table = table
        self._definition = ", ".join(f"{name} {type_}" for name, type_ in columns.items())
        self._columns = ", ".join(columns)
        self._key = ", ".join(list(columns)[:key_columns])
        self._key_columns = key_columns
        self._places = ", ".join("?" * len(columns))
        self._last_key: _Row = ()
        self._is_staging = False

    @property
    def schema(self) -> tuple[str, str]:
        """The statements that create the table, and the one in which rows are staged."""
        # A single integer key is SQLite's own row id: no second index.
        layout = "" if self._key_columns == 1 else " WITHOUT ROWID"
        return (
            f"CREATE TABLE {self._table} ({self._definition}, PRIMARY KEY ({self._key})){layout}",
            f"CREATE TABLE {self._table}_staged (number INTEGER PRIMARY KEY, {self._definition})",
        )

    def clear(self) -> None:
        """Empty the table."""
        for table in (self._table, f"{self._table}_staged"):
            self._connection.execute(f"DELETE FROM {table}")  # noqa: S608
        self._last_key = ()
        self._is_staging = False

    def add(self, rows: Sequence[_Row]) -> None:
        """Insert rows, in the order of the columns."""
        if not rows:
            return
        # Once some are staged all are: a later one of the same key must come after them.
        self._is_staging = self._is_staging or not self._is_ascending(rows)
        table = f"{self._table}_staged" if self._is_staging else self._table
        self._connection.executemany(
            f"INSERT INTO {table} ({self._columns}) VALUES ({self._places})",  # noqa: S608
            rows,
        )
        self._last_key = rows[-1][: self._key_columns]

    def merge(self) -> None:
        """Sort staged rows into the table."""
        if not self._is_staging:
            return
        self._connection.execute(
            f"REPLACE INTO {self._table} SELECT {self._columns} "  # noqa: S608
            f"FROM {self._table}_staged ORDER BY {self._key}, number"
        )
        self._connection.execute(f"DELETE FROM {self._table}_staged")  # noqa: S608

    def _is_ascending(self, rows: Sequence[_Row]) -> bool:
        keys = [self._last_key, *(row[: self._key_columns] for row in rows)]
        return all(map(lt, keys, keys[1:]))
