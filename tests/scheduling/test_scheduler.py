"""The scheduler's promises, in simulated time (`looptime` drives the clock)."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from random import Random

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from bc_attrvals import (
    APIError,
    Limits,
    Operation,
    Priority,
    RateLimitError,
    RetryPolicy,
    ServerError,
    StoreStateError,
)
from bc_attrvals.core.rate_limit import QuotaSnapshot
from bc_attrvals.core.requests import Request
from bc_attrvals.core.responses import Response
from bc_attrvals.errors import ConnectionFailedError, ConnectionLostError
from bc_attrvals.events import (
    Event,
    EventBus,
    QuotaExhausted,
    RequestAnswered,
    RequestRetrying,
    RequestSent,
)
from bc_attrvals.scheduling.exchange import CallOptions, Exchange, OutdatedError, Worker
from bc_attrvals.scheduling.quota import Flow, Quota
from bc_attrvals.scheduling.scheduler import Scheduler
from tests.fake_service import DELETE, READ, WRITE, FakeService

# Nothing here does real I/O, so simulated time need not wait for any.
pytestmark = pytest.mark.looptime(noop_cycles=2)

LIMITS = Limits()
RETRY = RetryPolicy()


@asynccontextmanager
async def open_scheduler(
    service: FakeService,
    *,
    limits: Limits = LIMITS,
    retry: RetryPolicy = RETRY,
    events: EventBus | None = None,
    random: Random | None = None,
    quota: Quota | None = None,
) -> AsyncIterator[Scheduler]:
    scheduler = Scheduler(
        service,
        limits=limits,
        retry=retry,
        events=EventBus() if events is None else events,
        quota=quota,
        random=random or Random(7),
    )
    await scheduler.open("hash")
    try:
        yield scheduler
    finally:
        await scheduler.close()


class Longest(Random):
    """Draws the upper end, so that each wait is its bound."""

    def random(self) -> float:
        return 1.0


async def send(
    scheduler: Scheduler,
    request: Request = READ,
    *,
    priority: Priority = Priority.BULK,
    flow: Flow | None = None,
    retry: RetryPolicy = RETRY,
) -> bytes:
    exchange = Exchange(request, CallOptions(30.0, retry), priority, flow)
    return (await scheduler.send(exchange)).body


def write(options: CallOptions, worker: Worker) -> Exchange:
    return Exchange(WRITE, options, Priority.BULK, worker=worker)


async def send_many(scheduler: Scheduler, *requests: Request) -> None:
    await asyncio.gather(*(send(scheduler, request, flow=Flow()) for request in requests))


def now() -> float:
    return asyncio.get_running_loop().time()


def idle(scheduler: Scheduler) -> bool:
    statistics = scheduler.statistics()
    return not any(statistics.in_flight.values()) and not any(statistics.queued.values())


@pytest.mark.parametrize("jitter_s", [0.0, 0.2])
@pytest.mark.parametrize("offset_s", [0.0, -11.0])
@pytest.mark.parametrize(
    "requests",
    [[READ] * 2_000, [WRITE] * 1_000, [READ] * 1_200 + [WRITE] * 800],
    ids=["reads", "writes", "both"],
)
async def test_a_quota_is_used_up_in_every_window_and_never_overrun(
    requests: list[Request], offset_s: float, jitter_s: float
) -> None:
    quota = 450 if jitter_s == 0 else 150
    service = FakeService(quota=quota, latency_s=0.12, jitter_s=jitter_s, offset_s=offset_s)
    async with open_scheduler(service) as scheduler:
        await send_many(scheduler, *requests)
        assert idle(scheduler)
    assert service.statuses[429] == 0
    assert service.seen == len(requests)
    full = [count for _, count in sorted(service.windows.items())[:-1]][1 if offset_s else 0 :]
    assert full
    assert min(full) >= 0.97 * quota


async def test_a_quota_in_whole_seconds_is_never_overrun() -> None:
    service = FakeService(quota=150, latency_s=0.12, granularity_ms=1000, offset_s=-3.3)
    async with open_scheduler(service) as scheduler:
        await send_many(scheduler, *[READ] * 800)
    assert service.statuses[429] == 0
    assert min(sorted(service.windows.values())[2:]) >= 0.9 * 150


async def test_requests_without_an_answer_cost_their_unit() -> None:
    random = Random(3)

    def fault(_: Request) -> int | str | None:
        roll = random.random()
        return "drop" if roll < 0.07 else 500 if roll < 0.1 else None

    service = FakeService(quota=40, window_s=2.0, fault=fault)
    async with open_scheduler(service) as scheduler:
        await send_many(scheduler, *[WRITE] * 300)
        assert scheduler.statistics().retries == service.statuses[None] + service.statuses[500] > 20
    assert service.statuses[429] == 0


async def test_other_apps_spending_half_the_quota_meet_few_429s() -> None:
    service = FakeService(quota=150, latency_s=0.05, jitter_s=0.05)
    random = Random(11)

    async def others() -> None:
        while True:
            await asyncio.sleep(random.expovariate(75 / 30))
            service.spend(1)

    async with open_scheduler(service, limits=Limits(reserve=3)) as scheduler:
        spending = asyncio.create_task(others())
        await send_many(scheduler, *[WRITE, READ] * 750)
        spending.cancel()
    assert service.statuses[200] == 1_500
    assert service.statuses[429] <= 0.005 * 1_500


async def test_without_headers_the_first_goes_alone_and_concurrency_alone_limits_the_rest() -> None:
    service = FakeService()
    async with open_scheduler(service) as scheduler:
        began_at = now()
        await send_many(scheduler, *[READ] * 100, *[WRITE] * 30, *[DELETE] * 30)
    # Ten rounds of ten reads, and the one round trip that finds out.
    assert now() - began_at == pytest.approx(0.22)
    assert service.peaks == {Operation.READ: 10, Operation.WRITE: 3, Operation.DELETE: 3}


async def test_a_429_with_headers_waits_for_the_window_and_costs_no_try() -> None:
    service = FakeService(quota=5, window_s=10.0)
    async with open_scheduler(service) as scheduler:
        service.spend(5)
        await send(scheduler, retry=RetryPolicy(attempts=1))
        assert 10.0 <= now() <= 10.1
        statistics = scheduler.statistics()
    assert statistics.rate_limited == 1
    assert statistics.retries == 0
    assert statistics.quota_wait_s == pytest.approx(10, abs=0.1)


async def test_a_refused_request_goes_before_those_that_wait() -> None:
    service = FakeService(quota=2, window_s=10.0)
    first = Request(Operation.READ, "GET", "/first")
    async with open_scheduler(service, limits=Limits(reads=1)) as scheduler:
        service.spend(2)
        await asyncio.gather(*(send(scheduler, one, flow=Flow()) for one in (first, READ, READ)))
    assert [one.path for one in service.order[:2]] == ["/first", "/first"]


async def test_a_store_under_load_is_given_way_to_and_speed_comes_back() -> None:
    random = Random(5)
    service = FakeService()
    service.fault = lambda _: 429 if now() < 2.0 and random.random() < 1 / 3 else None
    async with open_scheduler(service) as scheduler:

        async def keep_busy() -> None:
            while now() < 6.0:
                await send(scheduler, flow=Flow())

        busy = [asyncio.create_task(keep_busy()) for _ in range(20)]
        await asyncio.sleep(1.9)
        in_flight_under_load = scheduler.statistics().in_flight[Operation.READ]
        await asyncio.sleep(3.1)
        service.peaks.clear()
        await asyncio.sleep(0.5)
        assert service.peaks[Operation.READ] == 10
        await asyncio.gather(*busy)
    assert in_flight_under_load < 10


@pytest.mark.parametrize("status", [429, 503])
async def test_one_burst_of_refusals_halves_the_concurrency_once(status: int) -> None:
    service = FakeService()
    service.fault = lambda _: status if 1 < service.seen <= 9 else None
    async with open_scheduler(service, limits=Limits(reads=8), random=Longest()) as scheduler:
        # The first goes alone.
        await send(scheduler)
        requests = asyncio.gather(*(send(scheduler, flow=Flow()) for _ in range(9)))
        await asyncio.sleep(0.021)
        service.peaks.clear()
        await requests
        assert service.peaks[Operation.READ] == 4


async def test_refusals_without_end_are_given_up_with_the_error_and_its_course() -> None:
    service = FakeService(fault=lambda _: 429)
    async with open_scheduler(service) as scheduler:
        with pytest.raises(RateLimitError) as caught:
            await send(scheduler, retry=RetryPolicy(attempts=2))
    assert caught.value.attempts == 8
    assert caught.value.waited_s == pytest.approx(now() - 8 * 0.02, abs=0.01)


async def test_failures_are_sent_again_until_the_tries_are_used() -> None:
    service = FakeService(fault=lambda _: 500)
    async with open_scheduler(service) as scheduler:
        with pytest.raises(ServerError) as caught:
            await send(scheduler, WRITE)
    assert caught.value.attempts == 6 == service.seen
    assert 0 < caught.value.waited_s <= 2 * (0.25 + 0.5 + 1 + 2 + 4)


async def test_no_slot_is_held_while_waiting_to_retry() -> None:
    service = FakeService(fault=lambda request: 500 if request.path == "/bad" else None)
    bad = Request(Operation.READ, "GET", "/bad")
    async with open_scheduler(service, limits=Limits(reads=1)) as scheduler:
        failing = asyncio.create_task(send(scheduler, bad, retry=RetryPolicy(base_s=20)))
        await asyncio.sleep(0.03)
        assert scheduler.statistics().in_flight[Operation.READ] == 0
        await send(scheduler)
        assert now() < 0.1
        failing.cancel()


async def test_an_interactive_request_goes_before_queued_bulk() -> None:
    service = FakeService()
    flow = Flow()
    async with open_scheduler(service) as scheduler:
        bulk = asyncio.gather(*(send(scheduler, flow=flow) for _ in range(1_000)))
        await asyncio.sleep(0.03)
        began_at = now()
        await send(scheduler, priority=Priority.INTERACTIVE)
        assert now() - began_at <= 0.041
        await bulk


async def test_bulk_reads_give_way_while_they_make_interactive_ones_slow() -> None:
    class OneAtATime(FakeService):
        """Works on one request after the other, 5 ms each."""

        turn = asyncio.Lock()

        async def _travel(self) -> None:
            async with self.turn:
                await asyncio.sleep(0.005)

    service = OneAtATime()
    service.turn = asyncio.Lock()
    async with open_scheduler(service) as scheduler:

        async def keep_busy() -> None:
            flow = Flow()
            while True:
                await send(scheduler, flow=flow)

        await send(scheduler, priority=Priority.INTERACTIVE)
        busy = [asyncio.create_task(keep_busy()) for _ in range(20)]
        await asyncio.sleep(1)
        assert scheduler.statistics().in_flight[Operation.READ] == 10
        for _ in range(10):
            await send(scheduler, priority=Priority.INTERACTIVE)
        assert scheduler.statistics().in_flight[Operation.READ] <= 3
        await asyncio.sleep(1.2)
        assert scheduler.statistics().in_flight[Operation.READ] == 10
        for task in busy:
            task.cancel()


async def test_bulk_moves_under_a_flood_of_interactive_requests() -> None:
    service = FakeService()
    async with open_scheduler(service, limits=Limits(reads=2)) as scheduler:

        async def flood() -> None:
            while True:
                await send(scheduler, priority=Priority.INTERACTIVE)

        flooding = [asyncio.create_task(flood()) for _ in range(50)]
        await asyncio.sleep(1)
        await asyncio.gather(*(send(scheduler, flow=Flow()) for _ in range(10)))
        assert now() < 1 + 10 * 8 * 0.02 / 2 + 0.1
        for task in flooding:
            task.cancel()


@pytest.mark.parametrize("quota", [None, 100])
async def test_bulk_jobs_share_evenly_whatever_they_have_queued(quota: int | None) -> None:
    service = FakeService(quota=quota, window_s=5.0)
    done = dict.fromkeys("abcd", 0)

    async def work(scheduler: Scheduler, name: str, count: int) -> None:
        flow = Flow()

        async def one() -> None:
            await send(scheduler, WRITE, flow=flow)
            done[name] += 1

        await asyncio.gather(*(one() for _ in range(count)))

    async with open_scheduler(service) as scheduler:
        jobs = [
            asyncio.create_task(work(scheduler, name, count))
            for name, count in zip("abcd", (1_000, 400, 200, 150), strict=True)
        ]
        while min(done.values()) < 150:
            await asyncio.sleep(0.5 if quota is None else 5.0)
            if max(done.values()) < 150:
                total = sum(done.values())
                assert all(abs(n - total / 4) <= 0.1 * total / 4 + 3 for n in done.values()), done
            else:
                break
        await asyncio.gather(*jobs)
    assert sum(done.values()) == 1_750


async def test_neither_reads_nor_writes_starve_of_a_scarce_quota() -> None:
    service = FakeService(quota=20, window_s=5.0)
    done = {Operation.READ: 0, Operation.WRITE: 0}

    async def work(scheduler: Scheduler, request: Request) -> None:
        flow = Flow()

        async def one() -> None:
            await send(scheduler, request, flow=flow)
            done[request.operation] += 1

        await asyncio.gather(*(one() for _ in range(200)))

    async with open_scheduler(service) as scheduler:
        jobs = [asyncio.create_task(work(scheduler, request)) for request in (READ, WRITE)]
        await asyncio.sleep(49.9)
        assert sum(done.values()) == 200
        assert min(done.values()) >= 90
        for job in jobs:
            job.cancel()


@pytest.mark.parametrize("seed", range(12))
async def test_cancelled_waiters_leave_no_slot_and_no_unit_taken(seed: int) -> None:
    random = Random(seed)
    quota = random.choice([None, 50, 400])
    service = FakeService(quota=quota, window_s=5.0, jitter_s=0.02)
    async with open_scheduler(service) as scheduler:
        tasks = [
            asyncio.create_task(
                send(
                    scheduler,
                    random.choice([READ, WRITE, DELETE]),
                    priority=random.choice(list(Priority)),
                    flow=Flow(),
                )
            )
            for _ in range(1_000)
        ]
        for task in random.sample(tasks, 950):
            if random.random() < 0.3:
                await asyncio.sleep(random.expovariate(20))
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert sum(not isinstance(one, asyncio.CancelledError) for one in results) >= 50
        assert idle(scheduler)
        assert not service.in_flight.total()
        # The next window is whole: nothing of it was leaked.
        await asyncio.sleep(5.1)
        left = scheduler.statistics().quota.left
        assert left in {quota, None}
        await send_many(scheduler, *[READ] * 10)
        assert idle(scheduler)
    assert service.statuses[429] == 0


async def test_a_cancelled_grant_is_handed_on() -> None:
    service = FakeService()
    events = EventBus()
    async with open_scheduler(service, limits=Limits(reads=1), events=events) as scheduler:
        first, second, third = (asyncio.create_task(send(scheduler)) for _ in range(3))
        # Told right after the slot fell to the second, in the same step of the loop.
        events.subscribe(
            lambda event: second.cancel() if isinstance(event, RequestAnswered) else None
        )
        await asyncio.wait_for(third, 1)
        assert first.done()
        assert second.cancelled()
        assert service.seen == 2
        assert idle(scheduler)


async def test_a_callers_deadline_bounds_the_waits_and_tells_the_cause() -> None:
    service = FakeService(fault=lambda _: 503)
    async with open_scheduler(service) as scheduler:
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(1.0):
                await send(scheduler, retry=RetryPolicy(attempts=50, base_s=5))
        assert now() == pytest.approx(1.0)
        assert idle(scheduler)
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)
    reason = caught.value.__cause__.__context__
    assert isinstance(reason, ServerError)
    assert reason.attempts == service.seen >= 1


async def test_an_abandoned_write_keeps_its_slot_until_it_is_answered() -> None:
    service = FakeService(latency_s=1.0)
    async with open_scheduler(service, limits=Limits(writes=1)) as scheduler:
        worker = Worker()
        scheduler.start(scheduler.send(write(CallOptions(), worker)), worker)
        await asyncio.sleep(0.1)
        worker.abandon()
        assert scheduler.statistics().in_flight[Operation.WRITE] == 1
        await send(scheduler, WRITE)
        assert now() == pytest.approx(2.0)
        assert service.peaks[Operation.WRITE] == 1


async def test_a_write_that_is_outdated_when_its_slot_comes_is_not_sent() -> None:
    service = FakeService(latency_s=1.0)
    async with open_scheduler(service, limits=Limits(writes=1)) as scheduler:
        worker = Worker(is_outdated=lambda: True)
        first, outdated, last = (
            asyncio.create_task(send(scheduler, WRITE)),
            scheduler.start(scheduler.send(write(CallOptions(), worker)), worker),
            asyncio.create_task(send(scheduler, WRITE)),
        )
        with pytest.raises(OutdatedError):
            await outdated
        await asyncio.gather(first, last)
        assert (service.seen, now(), worker.was_sent) == (2, pytest.approx(2.0), False)
        assert idle(scheduler)


async def test_closing_ends_all_that_is_under_way_and_says_what_may_have_been_applied() -> None:
    service = FakeService(latency_s=10.0)
    scheduler = Scheduler(service, limits=Limits(writes=1), retry=RetryPolicy(), events=EventBus())
    await scheduler.open("hash")
    on_wire = asyncio.create_task(send(scheduler, WRITE))
    queued = asyncio.create_task(send(scheduler, WRITE))
    await asyncio.sleep(1)
    await scheduler.close()
    with pytest.raises(ConnectionLostError, match="closed while") as lost:
        await on_wire
    assert lost.value.may_have_been_applied
    assert (lost.value.method, lost.value.path) == ("PUT", "/values")
    with pytest.raises(StoreStateError, match="closed before"):
        await queued
    with pytest.raises(StoreStateError):
        await send(scheduler, WRITE)
    assert now() < 2


async def test_exhaustion_is_told_once_a_window() -> None:
    service = FakeService(quota=10, window_s=5.0)
    events = EventBus()
    seen: list[object] = []
    events.subscribe(seen.append)
    async with open_scheduler(service, events=events) as scheduler:
        await send_many(scheduler, *[READ] * 35)
    exhausted = [event for event in seen if isinstance(event, QuotaExhausted)]
    assert len(exhausted) == 3
    assert all(event.quota == 10 and 4 < event.resets_in_s <= 5 for event in exhausted)


async def test_a_store_that_counts_no_calls_any_more_is_not_waited_for() -> None:
    service = FakeService(quota=10, window_s=5.0)
    async with open_scheduler(service) as scheduler:
        await send_many(scheduler, *[READ] * 10)
        service.quota = None
        await send_many(scheduler, *[READ] * 100)
        await send_many(scheduler, *[READ] * 1_000)
        assert now() < 60


@pytest.mark.parametrize("absurd", ["-5", "1e9", "", "99999999999999999999", "NaN", "٣"])
async def test_absurd_headers_neither_stop_nor_free_us(absurd: str) -> None:

    class AbsurdService(FakeService):
        def headers(self) -> dict[str, str]:
            return {**super().headers(), "X-Rate-Limit-Requests-Left": absurd}

    async with open_scheduler(AbsurdService(quota=1_000)) as scheduler:
        await send_many(scheduler, *[READ] * 100)
    assert now() < 1.0


class Refusing(FakeService):
    """Answers the first requests 429 with an `X-Retry-After`."""

    refusals = 0
    retry_after = ""

    def _arrive(self, request: Request) -> tuple[int | None, dict[str, str]]:
        assert self.seen < 100
        if self.seen <= self.refusals:
            return 429, {"X-Retry-After": self.retry_after}
        return super()._arrive(request)


def refusing(refusals: int, retry_after: str) -> Refusing:
    service = Refusing()
    service.refusals, service.retry_after = refusals, retry_after
    return service


@pytest.mark.parametrize(
    ("retry_after", "waits_s"), [("7", 7), ("0.5", 0.5), ("0", 0), ("120", 120), ("1e6", 120)]
)
async def test_a_retry_after_is_waited_for_but_not_for_ever(
    retry_after: str, waits_s: float
) -> None:
    async with open_scheduler(refusing(1, retry_after), random=Longest()) as scheduler:
        await send(scheduler, retry=RetryPolicy(attempts=1))
    assert now() == pytest.approx(waits_s + 0.04)


@pytest.mark.parametrize("retry_after", ["-1", "nan", "inf", "soon", ""])
async def test_a_retry_after_that_tells_nothing_is_a_sign_of_load(retry_after: str) -> None:
    async with open_scheduler(refusing(1, retry_after), random=Longest()) as scheduler:
        await send(scheduler)
    assert now() == pytest.approx(0.25 + 0.04)


async def test_a_retry_after_holds_all_up_and_takes_no_slots() -> None:
    service = refusing(10, "3")
    async with open_scheduler(service) as scheduler:
        refused = asyncio.gather(*(send(scheduler, flow=Flow()) for _ in range(30)))
        await asyncio.sleep(1)
        service.peaks.clear()
        await send(scheduler, WRITE)
        assert now() == pytest.approx(3.04, abs=0.03)
        await refused
    assert service.peaks[Operation.READ] == 10


async def test_a_spent_quota_takes_no_slots() -> None:
    service = FakeService(quota=50, window_s=10.0)
    async with open_scheduler(service) as scheduler:
        service.spend(50)
        refused = asyncio.gather(*(send(scheduler, flow=Flow()) for _ in range(30)))
        await asyncio.sleep(1)
        service.peaks.clear()
        await refused
        assert scheduler.statistics().quota.quota == 50
    assert service.peaks[Operation.READ] == 10


async def test_refusals_that_name_a_time_are_believed_five_times() -> None:
    async with open_scheduler(refusing(100, "1")) as scheduler:
        with pytest.raises(RateLimitError) as caught:
            await send(scheduler, retry=RetryPolicy(attempts=1))
    assert caught.value.attempts == 5 + 4


async def test_a_503_costs_a_try_whatever_its_headers_say() -> None:
    service = FakeService(quota=100, fault=lambda _: 503 if service.seen < 100 else None)
    async with open_scheduler(service) as scheduler:
        with pytest.raises(ServerError) as caught:
            await send(scheduler, retry=RetryPolicy(attempts=2))
    assert caught.value.attempts == 2


@pytest.mark.parametrize(("request_", "waits_s"), [(READ, [0.25, 0.5]), (WRITE, [0.5, 1.0])])
async def test_each_wait_before_a_retry_is_told_and_summed(
    request_: Request, waits_s: list[float]
) -> None:
    events = EventBus()
    seen: list[object] = []
    events.subscribe(seen.append)
    service = FakeService(fault=lambda _: 500)
    async with open_scheduler(service, events=events, random=Longest()) as scheduler:
        with pytest.raises(ServerError) as caught:
            await send(scheduler, request_, retry=RetryPolicy(attempts=3))
    assert [event for event in seen if isinstance(event, RequestRetrying)] == [
        RequestRetrying(
            request_.operation,
            attempt,
            delay_s,
            "ServerError",
            request=1,
            method=request_.method,
        )
        for attempt, delay_s in enumerate(waits_s, 1)
    ]
    assert caught.value.waited_s == pytest.approx(sum(waits_s))
    assert caught.value.method == request_.method
    assert caught.value.path == "/values"


async def test_statistics_count_requests_bytes_and_waits() -> None:
    async with open_scheduler(FakeService(), limits=Limits(writes=1)) as scheduler:
        # The first goes alone.
        await send(scheduler)
        await send_many(scheduler, WRITE, WRITE, WRITE, READ)
        statistics = scheduler.statistics()
    assert statistics.requests == 5
    assert statistics.bytes_sent == 3 * len(b"[]")
    assert statistics.bytes_received == 0
    assert statistics.slot_wait_s == pytest.approx(0.02 + 0.04)
    assert statistics.quota_wait_s == 0
    assert statistics.rate_limited == 0
    # FakeService answers after 20 ms; nothing was deleted.
    assert statistics.latency_s == {
        Operation.READ: pytest.approx(0.02),
        Operation.WRITE: pytest.approx(0.02),
    }


async def test_the_latency_follows_the_newest_answers() -> None:
    service = FakeService(latency_s=1.0)
    async with open_scheduler(service) as scheduler:
        await send(scheduler)
        service.latency_s = 0.1
        for _ in range(40):
            await send(scheduler)
        assert 0.1 < scheduler.statistics().latency_s[Operation.READ] < 0.11


async def test_an_abandoned_write_that_fails_is_not_sent_again_nor_complained_of() -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    service = FakeService(fault=lambda _: 500)
    async with open_scheduler(service) as scheduler:
        for attempts in (1, 6):
            worker = Worker()
            exchange = write(CallOptions(30.0, RetryPolicy(attempts=attempts)), worker)
            scheduler.start(scheduler.send(exchange), worker)
            await asyncio.sleep(0.01)
            if attempts > 1:
                worker.abandon()
            del worker, exchange
            await asyncio.sleep(60)
            gc.collect()
        assert not scheduler._tasks
    assert service.seen == 2
    assert complaints == []


class Named(FakeService):
    """Gives each answer an id and a body."""

    async def send(self, request: Request, timeout_s: float) -> Response:
        answer = await super().send(request, timeout_s)
        named = CIMultiDict({**answer.headers, "X-Request-Id": f"r{self.seen}"})
        return Response(answer.status, CIMultiDictProxy(named), b"12345")


async def test_every_request_and_how_it_ended_is_told() -> None:
    faults: list[int | str | None] = [500, "drop", None]
    events = EventBus()
    seen: list[object] = []
    events.subscribe(seen.append)
    async with open_scheduler(Named(fault=lambda _: faults.pop(0)), events=events) as scheduler:
        assert await send(scheduler) == b"12345"
        assert scheduler.statistics().bytes_received == 10
    told = [event for event in seen if isinstance(event, RequestSent)]
    assert told == [
        RequestSent(Operation.READ, attempt, request=1, method="GET") for attempt in (1, 2, 3)
    ]
    answered = [event for event in seen if isinstance(event, RequestAnswered)]
    assert [event.seconds for event in answered] == pytest.approx([0.02] * 3)
    assert [(one.operation, one.status, one.bytes, one.request_id) for one in answered] == [
        (Operation.READ, 500, 5, "r1"),
        (Operation.READ, None, 0, None),
        (Operation.READ, 200, 5, "r3"),
    ]
    assert [(one.request, one.attempt, one.method, one.error) for one in answered] == [
        (1, 1, "GET", None),
        (1, 2, "GET", "ConnectionLostError"),
        (1, 3, "GET", None),
    ]


async def test_an_error_names_its_request() -> None:
    async with open_scheduler(Named(fault=lambda _: 404)) as scheduler:
        with pytest.raises(APIError) as refused:
            await send(scheduler)
    assert (refused.value.status, refused.value.request_id) == (404, "r1")


class SlowQuota:
    """A quota of the caller's own whose leases take a while; notes what is asked of it."""

    def __init__(self) -> None:
        self.asked: list[object] = []
        self.given: list[tuple[object, Mapping[str, str] | None]] = []

    async def open(self, store_hash: str, limits: Limits) -> None:
        self.asked.append((store_hash, limits))

    async def acquire(self, operation: Operation, priority: Priority) -> object:
        self.asked.append((operation, priority))
        await asyncio.sleep(0.5)
        return len(self.asked)

    def release(self, lease: object, headers: Mapping[str, str] | None) -> None:
        self.given.append((lease, headers))

    async def close(self) -> None:
        self.asked.append("closed")


