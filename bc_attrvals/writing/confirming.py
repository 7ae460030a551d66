"""Confirms the items of a PUT by the rows of its answer or of the read-back. Pure.

Only a row confirms a value: the echo of the PUT, or the row that is read back. An item without an
echo of its value is unconfirmed, whatever the answer's status was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias, TypeVar

from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.core.models import AttributeValue, AttributeValueUpsert, Key
from bc_attrvals.core.responses import Echo

#: A row of an answer: whole, or the fields that confirm its value.
Row: TypeAlias = AttributeValue | Echo
_R = TypeVar("_R", AttributeValue, Echo, Row)


def are_echoes(items: Sequence[AttributeValueUpsert], rows: Sequence[Row]) -> bool:
    """Return whether the rows echo the items one by one, in their order, as most answers do."""
    if len(items) != len(rows):
        return False
    # The lengths are equal, and a strict zip would double the cost of this function.
    for item, row in zip(items, rows):  # noqa: B905
        if (
            item.value != row.attribute_value
            or item.customer_id != row.customer_id
            or item.attribute_id != row.attribute_id
        ):
            return False
    return True


def rows_by_key(rows: Iterable[_R]) -> dict[Key, _R]:
    """Return the rows by (customer_id, attribute_id); the last row of equal keys wins."""
    return {row.key: row for row in rows}


def confirmed_by(
    items: Iterable[AttributeValueUpsert], by_key: Mapping[Key, _R]
) -> tuple[list[AttributeValueUpsert], list[_R], list[AttributeValueUpsert]]:
    """Return the items whose value a row confirms, these rows, and the unconfirmed items."""
    confirmed: list[AttributeValueUpsert] = []
    rows: list[_R] = []
    left: list[AttributeValueUpsert] = []
    for item in items:
        row = by_key.get(item.key)
        if row is not None and row.attribute_value == item.value:
            confirmed.append(item)
            rows.append(row)
        else:
            left.append(item)
    return confirmed, rows, left


def filter_of(items: Iterable[AttributeValueUpsert]) -> AttributeValueFilter:
    """Return a filter for the rows of these items; it may match other rows of their customers."""
    items = list(items)
    return AttributeValueFilter(
        customer_id_in={item.customer_id for item in items},
        attribute_id_in={item.attribute_id for item in items},
    )


def is_altered(held: AttributeValue, echo: Row | None) -> bool:
    """Return whether the store changed a value's form: it echoed the value that it now holds."""
    return echo is not None and echo.attribute_value == held.attribute_value
