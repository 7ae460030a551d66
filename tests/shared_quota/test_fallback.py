"""What a process takes without the server: its share, and its turn to write."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from bc_attrvals.sandbox import Sandbox
from tests.conftest import make_store
from tests.probes import until, upserts
from tests.shared_quota.quotas import BULK, STORE, WRITE, Watched, watching
from tests.valkey import Valkey

from bc_attrvals.shared_quota import RedisQuota, fallback  # isort: skip - skipped where redis is missing

pytestmark = pytest.mark.usefixtures("no_task_left")


async def shares_when_it_dies(own_valkey: Valkey, processes: list[Watched]) -> list[float]:
    own_valkey.stop()
    await until(lambda: all(one.lost for one in processes))
    return [one.lost[0].share for one in processes]


async def test_idle_processes_take_no_more_than_the_whole_together(own_valkey: Valkey) -> None:
    async with watching(*(Watched(own_valkey.url) for _ in range(8))) as processes:
        assert await shares_when_it_dies(own_valkey, processes) == [1 / 8] * 8
        # Each has a place of its own in the turns to write.
        assert sorted(one.quota._member._local._members.rank for one in processes) == list(range(8))


async def test_those_that_the_server_has_long_forgotten_are_counted(own_valkey: Valkey) -> None:
    from redis.asyncio import Redis

    async with watching(*(Watched(own_valkey.url, lease_s=0.2) for _ in range(5))) as processes:
        # Their leases end, and then the state that nobody used goes too.
        await asyncio.sleep(0.25)
        async with Redis.from_url(own_valkey.url) as redis:
            assert await redis.delete(f"bc_attrvals:{{{STORE}}}") == 1
        newcomer = Watched(own_valkey.url, lease_s=0.2)
        async with watching(newcomer):
            # It knows so from its first call on.
            assert newcomer.members == 6
            await until(lambda: all(one.members == 6 for one in processes))
            everybody = [*processes, newcomer]
            assert await shares_when_it_dies(own_valkey, everybody) == [1 / 6] * 6


async def test_one_that_left_and_one_that_died_are_counted_no_longer(own_valkey: Valkey) -> None:
    async with watching(*(Watched(own_valkey.url, lease_s=0.3) for _ in range(6))) as processes:
        leaving, dying, *rest = processes
        await leaving.quota.close()
        assert {one.members for one in rest} == {6}
        await until(lambda: {one.members for one in rest} == {5}, 2)
        # As a SIGKILL leaves it: its connections go, and nothing is said.
        dying.quota._member._task.cancel()
        await dying.quota._member._link.aclose()
        dying.quota._member._link = None
        await asyncio.sleep(0.3)
        rest[0].quota.release(await rest[0].quota.acquire(WRITE, BULK), {})
        await until(lambda: {one.members for one in rest} == {4}, 2)
        assert await shares_when_it_dies(own_valkey, rest) == [1 / 4] * 4


async def test_one_that_stood_still_for_long_takes_one_unit_a_window(
    own_valkey: Valkey,
) -> None:
    async with watching(Watched(own_valkey.url), Watched(own_valkey.url)) as [one, other]:
        await until(lambda: one.members == 2)
        # As after a SIGSTOP of an hour.
        one.quota._member._membership._confirmed_at -= 3600
        assert await shares_when_it_dies(own_valkey, [one, other]) == [0.0, 0.25]


async def test_stores_that_were_idle_when_it_died_meet_no_429_and_write_in_turns(
    own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fallback, "_TURN_S", 0.5)
    monkeypatch.setattr(fallback, "_TURN_END_S", 0.2)
    monkeypatch.setattr(fallback, "_QUIET_S", 0.1)
    async with (
        Sandbox(quota=24, window_s=0.5, latency_ms=10) as sandbox,
        AsyncExitStack() as stack,
    ):
        stores = [
            await stack.enter_async_context(
                make_store(sandbox, quota=RedisQuota(own_valkey.url, timeout_s=1.0))
            )
            for _ in range(8)
        ]
        own_valkey.stop()
        await asyncio.gather(
            *(
                store.attribute_values.upsert(upserts(30, first=1 + 1_000 * index))
                for index, store in enumerate(stores)
            )
        )
        assert await sandbox.count() == 8 * 30
        assert sandbox.count_429 == 0
        assert sandbox.peak_in_flight("upsert") <= 3
