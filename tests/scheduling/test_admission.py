"""Admission by count: how far it steps back, how it comes back, and what bulk reads leave free."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from random import Random

import pytest
from multidict import CIMultiDict

from bc_attrvals import Limits, Operation, Priority, RetryPolicy
from bc_attrvals.core.rate_limit import QuotaSnapshot
from bc_attrvals.errors import StoreStateError
from bc_attrvals.events import EventBus, QuotaExhausted
from bc_attrvals.scheduling.admission import Admission
from bc_attrvals.scheduling.leases import Lease
from bc_attrvals.scheduling.quota import Flow

# Nothing here does real I/O, so simulated time need not wait for any.
pytestmark = pytest.mark.looptime(noop_cycles=2)

RETRY = RetryPolicy(base_s=0.25, cap_s=20.0)


class Longest(Random):
    """Draws the upper end, so that each wait is its bound."""

    def random(self) -> float:
        return 1.0


@asynccontextmanager
async def open_admission(reads: int = 10) -> AsyncIterator[Admission]:
    admission = Admission(events=EventBus(), retry=RETRY, random=Longest())
    await admission.open("hash", Limits(reads=reads))
    try:
        yield admission
    finally:
        await admission.close()


def now() -> float:
    return asyncio.get_running_loop().time()


async def take(admission: Admission, priority: Priority = Priority.BULK) -> Lease:
    return await admission.acquire(Operation.READ, priority)


def answered(admission: Admission, lease: Lease, status: int = 200) -> None:
    admission.release(lease, {}, status=status)


async def refused(admission: Admission) -> float:
    """Send one that is refused for load; return how long the next one had to wait."""
    lease = await take(admission)
    answered(admission, lease, 503)
    admission.back_off(lease)
    began_at = now()
    admission.cancel(await take(admission))
    return now() - began_at


async def room(admission: Admission) -> int:
    """Return how many bulk reads may go out now beside those that are out."""
    tasks = [asyncio.create_task(take(admission)) for _ in range(12)]
    for _ in range(3):
        await asyncio.sleep(0)
    leases = [task.result() for task in tasks if task.done()]
    for task in tasks:
        task.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks)
    await asyncio.sleep(0)
    for lease in leases:
        admission.cancel(lease)
    return len(leases)


async def interactive(admission: Admission, took_s: float, status: int = 200) -> None:
    lease = await take(admission, Priority.INTERACTIVE)
    await asyncio.sleep(took_s)
    answered(admission, lease, status)


async def test_pauses_stay_short_for_six_refusals_and_then_double_up_to_the_cap() -> None:
    async with open_admission() as admission:
        pauses = [await refused(admission) for _ in range(12)]
    assert pauses == pytest.approx([0.25, 0.5, 1, 1, 1, 1, 2, 4, 8, 16, 20, 20])


async def test_each_refusal_halves_the_concurrency_down_to_one() -> None:
    async with open_admission() as admission:
        rooms = []
        for _ in range(5):
            await refused(admission)
            rooms.append(await room(admission))
    assert rooms == [5, 2, 1, 1, 1]


async def test_refusals_of_one_round_count_once() -> None:
    async with open_admission(8) as admission:
        leases = [await take(admission) for _ in range(8)]
        await asyncio.sleep(0.02)
        for lease in leases:
            answered(admission, lease, 503)
            admission.back_off(lease)
        began_at = now()
        admission.cancel(await take(admission))
        assert now() - began_at == pytest.approx(0.25)
        assert await room(admission) == 4


async def test_a_timer_that_is_due_at_once_need_not_say_when(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """uvloop's `call_at` then returns a plain handle, as `call_soon` does."""
    loop = asyncio.get_running_loop()
    call_at, plain = loop.call_at, 0

    def call_at_or_soon(when: float, callback: Callable[[], object]) -> asyncio.Handle:
        nonlocal plain
        if when - loop.time() < 0.3:
            plain += 1
            return loop.call_soon(lambda: call_at(when, callback))
        return call_at(when, callback)

    monkeypatch.setattr(loop, "call_at", call_at_or_soon)
    async with open_admission(1) as admission:
        lease = await take(admission)
        answered(admission, lease, 503)
        admission.back_off(lease)
        # Both ask in one turn of the loop, the second while the first one's timer is set.
        tasks = [asyncio.create_task(take(admission)) for _ in range(2)]
        for task in tasks:
            admission.cancel(await task)
    assert plain


