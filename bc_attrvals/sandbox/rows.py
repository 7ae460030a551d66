"""Keeps the attribute values. Everything here blocks, and runs in the sandbox's database thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

import attrs
import msgspec

from bc_attrvals.sandbox.bodies import MAX_VALUE_CHARACTERS, BadItem, UpsertItem
from bc_attrvals.sandbox.database import Database, Moment, json_list, seconds_of

#: BigCommerce reference, Customer Attribute Values.
MAX_VALUES_PER_CUSTOMER: Final = 50

_COLUMNS: Final = "id, customer_id, attribute_id, value, date_created, date_modified"
_SEED: Final = """
INSERT INTO attribute_values (customer_id, attribute_id, value, date_created, date_modified)
VALUES (?, ?, ?, ?, ?)
ON CONFLICT (customer_id, attribute_id) DO UPDATE SET value = excluded.value,
date_created = excluded.date_created, date_modified = excluded.date_modified
"""

#: (customer_id, attribute_id, value[, date_created[, date_modified]])
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
    """The rows that an upsert names, in its order, those changed, and the first bad item."""

    rows: list[StoredRow]
    changed_ids: frozenset[int]
    bad: BadItem | None


class RowStore:
    """The attribute values of one store. To be used in one thread only."""

    def __init__(self, database: Database) -> None:
        """Keep the values in this database."""
        self.database = database
        self.connection = database.connection

    def upsert(
        self,
        items: Sequence[UpsertItem],
        first_bad: BadItem | None,
        *,
        now_s: int,
        refuse: Callable[[UpsertItem], BadItem | None],
        store_good_items: bool,
        touch_unchanged: bool = False,
    ) -> UpsertResult:
        """Store the items in one transaction; of equal keys the last one wins.

        `refuse` returns why an item is bad, None if it is good. If any item is bad nothing is
        stored, unless `store_good_items`.
        """
        by_key = self._existing(items)
        by_id = {row.id: row for row in by_key.values()}
        by_id.update(self._existing_by_id(items, by_id))
        counts: dict[int, int] = {}
        next_id = 0
        inserted = False
        written: dict[int, StoredRow] = {}
        named: dict[int, StoredRow] = {}
        for item in items:
            key = (item.customer_id, item.attribute_id)
            row = by_key.get(key) if item.id is None else by_id.get(item.id)
            if row is None and not next_id:
                counts = self._counts({one.customer_id for one in items})
                next_id = self.database.last_id("attribute_values") + 1
            bad = refuse(item) or _bad_against_rows(item, row, counts)
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
            elif touch_unchanged or row.value != item.value:
                row = StoredRow(row.id, *key, item.value, row.date_created_s, now_s)
                written[row.id] = row
            by_key[key] = by_id[row.id] = named[row.id] = row
        if first_bad is not None and not store_good_items:
            return UpsertResult([], frozenset(), first_bad)
        self._write(list(written.values()))
        if written:
            self.database.note_change(membership=inserted)
        return UpsertResult(list(named.values()), frozenset(written), first_bad)

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

        `replace` deletes all others before. Only the length of a value is checked.
        """
        read = 0

        def counted() -> Iterator[tuple[int, int, str, int, int]]:
            nonlocal read
            now_s = self.database.now_s()
            for row in rows:
                customer_id, attribute_id, value = row[:3]
                if len(value) > MAX_VALUE_CHARACTERS:
                    raise ValueError(f"value of row {read} is longer than {MAX_VALUE_CHARACTERS}")
                created_s = seconds_of(row[3]) if len(row) > 3 else now_s
                modified_s = seconds_of(row[4]) if len(row) > 4 else created_s
                read += 1
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

    def count(self) -> int:
        """Return the number of rows."""
        (count,) = self.connection.execute("SELECT count(*) FROM attribute_values").fetchone()
        return int(count)

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
        return {row.id: row for row in self._stored(statement, [json_list(ids)])}

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
        (text,) = self.connection.execute(statement, (json_list(customer_ids),)).fetchone()
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


def _cells(row: StoredRow) -> tuple[int | str, ...]:
    return (
        row.id,
        row.customer_id,
        row.attribute_id,
        row.value,
        row.date_created_s,
        row.date_modified_s,
    )


def _bad_against_rows(
    item: UpsertItem,
    row: StoredRow | None,
    counts: Mapping[int, int],
) -> BadItem | None:
    """Return why the stored rows forbid an item; `row` is the one it would replace."""
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
