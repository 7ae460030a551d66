"""Rows of a sandbox and of its mirror, to compare."""

from __future__ import annotations

from bc_attrvals import Mirror
from bc_attrvals.sandbox import Sandbox

START = 1_700_000_000
Rows = dict[int, tuple[int, int, str, int, int]]


async def held(mirror: Mirror) -> Rows:
    return {
        row.id: (
            row.customer_id,
            row.attribute_id,
            row.value,
            int(row.date_created.timestamp()),
            int(row.date_modified.timestamp()),
        )
        async for row in mirror.rows()
        if row.date_created is not None and row.date_modified is not None
    }


async def stored(sandbox: Sandbox) -> Rows:
    return {
        row.id: (
            row.customer_id,
            row.attribute_id,
            row.value,
            row.date_created_s,
            row.date_modified_s,
        )
        for row in await sandbox.rows()
    }


async def seed(sandbox: Sandbox, count: int) -> None:
    await sandbox.seed(
        (index // 4 + 1, index % 4 + 1, f"v{index}", START + index // 4) for index in range(count)
    )
