"""Keeps the attribute values. Blocks on SQLite."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain
from operator import itemgetter
from typing import Final, TypeVar

import attrs
from msgspec import UNSET

from bc_attrvals.sandbox.body_checks import (
    MAX_VALUE_CHARACTERS,
    BadItem,
    Indexed,
    Refused,
    UpsertItem,
)
from bc_attrvals.sandbox.database import Database, Moment, json_list, seconds_of

#: BigCommerce reference, Customer Attribute Values.
MAX_VALUES_PER_CUSTOMER: Final = 50

T = TypeVar("T")

# The most rows of one statement.
_MOST_ROWS: Final = 5_000
_COLUMNS: Final = "id, customer_id, attribute_id, value, date_created, date_modified"
_SEED: Final = """
INSERT INTO attribute_values (customer_id, attribute_id, value, date_created, date_modified)
VALUES (?, ?, ?, ?, ?)
ON CONFLICT (customer_id, attribute_id) DO UPDATE SET value = excluded.value,
date_created = excluded.date_created, date_modified = excluded.date_modified
"""

#: (customer_id, attribute_id, value[, date_created[, date_modified]])
SeedRow = tuple[int, int, str] | tuple[int, int, str, Moment] | tuple[int, int, str, Moment, Moment]
#: The customer and the attribute of a value.
Key = tuple[int, int]
# The cells of _COLUMNS.
Row = tuple[int, int, int, str, int, int]
_UNKNOWN_ID: Final = BadItem("id", "attribute value does not exist")
_ID_OF_ANOTHER: Final = BadItem("id", "belongs to another customer or attribute")
_CUSTOMER_IS_FULL: Final = BadItem(
    "customer_id", f"a customer holds at most {MAX_VALUES_PER_CUSTOMER} values"
)


@attrs.frozen
class StoredRow:
    """One stored value; the dates are UNIX seconds."""

    id: int
    customer_id: int
    attribute_id: int
    value: str
    date_created_s: int
    date_modified_s: int


class RowStore:
    """The attribute values of one store. Use it in one thread at a time."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.connection = database.connection
        # All attributes ever stored, or more. They bound how many values a customer can hold.
        attribute_ids = self.connection.execute(
            "SELECT DISTINCT attribute_id FROM attribute_values"
        )
        self._attribute_ids = {row[0] for row in attribute_ids}

    def upserts(self, keys: list[Key]) -> Upserts:
        """Return the upserts of one group of requests, which name these keys."""
        self._attribute_ids.update(map(itemgetter(1), keys))
        return Upserts(self, keys, can_be_full=len(self._attribute_ids) > MAX_VALUES_PER_CUSTOMER)

    def delete(self, ids: Sequence[int]) -> int:
        """Delete these rows; unknown ids are ignored. Returns how many there were."""
        cursor = self.connection.execute(
            "DELETE FROM attribute_values WHERE id IN (SELECT value FROM json_each(?))",
            (json_list(ids),),
        )
        if cursor.rowcount:
            self.database.note_change(membership=True)
        return cursor.rowcount

    def seed(self, rows: Iterable[SeedRow], *, replace: bool = False) -> int:
        """Insert rows past all limits, in one transaction; returns how many were read.

        `replace` deletes all others before. Dates and the length of a value are checked.
        """
        read = 0

        def counted() -> Iterator[tuple[int, int, str, int, int]]:
            nonlocal read
            now_s = self.database.now_s()
            for row in rows:
                customer_id, attribute_id, value = row[:3]
                if len(value) > MAX_VALUE_CHARACTERS:
                    raise ValueError(f"value of row {read} is longer than {MAX_VALUE_CHARACTERS}")
                try:
                    created_s = seconds_of(row[3]) if len(row) > 3 else now_s
                    modified_s = seconds_of(row[4]) if len(row) > 4 else created_s
                except ValueError as error:
                    raise ValueError(f"row {read}: {error}") from None
                read += 1
                self._attribute_ids.add(attribute_id)
                yield customer_id, attribute_id, value, created_s, modified_s

        with self.database.transaction():
            if replace:
                self.connection.execute("DELETE FROM attribute_values")
            self.connection.executemany(_SEED, counted())
        self.database.note_change(membership=True)
        return read

    def rows(self) -> list[StoredRow]:
        """Return all rows by ascending id."""
        statement = f"SELECT {_COLUMNS} FROM attribute_values ORDER BY id"  # noqa: S608 - constants
        return [StoredRow(*row) for row in self.connection.execute(statement)]

    def values(self) -> dict[tuple[int, int], str]:
        """Return all values by (customer_id, attribute_id)."""
        statement = "SELECT customer_id, attribute_id, value FROM attribute_values ORDER BY id"
        return {(row[0], row[1]): row[2] for row in self.connection.execute(statement)}

    def select(self, keys: list[Key]) -> Iterator[Row]:
        """Return the rows of these keys."""
        for part in _parts(keys):
            bound = list(chain.from_iterable(part))
            yield from self.connection.execute(_selection(len(part)), bound).fetchall()

    def write(self, rows: list[Row]) -> None:
        """Insert rows, or update those whose id is known."""
        # Each statement is a transaction of its own.
        for part in _parts(rows):
            bound = list(chain.from_iterable(part))
            self.connection.execute(_insertion(len(part)), bound)

    def has(self, row_id: int) -> bool:
        """Whether a row has this id."""
        statement = "SELECT 1 FROM attribute_values WHERE id = ?"
        return self.connection.execute(statement, (row_id,)).fetchone() is not None

    def counts(self, customer_ids: Iterable[int]) -> dict[int, int]:
        """Return how many rows each customer has, without those that have none."""
        statement = """
            SELECT customer_id, count(*) FROM attribute_values
            WHERE customer_id IN (SELECT value FROM json_each(?)) GROUP BY customer_id
        """
        return dict(self.connection.execute(statement, (json_list(customer_ids),)).fetchall())