class TellingQuota(SlowQuota):
    """One that also tells of itself."""

    def report_to(self, emit: Callable[[Event], None]) -> None:
        self.asked.append("report_to")
        emit(QuotaExhausted(7, 1.0))

    def snapshot(self) -> QuotaSnapshot:
        return QuotaSnapshot(7, 3, 1.0)


async def test_a_quota_of_ones_own_gets_each_lease_back_with_what_the_answer_said() -> None:
    faults: list[int | str | None] = ["drop", None]
    quota = SlowQuota()
    service = Named(quota=100, fault=lambda _: faults.pop(0))
    async with open_scheduler(service, quota=quota, random=Longest()) as scheduler:
        exchange = Exchange(READ, CallOptions(), Priority.INTERACTIVE)
        await scheduler.send(exchange)
        assert quota.asked == [("hash", LIMITS), *[(Operation.READ, Priority.INTERACTIVE)] * 2]
        (_, of_dropped), (_, of_answered) = quota.given
        assert [lease for lease, _ in quota.given] == [2, 3]
        assert of_dropped is None
        assert of_answered is not None
        assert of_answered["X-Rate-Limit-Requests-Quota"] == "100"
        # Both leases were waited for, and the pause between the tries.
        assert exchange.waited_s == pytest.approx(0.5 + 0.25 + 0.5)
        assert scheduler.statistics().quota_wait_s == pytest.approx(1.0)
        assert scheduler.statistics().quota == QuotaSnapshot()
        assert "closed" not in quota.asked
    assert quota.asked[-1] == "closed"


