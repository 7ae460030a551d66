"""Finds rows for whoever looks into the sandbox: filtered, counted, a page at a time.

Apart from `listing`, which imitates the service. Blocks, and runs in the database thread.
"""

from __future__ import annotations

import attrs
import msgspec

from bc_attrvals.sandbox.rows import RowStore, StoredRow


@attrs.frozen
class RowQuery:
    """Which rows to show; None and "" select all. Pages count from 1.

    `value` is any part of the value; ASCII letters match in either case.
    """

    customer_ids: tuple[int, ...] | None = None
    attribute_ids: tuple[int, ...] | None = None
    value: str = ""
    page: int = 1
    limit: int = 50


@attrs.frozen
class RowPage:
    """One page by ascending id, how many rows match in all, and the rows' version then."""

    rows: list[StoredRow]
    total: int
    version: int


def browse(store: RowStore, query: RowQuery) -> RowPage:
    """Return a page; one past the last is empty."""
    conditions: list[str] = []
    bound: list[str | int] = []
    for column, ids in (
        ("customer_id", query.customer_ids),
        ("attribute_id", query.attribute_ids),
    ):
        if ids is not None:
            conditions.append(f"{column} IN (SELECT value FROM json_each(?))")  # noqa: S608
            bound.append(msgspec.json.encode(ids).decode())
    if query.value:
        conditions.append(r"value LIKE ? ESCAPE '\'")
        bound.append(f"%{_escaped(query.value)}%")
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    count = f"SELECT count(*) FROM attribute_values {where}"  # noqa: S608 - placeholders
    total = int(store.connection.execute(count, bound).fetchone()[0])
    # The keys first: a page deep inside then passes over ids instead of whole rows.
    page = f"""
        SELECT id, customer_id, attribute_id, value, date_created, date_modified
        FROM attribute_values WHERE id IN (
            SELECT id FROM attribute_values {where} ORDER BY id LIMIT ? OFFSET ?
        ) ORDER BY id
    """  # noqa: S608 - placeholders
    bound += [query.limit, (query.page - 1) * query.limit]
    rows = [StoredRow(*row) for row in store.connection.execute(page, bound)]
    return RowPage(rows, total, store.modification_version)


def _escaped(text: str) -> str:
    for special in ("\\", "%", "_"):
        text = text.replace(special, "\\" + special)
    return text
