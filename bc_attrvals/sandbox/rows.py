"""Keeps the rows in SQLite. Everything here blocks, and runs in the sandbox's one database thread.

Statements are few and large: SQLite gives up the interpreter lock at each step, and a busy event
loop is slow to hand it back. So a page comes back as one JSON text made in SQL, and an upsert is
one SELECT and one INSERT.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Final

import attrs
import msgspec

from bc_attrvals.sandbox.upserts import MAX_VALUE_CHARACTERS, BadItem, UpsertItem

MAX_VALUES_PER_CUSTOMER: Final = 50
_APPLICATION_ID: Final = 0x42434156  # "BCAV"
_SCHEMA_VERSION: Final = 1

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
CREATE INDEX IF NOT EXISTS by_attribute ON attribute_values (attribute_id);
CREATE INDEX IF NOT EXISTS by_date_created ON attribute_values (date_created);
CREATE INDEX IF NOT EXISTS by_date_modified ON attribute_values (date_modified);
"""

_COLUMNS: Final = "id, customer_id, attribute_id, value, date_created, date_modified"
_SEED: Final = """
INSERT INTO attribute_values (customer_id, attribute_id, value, date_created, date_modified)
VALUES (?, ?, ?, ?, ?)
ON CONFLICT (customer_id, attribute_id) DO UPDATE SET value = excluded.value,
date_created = excluded.date_created, date_modified = excluded.date_modified
"""

# UNIX seconds, or an aware datetime.
Moment = int | datetime
SeedRow = tuple[int, int, str] | tuple[int, int, str, Moment] | tuple[int, int, str, Moment, Moment]
_StoredTuple = tuple[int, int, int, str, int, int]
_decode_stored: Final = msgspec.json.Decoder(list[_StoredTuple])
_decode_counts: Final = msgspec.json.Decoder(list[tuple[int, int]])


@attrs.frozen
class StoredRow:
    """One stored value; the dates are UNIX seconds."""

    id: int
    customer_id: int
    attribute_id: int
    value: str
    date_created_s: int
    date_modified_s: int


@attrs.frozen
class UpsertResult:
    """What became of an upsert: the rows it names in its order, those changed, the first bad."""

    rows: list[StoredRow]
    changed_ids: frozenset[int]
    bad: BadItem | None