async def test_a_quota_of_ones_own_may_tell_of_itself_from_before_its_opening() -> None:
    events = EventBus()
    seen: list[object] = []
    events.subscribe(seen.append)
    quota = TellingQuota()
    async with open_scheduler(FakeService(), quota=quota, events=events) as scheduler:
        assert quota.asked == ["report_to", ("hash", LIMITS)]
        assert seen == [QuotaExhausted(7, 1.0)]
        assert scheduler.statistics().quota == QuotaSnapshot(7, 3, 1.0)


async def test_cancelled_while_it_waits_for_a_quota_of_ones_own_a_request_holds_nothing() -> None:
    quota = SlowQuota()
    service = FakeService()
    async with open_scheduler(service, quota=quota, limits=Limits(reads=1)) as scheduler:
        exchange = Exchange(READ, CallOptions(), Priority.BULK)
        waiting = asyncio.create_task(scheduler.send(exchange))
        await asyncio.sleep(0.1)
        waiting.cancel()
        await asyncio.wait({waiting})
        assert idle(scheduler)
        assert (exchange.sent, exchange.was_cut_off) == (0, False)
        assert (service.seen, quota.given) == (0, [])
        assert scheduler.statistics().requests == 0


async def test_a_request_that_found_no_connection_spends_no_unit() -> None:
    class Unreachable(FakeService):
        async def send(self, request: Request, timeout_s: float) -> Response:
            if self.seen:
                raise ConnectionFailedError("refused")
            return await super().send(request, timeout_s)

    service = Unreachable(quota=10)
    async with open_scheduler(service) as scheduler:
        await send(scheduler)
        before = scheduler.statistics().quota.left
        for _ in range(5):
            with pytest.raises(ConnectionFailedError):
                await send(scheduler, WRITE, retry=RetryPolicy(attempts=1))
        assert scheduler.statistics().quota.left == before == 9
        assert idle(scheduler)


