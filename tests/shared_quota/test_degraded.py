"""Grants without the server."""

from __future__ import annotations

import asyncio
import time

import pytest

from bc_attrvals.events import SharedQuotaLost, SharedQuotaRegained
from tests.probes import until
from tests.shared_quota.quotas import (
    BULK,
    READ,
    WRITE,
    asking,
    ended,
    granted,
    learn,
    lost_and_regained,
    opened,
    settled,
    told,
)
from tests.valkey import Valkey

from bc_attrvals.shared_quota import RedisQuota  # isort: skip - skipped where redis is missing

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