class RowStore:
    """The rows of one store. To be used in one thread only.

    `membership_version` counts the calls that inserted or deleted rows, `modification_version` all
    that changed any.
    """

    def __init__(self, database: str, wall_clock: Callable[[], float] = time.time) -> None:
        """Open the database; a new file is readable by its owner only."""
        self._wall_clock = wall_clock
        self.membership_version = 0
        self.modification_version = 0
        if database != ":memory:":
            # SQLite would create the file with the umask's mode; its WAL files copy the mode of the
            # file.
            os.close(os.open(database, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        self.connection = sqlite3.connect(database, isolation_level=None)
        try:
            self._prepare()
        except BaseException:
            self.connection.close()
            raise

    def close(self) -> None:
        """Close the database."""
        self.connection.close()

    def upsert(
        self,
        items: Sequence[UpsertItem],
        first_bad: BadItem | None,
        *,
        unknown_customers: frozenset[int],
        store_good_items: bool,
    ) -> UpsertResult:
        """Store the items in one transaction; of equal keys the last one wins.

        If any item is bad nothing is stored, unless `store_good_items`.
        """
        by_key = self._existing(items)
        by_id = {row.id: row for row in by_key.values()}
        by_id.update(self._existing_by_id(items, by_id))
        counts: dict[int, int] = {}
        now_s = int(self._wall_clock())
        next_id = 0
        inserted = False
        written: dict[int, StoredRow] = {}
        named: dict[int, StoredRow] = {}
        for item in items:
            key = (item.customer_id, item.attribute_id)
            row = by_key.get(key) if item.id is None else by_id.get(item.id)
            if row is None and not next_id:
                counts = self._counts({one.customer_id for one in items})
                next_id = self._last_id() + 1
            bad = _bad_against_rows(item, row, unknown_customers, counts)
            if bad is not None:
                if first_bad is None or bad.index < first_bad.index:
                    first_bad = bad
                continue
            if row is None:
                counts[item.customer_id] = counts.get(item.customer_id, 0) + 1
                row = StoredRow(next_id, *key, item.value, now_s, now_s)
                written[row.id] = row
                next_id += 1
                inserted = True
            elif row.value != item.value:
                row = StoredRow(row.id, *key, item.value, row.date_created_s, now_s)
                written[row.id] = row
            by_key[key] = by_id[row.id] = named[row.id] = row
        if first_bad is not None and not store_good_items:
            return UpsertResult([], frozenset(), first_bad)
        self._write(list(written.values()))
        self.membership_version += inserted
        self.modification_version += bool(written)
        return UpsertResult(list(named.values()), frozenset(written), first_bad)

    def delete(self, ids: Sequence[int]) -> int:
        """Delete these rows; unknown ids are ignored. Returns how many there were."""
        cursor = self.connection.execute(
            "DELETE FROM attribute_values WHERE id IN (SELECT value FROM json_each(?))",
            (_json_text(ids),),
        )
        self._bump(cursor.rowcount)
        return cursor.rowcount

    def clear(self) -> None:
        """Delete all rows and begin the ids again."""
        self.connection.execute("DELETE FROM attribute_values")
        self.connection.execute("DELETE FROM sqlite_sequence")
        self._bump(1)

    def seed(self, rows: Iterable[SeedRow], *, replace: bool = False) -> int:
        """Put rows straight in, in one transaction; returns how many were read.

        `replace` deletes all others before. Of the limits only the length of a value is checked.
        """
        read = 0

        def counted() -> Iterator[tuple[int, int, str, int, int]]:
            nonlocal read
            now_s = int(self._wall_clock())
            for row in rows:
                customer_id, attribute_id, value = row[:3]
                if len(value) > MAX_VALUE_CHARACTERS:
                    raise ValueError(f"value of row {read} is longer than {MAX_VALUE_CHARACTERS}")
                created_s = _seconds(row[3]) if len(row) > 3 else now_s
                modified_s = _seconds(row[4]) if len(row) > 4 else created_s
                read += 1
                yield customer_id, attribute_id, value, created_s, modified_s

        with _transaction(self.connection):
            if replace:
                self.connection.execute("DELETE FROM attribute_values")
            self.connection.executemany(_SEED, counted())
        self._bump(1)
        return read

    def rows(self) -> list[StoredRow]:
        """Return all rows by ascending id."""
        statement = f"SELECT {_COLUMNS} FROM attribute_values ORDER BY id"  # noqa: S608 - constants
        return [StoredRow(*row) for row in self.connection.execute(statement)]

    def values(self) -> dict[tuple[int, int], str]:
        """Return all values by (customer_id, attribute_id)."""
        statement = "SELECT customer_id, attribute_id, value FROM attribute_values ORDER BY id"
        return {(row[0], row[1]): row[2] for row in self.connection.execute(statement)}

    def count(self) -> int:
        """Return the number of rows."""
        (count,) = self.connection.execute("SELECT count(*) FROM attribute_values").fetchone()
        return int(count)

    def _prepare(self) -> None:
        connection = self.connection
        application_id = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if tables and (application_id, version) != (_APPLICATION_ID, _SCHEMA_VERSION):
            raise ValueError("the database is not a sandbox's, or one of another version")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.executescript(_SCHEMA)
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")

    def _bump(self, changed: int) -> None:
        if changed:
            self.membership_version += 1
            self.modification_version += 1

    def _last_id(self) -> int:
        # Ids are never given twice, as at the service; AUTOINCREMENT remembers the deleted ones.
        found = self.connection.execute("SELECT max(seq) FROM sqlite_sequence").fetchone()
        return int(found[0] or 0)

    def _existing(self, items: Sequence[UpsertItem]) -> dict[tuple[int, int], StoredRow]:
        if not items:
            return {}
        keys = ", ".join(["(?, ?)"] * len(items))
        statement = f"""
            WITH keys (customer, attribute) AS (VALUES {keys})
            SELECT json_group_array(json_array({_COLUMNS})) FROM keys CROSS JOIN attribute_values
            ON customer_id = customer AND attribute_id = attribute
        """  # noqa: S608 - placeholders and constants
        bound = [number for item in items for number in (item.customer_id, item.attribute_id)]
        found = self._stored(statement, bound)
        return {(row.customer_id, row.attribute_id): row for row in found}

    def _existing_by_id(
        self, items: Sequence[UpsertItem], known: dict[int, StoredRow]
    ) -> dict[int, StoredRow]:
        ids = [item.id for item in items if item.id is not None and item.id not in known]
        if not ids:
            return {}
        statement = f"""
            SELECT json_group_array(json_array({_COLUMNS})) FROM attribute_values
            WHERE id IN (SELECT value FROM json_each(?))
        """  # noqa: S608 - constants
        return {row.id: row for row in self._stored(statement, [_json_text(ids)])}

    def _stored(self, statement: str, bound: Sequence[int | str]) -> list[StoredRow]:
        (text,) = self.connection.execute(statement, bound).fetchone()
        return [StoredRow(*row) for row in _decode_stored.decode(text)]

    def _counts(self, customer_ids: Iterable[int]) -> dict[int, int]:
        statement = """
            SELECT json_group_array(json_array(customer_id, held)) FROM (
                SELECT customer_id, count(*) AS held FROM attribute_values
                WHERE customer_id IN (SELECT value FROM json_each(?)) GROUP BY customer_id
            )
        """
        (text,) = self.connection.execute(statement, (_json_text(list(customer_ids)),)).fetchone()
        return dict(_decode_counts.decode(text))

    def _write(self, rows: Sequence[StoredRow]) -> None:
        if not rows:
            return
        places = ", ".join(["(?, ?, ?, ?, ?, ?)"] * len(rows))
        # A single statement is a transaction of its own. Known rows conflict with themselves and
        # are updated.
        statement = f"""
            INSERT INTO attribute_values ({_COLUMNS}) VALUES {places} ON CONFLICT DO UPDATE
            SET value = excluded.value, date_modified = excluded.date_modified
        """  # noqa: S608 - placeholders and constants
        self.connection.execute(statement, [cell for row in rows for cell in _cells(row)])


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _cells(row: StoredRow) -> tuple[int | str, ...]:
    return (
        row.id,
        row.customer_id,
        row.attribute_id,
        row.value,
        row.date_created_s,
        row.date_modified_s,
    )


def _json_text(numbers: Sequence[int]) -> str:
    return msgspec.json.encode(numbers).decode()


def _seconds(moment: Moment) -> int:
    if isinstance(moment, datetime):
        if moment.tzinfo is None:
            raise ValueError("seed dates must be aware datetimes or UNIX seconds")
        return int(moment.timestamp())
    return moment


def _bad_against_rows(
    item: UpsertItem,
    row: StoredRow | None,
    unknown_customers: frozenset[int],
    counts: Mapping[int, int],
) -> BadItem | None:
    """Return why the rows forbid an item; `row` is the one it would replace."""
    if item.customer_id in unknown_customers:
        return BadItem(item.index, "customer_id", "customer does not exist")
    if row is not None:
        if (row.customer_id, row.attribute_id) == (item.customer_id, item.attribute_id):
            return None
        return BadItem(item.index, "id", "belongs to another customer or attribute")
    if item.id is not None:
        return BadItem(item.index, "id", "attribute value does not exist")
    if counts.get(item.customer_id, 0) >= MAX_VALUES_PER_CUSTOMER:
        message = f"a customer holds at most {MAX_VALUES_PER_CUSTOMER} values"
        return BadItem(item.index, "customer_id", message)
    return None
