"""The mirror's tables, and a row as they hold it.

A row's primary key is the number of its last change, so the table itself is the list of changes,
in order; a row that is gone leaves a tombstone. Moments are integers: microseconds since 1970, in
UTC.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import msgspec

from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.core.models import AttributeValue

COLUMNS: Final = "id, customer_id, attribute_id, value, created, modified"
_CELLS: Final = """id INTEGER NOT NULL, customer_id INTEGER NOT NULL,
    attribute_id INTEGER NOT NULL, value, created INTEGER NOT NULL, modified INTEGER NOT NULL"""
SCHEMA: Final = (
    # `born` is the number of the change that added the row.
    f"CREATE TABLE rows (sequence INTEGER PRIMARY KEY, {_CELLS}, born INTEGER NOT NULL)",
    "CREATE UNIQUE INDEX rows_by_id ON rows (id)",
    "CREATE INDEX rows_by_key ON rows (customer_id, attribute_id)",
    "CREATE INDEX rows_by_created ON rows (attribute_id, created)",
    f"CREATE TABLE gone (sequence INTEGER PRIMARY KEY, {_CELLS})",
)
MICRO: Final = 1_000_000

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
IN_ATTRIBUTES: Final = "attribute_id IN (SELECT value FROM json_each(?))"
IN_CUSTOMERS: Final = "customer_id IN (SELECT value FROM json_each(?))"
_IDS: Final = (
    ("customer_id_in", IN_CUSTOMERS),
    ("attribute_id_in", IN_ATTRIBUTES),
)
_DATES: Final = (("date_created", "created"), ("date_modified", "modified"))

_encode: Final = msgspec.json.Encoder().encode

#: The values of `COLUMNS`.
Cells = tuple[int, int, int, str, int, int]


class HeldRow(NamedTuple):
    """A stored row; `sequence` numbers its last change, and `born` the one that added it."""

    sequence: int
    born: int
    cells: Cells


def micro_of(moment: datetime | None) -> int:
    """Return a moment, which is not None, in microseconds since 1970."""
    assert moment is not None
    return (moment - _EPOCH) // _MICROSECOND


def _moment_of(micro: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micro)


def row_of(cells: Cells) -> AttributeValue:
    """Return the row that cells hold."""
    row_id, customer_id, attribute_id, value, created, modified = cells
    moments = _moment_of(created), _moment_of(modified)
    return AttributeValue(row_id, customer_id, attribute_id, value, *moments)


def cells_of(row: AttributeValue) -> Cells:
    """Return the cells of a row, which has both dates."""
    moments = micro_of(row.date_created), micro_of(row.date_modified)
    return (row.id, row.customer_id, row.attribute_id, row.value, *moments)


def json_of(ids: object) -> str:
    """Return ids as SQLite's `json_each` takes them."""
    return _encode(ids).decode()


def where(filter: AttributeValueFilter | None) -> tuple[str, list[str | int]]:
    """Return the conditions of a filter, each with AND before it, and their parameters."""
    conditions: list[str] = []
    bound: list[str | int] = []
    for field, condition in _IDS:
        ids = getattr(filter, field, None)
        if ids is not None:
            conditions.append(f" AND {condition}")
            bound.append(json_of(ids))
    for field, column in _DATES:
        exact = getattr(filter, field, None)
        least = exact or getattr(filter, f"{field}_min", None)
        most = exact or getattr(filter, f"{field}_max", None)
        if least is not None:
            conditions.append(f" AND {column} >= ?")
            bound.append(micro_of(least))
        if most is not None:
            # A bound includes its whole second.
            conditions.append(f" AND {column} < ?")
            bound.append(micro_of(most) + MICRO)
    return "".join(conditions), bound
