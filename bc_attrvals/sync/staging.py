"""Fills a keyed table of the working set, from rows in any order, in a time that is linear.

Rows put into a large table at random places rewrite page after page of it, time and again. So
rows are appended as long as they come in order of their keys; from the first that does not on, they
are staged, and sorted into place once all are there (SQLite sorts in files).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

__all__ = ["Intake"]


class Intake:
    """The way into one table, whose first column is an integer `key`; the last of equals wins."""

    def __init__(self, connection: sqlite3.Connection, table: str, columns: dict[str, str]) -> None:
        self._connection = connection
        self._table = table
        self._definition = ", ".join(f"{name} {type_}" for name, type_ in columns.items())
        self._columns = ", ".join(["key", *columns])
        self._places = ", ".join("?" * (1 + len(columns)))
        self._last_key = 0
        self._is_staging = False

    def create(self) -> None:
        """Make the table anew."""
        for table in (self._table, f"{self._table}_staged"):
            self._connection.execute(f"DROP TABLE IF EXISTS {table}")
        self._connection.execute(
            f"CREATE TABLE {self._table} (key INTEGER PRIMARY KEY, {self._definition})"
        )
        self._connection.execute(
            f"CREATE TABLE {self._table}_staged "
            f"(number INTEGER PRIMARY KEY, key INTEGER NOT NULL, {self._definition})"
        )
        self._last_key = 0
        self._is_staging = False

    def add(self, rows: Sequence[tuple[int, *tuple[object, ...]]]) -> None:
        """Take in rows."""
        if not rows:
            return
        # Once some are staged all are, for a later one of the same key must come after them.
        self._is_staging = self._is_staging or not self._follow(rows)
        table = f"{self._table}_staged" if self._is_staging else self._table
        self._connection.executemany(
            f"INSERT INTO {table} ({self._columns}) VALUES ({self._places})",  # noqa: S608
            rows,
        )
        self._last_key = rows[-1][0]

    def merge(self) -> None:
        """Sort what was staged into place."""
        if not self._is_staging:
            return
        self._connection.execute(
            f"REPLACE INTO {self._table} SELECT {self._columns} "  # noqa: S608
            f"FROM {self._table}_staged ORDER BY key, number"
        )
        self._connection.execute(f"DELETE FROM {self._table}_staged")  # noqa: S608

    def _follow(self, rows: Sequence[tuple[int, *tuple[object, ...]]]) -> bool:
        return self._last_key < rows[0][0] and all(one[0] < two[0] for one, two in pairwise(rows))
