"""The names that desired values were given with, beside the tables of a sync.

A named value is resolved when it is loaded. Its name is kept for reports, and one that could not be
resolved is kept as failed, with its key where that is known: its row must not be pruned.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

from bc_attrvals.core.models import AttributeValueUpsert
from bc_attrvals.core.named_value import Item, NamedValue
from bc_attrvals.core.sync_states import from_key

if TYPE_CHECKING:
    import sqlite3


#: (key, customer, attribute), as given.
GivenName: TypeAlias = tuple[int, int | str, int | str]
#: (key if known, customer, attribute, value, error as JSON).
Unresolved: TypeAlias = tuple[int | None, int | str, int | str, str, str]

# Columns without a type keep integers and texts apart.
_SCHEMA: Final = (
    "CREATE TABLE given_names (key INTEGER PRIMARY KEY, customer, attribute)",
    "CREATE TABLE unresolved (number INTEGER PRIMARY KEY, key, customer, attribute, value, error)",
)


class GivenNames:
    """The two tables of names, over the connection of a working set."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def create(self) -> None:
        """Create the tables anew."""
        for table in ("given_names", "unresolved"):
            self._connection.execute(f"DROP TABLE IF EXISTS {table}")
        for statement in _SCHEMA:
            self._connection.execute(statement)

    def add(self, names: Sequence[GivenName], unresolved: Sequence[Unresolved]) -> None:
        """Insert names of resolved values, and values that could not be resolved."""
        self._connection.executemany("REPLACE INTO given_names VALUES (?, ?, ?)", names)
        self._connection.executemany(
            "INSERT INTO unresolved (key, customer, attribute, value, error) "
            "VALUES (?, ?, ?, ?, ?)",
            unresolved,
        )

    def counts(self) -> tuple[int, int]:
        """Return how many values could not be resolved, and of how many the key is unknown."""
        found: tuple[int, int] = self._connection.execute(
            "SELECT count(*), count(*) - count(key) FROM unresolved"
        ).fetchone()
        return found

    def failures(self, most: int) -> list[tuple[Item, str]]:
        """Return the first values that could not be resolved, each with its error as JSON."""
        rows = self._connection.execute(
            "SELECT customer, attribute, value, error FROM unresolved ORDER BY number LIMIT ?",
            (most,),
        )
        return [
            (item_of(customer, attribute, value), error)
            for customer, attribute, value, error in rows
        ]

    def given(self, rows: Iterable[tuple[int, str, str]]) -> list[tuple[Item, str]]:
        """Return (item, error) of (key, value, error), each item under the names it was given."""
        items: list[tuple[Item, str]] = []
        for key, value, error in rows:
            found = self._connection.execute(
                "SELECT customer, attribute FROM given_names WHERE key = ?", (key,)
            ).fetchone()
            customer, attribute = found or from_key(key)
            items.append((item_of(customer, attribute, value), error))
        return items


def item_of(customer: int | str, attribute: int | str, value: str) -> Item:
    """Return the item of a failure: a named value where a name or an address is in it."""
    if isinstance(customer, int) and isinstance(attribute, int):
        return AttributeValueUpsert(customer, attribute, value)
    return NamedValue(customer, attribute, value)
