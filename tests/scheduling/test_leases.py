"""Leases: a slot and a unit each, given back once, with what the answer taught."""

from __future__ import annotations

import asyncio

import pytest
from multidict import CIMultiDict

from bc_attrvals import Limits, Operation
from bc_attrvals.scheduling.leases import Lease, Leases
from bc_attrvals.scheduling.local_quota import LocalQuota

pytestmark = pytest.mark.looptime(noop_cycles=2)

HEADERS = CIMultiDict(
    {
        "X-Rate-Limit-Requests-Left": "5",
        "X-Rate-Limit-Requests-Quota": "10",
        "X-Rate-Limit-Time-Reset-Ms": "20000",
        "X-Rate-Limit-Time-Window-Ms": "30000",
    }
)


def now() -> float:
    return asyncio.get_running_loop().time()


async def make() -> tuple[Leases, LocalQuota]:
    quota = LocalQuota()
    leases = Leases(quota)
    await leases.open("hash", Limits(reads=4, writes=2))
    return leases, quota


def take(leases: Leases, operation: Operation = Operation.WRITE, is_bulk: bool = True) -> Lease:
    lease = leases.take(operation, now(), is_bulk)
    assert lease is not None
    return lease


async def test_a_lease_takes_a_slot_and_a_unit_and_an_answer_gives_the_slot_back() -> None:
    leases, quota = await make()
    leases.end(take(leases), now(), HEADERS, 200)
    first, _ = take(leases), take(leases)
    assert leases.room(Operation.WRITE, now(), True) == 0
    assert quota.snapshot().left == 3
    await asyncio.sleep(0.5)
    leases.end(first, now(), HEADERS, 200)
    assert leases.room(Operation.WRITE, now(), True) == 1
    assert leases.slots[Operation.WRITE].latency_s == pytest.approx(0.5 / 8)


async def test_a_lease_that_was_not_used_costs_no_unit_and_teaches_nothing() -> None:
    leases, quota = await make()
    leases.end(take(leases), now(), HEADERS, 200)
    await asyncio.sleep(1)
    leases.cancel(take(leases), now())
    assert quota.snapshot().left == 5
    assert leases.slots[Operation.WRITE].latency_s == 0


async def test_a_request_without_an_answer_has_cost_its_unit() -> None:
    leases, quota = await make()
    leases.end(take(leases), now(), HEADERS, 200)
    leases.end(take(leases), now(), None, None)
    assert quota.snapshot().left == 4
    assert leases.room(Operation.WRITE, now(), True) == 2


async def test_a_refusal_with_headers_means_that_no_unit_is_left() -> None:
    leases, quota = await make()
    leases.end(take(leases), now(), HEADERS, 429)
    assert quota.snapshot().left == 0
    assert leases.take(Operation.WRITE, now(), True) is None
    assert leases.slots[Operation.WRITE].in_flight == 0


@pytest.mark.parametrize(
    ("status", "slots_after"), [(200, 2), (404, 2), (429, 1), (503, 1), (None, 1)]
)
async def test_only_an_answer_without_overload_recovers_a_slot(
    status: int | None, slots_after: int
) -> None:
    leases, _ = await make()
    slots = leases.slots[Operation.WRITE]
    slots.allowed, slots.is_weak = 1.0, True
    leases.end(take(leases), now(), HEADERS if status else None, status)
    assert int(slots.allowed) == slots_after


async def test_slow_interactive_reads_leave_bulk_reads_fewer_slots() -> None:
    leases, _ = await make()
    for took_s in (0.1, 0.5, 0.5):
        lease = take(leases, Operation.READ, is_bulk=False)
        await asyncio.sleep(took_s)
        leases.end(lease, now(), HEADERS, 200)
    assert leases.room(Operation.READ, now(), True) == 2
    assert leases.room(Operation.READ, now(), False) == 4