async def test_a_round_of_good_answers_wins_one_slot_back() -> None:
    async with open_admission(8) as admission:
        await refused(admission)
        rooms = []
        for _ in range(10):
            lease = await take(admission)
            answered(admission, lease)
            rooms.append(await room(admission))
    assert rooms == [4, 4, 4, 5, 5, 5, 5, 5, 6, 6]


@pytest.mark.parametrize("reads", [1, 2, 10])
async def test_a_good_answer_makes_the_next_pause_short_again(reads: int) -> None:
    async with open_admission(reads) as admission:
        assert [await refused(admission) for _ in range(3)] == pytest.approx([0.25, 0.5, 1])
        lease = await take(admission)
        answered(admission, lease)
        assert await refused(admission) == pytest.approx(0.25)


async def test_good_answers_to_what_was_sent_before_a_refusal_win_nothing_back() -> None:
    async with open_admission(8) as admission:
        early = [await take(admission) for _ in range(3)]
        await asyncio.sleep(0.02)
        assert await refused(admission) == pytest.approx(0.25)
        for lease in early:
            answered(admission, lease)
        assert await room(admission) == 4
        assert await refused(admission) == pytest.approx(0.5)


@pytest.mark.parametrize(("reads", "rooms"), [(10, [7, 4, 3, 2, 2]), (1, [1, 1, 1, 1, 1])])
async def test_slow_interactive_reads_take_slots_from_bulk_but_never_the_last_two(
    reads: int, rooms: list[int]
) -> None:
    async with open_admission(reads) as admission:
        await interactive(admission, 0.01)
        assert await room(admission) == reads
        seen = []
        for _ in rooms:
            await interactive(admission, 0.05)
            seen.append(await room(admission))
        assert seen == rooms
        # Quick ones give a slot back for every four of them.
        for _ in range(4):
            await interactive(admission, 0.01)
        assert await room(admission) == min(reads, rooms[-1] + 1)
        # Nobody reads interactively any more.
        await asyncio.sleep(0.9)
        assert await room(admission) == min(reads, rooms[-1] + 1)
        await asyncio.sleep(0.2)
        assert await room(admission) == reads


async def test_only_answers_tell_how_quick_interactive_reads_are() -> None:
    async with open_admission() as admission:
        await interactive(admission, 0.05)
        await interactive(admission, 0.001, 500)
        await interactive(admission, 0.05)
        assert await room(admission) == 10


async def test_a_quickest_read_of_long_ago_makes_none_slow_for_good() -> None:
    async with open_admission() as admission:
        await interactive(admission, 0.01)
        for _ in range(3):
            await interactive(admission, 0.021)
        assert await room(admission) < 10
        for _ in range(60):
            await interactive(admission, 0.021)
        assert await room(admission) == 10


async def test_nothing_is_known_of_the_quota_before_the_first_answer() -> None:
    admission = Admission(events=EventBus(), retry=RETRY, random=Longest())
    assert admission.quota() == QuotaSnapshot()
    async with open_admission() as opened:
        headers = {
            "X-Rate-Limit-Time-Window-Ms": "30000",
            "X-Rate-Limit-Time-Reset-Ms": "12000",
            "X-Rate-Limit-Requests-Quota": "150",
            "X-Rate-Limit-Requests-Left": "100",
        }
        opened.release(await take(opened), headers, status=200)
        assert opened.quota().quota == 150
        assert opened.quota().left == 100


def headers(left: int, quota: int, reset_ms: int) -> dict[str, str]:
    return {
        "X-Rate-Limit-Time-Window-Ms": "10000",
        "X-Rate-Limit-Time-Reset-Ms": str(reset_ms),
        "X-Rate-Limit-Requests-Quota": str(quota),
        "X-Rate-Limit-Requests-Left": str(left),
    }


