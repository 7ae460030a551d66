"""Rows as the page finds them."""

from __future__ import annotations

from bc_attrvals.sandbox import RowQuery
from tests.sandbox.api import running


async def test_rows_are_found_with_addresses_and_names() -> None:
    people = {7: "ann@example.org"}
    async with running(customers=people, attributes={"Tier": "string"}) as (sandbox, _):
        await sandbox.seed([(7, 1, "50%"), (8, 1, "500"), (7, 2, "x_y")])
        page = await sandbox.browse(RowQuery(customer_ids=(7,), attribute_ids=(1, 2)))
        assert [row.id for row in page.rows] == [1, 3]
        assert (page.total, page.customers) == (2, 1)
        assert (page.emails, page.names) == (people, {1: "Tier"})
        found = await sandbox.browse(RowQuery(value="0%"))
        assert [row.value for row in found.rows] == ["50%"]
        deep = await sandbox.browse(RowQuery(page=2, limit=2))
        assert ([row.id for row in deep.rows], deep.total) == ([3], 3)
        assert page.emails == {7: "ann@example.org"}


async def test_a_change_of_rows_or_definitions_changes_the_version() -> None:
    async with running() as (sandbox, _):
        versions = [(await sandbox.browse(RowQuery())).version]
        await sandbox.seed([(1, 1, "a")])
        versions.append((await sandbox.browse(RowQuery())).version)
        await sandbox.define(customers={1: "ann@example.org"})
        versions.append((await sandbox.browse(RowQuery())).version)
        await sandbox.delete_rows([1])
        versions.append((await sandbox.browse(RowQuery())).version)
    assert versions == sorted(set(versions))
