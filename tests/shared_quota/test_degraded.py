"""What a process grants itself without the server: its share, and its turn to write."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

import pytest

from bc_attrvals.events import SharedQuotaLost, SharedQuotaRegained
from bc_attrvals.sandbox import Sandbox
from tests.conftest import make_store
from tests.probes import until, upserts
from tests.shared_quota.quotas import (
    BULK,
    READ,
    STORE,
    WRITE,
    Watched,
    asking,
    ended,
    granted,
    learn,
    lost_and_regained,
    opened,
    settled,
    told,
    watching,
)
from tests.valkey import Valkey

from bc_attrvals.shared_quota import RedisQuota, degraded  # isort: skip - skipped where redis is missing

pytestmark = pytest.mark.usefixtures("no_task_left")


async def test_without_a_server_a_process_keeps_to_its_share_and_says_so() -> None:
    with Valkey() as valkey:
        valkey.stop()
        quota = RedisQuota(valkey.url, fallback_share=0.3)
        events = await lost_and_regained(quota)
        async with opened(quota, reads=10, writes=3):
            assert [type(one) for one in events] == [SharedQuotaLost]
            assert not quota.connected
            tasks = asking(quota, READ, BULK, 9)
            await settled(0.02)
            # Nothing known: one request finds out.
            assert len(granted(tasks)) == 1
            quota.release(granted(tasks)[0], told(9, quota=20))
            await settled(0.02)
            assert len(granted(tasks)) == 4
            assert len(granted(asking(quota, WRITE, BULK, 1))) == 0
            for lease in granted(tasks)[1:]:
                quota.release(lease, told(9, quota=20))
            await settled(0.02)
            # A share of 0.3 of 20 is 6, and the first counts.
            assert len(granted(tasks)) == 6
            await ended(*tasks)


async def test_a_share_is_one_unit_at_least() -> None:
    with Valkey() as valkey:
        valkey.stop()
        async with opened(RedisQuota(valkey.url, fallback_share=0.01)) as [quota]:
            await learn(quota, told(4, quota=5, reset_ms=199, window_ms=200))
            for _ in range(2):
                lease = await asyncio.wait_for(quota.acquire(WRITE, BULK), 2)
                quota.release(lease, told(3, quota=5, reset_ms=199, window_ms=200))


async def test_one_unit_a_window_goes_to_reads_and_writes_in_turn() -> None:
    with Valkey() as valkey:
        valkey.stop()
        async with opened(RedisQuota(valkey.url, fallback_share=0.01), writes=3) as [quota]:
            reads, writes = asking(quota, READ, BULK, 4), asking(quota, WRITE, BULK, 4)
            order = []
            for _ in range(4):
                await until(lambda: granted([*reads, *writes]), 1)
                for tasks in (reads, writes):
                    for lease in granted(tasks):
                        order.append(lease.operation)
                        del tasks[0]
                        quota.release(lease, told(3, quota=5, reset_ms=49, window_ms=50))
            assert order == [READ, WRITE, READ, WRITE]
            await ended(*reads, *writes)


async def test_a_server_that_comes_back_empty_learns_all_again() -> None:
    with Valkey() as valkey:
        quotas = [RedisQuota(valkey.url) for _ in range(2)]
        events = await lost_and_regained(quotas[0])
        async with opened(*quotas, writes=3) as [one, two]:
            await learn(one, told(5))
            kept = await one.acquire(WRITE, BULK), await two.acquire(WRITE, BULK)
            valkey.stop()
            await until(lambda: not one.connected and not two.connected)
            assert [type(event) for event in events] == [SharedQuotaLost]
            assert events[0].share == 0.25
            valkey.start()
            tasks = asking(one, WRITE, BULK, 5)
            await until(lambda: one.connected and two.connected)
            assert isinstance(events[1], SharedQuotaRegained)
            assert events[1].lost_s > 0
            await until(lambda: granted(tasks))
            await settled(0.2)
            # Both leases are known again, and of the quota what the newest answer told.
            assert len(granted(tasks)) == 1
            assert one.snapshot().quota == 10
            for quota, lease in zip((one, two), kept, strict=True):
                quota.release(lease, None)
            await until(lambda: len(granted(tasks)) == 3)
            await settled(0.2)
            assert len(granted(tasks)) == 3
            await ended(*tasks)


async def test_a_server_that_hangs_is_given_up() -> None:
    import signal

    with Valkey() as valkey:
        async with opened(RedisQuota(valkey.url, timeout_s=0.2)) as [quota]:
            await learn(quota, {})
            assert valkey._process is not None
            valkey._process.send_signal(signal.SIGSTOP)
            began_at = time.monotonic()
            quota.release(await quota.acquire(WRITE, BULK), {})
            assert time.monotonic() - began_at < 1.0
            assert not quota.connected
            valkey._process.send_signal(signal.SIGCONT)
            await until(lambda: quota.connected)


async def shares_when_it_dies(own_valkey: Valkey, processes: list[Watched]) -> list[float]:
    own_valkey.stop()
    await until(lambda: all(one.lost for one in processes))
    return [one.lost[0].share for one in processes]


async def test_idle_processes_take_no_more_than_the_whole_together(own_valkey: Valkey) -> None:
    async with watching(*(Watched(own_valkey.url) for _ in range(8))) as processes:
        assert await shares_when_it_dies(own_valkey, processes) == [1 / 8] * 8
        # Each has a place of its own in the turns to write.
        assert sorted(one.quota._member._degraded._members.rank for one in processes) == list(
            range(8)
        )


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
    monkeypatch.setattr(degraded, "_TURN_S", 0.5)
    monkeypatch.setattr(degraded, "_TURN_END_S", 0.2)
    monkeypatch.setattr(degraded, "_QUIET_S", 0.1)
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
