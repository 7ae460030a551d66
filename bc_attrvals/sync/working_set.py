"""The tables of a sync: desired, current, plan and outcomes, in bounded memory.

SQLite does the set operations (last of equal keys, what differs, what is left), so memory does not
grow with the input. Customer and attribute make one integer key. `desired` and `current` are both
stored in the order of that key, and comparing them is one walk along both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Final

from bc_attrvals.core.models import MAX_ID, AttributeValueUpsert
from bc_attrvals.core.named_value import Item
from bc_attrvals.core.sync_plan import MAX_VALUES_PER_CUSTOMER, ChangeKind, SyncChange
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
from bc_attrvals.sync.database import Database
from bc_attrvals.sync.given_names import GivenName, GivenNames, Unresolved
from bc_attrvals.sync.staging import Staging

if TYPE_CHECKING:
    import sqlite3


_SCHEMA: Final = (
    "CREATE TABLE upserts (key INTEGER PRIMARY KEY, kind INTEGER NOT NULL, state INTEGER NOT NULL)",
    "CREATE TABLE deletes (id INTEGER PRIMARY KEY, state INTEGER NOT NULL)",
    "CREATE TABLE failures (number INTEGER PRIMARY KEY, key INTEGER NOT NULL, error TEXT NOT NULL)",
)
_TABLES: Final = ("upserts", "deletes", "failures")
#: What never changes once it is complete. Damage to it would not show otherwise.
_SEALED: Final = {
    "desired": ("SELECT key, value, kept FROM desired ORDER BY key",),
    "plan": (
        "SELECT key, kind FROM upserts ORDER BY key",
        "SELECT id FROM deletes ORDER BY id",
    ),
}
_CHANGE_KINDS: Final = {
    Kind.CREATE: ChangeKind.CREATE,
    Kind.UPDATE: ChangeKind.UPDATE,
    Kind.WRITE: ChangeKind.WRITE,
}


class WorkingSet(Database):
    """The tables of one sync, over a connection in autocommit mode."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__(connection)
        self._desired = Staging(
            connection,
            "desired",
            # `kept` is the form that the store keeps of the value, where that is another one.
            {"key": "INTEGER NOT NULL", "value": "TEXT NOT NULL", "kept": "TEXT"},
        )
        self._current = Staging(
            connection,
            "current",
            # The service's ids are its own; a store with two rows of one key holds both.
            {"key": "INTEGER NOT NULL", "id": "INTEGER NOT NULL", "value": "TEXT"},
            key_columns=2,
        )
        #: The names that desired values were given with.
        self.names = GivenNames(connection)

    def create(self) -> None:
        """Create all tables anew, whatever there was before."""
        with self.transaction():
            self.create_tables(_TABLES, _SCHEMA)
            self._desired.create()
            self._current.create()
            self.names.create()
            self.put(phase=Phase.LOADING)

    @property
    def phase(self) -> Phase:
        """How far the sync has come; raises ValueError for an unknown phase."""
        return Phase(self.text("phase"))

    def is_intact(self) -> bool:
        """Return whether sealed rows are as they were written, and every state is a known one."""
        for name, statements in _SEALED.items():
            noted = self.text(f"seal of {name}")
            if noted and noted != self.digest(statements):
                return False
        states = ", ".join(str(int(state)) for state in State)
        return not any(
            self.one(f"SELECT count(*) FROM {table} WHERE state NOT IN ({states})")  # noqa: S608
            for table in ("upserts", "deletes")
        )

    def _seal(self, name: str) -> None:
        self.put(**{f"seal of {name}": self.digest(_SEALED[name])})

    # Loading and reading.

    def add_desired(
        self,
        rows: Sequence[DesiredRow],
        names: Sequence[GivenName] = (),
        unresolved: Sequence[Unresolved] = (),
    ) -> None:
        """Insert desired rows, of equal keys the last one wins; and the names they came with."""
        with self.transaction():
            self._desired.add(rows)
            self.names.add(names, unresolved)
            self.add(loaded=len(rows))

    def add_current(self, rows: Sequence[CurrentRow], calls: int = 0, retries: int = 0) -> None:
        """Insert rows of the store, and what reading them took; a row listed twice is one row."""
        with self.transaction():
            self._current.add(rows)
            self.add(calls=calls, retries=retries)

    def forget_current(self) -> None:
        """Delete what was read, to read anew."""
        with self.transaction():
            self._current.create()

    def end_loading(self, *, seal: bool) -> int:
        """Note that all desired rows are there; return how many, equal keys counted once.

        With `seal`, `is_intact` sees a later change of them. The plan has the same.
        """
        with self.transaction():
            self._desired.merge()
            count = self._count_desired()
            self.put(superseded=self.number("loaded") - count)
            if seal:
                self._seal("desired")
            return count

    def _count_desired(self) -> int:
        return self.one("SELECT count(*) FROM desired")

    def facts(self, most_customers: int) -> DesiredFacts:
        """Return what there is to know of the desired values, with that many last customers."""
        values = customers = last = 0
        for (key,) in self.connection.execute("SELECT key FROM desired ORDER BY key"):
            values += 1
            if (customer := key >> ID_BITS) != last:
                last = customer
                customers += 1
        attribute_ids = self.connection.execute(
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
        # Rows are stored in the order of customers, so equal ones follow one another.
        last = found = 0
        cursor = self.connection.execute(
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
        """Plan what differs: desired values that are missing or different, and rows to prune.

        A row whose value is unknown (NULL) differs from any desired one. Of a key that the store
        holds twice every row must be as desired, else the value is written.
        """
        with self.transaction():
            self._current.merge()
            self._clear_plan()
            self.connection.execute(
                "INSERT OR IGNORE INTO upserts "
                "SELECT desired.key, CASE WHEN current.key IS NULL THEN ? ELSE ? END, ? "
                "FROM desired LEFT JOIN current ON current.key = desired.key "
                "WHERE current.key IS NULL "
                "OR current.value IS NOT coalesce(desired.kept, desired.value) "
                "ORDER BY desired.key",
                (Kind.CREATE, Kind.UPDATE, State.PENDING),
            )
            if prune:
                # By id, so that a row that replaced one that was read is never deleted.
                self.connection.execute(
                    "INSERT OR IGNORE INTO deletes SELECT current.id, ? "
                    "FROM current LEFT JOIN desired ON desired.key = current.key "
                    "WHERE desired.key IS NULL AND current.key NOT IN "
                    # A value that failed is no reason to prune its row.
                    "(SELECT key FROM unresolved WHERE key IS NOT NULL)",
                    (State.PENDING,),
                )
            return self._note_differences(seal=seal)

    def plan_all(self, *, seal: bool) -> Differences:
        """Plan to write every desired value, whatever the store holds."""
        with self.transaction():
            self._clear_plan()
            self.connection.execute(
                "INSERT INTO upserts SELECT key, ?, ? FROM desired ORDER BY key",
                (Kind.WRITE, State.PENDING),
            )
            return self._note_differences(seal=seal)

    def _clear_plan(self) -> None:
        for table in _TABLES:
            self.connection.execute(f"DELETE FROM {table}")  # noqa: S608

    def _note_differences(self, *, seal: bool) -> Differences:
        kinds = dict(self.connection.execute("SELECT kind, count(*) FROM upserts GROUP BY kind"))
        differences = Differences(
            create=kinds.get(Kind.CREATE, 0),
            update=kinds.get(Kind.UPDATE, 0),
            write=kinds.get(Kind.WRITE, 0),
            unchanged=self._count_desired() - sum(kinds.values()),
            delete=self.one("SELECT count(*) FROM deletes"),
        )
        self.put(phase=Phase.WRITING, unchanged=differences.unchanged)
        if seal:
            self._seal("plan")
        return differences

    def repeated_keys(self) -> int:
        """Return how many keys the store holds in more than one row."""
        return self.one(
            "SELECT count(*) FROM (SELECT key FROM current GROUP BY key HAVING count(*) > 1)"
        )

    def planned_upserts(self, after: int, most: int) -> list[tuple[int, SyncChange]]:
        """Return up to `most` (key, change) of values to write, with keys above `after`."""
        rows = self.connection.execute(
            "SELECT upserts.key, upserts.kind, desired.value, "
            "(SELECT value FROM current WHERE current.key = upserts.key ORDER BY id LIMIT 1) "
            "FROM upserts JOIN desired ON desired.key = upserts.key "
            "WHERE upserts.key > ? ORDER BY upserts.key LIMIT ?",
            (after, most),
        )
        return [
            (key, SyncChange(_CHANGE_KINDS[kind], *from_key(key), old=old, new=new))
            for key, kind, new, old in rows
        ]

    def planned_deletes(
        self, after: tuple[int, int], most: int
    ) -> list[tuple[tuple[int, int], SyncChange]]:
        """Return up to `most` ((key, id), change) of rows to delete, in order, after that one."""
        rows = self.connection.execute(
            "SELECT current.key, current.id, current.value "
            "FROM current JOIN deletes ON deletes.id = current.id "
            "WHERE (current.key, current.id) > (?, ?) ORDER BY current.key, current.id LIMIT ?",
            (*after, most),
        )
        return [
            ((key, row_id), SyncChange(ChangeKind.DELETE, *from_key(key), old=old, new=None))
            for key, row_id, old in rows
        ]

    def pending_customers(self) -> int:
        """Return of how many customers values are to be sent."""
        keys = self.connection.execute(
            "SELECT key FROM upserts WHERE state = ? ORDER BY key", (State.PENDING,)
        )
        return sum(1 for _ in groupby(key >> ID_BITS for (key,) in keys))

    def left(self) -> Differences:
        """Return what is left of the plan to carry out; what is written already is unchanged."""
        kinds = dict(
            self.connection.execute(
                "SELECT kind, count(*) FROM upserts WHERE state = ? GROUP BY kind", (State.PENDING,)
            )
        )
        tally = self.tally()
        written = tally.created + tally.updated + tally.written + tally.altered
        return Differences(
            create=kinds.get(Kind.CREATE, 0),
            update=kinds.get(Kind.UPDATE, 0),
            write=kinds.get(Kind.WRITE, 0),
            unchanged=int(self.number("unchanged")) + written,
            delete=tally.open_deletes,
        )

    # Carrying it out.

    def pending_upserts(self, after: int, most: int) -> list[tuple[int, AttributeValueUpsert]]:
        """Return up to `most` (key, item) to send, with keys above `after`."""
        rows = self.connection.execute(
            "SELECT upserts.key, desired.value FROM upserts "
            "JOIN desired ON desired.key = upserts.key "
            "WHERE upserts.key > ? AND upserts.state = ? ORDER BY upserts.key LIMIT ?",
            (after, State.PENDING, most),
        )
        return [(key, AttributeValueUpsert(*from_key(key), value)) for key, value in rows]

    def kept_values(self, keys: Sequence[int]) -> dict[int, str]:
        """Return by key the form that the store keeps of a value, where that is another one."""
        found: dict[int, str] = {}
        for key in keys:
            row = self.connection.execute(
                "SELECT kept FROM desired WHERE key = ? AND kept IS NOT NULL", (key,)
            ).fetchone()
            if row is not None:
                found[key] = row[0]
        return found

    def pending_deletes(self, most: int) -> list[int]:
        """Return up to `most` ids to delete."""
        rows = self.connection.execute(
            "SELECT id FROM deletes WHERE state = ? ORDER BY id LIMIT ?", (State.PENDING, most)
        )
        return [one for (one,) in rows]

    def mark_upserts(self, marks: Iterable[tuple[State, int]]) -> None:
        """Note how far upserts have come, by (state, key)."""
        with self.transaction():
            self.connection.executemany("UPDATE upserts SET state = ? WHERE key = ?", marks)

    def mark_deletes(self, ids: Iterable[int], state: State) -> None:
        """Note how far deletes have come."""
        with self.transaction():
            self.connection.executemany(
                "UPDATE deletes SET state = ? WHERE id = ?", [(state, one) for one in ids]
            )

    def add_failures(self, failures: Iterable[tuple[int, str]], most: int) -> None:
        """Keep (key, error as JSON) of upserts, up to `most` in all."""
        with self.transaction():
            room = most - self.one("SELECT count(*) FROM failures")
            self.connection.executemany(
                "INSERT INTO failures (key, error) VALUES (?, ?)", list(failures)[: max(0, room)]
            )

    def failures(self, most: int) -> list[tuple[Item, str]]:
        """Return the first failures: unresolved ones, then others in the order they came.

        Each is the item as it was given, and its error as JSON.
        """
        unresolved = self.names.failures(most)
        rows = self.connection.execute(
            "SELECT failures.key, desired.value, failures.error FROM failures "
            "JOIN desired ON desired.key = failures.key ORDER BY failures.number LIMIT ?",
            (most - len(unresolved),),
        )
        return [*unresolved, *self.names.given(rows)]

    def reclaim(self) -> int:
        """Make pending what was in flight when the job died; return how many rows that were.

        Unanswered values become pending, too, and are no failures any more. Deletes that were in
        flight stay so: see `doubtful_deletes`.
        """
        with self.transaction():
            self.connection.execute(
                "DELETE FROM failures WHERE key IN (SELECT key FROM upserts WHERE state = ?)",
                (State.UNANSWERED,),
            )
            self.connection.execute(
                "UPDATE upserts SET state = ? WHERE state = ?", (State.PENDING, State.UNANSWERED)
            )
            reclaimed = self.connection.execute(
                "UPDATE upserts SET state = ? WHERE state = ?", (State.PENDING, State.IN_FLIGHT)
            ).rowcount
            if self.phase is Phase.DELETING and self.left().upserts:
                self.put(phase=Phase.WRITING)
            return reclaimed

    def doubtful_deletes(self) -> list[tuple[int, int]]:
        """Return (id, key) of the rows whose deletes were in flight when a job ended."""
        rows = self.connection.execute(
            "SELECT deletes.id, current.key FROM deletes JOIN current ON current.id = deletes.id "
            "WHERE deletes.state = ?",
            (State.IN_FLIGHT,),
        )
        return [(one, key) for one, key in rows]

    def tally(self) -> Tally:
        """Return how far all rows have come."""
        done: dict[tuple[int, int], int] = {
            (kind, state): count
            for kind, state, count in self.connection.execute(
                "SELECT kind, state, count(*) FROM upserts GROUP BY kind, state"
            )
        }
        deletes = dict(
            self.connection.execute("SELECT state, count(*) FROM deletes GROUP BY state")
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
            altered=of_state[State.ALTERED],
            deleted=deleted,
            failed=of_state[State.FAILED] + of_state[State.UNANSWERED],
            open=of_state[State.PENDING] + of_state[State.IN_FLIGHT] + open_deletes,
            open_deletes=open_deletes,
            unanswered=of_state[State.UNANSWERED],
        )