async def test_closing_waits_until_the_writes_own_tasks_are_gone() -> None:
    class Lingering(FakeService):
        """Takes some turns of the loop to let go."""

        async def send(self, request: Request, timeout_s: float) -> Response:
            try:
                return await super().send(request, timeout_s)
            finally:
                await asyncio.sleep(1)

    async with open_scheduler(Lingering(latency_s=10)) as scheduler:
        worker = Worker()
        task = scheduler.start(scheduler.send(write(CallOptions(), worker)), worker)
        await asyncio.sleep(0.1)
        await scheduler.close()
        assert task.done()
        assert isinstance(task.exception(), ConnectionLostError)
        assert now() == pytest.approx(1.1)


@pytest.mark.parametrize(("status", "slots"), [(200, 2), (404, 2), (500, 1), (429, 2)])
async def test_only_answers_of_a_store_at_ease_win_concurrency_back(
    status: int, slots: int
) -> None:
    class Easing(FakeService):
        def _arrive(self, request: Request) -> tuple[int | None, dict[str, str]]:
            if self.seen == 2:
                return status, {"X-Retry-After": "0"}
            return (503 if self.seen == 1 else 200), {}

    once = RetryPolicy(attempts=1)
    async with open_scheduler(Easing(), limits=Limits(reads=3)) as scheduler:
        with pytest.raises(ServerError):
            await send(scheduler, retry=once)
        # After a 429, which is of the quota here, it is the good answer to the same request.
        with suppress(APIError):
            await send(scheduler, retry=once)
        busy = asyncio.gather(*(send(scheduler) for _ in range(5)))
        await asyncio.sleep(0.01)
        assert scheduler.statistics().in_flight[Operation.READ] == slots
        await busy


