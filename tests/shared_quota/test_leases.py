"""Leases: kept as long as their request takes, and back when their process died."""

from __future__ import annotations

import time

import pytest

from bc_attrvals import Limits
from tests.probes import until
from tests.shared_quota.quotas import (
    BULK,
    STORE,
    WRITE,
    Make,
    asking,
    granted,
    learn,
    opened,
    settled,
    told,
)

pytestmark = pytest.mark.usefixtures("no_task_left")


async def test_what_a_dead_process_held_comes_back_within_the_lease_time(shared: Make) -> None:
    dying = shared(lease_s=0.6)
    async with opened(shared(lease_s=0.6), writes=2) as [living]:
        await dying.open(STORE, Limits(writes=2))
        await learn(dying, told(6))
        for _ in range(2):
            await dying.acquire(WRITE, BULK)
        # As a SIGKILL leaves it: nothing is said any more.
        dying._member._task.cancel()
        dying._member._wake_up.close()
        died_at = time.monotonic()
        tasks = asking(living, WRITE, BULK, 2)
        await until(lambda: len(granted(tasks)) == 2)
        assert 0.2 < time.monotonic() - died_at <= 0.6
        for lease in granted(tasks):
            living.release(lease, told(6))
        # Two of six that were left may be spent; these are newer, so they know.
        await settled()
        await dying._member._link.aclose()


async def test_a_lease_is_kept_for_as_long_as_its_request_takes(shared: Make) -> None:
    async with opened(shared(lease_s=0.3), shared(lease_s=0.3), writes=1) as [one, two]:
        await learn(one, {})
        lease = await one.acquire(WRITE, BULK)
        tasks = asking(two, WRITE, BULK, 1)
        await settled(0.7)
        assert not granted(tasks)
        one.release(lease, {})
        await until(lambda: granted(tasks))
