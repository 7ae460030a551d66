"""The working set of a sync in SQLite: desired, current, plan and outcomes, in bounded memory.

Everything here blocks and runs in the one thread of a `journal.Desk`. The set work (last of equal
keys, what differs, what is left to do) is SQLite's, so memory does not grow with the input. Both
tables are keyed by one integer made of customer and attribute, SQLite's own row id: rows lie in
that order, and comparing them is one walk along both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import msgspec

from bc_attrvals.core.models import MAX_ID, AttributeValueUpsert
from bc_attrvals.core.sync_plan import MAX_VALUES_PER_CUSTOMER
from bc_attrvals.core.sync_states import (
    ID_BITS,
    CurrentRow,
    DesiredFacts,
    DesiredRow,
    Differences,
    Kind,
    Phase,
    State,
    Tally,
    from_key,
    to_key,
)
from bc_attrvals.sync.staging import Intake

if TYPE_CHECKING:
    import sqlite3

__all__ = ["WorkSet"]

_SCHEMA: Final = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID",
    "CREATE TABLE upserts (key INTEGER PRIMARY KEY, kind INTEGER NOT NULL, state INTEGER NOT NULL)",
    "CREATE TABLE deletes (id INTEGER PRIMARY KEY, state INTEGER NOT NULL)",
    "CREATE TABLE failures (number INTEGER PRIMARY KEY, key INTEGER NOT NULL, error TEXT NOT NULL)",
)
_TABLES: Final = ("meta", "upserts", "deletes", "failures")
#: What does not change any more once it is there, and would not be missed if it did.
_SEALED: Final = {
    "desired": ("SELECT key, value FROM desired ORDER BY key",),
    "plan": (
        "SELECT key, kind FROM upserts ORDER BY key",
        "SELECT id FROM deletes ORDER BY id",
    ),
}
_SEAL_ROWS: Final = 4_096

_encode_lines: Final = msgspec.json.Encoder().encode_lines


class WorkSet:
    """The tables of one sync, over a connection in autocommit mode."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._desired = Intake(connection, "desired", {"value": "TEXT NOT NULL"})
        self._current = Intake(
            connection, "current", {"id": "INTEGER NOT NULL", "value": "TEXT NOT NULL"}
        )

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection beneath."""
        return self._connection

    def create(self) -> None:
        """Make the tables anew, whatever there was before."""
        with self.transaction():
            for table in _TABLES:
                self._connection.execute(f"DROP TABLE IF EXISTS {table}")
            for statement in _SCHEMA:
                self._connection.execute(statement)
            self._desired.create()
            self._current.create()
            self.put(phase=Phase.LOADING)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit all that is done inside, or nothing of it; the inner of two is the outer's."""
        if self._connection.in_transaction:
            yield
            return
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            # Some errors (a full disk) have rolled back already.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    # What is noted beside the tables.

    def put(self, /, **values: str | float) -> None:
        """Note values by name."""
        self._connection.executemany("REPLACE INTO meta VALUES (?, ?)", values.items())

    def add(self, /, **amounts: float) -> None:
        """Add to noted numbers, which begin at 0."""
        self._connection.executemany(
            "INSERT INTO meta VALUES (?, ?) "
            "ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
            [(name, amount) for name, amount in amounts.items() if amount],
        )

    def text(self, name: str) -> str:
        """Return a noted text, empty if there is none."""
        found = self._noted(name)
        return "" if found is None else str(found)

    def number(self, name: str) -> float:
        """Return a noted number, 0 if there is none."""
        found = self._noted(name)
        return found if isinstance(found, int | float) else 0

    def _noted(self, name: str) -> object:
        row = self._connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else row[0]

    @property
    def phase(self) -> Phase:
        """How far the sync has come; raises ValueError for a phase nobody knows."""
        return Phase(self.text("phase"))

    def is_intact(self) -> bool:
        """Return whether what was sealed is as it was, and every state is one there is.

        SQLite looks after its pages, and not after what stands in them.
        """
        for name in _SEALED:
            noted = self.text(f"seal of {name}")
            if noted and noted != self._seal(name):
                return False
        states = ", ".join(str(int(state)) for state in State)
        return not any(
            self._one(f"SELECT count(*) FROM {table} WHERE state NOT IN ({states})")  # noqa: S608
            for table in ("upserts", "deletes")
        )

    def _seal(self, name: str) -> str:
        digest = hashlib.blake2b(digest_size=16)
        for statement in _SEALED[name]:
            cursor = self._connection.execute(statement)
            while rows := cursor.fetchmany(_SEAL_ROWS):
                digest.update(_encode_lines(rows))
            digest.update(b"-")
        return digest.hexdigest()

    # Loading and reading.

    def add_desired(self, rows: Sequence[DesiredRow]) -> None:
        """Take in desired rows; of equal keys the last one wins."""
        with self.transaction():
            self._desired.add(rows)
            self.add(loaded=len(rows))

    def add_current(self, rows: Sequence[CurrentRow], calls: int = 0, retries: int = 0) -> None:
        """Take in rows of the store, and what reading them took; a row listed twice is one row."""
        with self.transaction():
            self._current.add(rows)
            self.add(calls=calls, retries=retries)

    def forget_current(self) -> None:
        """Forget what was read, to begin reading anew."""
        with self.transaction():
            self._current.create()

    def end_loading(self, *, seal: bool) -> int:
        """Take note that all desired rows are there; return how many, equal keys counted once.

        With `seal`, so that a change of them is seen by `is_intact`; the plan has the same.
        """
        with self.transaction():
            self._desired.merge()
            count = self._count_desired()
            self.put(superseded=self.number("loaded") - count)
            if seal:
                self.put(**{"seal of desired": self._seal("desired")})
            return count

    def _count_desired(self) -> int:
        return self._one("SELECT count(*) FROM desired")

    def facts(self, most_customers: int) -> DesiredFacts:
        """Return what is to know of the desired values, with that many of the last customers."""
        values = customers = last = 0
        for (key,) in self._connection.execute("SELECT key FROM desired ORDER BY key"):
            values += 1
            if (customer := key >> ID_BITS) != last:
                last = customer
                customers += 1
        attribute_ids = self._connection.execute(
            "SELECT DISTINCT key & ? FROM desired LIMIT ?", (MAX_ID, MAX_VALUES_PER_CUSTOMER + 1)
        ).fetchall()
        few = len(attribute_ids) <= MAX_VALUES_PER_CUSTOMER
        return DesiredFacts(
            values,
            customers,
            tuple(sorted(one for (one,) in attribute_ids)) if few else None,
            tuple(self._customers("DESC", 0, most_customers)),
        )

    def customers(self, after: int, most: int) -> list[int]:
        """Return up to `most` desired customers with ids above `after`, in order."""
        return list(self._customers("ASC", to_key(after, MAX_ID), most))

    def _customers(self, order: str, above: int, most: int) -> Iterator[int]:
        # Rows lie in order of customers, so equal ones follow one another.
        last = found = 0
        cursor = self._connection.execute(
            f"SELECT key FROM desired WHERE key > ? ORDER BY key {order}",  # noqa: S608
            (above,),
        )
        try:
            for (key,) in cursor:
                if (customer := key >> ID_BITS) == last:
                    continue
                if found == most:
                    return
                last = customer
                found += 1
                yield customer
        finally:
            cursor.close()

    # The plan.

    def compare(self, *, prune: bool, seal: bool) -> Differences:
        """Plan what differs: a desired value that is missing or another, and what to prune."""
        with self.transaction():
            self._current.merge()
            self._clear_plan()
            self._connection.execute(
                "INSERT INTO upserts "
                "SELECT desired.key, CASE WHEN current.key IS NULL THEN ? ELSE ? END, ? "
                "FROM desired LEFT JOIN current ON current.key = desired.key "
                "WHERE current.key IS NULL OR current.value <> desired.value ORDER BY desired.key",
                (Kind.CREATE, Kind.UPDATE, State.PENDING),
            )
            if prune:
                # By id, so that no row is deleted that came in the place of one that was read.
                self._connection.execute(
                    "INSERT OR IGNORE INTO deletes SELECT current.id, ? "
                    "FROM current LEFT JOIN desired ON desired.key = current.key "
                    "WHERE desired.key IS NULL",
                    (State.PENDING,),
                )
            return self._note_differences(seal=seal)

    def plan_all(self, *, seal: bool) -> Differences:
        """Plan to write every desired value, whatever the store holds."""
        with self.transaction():
            self._clear_plan()
            self._connection.execute(
                "INSERT INTO upserts SELECT key, ?, ? FROM desired ORDER BY key",
                (Kind.WRITE, State.PENDING),
            )
            return self._note_differences(seal=seal)

    def _clear_plan(self) -> None:
        for table in ("upserts", "deletes", "failures"):
            self._connection.execute(f"DELETE FROM {table}")  # noqa: S608

    def _note_differences(self, *, seal: bool) -> Differences:
        kinds = dict(self._connection.execute("SELECT kind, count(*) FROM upserts GROUP BY kind"))
        differences = Differences(
            create=kinds.get(Kind.CREATE, 0),
            update=kinds.get(Kind.UPDATE, 0),
            write=kinds.get(Kind.WRITE, 0),
            unchanged=self._count_desired() - sum(kinds.values()),
            delete=self._one("SELECT count(*) FROM deletes"),
        )
        self.put(phase=Phase.WRITING, unchanged=differences.unchanged)
        if seal:
            self.put(**{"seal of plan": self._seal("plan")})
        return differences

    def left(self) -> Differences:
        """Return what is left of the plan to carry out."""
        kinds = dict(
            self._connection.execute(
                "SELECT kind, count(*) FROM upserts WHERE state = ? GROUP BY kind", (State.PENDING,)
            )
        )
        return Differences(
            create=kinds.get(Kind.CREATE, 0),
            update=kinds.get(Kind.UPDATE, 0),
            write=kinds.get(Kind.WRITE, 0),
            unchanged=int(self.number("unchanged")),
            delete=self.tally().open_deletes,
        )

    # Carrying it out.

    def pending_upserts(self, after: int, most: int) -> list[tuple[int, AttributeValueUpsert]]:
        """Return up to `most` (key, item) that are to be sent, with keys above `after`."""
        rows = self._connection.execute(
            "SELECT upserts.key, desired.value FROM upserts "
            "JOIN desired ON desired.key = upserts.key "
            "WHERE upserts.key > ? AND upserts.state = ? ORDER BY upserts.key LIMIT ?",
            (after, State.PENDING, most),
        )
        return [(key, AttributeValueUpsert(*from_key(key), value)) for key, value in rows]

    def pending_deletes(self, most: int) -> list[int]:
        """Return up to `most` ids that are to be deleted."""
        rows = self._connection.execute(
            "SELECT id FROM deletes WHERE state = ? ORDER BY id LIMIT ?", (State.PENDING, most)
        )
        return [one for (one,) in rows]

    def mark_upserts(self, keys: Iterable[int], state: State) -> None:
        """Note how far upserts have come."""
        with self.transaction():
            self._connection.executemany(
                "UPDATE upserts SET state = ? WHERE key = ?", [(state, key) for key in keys]
            )

    def mark_deletes(self, ids: Iterable[int], state: State) -> None:
        """Note how far deletes have come."""
        with self.transaction():
            self._connection.executemany(
                "UPDATE deletes SET state = ? WHERE id = ?", [(state, one) for one in ids]
            )

    def add_failures(self, failures: Iterable[tuple[int, str]], most: int) -> None:
        """Keep (key, error as JSON) of upserts, up to `most` in all."""
        with self.transaction():
            room = most - self._one("SELECT count(*) FROM failures")
            self._connection.executemany(
                "INSERT INTO failures (key, error) VALUES (?, ?)", list(failures)[: max(0, room)]
            )

    def failures(self) -> list[tuple[AttributeValueUpsert, str]]:
        """Return the failures kept, in the order they came: item and error as JSON."""
        rows = self._connection.execute(
            "SELECT failures.key, desired.value, failures.error FROM failures "
            "JOIN desired ON desired.key = failures.key ORDER BY failures.number"
        )
        return [(AttributeValueUpsert(*from_key(key), value), error) for key, value, error in rows]

    def reclaim(self) -> int:
        """Make pending what was in flight when the job died; return how many rows that were.

        What nobody answered is made pending, too, and is no failure any more. Deletes that were in
        flight stay so: see `doubtful_deletes`.
        """
        with self.transaction():
            self._connection.execute(
                "DELETE FROM failures WHERE key IN (SELECT key FROM upserts WHERE state = ?)",
                (State.UNANSWERED,),
            )
            self._connection.execute(
                "UPDATE upserts SET state = ? WHERE state = ?", (State.PENDING, State.UNANSWERED)
            )
            reclaimed = self._connection.execute(
                "UPDATE upserts SET state = ? WHERE state = ?", (State.PENDING, State.IN_FLIGHT)
            ).rowcount
            if self.phase is Phase.DELETING and self.left().upserts:
                self.put(phase=Phase.WRITING)
            return reclaimed

    def doubtful_deletes(self) -> list[tuple[int, int]]:
        """Return (id, key) of the rows whose deletes were in flight when a job ended."""
        rows = self._connection.execute(
            "SELECT deletes.id, current.key FROM deletes JOIN current ON current.id = deletes.id "
            "WHERE deletes.state = ?",
            (State.IN_FLIGHT,),
        )
        return [(one, key) for one, key in rows]

    def tally(self) -> Tally:
        """Return how far all rows have come."""
        done: dict[tuple[int, int], int] = {
            (kind, state): count
            for kind, state, count in self._connection.execute(
                "SELECT kind, state, count(*) FROM upserts GROUP BY kind, state"
            )
        }
        deletes = dict(
            self._connection.execute("SELECT state, count(*) FROM deletes GROUP BY state")
        )
        deleted = deletes.get(State.DONE, 0)
        open_deletes = sum(deletes.values()) - deleted
        of_state = {
            state: sum(count for (_, found), count in done.items() if found == state)
            for state in State
        }
        return Tally(
            created=done.get((Kind.CREATE, State.DONE), 0),
            updated=done.get((Kind.UPDATE, State.DONE), 0),
            written=done.get((Kind.WRITE, State.DONE), 0),
            deleted=deleted,
            failed=of_state[State.FAILED] + of_state[State.UNANSWERED],
            open=of_state[State.PENDING] + of_state[State.IN_FLIGHT] + open_deletes,
            open_deletes=open_deletes,
            unanswered=of_state[State.UNANSWERED],
        )

    def _one(self, statement: str) -> int:
        (number,) = self._connection.execute(statement).fetchone()
        return int(number)