async def test_a_job_ended_while_a_request_of_it_pauses_sends_it_not_again() -> None:
    service = FakeService(fault=lambda _: 500)
    async with open_scheduler(service, random=Longest()) as scheduler:
        worker = Worker()
        exchange = write(CallOptions(30.0, RetryPolicy(base_s=20)), worker)
        pausing = asyncio.create_task(scheduler.send(exchange))
        await asyncio.sleep(1)
        worker.is_finishing = True
        with pytest.raises(ServerError):
            await pausing
        assert service.seen == 1
        # One that was not sent yet has its one try.
        with pytest.raises(ServerError):
            await scheduler.send(write(exchange.options, Worker(is_finishing=True)))
        assert service.seen == 2


async def test_a_write_abandoned_between_its_tries_ends_at_once() -> None:
    service = FakeService(fault=lambda _: 500)
    async with open_scheduler(service, random=Longest()) as scheduler:
        worker = Worker()
        exchange = write(CallOptions(30.0, RetryPolicy(base_s=20)), worker)
        task = scheduler.start(scheduler.send(exchange), worker)
        await asyncio.sleep(1)
        worker.abandon()
        await asyncio.wait({task})
        assert task.cancelled()
        assert not exchange.was_cut_off
        assert now() == pytest.approx(1)