async def test_a_429_leaves_nothing_of_the_window_whatever_its_headers_say() -> None:
    async with open_admission() as admission:
        admission.release(await take(admission), headers(60, 100, 5_001), status=429)
        assert admission.quota().left == 0


async def test_units_given_back_unused_are_there_again_one_each() -> None:
    async with open_admission() as admission:
        admission.release(await take(admission), headers(8, 8, 5_001), status=200)
        before = admission.quota().left
        assert before is not None
        leases = [await take(admission) for _ in range(4)]
        lefts = []
        for lease in leases:
            admission.cancel(lease)
            lefts.append(admission.quota().left)
        assert lefts == [before - 3, before - 2, before - 1, before]


async def test_waits_for_quota_and_for_slots_are_told_apart_and_summed() -> None:
    async with open_admission(1) as admission:
        admission.release(await take(admission), headers(0, 2, 5_001), status=200)
        for _ in range(2):
            # One waits for the next window, and then, with a unit left, one for its slot.
            first = await take(admission)
            second = asyncio.create_task(take(admission))
            await asyncio.sleep(1)
            answered(admission, first)
            lease = await second
            now_s = now()
            admission.release(
                lease, headers(0, 2, 10_000 - round(now_s * 1000) % 10_000), status=200
            )
        waited_s = admission.quota_wait_s
        assert admission.slot_wait_s == pytest.approx(2.0, abs=0.01)
        assert waited_s == pytest.approx(now() - 2.0, abs=0.01)


async def test_a_refused_request_goes_before_interactive_ones_of_other_operations() -> None:
    async with open_admission() as admission:
        admission.release(await take(admission), headers(0, 1, 5_001), status=200)
        interactive_read = asyncio.create_task(take(admission, Priority.INTERACTIVE))
        refused_write = asyncio.create_task(
            admission.acquire(Operation.WRITE, Priority.BULK, front=True)
        )
        await asyncio.wait({interactive_read, refused_write}, return_when="FIRST_COMPLETED")
        assert refused_write.done()
        assert not interactive_read.done()
        admission.cancel(refused_write.result())
        admission.cancel(await interactive_read)


async def test_a_wait_that_begins_while_others_wait_for_quota_counts_from_there() -> None:
    async with open_admission(1) as admission:
        await asyncio.sleep(2)
        admission.release(await take(admission), headers(0, 2, 5_001), status=200)
        began_at = now()
        first = asyncio.create_task(take(admission))
        await asyncio.sleep(0.3)
        second = asyncio.create_task(take(admission))
        lease = await first
        opened_at = now()
        await asyncio.sleep(1)
        admission.cancel(lease)
        admission.cancel(await second)
    for_quota_s = opened_at - began_at
    assert for_quota_s > 5
    assert admission.quota_wait_s == pytest.approx(2 * for_quota_s - 0.3)
    assert admission.slot_wait_s == pytest.approx(1.0)


async def test_the_job_served_longest_ago_is_next_also_when_its_queue_was_empty_since() -> None:
    # Where turns were equal, the lower id would decide: it shall not.
    b, a = sorted((Flow(), Flow()), key=id)
    order: list[str] = []
    async with open_admission(1) as admission:

        def ask(name: str, job: Flow) -> asyncio.Task[Lease]:
            task = asyncio.create_task(admission.acquire(Operation.READ, Priority.BULK, job))
            task.add_done_callback(lambda _: order.append(name))
            return task

        lease = await ask("b", b)
        waiting = [ask("a", a) for _ in range(3)]
        for asks_again in (True, True, False, False, False):
            await asyncio.sleep(0.01)
            admission.cancel(lease)
            await asyncio.sleep(0.01)
            done = next(task for task in waiting if task.done())
            waiting.remove(done)
            lease = done.result()
            if asks_again:
                waiting.append(ask("b", b))
        admission.cancel(lease)
    assert order == ["b", "a", "b", "a", "b", "a"]


