"""What reads and writes each get of a scarce quota, in simulated time and over HTTP."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from random import Random

import attrs
import pytest

from bc_attrvals import AttributeValueFilter, Limits, Operation, Priority, RetryPolicy
from bc_attrvals.core.rate_limit import QuotaSnapshot
from bc_attrvals.core.requests import Request
from bc_attrvals.core.responses import Response
from bc_attrvals.events import EventBus
from bc_attrvals.sandbox import Sandbox
from bc_attrvals.scheduling.congestion import Concurrency
from bc_attrvals.scheduling.exchange import CallOptions, Exchange
from bc_attrvals.scheduling.quota import Flow
from bc_attrvals.scheduling.quota_shares import Shares
from bc_attrvals.scheduling.scheduler import Scheduler
from tests.conftest import make_store
from tests.fake_service import DELETE, READ, WRITE, FakeService
from tests.probes import upserts

driven = pytest.mark.looptime(noop_cycles=2)


def now() -> float:
    return asyncio.get_running_loop().time()


@attrs.define
class Windows(FakeService):
    """Notes what each window was spent on, and when its first call came."""

    spent: dict[int, Counter[Operation]] = attrs.field(factory=dict)
    first_at: dict[int, float] = attrs.field(factory=dict)

    def _arrive(self, request: Request) -> tuple[int | None, dict[str, str]]:
        window = self.window()
        self.spent.setdefault(window, Counter())[request.operation] += 1
        self.first_at.setdefault(window, now())
        return FakeService._arrive(self, request)


async def run_jobs(service: FakeService, *jobs: Request, seconds: float) -> None:
    """Run jobs that each send one kind of request, as many at once as there are slots."""
    scheduler = Scheduler(
        service, limits=Limits(), retry=RetryPolicy(), events=EventBus(), random=Random(7)
    )
    await scheduler.open("hash")
    ends_at = now() + seconds

    async def work(request: Request, flow: Flow) -> None:
        while now() < ends_at:
            await scheduler.send(Exchange(request, CallOptions(), Priority.BULK, flow))

    at_once = {READ: 10, WRITE: 3, DELETE: 3}
    flows = [(job, Flow()) for job in jobs]
    await asyncio.gather(*(work(*one) for one in flows for _ in range(at_once[one[0]])))
    await scheduler.close()
    assert service.statuses[429] == 0


@driven
@pytest.mark.parametrize(
    ("quota", "window_s", "latency_s", "jitter_s"),
    [(40, 2.0, 0.02, 0.0), (40, 2.0, 0.1, 0.05), (150, 30.0, 0.1, 0.05)],
)
async def test_a_read_and_a_write_job_get_half_of_each_window(
    quota: int, window_s: float, latency_s: float, jitter_s: float
) -> None:
    service = Windows(quota, window_s, latency_s, jitter_s)
    await run_jobs(service, READ, WRITE, seconds=4 * window_s)
    full = list(service.spent.values())[1:4]
    assert len(full) == 3
    for spent in full:
        assert spent[Operation.READ] == pytest.approx(quota / 2, rel=0.15)
        assert spent[Operation.WRITE] == pytest.approx(quota / 2, rel=0.15)
        assert spent.total() >= 0.97 * quota


@driven
async def test_who_can_use_less_than_its_share_leaves_the_rest() -> None:
    # Three writes at once, of half a second each, are 180 in a window.
    service = Windows(quota=450, latency_s=0.5)
    await run_jobs(service, READ, WRITE, seconds=90)
    for spent in list(service.spent.values())[1:3]:
        assert spent[Operation.WRITE] >= 0.85 * 180
        assert spent.total() >= 0.97 * 450


@driven
async def test_each_of_several_jobs_has_an_equal_share() -> None:
    service = Windows(quota=40, window_s=2.0, latency_s=0.02)
    await run_jobs(service, READ, READ, READ, WRITE, seconds=12)
    writes = [spent[Operation.WRITE] for spent in list(service.spent.values())[1:5]]
    assert writes == [pytest.approx(10, rel=0.15)] * 4
    service = Windows(quota=60, window_s=2.0, latency_s=0.02)
    await run_jobs(service, READ, WRITE, DELETE, seconds=12)
    for spent in list(service.spent.values())[1:5]:
        assert list(spent.values()) == [pytest.approx(20, rel=0.15)] * 3


@driven
async def test_calls_that_hang_hold_no_units_back() -> None:
    class Hanging(Windows):
        async def send(self, request: Request, timeout_s: float) -> Response:
            if request is WRITE and self.windows.total() > 60:
                await asyncio.sleep(10)
            return await FakeService.send(self, request, timeout_s)

    service = Hanging(quota=40, window_s=2.0, latency_s=0.02)
    await run_jobs(service, READ, WRITE, seconds=12)
    # The three that hang may be counted in any window.
    assert min(list(service.windows.values())[1:5]) >= 40 - 3


@driven
async def test_a_job_that_ends_leaves_all_to_the_other_at_once() -> None:
    service = Windows(quota=40, window_s=2.0, latency_s=0.02)

    async def end_soon(scheduler: Scheduler) -> None:
        for _ in range(5):
            await scheduler.send(Exchange(WRITE, CallOptions(), Priority.BULK, Flow()))

    scheduler = Scheduler(
        service, limits=Limits(), retry=RetryPolicy(), events=EventBus(), random=Random(7)
    )
    await scheduler.open("hash")
    reads = Flow()
    began_at = now()
    await asyncio.gather(
        end_soon(scheduler),
        *(scheduler.send(Exchange(READ, CallOptions(), Priority.BULK, reads)) for _ in range(35)),
    )
    assert now() - began_at < 0.25
    await scheduler.close()


@driven
@pytest.mark.parametrize("quota", [150, 450])
@pytest.mark.parametrize("job", [READ, WRITE], ids=["reads", "writes"])
async def test_the_next_window_is_opened_on_time(quota: int, job: Request) -> None:
    # An answer bounds the window's end to its way back: no client knows it better.
    service = Windows(quota=quota, latency_s=0.06, jitter_s=0.02, offset_s=-3.3)
    await run_jobs(service, job, seconds=95)
    late_s = [
        first_at - service.offset_s - window * 30.0 for window, first_at in service.first_at.items()
    ]
    # Half the latency on the way back, half of it on the way there, and two turns of the clock.
    assert max(late_s[1:]) <= 0.06 + 2 * 0.02 + 0.005
    assert list(service.windows.values())[1:3] == [quota] * 2


def test_without_a_known_quota_nothing_is_held_back() -> None:
    states = {one: Concurrency(3) for one in Operation}
    nobody = dict.fromkeys(Operation, (0, 0))
    left = Shares().left_for(Operation.READ, 0.0, QuotaSnapshot(), states, nobody)
    assert left == math.inf


def test_units_are_never_held_back_from_all() -> None:
    states = {one: Concurrency(3) for one in Operation}
    shares, waiting = Shares(), dict.fromkeys(Operation, (3, 1))
    alone = {**dict.fromkeys(Operation, (0, 0)), Operation.READ: (3, 1)}
    # Reads take 15 of 20 while they are alone; then the others have more to come than is left.
    assert shares.left_for(Operation.READ, 0.0, QuotaSnapshot(20, 20, 30.0), states, alone) == 20
    states[Operation.READ].bulk_granted = 15
    scarce = QuotaSnapshot(20, 5, 29.0)
    may_go = {one: shares.left_for(one, 1.0, scarce, states, waiting) >= 1 for one in Operation}
    assert may_go == {Operation.READ: False, Operation.WRITE: True, Operation.DELETE: True}


async def test_reads_and_writes_over_http_get_half_each_of_a_scarce_quota() -> None:
    async with (
        Sandbox(quota=40, window_s=0.5, latency_ms=5) as sandbox,
        make_store(sandbox, limits=Limits(page_size=5)) as store,
    ):
        await sandbox.seed((customer, 2, "v") for customer in range(1, 301))

        async def list_all() -> None:
            wanted = AttributeValueFilter(attribute_id_in=[2])
            assert len([row async for row in store.attribute_values.stream(wanted)]) == 300

        await asyncio.gather(store.attribute_values.upsert(upserts(600)), list_all())
        assert sandbox.calls == {"upsert": 60, "list": 60}
        assert sandbox.count_429 == 0
        assert min(window.granted for window in sandbox.windows[:-1]) >= 0.97 * 40
        calls = [one.operation for one in sandbox.requests]
        assert Counter(calls[40:80])["list"] == pytest.approx(20, rel=0.15)
