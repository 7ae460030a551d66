"""The mirror's file: the rows, the changes, and how far they are proven.

Everything here blocks and runs in the database's thread. See `replica_schema.py` for the tables.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import closing
from typing import Final

import attrs

from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.core.models import AttributeValue
from bc_attrvals.errors import MirrorError
from bc_attrvals.mirror.created_index import CreatedIndex, Place
from bc_attrvals.mirror.range_counts import Bounds
from bc_attrvals.mirror.ranges import Range
from bc_attrvals.mirror.replica_schema import (
    COLUMNS,
    IN_ATTRIBUTES,
    IN_CUSTOMERS,
    MICRO,
    SCHEMA,
    Cells,
    HeldRow,
    cells_of,
    json_of,
    micro_of,
    row_of,
    where,
)
from bc_attrvals.mirror.report import Change
from bc_attrvals.sync.database import Database, DatabaseKind

#: Beyond all dates of the service. As microseconds it is still an integer of SQLite.
_MOST_SECONDS: Final = 10**12
_HELD: Final = f"SELECT sequence, born, {COLUMNS} FROM rows"  # noqa: S608 - constants
_ROWS: Final = f"SELECT {COLUMNS} FROM rows"  # noqa: S608 - constants
_FLAGS: Final = {"": None, "0": False, "1": True}


@attrs.define
class Taken:
    """The places of the rows that were added to the mirror, and of those removed from it."""

    added: list[Place] = attrs.field(factory=list)
    removed: list[Place] = attrs.field(factory=list)
    #: The customers of rows that were dropped.
    gone_customers: set[int] = attrs.field(factory=set)
    #: Pairs of what was held (None for nothing) and what came: new rows, and rows that differ
    #: though their `date_modified` is the same.
    unmoved: list[tuple[Cells | None, AttributeValue]] = attrs.field(factory=list)


class Replica(Database):
    """The tables of one mirror, over a connection in autocommit mode."""

    schema = SCHEMA
    #: The last change before the refresh that is under way.
    _before: int | None = None
    #: The condition, in SQL, that selects the customers that are reconciled.
    _customers = ""

    # A refresh is one transaction: nothing of it is seen before all of it is proven.

    def begin(self) -> None:
        """Begin a refresh."""
        for table in ("customers", "shown"):
            self.connection.execute(f"DROP TABLE IF EXISTS temp.{table}")
            self.connection.execute(f"CREATE TABLE temp.{table} (id INTEGER PRIMARY KEY)")
        self.connection.execute("BEGIN IMMEDIATE")
        self._before = self.last_sequence

    def commit(self, known: int | None, verified_at: int | None) -> dict[str, int]:
        """End a refresh: everything it found is visible at once. Return the counts of rows.

        `known` is a second of the service: later changes come at or after it. `verified_at` is
        our UNIX time of a listing of everything. None leaves the note as it was.
        """
        before = self._before
        assert before is not None
        if known is not None:
            self.put(known=known)
        if verified_at is not None:
            self.put(verified_at=verified_at)
        added = self.one(
            "SELECT count(*) FROM rows WHERE sequence > ? AND born > ?", before, before
        )
        counts = {
            "rows": self.count(),
            "added": added,
            "changed": self.one("SELECT count(*) FROM rows WHERE sequence > ?", before) - added,
            "removed": self.one("SELECT count(*) FROM gone WHERE sequence > ?", before),
        }
        self.connection.execute("COMMIT")
        self._before = None
        return counts

    def rollback(self) -> None:
        """Give up a refresh: the mirror is as it was before."""
        self._before = None
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    @property
    def last_sequence(self) -> int:
        """The number of the last change, 0 if there was none."""
        return int(self.number("sequence"))

    @property
    def known(self) -> int | None:
        """The `known` that the last refresh committed; None before the first."""
        return int(self.number("known")) if self.text("known") else None

    @property
    def bounds(self) -> Bounds:
        """What earlier refreshes learnt of the service's date bounds."""
        return Bounds(_FLAGS[self.text("min_inclusive")], _FLAGS[self.text("max_inclusive")])

    def note_bounds(self, bounds: Bounds) -> None:
        """Note what is known of the service's date bounds."""
        learnt = attrs.asdict(bounds).items()
        self.put(**{name: int(value) for name, value in learnt if value is not None})

    # Rows in, rows out.

    def take(self, rows: Sequence[AttributeValue], *, is_newest: bool = False) -> Taken:
        """Take in rows as answers showed them.

        Answers may come out of order: unless `is_newest`, a row that was modified before the one
        that this refresh has taken in changes nothing.
        """
        before = self._before or 0
        taken = Taken()
        # If a row comes twice, the later version counts.
        latest = {row.id: row for row in sorted(rows, key=lambda row: micro_of(row.date_modified))}
        new: list[tuple[int | None, Cells]] = []
        with self.transaction():
            held = self.held(latest)
            for row in latest.values():
                cells, born, old = cells_of(row), None, None
                if row.id in held:
                    number, born, old = held[row.id]
                    is_late = old[5] > cells[5] and number > before and not is_newest
                    if old == cells or is_late:
                        continue
                    taken.removed.append(_place(old))
                if old is None or old[5] == cells[5]:
                    taken.unmoved.append((old, row))
                taken.added.append(_place(cells))
                new.append((born, cells))
            numbers = self._numbers(len(new))
            # An earlier version of a row has the same id.
            self.connection.executemany(
                f"REPLACE INTO rows (sequence, born, {COLUMNS}) "  # noqa: S608 - constants
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (number, number if born is None else born, *cells)
                    for number, (born, cells) in zip(numbers, new, strict=True)
                ],
            )
        return taken

    def held(self, ids: Iterable[int]) -> dict[int, HeldRow]:
        """Return those of some ids that are held, by id."""
        condition = "id IN (SELECT value FROM json_each(?))"
        return {one.cells[0]: one for one in self._held(condition, json_of(list(ids)))}

    def drop_rows(self, held: Collection[HeldRow]) -> Taken:
        """Drop rows. Those that were there before the refresh leave a tombstone."""
        before = self._before
        known = [one.cells for one in held if before is None or one.born <= before]
        with self.transaction():
            self.connection.executemany(
                "DELETE FROM rows WHERE sequence = ?", [(one.sequence,) for one in held]
            )
            numbers = self._numbers(len(known))
            self.connection.executemany(
                f"INSERT INTO gone (sequence, {COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
                [(number, *cells) for number, cells in zip(numbers, known, strict=True)],
            )
        return Taken(
            removed=[_place(one.cells) for one in held],
            gone_customers={one.cells[1] for one in held},
        )

    def drop_range(
        self,
        range_: Range,
        keep: AbstractSet[int],
        customer_ids: Iterable[int] | None = None,
        *,
        modified_from: int = -_MOST_SECONDS,
    ) -> Taken:
        """Drop a range's rows that are not in `keep`, and that were modified from a second on.

        They are those of some customers, or of all customers set.
        """
        within, bound = self._within(range_, customer_ids)
        found = self._held(f"{within} AND modified >= ?", *bound, modified_from * MICRO)
        return self.drop_rows([one for one in found if one.cells[0] not in keep])

    def drop_ids(self, ids: Iterable[int]) -> Taken:
        """Drop rows by their ids."""
        return self.drop_rows(self.held(ids).values())

    def _within(
        self, range_: Range, customer_ids: Iterable[int] | None
    ) -> tuple[str, list[str | int]]:
        """Return the condition for a range's rows, and its parameters."""
        condition = f"{IN_ATTRIBUTES} AND created >= ? AND created < ?{self._customers}"
        bound: list[str | int] = [
            json_of(range_.attribute_ids),
            max(range_.first, -_MOST_SECONDS) * MICRO,
            (min(range_.last, _MOST_SECONDS) + 1) * MICRO,
        ]
        if customer_ids is not None:
            # The unary + keeps SQLite from the index by date: the one by customer has fewer rows.
            condition = f"+{condition} AND {IN_CUSTOMERS}"
            bound.append(json_of(list(customer_ids)))
        return condition, bound

    def _held(self, condition: str, *bound: str | int) -> list[HeldRow]:
        found = self.connection.execute(f"{_HELD} WHERE {condition}", bound)
        return [HeldRow(row[0], row[1], row[2:]) for row in found]

    def _numbers(self, count: int) -> range:
        """Return new numbers of changes. None is used twice."""
        last = self.last_sequence
        if count:
            self.put(sequence=last + count)
        return range(last + 1, last + count + 1)

    # What a refresh needs, of the customers set.

    def select_customers(self, customer_ids: Iterable[int] | None) -> None:
        """Set the customers that are refreshed; None for all."""
        self._customers = ""
        if customer_ids is not None:
            self._customers = " AND customer_id IN (SELECT id FROM temp.customers)"
            self.connection.execute("DELETE FROM temp.customers")
            self.connection.executemany(
                "INSERT INTO temp.customers VALUES (?)", [(one,) for one in customer_ids]
            )

    def created_index(self) -> CreatedIndex:
        """Return the index of all rows."""
        query = f"SELECT attribute_id, created FROM rows WHERE 1{self._customers}"  # noqa: S608
        found = self.connection.execute(f"{query} ORDER BY attribute_id, created")
        with closing(found):
            return CreatedIndex((row[0], row[1] // MICRO) for row in found)

    def created_of(self, modified_from: int) -> list[int]:
        """Return the seconds of `date_created` of rows modified from a second on, in order."""
        query = f"SELECT created FROM rows WHERE modified >= ?{self._customers} ORDER BY created"  # noqa: S608
        return [row[0] // MICRO for row in self.connection.execute(query, (modified_from * MICRO,))]

    def customers_near(self, customer_id: int, below: int, above: int) -> list[int]:
        """Return customers, in order: of the `below` rows up to one, and of the `above` from it."""
        query = "SELECT DISTINCT customer_id FROM (SELECT customer_id FROM rows WHERE customer_id "
        found: set[int] = set()
        for rest, most in (("<= ?{} ORDER BY 1 DESC", below), (">= ?{} ORDER BY 1", above)):
            sides = f"{query}{rest.format(self._customers)} LIMIT ?)"
            found.update(row[0] for row in self.connection.execute(sides, (customer_id, most)))
        return sorted(found)

    def customer_of(self, range_: Range) -> int | None:
        """Return a customer with a row of a range."""
        within, bound = self._within(range_, None)
        query = f"SELECT customer_id FROM rows WHERE {within} LIMIT 1"  # noqa: S608 - constants
        found = self.connection.execute(query, bound).fetchone()
        return None if found is None else int(found[0])

    def count_range(self, range_: Range, customer_ids: Iterable[int]) -> int:
        """Return how many rows of some customers a range has."""
        within, bound = self._within(range_, customer_ids)
        return self.one(f"SELECT count(*) FROM rows WHERE {within}", *bound)  # noqa: S608

    def first_modified(self, created_from: int, least: int) -> int | None:
        """Return the first second, from `least` on, in which a row created later was modified."""
        (found,) = self.connection.execute(
            "SELECT min(modified) FROM rows WHERE created >= ? AND modified >= ?",
            (created_from * MICRO, least * MICRO),
        ).fetchone()
        return None if found is None else found // MICRO

    # What `verify` needs.

    def note_shown(self, rows: Iterable[AttributeValue]) -> None:
        """Note rows that the listing of everything showed."""
        self.connection.executemany(
            "INSERT OR IGNORE INTO temp.shown VALUES (?)", [(row.id,) for row in rows]
        )

    def not_shown(self, most: int) -> list[HeldRow]:
        """Return up to `most` rows that the listing of everything did not show."""
        return self._held("id NOT IN (SELECT id FROM temp.shown) LIMIT ?", most)

    # What users read.

    def count(self, filter: AttributeValueFilter | None = None) -> int:
        """Return how many rows match a filter."""
        conditions, bound = where(filter)
        return self.one(f"SELECT count(*) FROM rows WHERE 1{conditions}", *bound)  # noqa: S608

    def next_rows(
        self, filter: AttributeValueFilter | None, after: tuple[int, int, int], most: int
    ) -> list[AttributeValue]:
        """Return up to `most` rows of a filter above a (customer, attribute, id), in that order."""
        conditions, bound = where(filter)
        found = self.connection.execute(
            f"{_ROWS} WHERE (customer_id, attribute_id, id) > (?, ?, ?){conditions} "
            "ORDER BY customer_id, attribute_id, id LIMIT ?",
            (*after, *bound, most),
        )
        return [row_of(cells) for cells in found]

    def find(self, customer_id: int, attribute_id: int) -> AttributeValue | None:
        """Return a customer's value for an attribute; of several the one with the highest id."""
        found = self.connection.execute(
            f"{_ROWS} WHERE customer_id = ? AND attribute_id = ? ORDER BY id DESC LIMIT 1",
            (customer_id, attribute_id),
        )
        return next(map(row_of, found), None)

    def next_changes(self, after: int, most: int) -> list[Change]:
        """Return up to `most` changes with sequence numbers above `after`, in order."""
        found = self.connection.execute(
            f"""SELECT * FROM (SELECT sequence, 'put', {COLUMNS} FROM rows WHERE sequence > ?
                ORDER BY sequence LIMIT ?)
            UNION ALL
            SELECT * FROM (SELECT sequence, 'delete', {COLUMNS} FROM gone WHERE sequence > ?
                ORDER BY sequence LIMIT ?)
            ORDER BY sequence LIMIT ?""",  # noqa: S608 - constants
            (after, most, after, most, most),
        )
        return [Change(sequence, kind, row_of(tuple(cells))) for sequence, kind, *cells in found]


def _place(cells: Cells) -> Place:
    return cells[2], cells[4] // MICRO


#: "BCMI".
MIRRORS: Final = DatabaseKind(
    noun="mirror",
    application_id=0x42434D49,
    version=1,
    tables=Replica,
    error=MirrorError,
    other_version="delete the file; the next refresh lists everything",
    # Rows come in any order of their indexes: with a quarter of it, taking them in costs a fifth
    # more.
    cache_kib=16_384,
)
