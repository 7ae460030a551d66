"""A sync that reads a mirror: few reads, and what it writes is noted in the mirror."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from bc_attrvals import (
    AttributeValueFilter,
    AttributeValueUpsert,
    Event,
    InvalidInputError,
    Reading,
    Store,
    SyncPlan,
    SyncProgressed,
)
from bc_attrvals.sandbox import Operation, Sandbox

from ..conftest import make_store
from .over_http import held, seed, stored

EVERYTHING = AttributeValueFilter()


async def values_of(sandbox: Sandbox) -> list[AttributeValueUpsert]:
    rows = await sandbox.rows()
    return [AttributeValueUpsert(one.customer_id, one.attribute_id, one.value) for one in rows]


def reads(sandbox: Sandbox) -> int:
    return sandbox.calls[Operation.LIST]


async def test_a_sync_of_all_values_takes_few_reads(
    sandbox: Sandbox, store: Store, tmp_path: Path
) -> None:
    rng = random.Random(4)
    await seed(sandbox, 5_000)
    async with store.mirror(tmp_path / "m.db") as mirror:
        await mirror.refresh()
        desired = await values_of(sandbox)
        for index in rng.sample(range(len(desired)), 60):
            one = desired[index]
            desired[index] = AttributeValueUpsert(one.customer_id, one.attribute_id, "differs")
        gone, desired = desired[:7], desired[7:]
        before = reads(sandbox)
        plans: list[SyncPlan] = []

        async def agree(plan: SyncPlan) -> bool:
            plans.append(plan)
            return True

        report = await store.attribute_values.sync(
            desired, scope=EVERYTHING, prune=True, mirror=mirror, confirm=agree
        )
        assert reads(sandbox) - before <= 6
        assert report.deleted == len(gone)
        assert report.updated + report.deleted >= 60
        assert report.ok
        (plan,) = plans
        assert plan.reading is Reading.MIRROR
        assert plan.read_calls == reads(sandbox) - before
        assert plan.saved_calls == 20 - plan.read_calls
        assert "refresh the mirror" in str(plan)
        # Noted from the echoes and the confirmed deletes, without a read.
        assert await held(mirror) == await stored(sandbox)
        kinds = [one.kind async for one in mirror.changes(after=5_000)]
        assert kinds.count("delete") == 7
        again = await store.attribute_values.sync(desired, scope=EVERYTHING, mirror=mirror)
        assert again.unchanged == len(desired)


async def test_a_dry_run_writes_nothing_and_costs_a_refresh(
    sandbox: Sandbox, store: Store, tmp_path: Path
) -> None:
    await seed(sandbox, 600)
    async with store.mirror(tmp_path / "m.db") as mirror:
        await mirror.refresh()
        desired = [AttributeValueUpsert(1, 1, "new"), AttributeValueUpsert(2, 1, "v4")]
        plan = await store.attribute_values.plan_sync(desired, scope=EVERYTHING, mirror=mirror)
        assert (plan.update, plan.unchanged) == (1, 1)
        report = await store.attribute_values.sync(desired, mirror=mirror, dry_run=True)
        assert report.updated == 1
        assert await held(mirror) == await stored(sandbox)


async def test_a_mirror_must_hold_the_scope_of_the_sync(
    sandbox: Sandbox, store: Store, tmp_path: Path
) -> None:
    await seed(sandbox, 40)
    desired = [AttributeValueUpsert(1, 1, "new")]
    scope = AttributeValueFilter(attribute_id_in=[1, 2])
    async with store.mirror(tmp_path / "m.db", scope) as mirror:
        sync = store.attribute_values.sync
        for wrong in (None, EVERYTHING, AttributeValueFilter(attribute_id_in=[1, 3])):
            with pytest.raises(InvalidInputError) as caught:
                await sync(desired, scope=wrong, mirror=mirror)
            assert caught.value.field == "mirror"
        assert not sandbox.calls[Operation.UPSERT]
        narrow = AttributeValueFilter(attribute_id_in=[1])
        report = await sync(desired, scope=narrow, prune=True, mirror=mirror)
        assert (report.updated, report.deleted) == (1, 9)
        async with Sandbox(quota=None) as other, make_store(other) as other_store:
            with pytest.raises(InvalidInputError, match="another store"):
                await other_store.attribute_values.sync(desired, scope=narrow, mirror=mirror)


async def test_a_mirror_and_a_journal_together_resume(
    sandbox: Sandbox, store: Store, tmp_path: Path
) -> None:
    await seed(sandbox, 240)
    desired = [
        AttributeValueUpsert(one.customer_id, one.attribute_id, f"{one.value} differs")
        for one in await values_of(sandbox)
    ]
    sync = store.attribute_values.sync
    journal = tmp_path / "journal.db"
    async with store.mirror(tmp_path / "m.db") as mirror:
        await mirror.refresh()
        sandbox.latency_ms = 5
        begun = asyncio.Event()

        def hear(event: Event) -> None:
            if isinstance(event, SyncProgressed) and event.phase == "writing" and event.done > 99:
                begun.set()

        store.subscribe(hear)
        job = asyncio.ensure_future(sync(desired, scope=EVERYTHING, mirror=mirror, journal=journal))
        await begun.wait()
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
    async with store.mirror(tmp_path / "m.db") as mirror:
        report = await sync(desired, scope=EVERYTHING, mirror=mirror, journal=journal)
        assert report.ok
        assert report.resumed
        assert report.updated == 240
        await mirror.refresh()
        assert await held(mirror) == await stored(sandbox)
        assert set((await sandbox.values()).values()) == {one.value for one in desired}


async def test_a_refresh_waits_for_a_sync(sandbox: Sandbox, store: Store, tmp_path: Path) -> None:
    await seed(sandbox, 300)
    async with store.mirror(tmp_path / "m.db") as mirror:
        await mirror.refresh()
        sandbox.latency_ms = 3
        desired = [AttributeValueUpsert(one, 1, "differs") for one in range(1, 70)]
        sync = store.attribute_values.sync(desired, mirror=mirror)
        report, refreshed = await asyncio.gather(sync, mirror.refresh())
        assert report.updated == 69
        assert refreshed.ok
        assert await held(mirror) == await stored(sandbox)