async def test_a_read_cancelled_on_the_wire_may_have_cost_its_unit() -> None:
    service = FakeService(quota=10)
    async with open_scheduler(service) as scheduler:
        await send(scheduler)
        before = scheduler.statistics().quota.left
        cancelled = asyncio.create_task(send(scheduler))
        await asyncio.sleep(0.015)
        cancelled.cancel()
        await asyncio.wait({cancelled})
        assert idle(scheduler)
        assert before == 9
        assert scheduler.statistics().quota.left == 8


async def test_a_job_whose_request_found_a_free_slot_has_had_its_turn() -> None:
    service = FakeService()
    b, a = sorted((Flow(), Flow()), key=id)
    async with open_scheduler(service, limits=Limits(reads=1)) as scheduler:
        await asyncio.gather(
            *(
                send(scheduler, Request(Operation.READ, "GET", path), flow=flow)
                for path, flow in (("/b1", b), ("/b2", b), ("/a", a))
            )
        )
    assert [request.path for request in service.order] == ["/b1", "/a", "/b2"]


async def test_waits_are_drawn_by_a_generator_of_its_own_where_none_is_given() -> None:
    service = FakeService(fault=lambda _: 500 if service.seen == 1 else None)
    scheduler = Scheduler(service, limits=LIMITS, retry=RETRY, events=EventBus())
    await scheduler.open("hash")
    await send(scheduler)
    assert 0.04 < now() <= 0.04 + 0.25
    await scheduler.close()