async def test_a_job_served_without_a_wait_has_had_its_turn() -> None:
    b, a = sorted((Flow(), Flow()), key=id)
    async with open_admission(1) as admission:
        lease = await admission.acquire(Operation.READ, Priority.BULK, b)
        again, first = (
            asyncio.create_task(admission.acquire(Operation.READ, Priority.BULK, job))
            for job in (b, a)
        )
        await asyncio.sleep(0.01)
        admission.cancel(lease)
        await asyncio.sleep(0.01)
        assert (first.done(), again.done()) == (True, False)
        admission.cancel(first.result())
        admission.cancel(await again)


async def test_of_eight_grants_that_both_could_have_one_goes_to_bulk() -> None:
    order: list[str] = []
    async with open_admission(1) as admission:

        async def one(priority: Priority) -> None:
            lease = await take(admission, priority)
            order.append("ib"[priority])
            await asyncio.sleep(0.01)
            admission.cancel(lease)

        lease = await take(admission)
        waiting = [one(Priority.INTERACTIVE) for _ in range(15)]
        waiting += [one(Priority.BULK) for _ in range(3)]
        done = asyncio.gather(*waiting)
        await asyncio.sleep(0.01)
        admission.cancel(lease)
        await done
    assert "".join(order) == "iiiiiiib" * 2 + "ib"


async def test_what_was_granted_to_one_cancelled_in_the_same_step_goes_to_the_next() -> None:
    async with open_admission(1) as admission:
        lease = await take(admission)
        cancelled, following = (asyncio.create_task(take(admission)) for _ in range(2))
        await asyncio.sleep(0.01)
        answered(admission, lease)
        cancelled.cancel()
        admission.cancel(await asyncio.wait_for(following, 1))
        assert cancelled.cancelled()
        assert admission.in_flight()[Operation.READ] == admission.queued()[Operation.READ] == 0


async def test_closing_fails_those_that_wait_and_all_that_come_after() -> None:
    async with open_admission(1) as admission:
        await take(admission)
        waiting = [
            asyncio.create_task(admission.acquire(Operation.READ, priority, front=front))
            for priority in Priority
            for front in (False, True)
        ]
        await asyncio.sleep(0.01)
        await admission.close()
        for one in waiting:
            with pytest.raises(StoreStateError, match="closed"):
                await one
        with pytest.raises(StoreStateError, match="closed"):
            await take(admission)


async def test_nobody_waits_for_a_longer_pause_than_that_of_its_own_operation() -> None:
    async with open_admission() as admission:
        for _ in range(7):
            await refused(admission)
        lease = await take(admission)
        admission.back_off(lease)
        answered(admission, lease, 503)
        began_at = now()
        read = asyncio.create_task(take(admission))
        await asyncio.sleep(0)
        assert admission.queued()[Operation.READ] == 1
        write = await admission.acquire(Operation.WRITE, Priority.BULK)
        admission.back_off(write)
        admission.release(write, {}, status=503)
        admission.cancel(await admission.acquire(Operation.WRITE, Priority.BULK))
        assert now() - began_at == pytest.approx(0.25)
        admission.cancel(await read)
        assert now() - began_at == pytest.approx(4)


async def test_what_is_free_is_had_without_a_wait_unless_others_wait_for_it() -> None:
    async with open_admission(2) as admission:
        answered(admission, await take(admission))
        leases = [admission.acquire_nowait(Operation.READ, priority) for priority in Priority]
        assert [lease and lease.is_bulk for lease in leases] == [False, True]
        assert admission.acquire_nowait(Operation.READ, Priority.INTERACTIVE) is None
        assert leases[0] is not None
        waiting = asyncio.create_task(take(admission))
        await asyncio.sleep(0.01)
        admission.cancel(leases[0])
        admission.cancel(await waiting)
        lease = admission.acquire_nowait(Operation.READ, Priority.BULK)
        assert lease is not None