class Upserts:
    """Upserts that follow each other: one SELECT before them, one INSERT after them.

    Each sees the rows of those before it. Nothing is stored before `write`.
    """

    def __init__(self, store: RowStore, keys: list[Key], *, can_be_full: bool) -> None:
        self._store = store
        self._stored = {(row[1], row[2]): row for row in store.select(keys)}
        self._can_be_full = can_be_full
        self._last_ids = store.database.last_ids()
        self._last_id = self._last_ids.get("attribute_values", 0)
        self._unwritten: dict[int, Row] = {}

    def upsert(
        self,
        items: Indexed[UpsertItem],
        refused: Refused,
        *,
        now_s: int,
        store_good_items: bool,
        touch_unchanged: bool = False,
    ) -> tuple[list[Row], Collection[int]]:
        """Apply the items of one request; of equal keys the last one wins.

        `refused` are the items refused already; those that the stored rows forbid are added to it.
        If there is any, nothing is stored, unless `store_good_items`. Returns the rows that the
        items name, in their order, and the ids of those that changed.
        """
        stored, can_be_full, last_id = self._stored, self._can_be_full, self._last_id
        counts = self._counts(items) if can_be_full else {}
        written: dict[int, Row] = {}
        named: dict[Key, Row] = {}
        for index, item in items:
            if index in refused:
                continue
            key, value = (item.customer_id, item.attribute_id), item.value
            row = stored.get(key)
            if item.id is not UNSET and (row is None or row[0] != item.id):
                refused[index] = self._wrong_id(item.id)
                continue
            if key in named:
                row = named[key]
            if row is None:
                if can_be_full:
                    counts[key[0]] = counts.get(key[0], 0) + 1
                    if counts[key[0]] > MAX_VALUES_PER_CUSTOMER:
                        refused[index] = _CUSTOMER_IS_FULL
                        continue
                last_id += 1
                named[key] = written[last_id] = (last_id, *key, value, now_s, now_s)
            elif touch_unchanged or row[3] != value:
                named[key] = written[row[0]] = (row[0], *key, value, row[4], now_s)
            else:
                named[key] = row
        if refused and not store_good_items:
            return [], ()
        self._last_id = last_id
        self._unwritten.update(written)
        stored.update(named)
        return list(named.values()), written.keys()

    def write(self) -> None:
        """Store what the upserts changed."""
        if not self._unwritten:
            return
        self._store.write(list(self._unwritten.values()))
        self._unwritten.clear()
        is_new = self._last_id > self._last_ids.get("attribute_values", 0)
        if is_new:
            self._last_ids["attribute_values"] = self._last_id
        self._store.database.note_change(membership=is_new)

    def _wrong_id(self, row_id: int) -> BadItem:
        """Return what is wrong with an id that is not that of the row with its item's key."""
        self.write()
        return _ID_OF_ANOTHER if self._store.has(row_id) else _UNKNOWN_ID

    def _counts(self, items: Indexed[UpsertItem]) -> dict[int, int]:
        self.write()
        return self._store.counts(item.customer_id for _, item in items)


def _parts(whole: list[T]) -> Iterator[list[T]]:
    """Split a list: SQLite takes at most 32,766 parameters (SQLite, Implementation Limits)."""
    for start in range(0, len(whole), _MOST_ROWS):
        yield whole[start : start + _MOST_ROWS]


@lru_cache
def _selection(keys: int) -> str:
    """Return the statement that selects the rows of this many keys."""
    # CROSS JOIN makes SQLite look each key up in the index (SQLite, Query Optimizer Overview).
    return f"""
        WITH keys (customer, attribute) AS (VALUES {", ".join(["(?, ?)"] * keys)})
        SELECT {_COLUMNS} FROM keys CROSS JOIN attribute_values
        ON customer_id = customer AND attribute_id = attribute
    """  # noqa: S608 - placeholders and constants


@lru_cache
def _insertion(rows: int) -> str:
    """Return the statement that inserts this many rows, or updates those whose id is known."""
    places = ", ".join(["(?, ?, ?, ?, ?, ?)"] * rows)
    return f"""
        INSERT INTO attribute_values ({_COLUMNS}) VALUES {places} ON CONFLICT DO UPDATE
        SET value = excluded.value, date_modified = excluded.date_modified
    """  # noqa: S608 - placeholders and constants