async def test_a_failed_request_queues_anew_and_not_at_the_front() -> None:
    service = FakeService(latency_s=0.1, fault=lambda _: 500 if service.seen == 1 else None)
    bad, busy = (Request(Operation.READ, "GET", path) for path in ("/bad", "/busy"))
    async with open_scheduler(service, limits=Limits(reads=1), random=Longest()) as scheduler:
        failing = asyncio.create_task(send(scheduler, bad))
        # It pauses from 0.1 s to 0.35 s.
        await asyncio.sleep(0.2)
        await asyncio.gather(
            *(send(scheduler, busy, priority=Priority.INTERACTIVE) for _ in range(4))
        )
        await failing
    assert [request.path for request in service.order] == ["/bad", *["/busy"] * 4, "/bad"]


async def test_the_timeout_of_the_options_goes_with_each_request() -> None:
    class Timed(FakeService):
        timeouts: list[float]

        async def send(self, request: Request, timeout_s: float) -> Response:
            self.timeouts.append(timeout_s)
            return await super().send(request, timeout_s)

    service = Timed(fault=lambda _: 500 if service.seen == 1 else None)
    service.timeouts = []
    async with open_scheduler(service) as scheduler:
        await scheduler.send(Exchange(READ, CallOptions(7.5), Priority.BULK))
    assert service.timeouts == [7.5, 7.5]
