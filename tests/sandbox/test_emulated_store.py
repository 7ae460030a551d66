"""The controls over the store from Python."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from bc_attrvals.sandbox import Fault
from tests.sandbox.api import item, running


async def test_reset_returns_to_an_empty_healthy_store() -> None:
    async with running(quota=3, faults=[Fault("500", operation="list")]) as (sandbox, api):
        sandbox.reject_customers([9])
        await api.put(item(1))
        await api.get()
        await sandbox.reset()
        assert (len(sandbox.requests), sandbox.quota_left) == (0, 3)
        assert (await sandbox.count(), sandbox.statuses, sandbox.calls) == (0, {}, {})
        assert (await api.get()).data == []
        assert [row["id"] for row in (await api.put(item(9))).data] == [1]


async def test_seeding_is_all_or_nothing_and_overwrites_equal_keys() -> None:
    async with running() as (sandbox, _):
        aware = datetime(2024, 5, 1, tzinfo=UTC)
        assert await sandbox.seed([(1, 1, "a"), (1, 1, "b", aware, aware)]) == 2
        assert await sandbox.values() == {(1, 1): "b"}
        assert (await sandbox.rows())[0].date_created_s == int(aware.timestamp())
        with pytest.raises(ValueError, match="longer"):
            await sandbox.seed([(2, 1, "a"), (3, 1, "x" * 256)])
        with pytest.raises(ValueError, match="aware"):
            await sandbox.seed([(2, 1, "a", aware.replace(tzinfo=None))])
        for date in ("2024-05-01", "2024-05-01T00:00:00Z", 1.5, None, True):
            with pytest.raises(ValueError, match="row 1: a date must be"):
                await sandbox.seed([(2, 1, "a"), (3, 1, "a", aware, date)])  # type: ignore[list-item]
        assert await sandbox.count() == 1
