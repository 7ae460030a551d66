"""The tables of a sync: desired, current, plan and outcomes, in bounded memory.

SQLite does the set operations (last of equal keys, what differs, what is left), so memory does not
grow with the input. Customer and attribute make one integer key. `desired` and `current` are both
stored in the order of that key, and comparing them is one walk along both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from typing import TYPE_CHECKING, Final, Literal

from bc_attrvals.core.models import MAX_ID, AttributeValueUpsert
from bc_attrvals.core.sync_plan import MAX_VALUES_PER_CUSTOMER, ChangeKind, Reading, SyncChange
from bc_attrvals.core.sync_states import (
    ID_BITS,
    CurrentRow,
    DesiredFacts,
    DesiredRow,
    Differences,
    FailedItem,
    FailedRow,
    GivenName,
    Kind,
    Phase,
    State,
    Tally,
    Unresolved,
    from_key,
    to_key,
)
from bc_attrvals.sync.database import Database
from bc_attrvals.sync.staging import Staging

if TYPE_CHECKING:
    import sqlite3


_SCHEMA: Final = (
    "CREATE TABLE upserts (key INTEGER PRIMARY KEY, kind INTEGER NOT NULL, state INTEGER NOT NULL)",
    "CREATE TABLE deletes (id INTEGER PRIMARY KEY, state INTEGER NOT NULL)",
    "CREATE TABLE failures (number INTEGER PRIMARY KEY, key INTEGER NOT NULL, error TEXT NOT NULL)",
    # A value whose names could not be resolved, with its key if that is known: its row must not be
    # pruned. Columns without a type store an integer as an integer and a text as a text.
    "CREATE TABLE unresolved (number INTEGER PRIMARY KEY, key, customer, attribute, value, error)",
)
_TABLES: Final = ("upserts", "deletes", "failures")
#: The customer and the attribute of a desired value as they were given, and the value.
_ITEM: Final = (
    f"coalesce(customer, desired.key >> {ID_BITS}), "
    f"coalesce(attribute, desired.key & {MAX_ID}), desired.value"
)
#: Rows that never change once they are complete. Only a digest of them shows damage.
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
            # `kept` is the form in which the store keeps the value, where that differs.
            {"key": "INTEGER NOT NULL", "value": "TEXT NOT NULL", "kept": "TEXT"},
        )
        self._current = Staging(
            connection,
            "current",
            # The service's ids are its own; a store with two rows of one key holds both.
            {"key": "INTEGER NOT NULL", "id": "INTEGER NOT NULL", "value": "TEXT"},
            key_columns=2,
        )
        # The names that values were resolved from, for reports; without types, see `_SCHEMA`.
        names = {"key": "INTEGER NOT NULL", "customer": "", "attribute": ""}
        self._names = Staging(connection, "given_names", names)
        self._staged = (self._desired, self._names, self._current)
        self.schema = (*_SCHEMA, *(one for table in self._staged for one in table.schema))
        self._earlier: dict[str, float] = dict.fromkeys(("calls", "retries", "seconds"), 0)
        #: What this job took, in all its runs: calls, retries and seconds.
        self.spent = dict(self._earlier)

    def create(self) -> None:
        """Drop what there is, and create all tables."""
        with self.transaction():
            super().create()
            for table in self._staged:
                table.clear()
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

    def spend(self, **amounts: float) -> None:
        """Note what this run took up to now, on top of what earlier runs took."""
        self.spent |= {name: self._earlier[name] + amount for name, amount in amounts.items()}
        self.put(**self.spent)

    def _seal(self, name: str) -> None:
        self.put(**{f"seal of {name}": self.digest(_SEALED[name])})

    # Loading and reading.

    def add_desired(
        self,
        rows: Sequence[DesiredRow],
        names: Sequence[GivenName] = (),
        unresolved: Sequence[Unresolved] = (),
    ) -> None:
        """Insert desired rows with the names they came with; of equal keys the last one wins."""
        with self.transaction():
            self._desired.add(rows)
            self._names.add(names)
            self.connection.executemany(
                "INSERT INTO unresolved (key, customer, attribute, value, error) "
                "VALUES (?, ?, ?, ?, ?)",
                unresolved,
            )
            self.add(loaded=len(rows))

    def add_current(self, rows: Sequence[CurrentRow]) -> None:
        """Insert rows of the store; a row listed twice is one row."""
        with self.transaction():
            self._current.add(rows)

    def unresolved(self) -> tuple[int, int]:
        """Return how many values could not be resolved, and how many of them have no known key."""
        found: tuple[int, int] = self.connection.execute(
            "SELECT count(*), count(*) - count(key) FROM unresolved"
        ).fetchone()
        return found

    def forget_current(self) -> None:
        """Delete the rows of the store, so that it can be read again."""
        with self.transaction():
            self._current.clear()

    def end_loading(self, *, seal: bool) -> int:
        """Note that all desired rows are there; return how many, equal keys counted once.

        With `seal`, `is_intact` detects later changes of them. `compare` does so for the plan.
        """
        with self.transaction():
            self._desired.merge()
            self._names.merge()
            count = self._count_desired()
            self.put(superseded=self.number("loaded") - count)
            if seal:
                self._seal("desired")
            return count

    def _count_desired(self) -> int:
        return self.one("SELECT count(*) FROM desired")

    def facts(self, most_customers: int) -> DesiredFacts:
        """Return the facts that decide how to read, with up to `most_customers` last customers."""
        attribute_ids = self.connection.execute(
            "SELECT DISTINCT key & ? FROM desired LIMIT ?", (MAX_ID, MAX_VALUES_PER_CUSTOMER + 1)
        ).fetchall()
        few = len(attribute_ids) <= MAX_VALUES_PER_CUSTOMER
        return DesiredFacts(
            self._count_desired(),
            sum(1 for _ in self._customers()),
            tuple(sorted(one for (one,) in attribute_ids)) if few else None,
            tuple(islice(self._customers(order="DESC"), most_customers)),
        )

    def customers(self, after: int, most: int) -> list[int]:
        """Return up to `most` desired customers with ids above `after`, in order."""
        return list(islice(self._customers(to_key(after, MAX_ID)), most))

    def _customers(self, above: int = 0, order: Literal["ASC", "DESC"] = "ASC") -> Iterator[int]:
        keys = self.connection.execute(
            f"SELECT key FROM desired WHERE key > ? ORDER BY key {order}",  # noqa: S608
            (above,),
        )
        return _distinct_customers(keys)

    # The plan.

    def compare(self, reading: Reading, *, prune: bool, seal: bool) -> tuple[Differences, int]:
        """Plan what differs: desired values that are missing or different, and rows to prune.

        If nothing was read, every desired value is written. A row whose value is unknown (NULL)
        differs from any desired one. Where the store holds several rows of one key, the value is
        written unless every row is as desired. Returns the differences, and the number of such
        keys.
        """
        missing = Kind.WRITE if reading is Reading.NOTHING else Kind.CREATE
        with self.transaction():
            self._current.merge()
            for table in _TABLES:
                self.connection.execute(f"DELETE FROM {table}")  # noqa: S608
            self.connection.execute(
                "INSERT OR IGNORE INTO upserts "
                "SELECT desired.key, CASE WHEN current.key IS NULL THEN ? ELSE ? END, ? "
                "FROM desired LEFT JOIN current ON current.key = desired.key "
                "WHERE current.key IS NULL "
                "OR current.value IS NOT coalesce(desired.kept, desired.value) "
                "ORDER BY desired.key",
                (missing, Kind.UPDATE, State.PENDING),
            )
            if prune:
                # By id: a row that replaced the one that was read is never deleted.
                self.connection.execute(
                    "INSERT OR IGNORE INTO deletes SELECT current.id, ? "
                    "FROM current LEFT JOIN desired ON desired.key = current.key "
                    "WHERE desired.key IS NULL AND current.key NOT IN "
                    # The row of a value that failed to resolve is not pruned.
                    "(SELECT key FROM unresolved WHERE key IS NOT NULL)",
                    (State.PENDING,),
                )
            planned = self.one("SELECT count(*) FROM upserts")
            unchanged = self._count_desired() - planned
            self.put(reading=reading, unchanged=unchanged)
            if seal:
                self._seal("plan")
            return self.left(), self.one(
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
        """Return up to `most` ((key, id), change) of rows to delete, in order, after `after`."""
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
        """Return how many customers have values to send."""
        keys = self.connection.execute(
            "SELECT key FROM upserts WHERE state = ? ORDER BY key", (State.PENDING,)
        )
        return sum(1 for _ in _distinct_customers(keys))

    def left(self) -> Differences:
        """Return what is left of the plan; what is written already counts as unchanged."""
        counts = self._counts()
        written = sum(counts[kind, state] for kind in Kind for state in (State.DONE, State.ALTERED))
        return Differences(
            create=counts[Kind.CREATE, State.PENDING],
            update=counts[Kind.UPDATE, State.PENDING],
            write=counts[Kind.WRITE, State.PENDING],
            unchanged=int(self.number("unchanged")) + written,
            delete=self.one("SELECT count(*) FROM deletes WHERE state != ?", State.DONE),
        )

    def _counts(self) -> Counter[tuple[int, int]]:
        """Return how many upserts there are of each kind and state."""
        found = self.connection.execute(
            "SELECT kind, state, count(*) FROM upserts GROUP BY kind, state"
        )
        return Counter({(kind, state): count for kind, state, count in found})

    # Carrying it out.

    def pending_upserts(self, after: int, most: int) -> list[AttributeValueUpsert]:
        """Return up to `most` items to send, in the order of their keys, above `after`."""
        rows = self.connection.execute(
            "SELECT upserts.key >> ?, upserts.key & ?, desired.value FROM upserts "
            "JOIN desired ON desired.key = upserts.key "
            "WHERE upserts.key > ? AND upserts.state = ? ORDER BY upserts.key LIMIT ?",
            (ID_BITS, MAX_ID, after, State.PENDING, most),
        )
        return [AttributeValueUpsert(*row) for row in rows]

    def pending_deletes(self, most: int) -> list[int]:
        """Return up to `most` ids to delete."""
        rows = self.connection.execute(
            "SELECT id FROM deletes WHERE state = ? ORDER BY id LIMIT ?", (State.PENDING, most)
        )
        return [one for (one,) in rows]

    # Called in a transaction of the caller.

    def mark_upserts(self, marks: Iterable[tuple[State, int]]) -> None:
        """Note how far upserts have come, by (state, key)."""
        self.connection.executemany("UPDATE upserts SET state = ? WHERE key = ?", marks)

    def mark_written(self, held: Iterable[tuple[str, int]]) -> None:
        """Note, by (value, key), what the store holds: altered unless it is the `kept` form."""
        self.connection.executemany(
            "UPDATE upserts SET state = CASE WHEN ? IS (SELECT kept FROM desired WHERE key = ?) "
            "THEN ? ELSE ? END WHERE key = ?",
            [(value, key, State.DONE, State.ALTERED, key) for value, key in held],
        )

    def mark_deletes(self, ids: Iterable[int], state: State) -> None:
        """Note how far deletes have come."""
        self.connection.executemany(
            "UPDATE deletes SET state = ? WHERE id = ?", [(state, one) for one in ids]
        )

    def add_failures(self, failures: Iterable[tuple[int, str]], most: int) -> None:
        """Keep (key, error as JSON) of upserts, up to `most` in all."""
        room = most - self.one("SELECT count(*) FROM failures")
        self.connection.executemany(
            "INSERT INTO failures (key, error) VALUES (?, ?)", list(failures)[: max(0, room)]
        )

    def failures(
        self, after: tuple[int, int], most: int
    ) -> list[tuple[tuple[int, int], FailedRow]]:
        """Return up to `most` (place, failure) after a place: unresolved ones, then the others."""
        table, number = after
        rows = self.connection.execute(
            "SELECT * FROM (SELECT 0, number, customer, attribute, value, error FROM unresolved "  # noqa: S608
            "WHERE number > ? ORDER BY number LIMIT ?) "
            f"UNION ALL SELECT * FROM (SELECT 1, number, {_ITEM}, error FROM failures "
            "JOIN desired ON desired.key = failures.key "
            "LEFT JOIN given_names ON given_names.key = failures.key "
            "WHERE number > ? ORDER BY number LIMIT ?) ORDER BY 1, 2 LIMIT ?",
            (number, 0 if table else most, number if table else 0, most, most),
        )
        return [((part, place), (*row,)) for part, place, *row in rows]

    def open_upsert(self, key: int) -> tuple[Kind, FailedItem, str | None] | None:
        """Return an upsert that is not noted as ended: its kind, item, and `kept` form, if any."""
        found = self.connection.execute(
            f"SELECT kind, {_ITEM}, kept FROM upserts "  # noqa: S608
            "JOIN desired ON desired.key = upserts.key "
            "LEFT JOIN given_names ON given_names.key = upserts.key "
            "WHERE upserts.key = ? AND upserts.state IN (?, ?)",
            (key, State.PENDING, State.IN_FLIGHT),
        ).fetchone()
        if found is None:
            return None
        kind, *item, kept = found
        return Kind(kind), (*item,), kept

    def take_over(self) -> None:
        """Take over the job of a run that ended early: what was in flight is pending again.

        Unanswered values become pending, too, and no longer count as failures. Deletes that were
        in flight stay so: see `doubtful_deletes`.
        """
        with self.transaction():
            self._earlier = {name: self.number(name) for name in self.spent}
            self.spent = dict(self._earlier)
            self.connection.execute(
                "DELETE FROM failures WHERE key IN (SELECT key FROM upserts WHERE state = ?)",
                (State.UNANSWERED,),
            )
            _, in_flight = (
                self.connection.execute(
                    "UPDATE upserts SET state = ? WHERE state = ?", (State.PENDING, state)
                ).rowcount
                for state in (State.UNANSWERED, State.IN_FLIGHT)
            )
            self.add(resumptions=1, resent=in_flight)
            if self.phase is Phase.DELETING and self.left().upserts:
                self.put(phase=Phase.WRITING)

    def doubtful_deletes(self) -> list[tuple[int, int]]:
        """Return (id, key) of the rows whose deletes were in flight when a job ended."""
        rows = self.connection.execute(
            "SELECT deletes.id, current.key FROM deletes JOIN current ON current.id = deletes.id "
            "WHERE deletes.state = ?",
            (State.IN_FLIGHT,),
        )
        return [(one, key) for one, key in rows]

    def deletes_with_shared_keys(self) -> dict[int, int]:
        """Return the key, by id, of the rows to delete that share it with another row."""
        rows = self.connection.execute(
            "SELECT current.id, current.key "
            "FROM (SELECT key FROM current GROUP BY key HAVING count(*) > 1) AS shared "
            # In this order, few rows are searched for.
            "CROSS JOIN current ON current.key = shared.key "
            "CROSS JOIN deletes ON deletes.id = current.id"
        )
        return dict(rows)

    def tally(self) -> Tally:
        """Return how many rows there are in each state."""
        counts = self._counts()
        deletes = Counter(
            dict(self.connection.execute("SELECT state, count(*) FROM deletes GROUP BY state"))
        )
        of_state: Counter[int] = Counter()
        for (_, state), count in counts.items():
            of_state[state] += count
        open_deletes = deletes.total() - deletes[State.DONE]
        return Tally(
            created=counts[Kind.CREATE, State.DONE],
            updated=counts[Kind.UPDATE, State.DONE],
            written=counts[Kind.WRITE, State.DONE],
            altered=of_state[State.ALTERED],
            deleted=deletes[State.DONE],
            failed=of_state[State.FAILED] + of_state[State.UNANSWERED],
            open=of_state[State.PENDING] + of_state[State.IN_FLIGHT] + open_deletes,
            open_deletes=open_deletes,
            unanswered=of_state[State.UNANSWERED],
        )


def _distinct_customers(keys: Iterable[tuple[int]]) -> Iterator[int]:
    # In the order of keys, those of a customer follow one another.
    return (customer for customer, _ in groupby(key >> ID_BITS for (key,) in keys))
