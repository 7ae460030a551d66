"""The vocabulary of a sync's working set: its phases, the states of its rows, and their counts."""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Final, TypeAlias

import msgspec

from bc_attrvals.core.models import MAX_ID

#: (key, value, the form of it that the store keeps, or None if that is the same)
DesiredRow: TypeAlias = tuple[int, str, str | None]
#: (key, id, value or None if it can't be read)
CurrentRow: TypeAlias = tuple[int, int, str | None]

#: The names that a value was given with: (key, customer, attribute).
GivenName: TypeAlias = tuple[int, int | str, int | str]
#: (key if known, customer, attribute, value, error as JSON)
Unresolved: TypeAlias = tuple[int | None, int | str, int | str, str, str]
#: (customer and attribute as given, value)
FailedItem: TypeAlias = tuple[int | str, int | str, str]
#: The same with the error as JSON.
FailedRow: TypeAlias = tuple[int | str, int | str, str, str]

# Ids of customers and attributes have 31 bits, so two of them fit into SQLite's signed 64.
ID_BITS: Final = MAX_ID.bit_length()


class Phase(StrEnum):
    """The phase of a sync."""

    LOADING = "loading"
    READING = "reading"
    WRITING = "writing"
    DELETING = "deleting"
    FINISHED = "finished"


class Kind(IntEnum):
    """What an upsert of the plan does."""

    CREATE = 1
    UPDATE = 2
    #: Written without reading first.
    WRITE = 3


class State(IntEnum):
    """The state of one row of the plan.

    Any two states differ in more than one bit, so a bit flipped on the disk can't turn one into
    another.
    """

    PENDING = 0b0011_0011
    #: Sent, or about to be sent; it stays so if the process dies.
    IN_FLIGHT = 0b0011_1100
    DONE = 0b0101_0101
    #: Written, and the store holds another form of the value.
    ALTERED = 0b0110_1001
    FAILED = 0b0101_1010
    #: No answer after all tries. It counts as failed, and is sent again when a journal is resumed.
    UNANSWERED = 0b0110_0110


class DesiredFacts(msgspec.Struct, frozen=True):
    """The facts of the desired values by which a `Reading` is chosen.

    `attribute_ids` is None if there are more than a customer may hold. `last_customers` are those
    with the largest ids, which take the most room in a URL.
    """

    values: int
    customers: int
    attribute_ids: tuple[int, ...] | None
    last_customers: tuple[int, ...]


class Differences(msgspec.Struct, frozen=True):
    """Counts of the rows of a plan."""

    create: int = 0
    update: int = 0
    write: int = 0
    unchanged: int = 0
    delete: int = 0

    @property
    def upserts(self) -> int:
        """How many rows have to be written."""
        return self.create + self.update + self.write


class Tally(msgspec.Struct, frozen=True):
    """How many rows of the plan are done, failed and open.

    `altered` values are not in `created`, `updated` and `written`. `open_deletes` counts the
    deletes among the open rows, `unanswered` the failed rows that are sent again when a journal is
    resumed.
    """

    created: int = 0
    updated: int = 0
    written: int = 0
    altered: int = 0
    deleted: int = 0
    failed: int = 0
    open: int = 0
    open_deletes: int = 0
    unanswered: int = 0


def to_key(customer_id: int, attribute_id: int) -> int:
    """Return the integer key of a customer and an attribute."""
    return customer_id << ID_BITS | attribute_id


def from_key(key: int) -> tuple[int, int]:
    """Return the customer and the attribute of a key."""
    return key >> ID_BITS, key & MAX_ID