class Rationed:
    """A user's quota of four methods: it hands out leases when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[Priority, asyncio.Future[object]]] = []
        self.released: list[tuple[object, Mapping[str, str] | None]] = []

    async def open(self, store_hash: str, limits: Limits) -> None:
        self.is_open = True

    async def acquire(self, operation: Operation, priority: Priority) -> object:
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self.asked.append((priority, future))
        try:
            return await future
        finally:
            self.asked.remove((priority, future))

    def release(self, lease: object, headers: Mapping[str, str] | None) -> None:
        self.released.append((lease, headers))

    async def close(self) -> None:
        self.is_open = False

    async def grant(self, lease: object) -> None:
        self.asked[0][1].set_result(lease)
        for _ in range(4):
            await asyncio.sleep(0)


@asynccontextmanager
async def rationed(**limits: int) -> AsyncIterator[tuple[Admission, Rationed]]:
    quota = Rationed()
    admission = Admission(events=EventBus(), retry=RETRY, random=Longest(), quota=quota)
    await admission.open("hash", Limits(**limits))
    yield admission, quota
    await admission.close()
    assert not quota.is_open
    assert not quota.asked


async def test_a_lease_goes_to_who_is_next_when_it_comes_not_to_who_asked_first() -> None:
    async with rationed(reads=2) as (admission, quota):
        bulk = [asyncio.create_task(take(admission)) for _ in range(3)]
        await asyncio.sleep(0.01)
        # No more is asked for than slots could use.
        assert [priority for priority, _ in quota.asked] == [Priority.BULK] * 2
        urgent = asyncio.create_task(take(admission, Priority.INTERACTIVE))
        await asyncio.sleep(0.01)
        assert sorted(priority for priority, _ in quota.asked) == list(Priority)
        await quota.grant("first")
        assert [urgent.done(), *(task.done() for task in bulk)] == [True, False, False, False]
        await quota.grant("second")
        assert bulk[0].done()
        assert not quota.asked
        assert admission.in_flight()[Operation.READ] == 2
        answered(admission, urgent.result())
        assert quota.released == [("first", {})]
        await asyncio.sleep(0.01)
        assert len(quota.asked) == 1
        for task in bulk[1:]:
            task.cancel()
        await asyncio.sleep(0.01)
        # What nobody waits for any more is not asked for any more.
        assert not quota.asked
        admission.cancel(bulk[0].result())


@pytest.mark.parametrize("priority", Priority)
async def test_no_more_leases_are_asked_for_than_slots_could_use(priority: Priority) -> None:
    async with rationed(reads=2) as (admission, quota):
        tasks = [asyncio.create_task(take(admission, priority)) for _ in range(5)]
        await asyncio.sleep(0.01)
        assert len(quota.asked) == 2
        await quota.grant("one")
        assert len(quota.asked) == 1
        await quota.grant("two")
        assert not quota.asked
        for task in tasks[:2]:
            admission.cancel(await task)
        await asyncio.sleep(0.01)
        assert len(quota.asked) == 2
        for task in tasks:
            task.cancel()
        await asyncio.sleep(0.01)


async def test_a_lease_that_comes_when_nobody_waits_any_more_goes_back_unsent() -> None:
    async with rationed(reads=1) as (admission, quota):
        task = asyncio.create_task(take(admission))
        await asyncio.sleep(0.01)
        quota.asked[0][1].set_result("late")
        await asyncio.sleep(0)
        # In this turn the lease is reported, and the task has not run since it was cancelled.
        task.cancel()
        await asyncio.sleep(0.01)
        assert task.cancelled()
        assert quota.released == [("late", None)]
        assert admission.in_flight()[Operation.READ] == 0


async def test_what_a_quota_raises_is_raised_for_one_that_waits() -> None:
    async with rationed(reads=1) as (admission, quota):
        tasks = [asyncio.create_task(take(admission)) for _ in range(2)]
        await asyncio.sleep(0.01)
        quota.asked[0][1].set_exception(OSError("out of order"))
        await asyncio.sleep(0.01)
        with pytest.raises(OSError, match="out of order"):
            await tasks[0]
        await quota.grant("now")
        admission.cancel(await tasks[1])


async def test_a_time_to_wait_holds_up_a_users_quota_too() -> None:
    async with rationed(reads=1) as (admission, quota):
        admission.wait_for(3)
        began_at = now()
        task = asyncio.create_task(take(admission))
        await asyncio.sleep(2.9)
        assert not quota.asked
        await asyncio.sleep(0.2)
        await quota.grant("after")
        assert (await task).sent_at - began_at == pytest.approx(3.1)
        admission.cancel(task.result())


async def test_the_first_request_goes_alone_whatever_the_others_are() -> None:
    async with open_admission() as admission:
        first = await admission.acquire(Operation.WRITE, Priority.BULK)
        others = [
            asyncio.create_task(admission.acquire(operation, priority))
            for operation in Operation
            for priority in Priority
        ]
        await asyncio.sleep(0.5)
        assert not any(task.done() for task in others)
        # Nobody waits for quota: nothing is known of one.
        assert admission.quota_wait_s == 0
        admission.release(first, headers(0, 5, 4_001), status=429)
        await asyncio.sleep(4)
        assert not any(task.done() for task in others)
        await asyncio.sleep(0.1)
        assert sum(task.done() for task in others) == 5
        for task in [task for task in others if task.done()]:
            admission.cancel(task.result())
            others.remove(task)
        admission.cancel(await others[0])


async def test_a_first_request_that_hangs_holds_others_up_two_seconds_each() -> None:
    async with open_admission() as admission:
        first = await take(admission)
        began_at = now()
        second, third = (asyncio.create_task(take(admission)) for _ in range(2))
        assert (await second).sent_at - began_at == pytest.approx(2)
        assert (await third).sent_at - began_at == pytest.approx(4)
        for lease in (first, second.result(), third.result()):
            answered(admission, lease)


async def test_a_gate_may_be_looked_at_before_its_opening_and_closed_twice() -> None:
    admission = Admission(events=EventBus(), retry=RETRY, random=Longest())
    assert repr(admission) == "<Admission >"
    assert admission.in_flight() == admission.queued() == {}
    with pytest.raises(StoreStateError, match="closed"):
        admission.acquire_nowait(Operation.READ, Priority.BULK)
    await admission.close()
    async with open_admission() as opened:
        await refused(opened)
        opened.back_off(await take(opened))
        waiting = asyncio.create_task(take(opened))
        await asyncio.sleep(0.01)
        assert repr(opened).startswith("<Admission read: 1 in flight, 1 queued, write: 0 in flight")
        # While its timer is set; `open_admission` closes it once more.
        await opened.close()
        with pytest.raises(StoreStateError):
            await waiting


async def test_a_wait_of_which_only_its_length_is_known_is_told_as_an_exhausted_quota() -> None:
    events = EventBus()
    seen: list[object] = []
    events.subscribe(seen.append)
    admission = Admission(events=events, retry=RETRY, random=Longest())
    await admission.open("hash", Limits())
    admission.wait_for(3)
    began_at = now()
    admission.cancel(await take(admission))
    assert now() - began_at == pytest.approx(3)
    assert seen == [QuotaExhausted(None, 3.0)]
    await admission.close()


@pytest.mark.parametrize("count", [1, 2])
async def test_a_spent_quota_is_logged_with_those_that_wait(
    count: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "bc_attrvals")
    headers = CIMultiDict(
        {
            "X-Rate-Limit-Requests-Left": "0",
            "X-Rate-Limit-Requests-Quota": "10",
            "X-Rate-Limit-Time-Reset-Ms": "5500",
            "X-Rate-Limit-Time-Window-Ms": "30000",
        }
    )
    async with open_admission(reads=1) as admission:
        first = await admission.acquire(Operation.READ, Priority.BULK)

        async def wait() -> None:
            lease = await admission.acquire(Operation.READ, Priority.BULK)
            admission.cancel(lease)

        waiting = [asyncio.ensure_future(wait()) for _ in range(count)]
        await asyncio.sleep(0.1)
        admission.release(first, headers, 200)
        await asyncio.gather(*waiting)
    assert f"the quota is spent for 5.502 s; requests queued: {count}\n" in caplog.text
