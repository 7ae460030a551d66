"""Reads a mirror: its rows, one row, and its changes. Everything here runs in its thread."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from bc_attrvals.core.filters import AttributeValueFilter, check_filter
from bc_attrvals.core.models import AttributeValue
from bc_attrvals.errors import InvalidInputError
from bc_attrvals.mirror.replica import COLUMNS, Replica, micro_of, row_of
from bc_attrvals.mirror.report import Change

_DATES: Final = (("date_created", "created"), ("date_modified", "modified"))
#: The last microsecond of a second that a bound includes.
_REST_OF_SECOND: Final = 999_999

_encode: Final = msgspec.json.Encoder().encode


def check_mirror_filter(filter: object) -> None:
    """Raise `InvalidInputError` for what is no filter, and for one that a mirror can't apply."""
    check_filter(filter)
    if isinstance(filter, AttributeValueFilter) and filter.name is not None:
        message = "a mirror holds no names of attributes; filter by attribute_id_in"
        raise InvalidInputError(message, field="name")


def next_rows(
    replica: Replica, filter: AttributeValueFilter | None, after: tuple[int, int, int], most: int
) -> list[AttributeValue]:
    """Return up to `most` rows of a filter above a (customer, attribute, id), in that order."""
    where, bound = _where(filter)
    found = replica.connection.execute(
        f"SELECT {COLUMNS} FROM rows WHERE (customer_id, attribute_id, id) > (?, ?, ?){where} "  # noqa: S608 - constants
        "ORDER BY customer_id, attribute_id, id LIMIT ?",
        (*after, *bound, most),
    )
    return [row_of(cells) for cells in found]


def count_rows(replica: Replica, filter: AttributeValueFilter | None) -> int:
    """Return how many rows match a filter."""
    where, bound = _where(filter)
    return replica.one(f"SELECT count(*) FROM rows WHERE 1{where}", *bound)  # noqa: S608


def find(replica: Replica, customer_id: int, attribute_id: int) -> AttributeValue | None:
    """Return a customer's value for an attribute; of several rows the one with the highest id."""
    cells = replica.connection.execute(
        f"SELECT {COLUMNS} FROM rows WHERE customer_id = ? AND attribute_id = ? "  # noqa: S608
        "ORDER BY id DESC LIMIT 1",
        (customer_id, attribute_id),
    ).fetchone()
    return None if cells is None else row_of(cells)


def next_changes(replica: Replica, after: int, most: int) -> list[Change]:
    """Return up to `most` changes with sequence numbers above `after`, in order."""
    found = replica.connection.execute(
        f"""SELECT * FROM (SELECT sequence, 'put', {COLUMNS} FROM rows WHERE sequence > ?
            ORDER BY sequence LIMIT ?)
        UNION ALL
        SELECT * FROM (SELECT sequence, 'delete', {COLUMNS} FROM gone WHERE sequence > ?
            ORDER BY sequence LIMIT ?)
        ORDER BY sequence LIMIT ?""",  # noqa: S608 - constants
        (after, most, after, most, most),
    )
    return [Change(sequence, kind, row_of(tuple(cells))) for sequence, kind, *cells in found]


def _where(filter: AttributeValueFilter | None) -> tuple[str, list[str | int]]:
    """Return the conditions of a filter, each with AND before it, and their parameters."""
    parts: list[str] = []
    bound: list[str | int] = []
    if filter is None:
        return "", bound

    def add(condition: str, value: str | int) -> None:
        parts.append(f" AND {condition}")
        bound.append(value)

    for column in ("customer_id", "attribute_id"):
        ids: Sequence[int] | None = getattr(filter, f"{column}_in")
        if ids is not None:
            add(f"{column} IN (SELECT value FROM json_each(?))", _encode(ids).decode())  # noqa: S608
    for field, column in _DATES:
        exact: datetime | None = getattr(filter, field)
        least: datetime | None = getattr(filter, f"{field}_min") if exact is None else exact
        most: datetime | None = getattr(filter, f"{field}_max") if exact is None else exact
        if least is not None:
            add(f"{column} >= ?", micro_of(least))
        if most is not None:
            add(f"{column} <= ?", micro_of(most) + _REST_OF_SECOND)
    return "".join(parts), bound
