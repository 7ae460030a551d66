"""The mirror's file: the rows, the changes, and how far they are proven.

Everything here blocks and runs in the database's thread. A row's primary key is the number of its
last change, so the table itself is the list of changes, in order; a row that is gone leaves a
tombstone. Moments are integers: microseconds since 1970, in UTC.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Final

import attrs
import msgspec

from bc_attrvals.core.models import AttributeValue
from bc_attrvals.errors import MirrorError
from bc_attrvals.mirror.created_index import CreatedIndex, Place
from bc_attrvals.mirror.parts import Part
from bc_attrvals.sync.database import Database, DatabaseKind

COLUMNS: Final = "id, customer_id, attribute_id, value, created, modified"
_SCHEMA: Final = (
    # `born` is the number of the change that added the row.
    """CREATE TABLE rows (
        sequence INTEGER PRIMARY KEY, id INTEGER NOT NULL UNIQUE,
        customer_id INTEGER NOT NULL, attribute_id INTEGER NOT NULL, value,
        created INTEGER NOT NULL, modified INTEGER NOT NULL, born INTEGER NOT NULL)""",
    "CREATE INDEX rows_by_key ON rows (customer_id, attribute_id)",
    "CREATE INDEX rows_by_created ON rows (attribute_id, created)",
    """CREATE TABLE gone (
        sequence INTEGER PRIMARY KEY, id INTEGER NOT NULL,
        customer_id INTEGER NOT NULL, attribute_id INTEGER NOT NULL, value,
        created INTEGER NOT NULL, modified INTEGER NOT NULL)""",
)
_TABLES: Final = ("rows", "gone")
_MICRO: Final = 1_000_000
#: Beyond all dates of the service, and an integer of SQLite as microseconds.
_MOST_SECONDS: Final = 10**12
_IN_PART: Final = " AND customer_id IN (SELECT id FROM temp.customers)"

Cells = tuple[int, int, int, str | bytes, int, int]
#: A stored row: its sequence, `born`, and its cells.
Held = tuple[int, int, Cells]

_encode: Final = msgspec.json.Encoder().encode


@attrs.define
class Taken:
    """Where the rows stand that went into the mirror, and those that went out of it."""

    added: list[Place] = attrs.field(factory=list)
    removed: list[Place] = attrs.field(factory=list)
    #: Rows that were not there before, and rows that differ from those that were there (first) by
    #: more than `date_modified`, which is the same.
    unmoved: list[tuple[Cells | None, AttributeValue]] = attrs.field(factory=list)


@attrs.frozen
class Totals:
    """The rows of a mirror, and how many of them a refresh added, changed and removed."""

    rows: int
    added: int
    changed: int
    removed: int


class Replica(Database):
    """The tables of one mirror, over a connection in autocommit mode."""

    #: The last change before the refresh that is under way.
    _before: int | None = None

    def create(self) -> None:
        """Create all tables anew, whatever there was before."""
        with self.transaction():
            self.create_tables(_TABLES, _SCHEMA)

    # A refresh is one transaction: nothing of it is seen before all of it is proven.

    def begin(self) -> None:
        """Begin a refresh."""
        for table in ("customers", "shown"):
            self.connection.execute(
                f"CREATE TABLE IF NOT EXISTS temp.{table} (id INTEGER PRIMARY KEY)"
            )
            self.connection.execute(f"DELETE FROM temp.{table}")  # noqa: S608 - constants
        self.connection.execute("BEGIN IMMEDIATE")
        self._before = self.last_sequence

    def commit(self, known: int | None, verified_at: int | None) -> Totals:
        """End a refresh: everything it found is visible at once. Return what it came to.

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
        totals = Totals(
            rows=self.count(),
            added=added,
            changed=self.one("SELECT count(*) FROM rows WHERE sequence > ?", before) - added,
            removed=self.one("SELECT count(*) FROM gone WHERE sequence > ?", before),
        )
        self.connection.execute("COMMIT")
        self._before = None
        return totals

    def rollback(self) -> None:
        """Give up a refresh: the mirror is as it was before."""
        self._before = None
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    @property
    def last_sequence(self) -> int:
        """The number of the last change, 0 if there was none."""
        return int(self.number("sequence"))

    def count(self) -> int:
        """Return how many rows there are."""
        return self.one("SELECT count(*) FROM rows")

    # Rows in, rows out.

    def take(self, rows: Sequence[AttributeValue], *, is_newest: bool = False) -> Taken:
        """Take in rows as answers showed them.

        Answers may come out of order: unless `is_newest`, a row that was modified before the one
        that this refresh has taken in changes nothing.
        """
        before = self._before or 0
        taken = Taken()
        # Of one row twice, the later version.
        latest = {row.id: row for row in sorted(rows, key=_modified)}
        cells = {row_id: cells_of(row) for row_id, row in latest.items()}
        with self.transaction():
            held = self.held(cells)
            new: list[tuple[int | None, Cells]] = []
            for row in cells.values():
                if row[0] not in held:
                    new.append((None, row))
                    taken.unmoved.append((None, latest[row[0]]))
                else:
                    number, born, old = held[row[0]]
                    is_late = old[5] > row[5] and number > before and not is_newest
                    if old == row or is_late:
                        continue
                    new.append((born, row))
                    taken.removed.append(_place(old))
                    if old[5] == row[5]:
                        taken.unmoved.append((old, latest[row[0]]))
                taken.added.append(_place(row))
            replaced = [held[row[0]][0] for born, row in new if born is not None]
            self._delete(replaced)
            self._insert(new)
        return taken

    def held(self, ids: Iterable[int]) -> dict[int, Held]:
        """Return the rows that are there, by id."""
        found = self.connection.execute(
            f"SELECT sequence, born, {COLUMNS} FROM rows "  # noqa: S608 - constants
            "WHERE id IN (SELECT value FROM json_each(?))",
            (_encode(list(ids)).decode(),),
        )
        return {row[2]: (row[0], row[1], row[2:]) for row in found}

    def drop_rows(self, held: Collection[Held]) -> Taken:
        """Drop rows. Those that were there before the refresh leave a tombstone."""
        with self.transaction():
            self._delete(one[0] for one in held)
            before = self._before
            known = [one[2] for one in held if before is None or one[1] <= before]
            numbers = self._numbers(len(known))
            self.connection.executemany(
                f"INSERT INTO gone (sequence, {COLUMNS}) "  # noqa: S608 - constants
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                [(number, *cells) for number, cells in zip(numbers, known, strict=True)],
            )
        return Taken(removed=[_place(one[2]) for one in held])

    def drop_part(self, part: Part, keep: frozenset[int], *, of_customers: bool) -> Taken:
        """Drop the rows of a part that are not in `keep`."""
        first = max(part.first, -_MOST_SECONDS) * _MICRO
        last = min(part.last, _MOST_SECONDS) * _MICRO + _MICRO - 1
        found = self.connection.execute(
            f"SELECT sequence, born, {COLUMNS} FROM rows "  # noqa: S608 - constants
            "WHERE attribute_id IN (SELECT value FROM json_each(?)) AND created BETWEEN ? AND ?"
            f"{_IN_PART if of_customers else ''}",
            (_encode(part.attribute_ids).decode(), first, last),
        )
        gone = [(row[0], row[1], row[2:]) for row in found if row[2] not in keep]
        return self.drop_rows(gone)

    def drop_ids(self, ids: Iterable[int]) -> Taken:
        """Drop rows by their ids."""
        return self.drop_rows(self.held(ids).values())

    def _delete(self, sequences: Iterable[int]) -> None:
        self.connection.executemany(
            "DELETE FROM rows WHERE sequence = ?", [(one,) for one in sequences]
        )

    def _insert(self, rows: Sequence[tuple[int | None, Cells]]) -> None:
        numbers = self._numbers(len(rows))
        self.connection.executemany(
            f"INSERT INTO rows (sequence, born, {COLUMNS}) "  # noqa: S608 - constants
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (number, number if born is None else born, *cells)
                for number, (born, cells) in zip(numbers, rows, strict=True)
            ],
        )

    def _numbers(self, count: int) -> range:
        """Return new numbers of changes. None is ever given twice."""
        last = self.last_sequence
        if count:
            self.put(sequence=last + count)
        return range(last + 1, last + count + 1)

    # What a reconciliation needs.

    def set_customers(self, customer_ids: Iterable[int]) -> None:
        """Set the customers of the part of the scope that is reconciled."""
        self.connection.execute("DELETE FROM temp.customers")
        self.connection.executemany(
            "INSERT INTO temp.customers VALUES (?)", [(one,) for one in customer_ids]
        )

    def created_index(self, *, of_customers: bool) -> CreatedIndex:
        """Return where all rows stand."""
        with closing(
            self.connection.execute(
                "SELECT attribute_id, created FROM rows WHERE 1"  # noqa: S608 - constants
                f"{_IN_PART if of_customers else ''} ORDER BY attribute_id, created"
            )
        ) as found:
            return CreatedIndex((row[0], row[1] // _MICRO) for row in found)

    def recent(
        self,
        attribute_ids: Sequence[int],
        *,
        created_after: int,
        modified_from: int,
        of_customers: bool,
    ) -> list[int]:
        """Return the ids of rows of some attributes, created and modified after two seconds."""
        condition = "attribute_id IN (SELECT value FROM json_each(?)) AND created >= ?"
        found = self.connection.execute(
            f"SELECT id FROM rows WHERE {condition} AND modified >= ?"  # noqa: S608 - constants
            f"{_IN_PART if of_customers else ''}",
            (_encode(attribute_ids).decode(), (created_after + 1) * _MICRO, modified_from * _MICRO),
        )
        return [one for (one,) in found]

    def modified_from(self, second: int, most: int) -> list[int]:
        """Return the seconds of `date_modified` from one on, the latest first, so many at most."""
        found = self.connection.execute(
            "SELECT modified FROM rows WHERE modified >= ? ORDER BY modified DESC LIMIT ?",
            (second * _MICRO, most),
        )
        return [modified // _MICRO for (modified,) in found]

    # What `verify` needs.

    def note_shown(self, rows: Iterable[AttributeValue]) -> None:
        """Note rows that the listing of everything showed."""
        self.connection.executemany(
            "INSERT OR IGNORE INTO temp.shown VALUES (?)", [(row.id,) for row in rows]
        )

    def not_shown(self, most: int) -> list[Held]:
        """Return rows that the listing of everything did not show, so many at most."""
        found = self.connection.execute(
            f"SELECT sequence, born, {COLUMNS} FROM rows "  # noqa: S608 - constants
            "WHERE id NOT IN (SELECT id FROM temp.shown) LIMIT ?",
            (most,),
        )
        return [(row[0], row[1], row[2:]) for row in found]


#: "BCMI".
MIRRORS: Final = DatabaseKind(
    noun="mirror",
    application_id=0x42434D49,
    version=1,
    tables=Replica,
    error=MirrorError,
    other_version="delete the file; the next refresh lists everything",
)


def micro_of(moment: datetime) -> int:
    """Return a moment in microseconds."""
    return int(moment.replace(microsecond=0).timestamp()) * _MICRO + moment.microsecond


def row_of(cells: Cells) -> AttributeValue:
    """Return the row again."""
    row_id, customer_id, attribute_id, value, created, modified = cells
    text = value.decode("utf-8", "surrogatepass") if isinstance(value, bytes) else value
    moments = (_moment(created), _moment(modified))
    return AttributeValue(row_id, customer_id, attribute_id, text, *moments)


def _moment(micro: int) -> datetime:
    return datetime.fromtimestamp(micro // _MICRO, UTC).replace(microsecond=micro % _MICRO)


def cells_of(row: AttributeValue) -> Cells:
    """Return a row that has both dates as it is stored."""
    created, modified = row.date_created, row.date_modified
    assert created is not None
    assert modified is not None
    return (
        row.id,
        row.customer_id,
        row.attribute_id,
        _storable(row.value),
        micro_of(created),
        micro_of(modified),
    )


def _storable(value: str) -> str | bytes:
    """Return a value as SQLite can hold it; half a surrogate pair is no text there."""
    if value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-8", "surrogatepass")
    return value


def _modified(row: AttributeValue) -> datetime:
    assert row.date_modified is not None
    return row.date_modified


def _place(cells: Cells) -> Place:
    return cells[2], cells[4] // _MICRO
