"""The quota of one process, asked as a user's quota is: wait for a unit, give it back."""

from __future__ import annotations

import asyncio

import pytest
from multidict import CIMultiDict

from bc_attrvals import Limits, Operation, Priority, StoreStateError
from bc_attrvals.events import Event, QuotaExhausted
from bc_attrvals.scheduling.local_quota import LocalQuota

pytestmark = pytest.mark.looptime(noop_cycles=2)

READ, BULK = Operation.READ, Priority.BULK


def headers(left: int, reset_s: float) -> CIMultiDict[str]:
    return CIMultiDict(
        {
            "X-Rate-Limit-Requests-Left": str(left),
            "X-Rate-Limit-Requests-Quota": "2",
            "X-Rate-Limit-Time-Reset-Ms": f"{reset_s * 1000:.0f}",
            "X-Rate-Limit-Time-Window-Ms": "30000",
        }
    )


def now() -> float:
    return asyncio.get_running_loop().time()


async def opened() -> LocalQuota:
    quota = LocalQuota()
    await quota.open("hash", Limits())
    return quota


async def test_who_waits_for_a_spent_quota_gets_a_unit_of_the_next_window() -> None:
    quota, began_at = await opened(), now()
    quota.release(await quota.acquire(READ, BULK), headers(0, 9.5))
    assert quota.is_spent(now())
    await quota.acquire(READ, BULK)
    assert 9.5 <= now() - began_at < 9.6


async def test_a_unit_that_comes_back_unused_goes_to_who_waits() -> None:
    quota = await opened()
    quota.release(await quota.acquire(READ, BULK), headers(1, 20.5))
    lease, began_at = await quota.acquire(READ, BULK), now()
    waiting = asyncio.ensure_future(quota.acquire(READ, BULK))
    await asyncio.sleep(1)
    quota.cancel(lease)
    await waiting
    assert now() - began_at == pytest.approx(1, abs=0.01)


async def test_closing_fails_those_that_wait() -> None:
    quota = await opened()
    quota.refused(await quota.acquire(READ, BULK), headers(1, 20.5))
    waiting = asyncio.ensure_future(quota.acquire(READ, BULK))
    await asyncio.sleep(1)
    await quota.close()
    with pytest.raises(StoreStateError):
        await waiting


async def test_a_wait_is_reported_with_its_end() -> None:
    quota, told = await opened(), list[Event]()
    quota.report_to(told.append)
    quota.release(await quota.acquire(READ, BULK), headers(0, 9.5))
    quota.note_waiting(now(), None)
    quota.note_waiting(now(), 3.0)
    waits = [event.resets_in_s for event in told if isinstance(event, QuotaExhausted)]
    assert waits == [pytest.approx(9.5, abs=0.01), 3.0]
