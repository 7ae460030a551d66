"""Finds attribute values for tests and the page: filtered, counted, a page at a time.

`listing` imitates the service; this does not. Blocks on SQLite.
"""

from __future__ import annotations

import attrs

from bc_attrvals.sandbox.listing import where_clause
from bc_attrvals.sandbox.query_strings import Condition
from bc_attrvals.sandbox.quirks import Quirks
from bc_attrvals.sandbox.resources import Resources
from bc_attrvals.sandbox.rows import StoredRow


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
    """One page by ascending id, how many rows match in all, the store's version and customers.

    `emails` and `names` hold the addresses of the rows' customers and the names of their
    attributes, as far as they are defined.
    """

    rows: list[StoredRow]
    total: int
    version: int
    customers: int
    emails: dict[int, str]
    names: dict[int, str]


def browse(resources: Resources, query: RowQuery) -> RowPage:
    """Return a page; one past the last is empty."""
    connection = resources.database.connection
    conditions = [
        Condition(column, "in", ids)
        for column, ids in (
            ("customer_id", query.customer_ids),
            ("attribute_id", query.attribute_ids),
        )
        if ids is not None
    ]
    if query.value:
        conditions.append(Condition("value", "like", query.value))
    where, bound = where_clause(tuple(conditions), Quirks())
    total = resources.database.count("attribute_values", where, bound)
    # The ids first: a deep page then skips ids instead of whole rows.
    page = f"""
        SELECT id, customer_id, attribute_id, value, date_created, date_modified
        FROM attribute_values WHERE id IN (
            SELECT id FROM attribute_values{where} ORDER BY id LIMIT ? OFFSET ?
        ) ORDER BY id
    """  # noqa: S608 - placeholders
    bound += [query.limit, (query.page - 1) * query.limit]
    rows = [StoredRow(*row) for row in connection.execute(page, bound)]
    definitions = resources.definitions
    customers = definitions.customers({row.customer_id for row in rows})
    return RowPage(
        rows,
        total,
        resources.database.modification_version,
        resources.database.count("customers"),
        {customer.id: customer.email for customer in customers},
        {attribute.id: attribute.name for attribute in definitions.attributes()},
    )
