"""The gate by count: how far it steps back, how it comes back, and what bulk reads leave free."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from random import Random

import pytest

from bc_attrvals import Limits, Operation, Priority, RetryPolicy
from bc_attrvals.core.rate_limit import QuotaSnapshot
from bc_attrvals.errors import StoreStateError
from bc_attrvals.events import EventBus, QuotaExhausted
from bc_attrvals.scheduling.admission import Flow, Gate, Lease

# Nothing here does real I/O, so simulated time need not wait for any.
pytestmark = pytest.mark.looptime(noop_cycles=2)

RETRY = RetryPolicy(base_s=0.25, cap_s=20.0)


class Longest(Random):
    """Draws the upper end, so that each wait is its bound."""

    def random(self) -> float:
        return 1.0


@asynccontextmanager
async def open_gate(reads: int = 10) -> AsyncIterator[Gate]:
    gate = Gate(events=EventBus(), retry=RETRY, random=Longest())
    await gate.open("hash", Limits(reads=reads))
    try:
        yield gate
    finally:
        await gate.close()


def now() -> float:
    return asyncio.get_running_loop().time()


async def take(gate: Gate, priority: Priority = Priority.BULK) -> Lease:
    return await gate.acquire(Operation.READ, priority)


def answered(gate: Gate, lease: Lease, status: int = 200) -> None:
    gate.release(lease, {}, status=status)


async def refused(gate: Gate) -> float:
    """Send one that is refused for load; return how long the next one had to wait."""
    lease = await take(gate)
    answered(gate, lease, 503)
    gate.back_off(lease)
    began_at = now()
    gate.cancel(await take(gate))
    return now() - began_at


async def room(gate: Gate) -> int:
    """Return how many bulk reads may go out now beside those that are out."""
    tasks = [asyncio.create_task(take(gate)) for _ in range(12)]
    for _ in range(3):
        await asyncio.sleep(0)
    leases = [task.result() for task in tasks if task.done()]
    for task in tasks:
        task.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks)
    await asyncio.sleep(0)
    for lease in leases:
        gate.cancel(lease)
    return len(leases)


async def interactive(gate: Gate, took_s: float, status: int = 200) -> None:
    lease = await take(gate, Priority.INTERACTIVE)
    await asyncio.sleep(took_s)
    answered(gate, lease, status)


async def test_pauses_stay_short_for_six_refusals_and_then_double_up_to_the_cap() -> None:
    async with open_gate() as gate:
        pauses = [await refused(gate) for _ in range(12)]
    assert pauses == pytest.approx([0.25, 0.5, 1, 1, 1, 1, 2, 4, 8, 16, 20, 20])


async def test_each_refusal_halves_the_concurrency_down_to_one() -> None:
    async with open_gate() as gate:
        rooms = []
        for _ in range(5):
            await refused(gate)
            rooms.append(await room(gate))
    assert rooms == [5, 2, 1, 1, 1]


async def test_refusals_of_one_round_count_once() -> None:
    async with open_gate(8) as gate:
        leases = [await take(gate) for _ in range(8)]
        await asyncio.sleep(0.02)
        for lease in leases:
            answered(gate, lease, 503)
            gate.back_off(lease)
        began_at = now()
        gate.cancel(await take(gate))
        assert now() - began_at == pytest.approx(0.25)
        assert await room(gate) == 4


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
    async with open_gate(1) as gate:
        lease = await take(gate)
        answered(gate, lease, 503)
        gate.back_off(lease)
        # Both ask in one turn of the loop, the second while the first one's timer is set.
        tasks = [asyncio.create_task(take(gate)) for _ in range(2)]
        for task in tasks:
            gate.cancel(await task)
    assert plain


async def test_a_round_of_good_answers_wins_one_slot_back() -> None:
    async with open_gate(8) as gate:
        await refused(gate)
        rooms = []
        for _ in range(10):
            lease = await take(gate)
            answered(gate, lease)
            rooms.append(await room(gate))
    assert rooms == [4, 4, 4, 5, 5, 5, 5, 5, 6, 6]


@pytest.mark.parametrize("reads", [1, 2, 10])
async def test_a_good_answer_makes_the_next_pause_short_again(reads: int) -> None:
    async with open_gate(reads) as gate:
        assert [await refused(gate) for _ in range(3)] == pytest.approx([0.25, 0.5, 1])
        lease = await take(gate)
        answered(gate, lease)
        assert await refused(gate) == pytest.approx(0.25)


async def test_good_answers_to_what_was_sent_before_a_refusal_win_nothing_back() -> None:
    async with open_gate(8) as gate:
        early = [await take(gate) for _ in range(3)]
        await asyncio.sleep(0.02)
        assert await refused(gate) == pytest.approx(0.25)
        for lease in early:
            answered(gate, lease)
        assert await room(gate) == 4
        assert await refused(gate) == pytest.approx(0.5)


@pytest.mark.parametrize(("reads", "rooms"), [(10, [7, 4, 3, 2, 2]), (1, [1, 1, 1, 1, 1])])
async def test_slow_interactive_reads_take_slots_from_bulk_but_never_the_last_two(
    reads: int, rooms: list[int]
) -> None:
    async with open_gate(reads) as gate:
        await interactive(gate, 0.01)
        assert await room(gate) == reads
        seen = []
        for _ in rooms:
            await interactive(gate, 0.05)
            seen.append(await room(gate))
        assert seen == rooms
        # Quick ones give a slot back for every four of them.
        for _ in range(4):
            await interactive(gate, 0.01)
        assert await room(gate) == min(reads, rooms[-1] + 1)
        # Nobody reads interactively any more.
        await asyncio.sleep(0.9)
        assert await room(gate) == min(reads, rooms[-1] + 1)
        await asyncio.sleep(0.2)
        assert await room(gate) == reads


async def test_only_answers_tell_how_quick_interactive_reads_are() -> None:
    async with open_gate() as gate:
        await interactive(gate, 0.05)
        await interactive(gate, 0.001, 500)
        await interactive(gate, 0.05)
        assert await room(gate) == 10


async def test_a_quickest_read_of_long_ago_makes_none_slow_for_good() -> None:
    async with open_gate() as gate:
        await interactive(gate, 0.01)
        for _ in range(3):
            await interactive(gate, 0.021)
        assert await room(gate) < 10
        for _ in range(60):
            await interactive(gate, 0.021)
        assert await room(gate) == 10


async def test_nothing_is_known_of_the_quota_before_the_first_answer() -> None:
    gate = Gate(events=EventBus(), retry=RETRY, random=Longest())
    assert gate.quota() == QuotaSnapshot()
    async with open_gate() as opened:
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
    async with open_gate() as gate:
        gate.release(await take(gate), headers(60, 100, 5_001), status=429)
        assert gate.quota().left == 0


async def test_units_given_back_unused_are_there_again_one_each() -> None:
    async with open_gate() as gate:
        gate.release(await take(gate), headers(8, 8, 5_001), status=200)
        before = gate.quota().left
        assert before is not None
        leases = [await take(gate) for _ in range(4)]
        lefts = []
        for lease in leases:
            gate.cancel(lease)
            lefts.append(gate.quota().left)
        assert lefts == [before - 3, before - 2, before - 1, before]


async def test_waits_for_quota_and_for_slots_are_told_apart_and_summed() -> None:
    async with open_gate(1) as gate:
        gate.release(await take(gate), headers(0, 2, 5_001), status=200)
        for _ in range(2):
            # One waits for the next window, and then, with a unit left, one for its slot.
            first = await take(gate)
            second = asyncio.create_task(take(gate))
            await asyncio.sleep(1)
            answered(gate, first)
            lease = await second
            now_s = now()
            gate.release(lease, headers(0, 2, 10_000 - round(now_s * 1000) % 10_000), status=200)
        waited_s = gate.quota_wait_s
        assert gate.slot_wait_s == pytest.approx(2.0, abs=0.01)
        assert waited_s == pytest.approx(now() - 2.0, abs=0.01)


async def test_a_refused_request_goes_before_interactive_ones_of_other_operations() -> None:
    async with open_gate() as gate:
        gate.release(await take(gate), headers(0, 1, 5_001), status=200)
        interactive_read = asyncio.create_task(take(gate, Priority.INTERACTIVE))
        refused_write = asyncio.create_task(
            gate.acquire(Operation.WRITE, Priority.BULK, front=True)
        )
        await asyncio.wait({interactive_read, refused_write}, return_when="FIRST_COMPLETED")
        assert refused_write.done()
        assert not interactive_read.done()
        gate.cancel(refused_write.result())
        gate.cancel(await interactive_read)


async def test_a_wait_that_begins_while_others_wait_for_quota_counts_from_there() -> None:
    async with open_gate(1) as gate:
        await asyncio.sleep(2)
        gate.release(await take(gate), headers(0, 2, 5_001), status=200)
        began_at = now()
        first = asyncio.create_task(take(gate))
        await asyncio.sleep(0.3)
        second = asyncio.create_task(take(gate))
        lease = await first
        opened_at = now()
        await asyncio.sleep(1)
        gate.cancel(lease)
        gate.cancel(await second)
    for_quota_s = opened_at - began_at
    assert for_quota_s > 5
    assert gate.quota_wait_s == pytest.approx(2 * for_quota_s - 0.3)
    assert gate.slot_wait_s == pytest.approx(1.0)


async def test_the_job_served_longest_ago_is_next_also_when_its_queue_was_empty_since() -> None:
    # Where turns were equal, the lower id would decide: it shall not.
    b, a = sorted((Flow(), Flow()), key=id)
    order: list[str] = []
    async with open_gate(1) as gate:

        def ask(name: str, job: Flow) -> asyncio.Task[Lease]:
            task = asyncio.create_task(gate.acquire(Operation.READ, Priority.BULK, job))
            task.add_done_callback(lambda _: order.append(name))
            return task

        lease = await ask("b", b)
        waiting = [ask("a", a) for _ in range(3)]
        for asks_again in (True, True, False, False, False):
            await asyncio.sleep(0.01)
            gate.cancel(lease)
            await asyncio.sleep(0.01)
            done = next(task for task in waiting if task.done())
            waiting.remove(done)
            lease = done.result()
            if asks_again:
                waiting.append(ask("b", b))
        gate.cancel(lease)
    assert order == ["b", "a", "b", "a", "b", "a"]


async def test_a_job_served_without_a_wait_has_had_its_turn() -> None:
    b, a = sorted((Flow(), Flow()), key=id)
    async with open_gate(1) as gate:
        lease = await gate.acquire(Operation.READ, Priority.BULK, b)
        again, first = (
            asyncio.create_task(gate.acquire(Operation.READ, Priority.BULK, job)) for job in (b, a)
        )
        await asyncio.sleep(0.01)
        gate.cancel(lease)
        await asyncio.sleep(0.01)
        assert (first.done(), again.done()) == (True, False)
        gate.cancel(first.result())
        gate.cancel(await again)


async def test_of_eight_grants_that_both_could_have_one_goes_to_bulk() -> None:
    order: list[str] = []
    async with open_gate(1) as gate:

        async def one(priority: Priority) -> None:
            lease = await take(gate, priority)
            order.append("ib"[priority])
            await asyncio.sleep(0.01)
            gate.cancel(lease)

        lease = await take(gate)
        waiting = [one(Priority.INTERACTIVE) for _ in range(15)]
        waiting += [one(Priority.BULK) for _ in range(3)]
        done = asyncio.gather(*waiting)
        await asyncio.sleep(0.01)
        gate.cancel(lease)
        await done
    assert "".join(order) == "iiiiiiib" * 2 + "ib"


async def test_what_was_granted_to_one_cancelled_in_the_same_step_goes_to_the_next() -> None:
    async with open_gate(1) as gate:
        lease = await take(gate)
        cancelled, following = (asyncio.create_task(take(gate)) for _ in range(2))
        await asyncio.sleep(0.01)
        answered(gate, lease)
        cancelled.cancel()
        gate.cancel(await asyncio.wait_for(following, 1))
        assert cancelled.cancelled()
        assert gate.in_flight()[Operation.READ] == gate.queued()[Operation.READ] == 0


async def test_closing_fails_those_that_wait_and_all_that_come_after() -> None:
    async with open_gate(1) as gate:
        await take(gate)
        waiting = [
            asyncio.create_task(gate.acquire(Operation.READ, priority, front=front))
            for priority in Priority
            for front in (False, True)
        ]
        await asyncio.sleep(0.01)
        await gate.close()
        for one in waiting:
            with pytest.raises(StoreStateError, match="closed"):
                await one
        with pytest.raises(StoreStateError, match="closed"):
            await take(gate)


async def test_nobody_waits_for_a_longer_pause_than_that_of_its_own_operation() -> None:
    async with open_gate() as gate:
        for _ in range(7):
            await refused(gate)
        lease = await take(gate)
        gate.back_off(lease)
        answered(gate, lease, 503)
        began_at = now()
        read = asyncio.create_task(take(gate))
        await asyncio.sleep(0)
        assert gate.queued()[Operation.READ] == 1
        write = await gate.acquire(Operation.WRITE, Priority.BULK)
        gate.back_off(write)
        gate.release(write, {}, status=503)
        gate.cancel(await gate.acquire(Operation.WRITE, Priority.BULK))
        assert now() - began_at == pytest.approx(0.25)
        gate.cancel(await read)
        assert now() - began_at == pytest.approx(4)


async def test_what_is_free_is_had_without_a_wait_unless_others_wait_for_it() -> None:
    async with open_gate(2) as gate:
        leases = [gate.acquire_nowait(Operation.READ, priority) for priority in Priority]
        assert [lease and lease.is_bulk for lease in leases] == [False, True]
        assert gate.acquire_nowait(Operation.READ, Priority.INTERACTIVE) is None
        assert leases[0] is not None
        waiting = asyncio.create_task(take(gate))
        await asyncio.sleep(0.01)
        gate.cancel(leases[0])
        gate.cancel(await waiting)
        lease = gate.acquire_nowait(Operation.READ, Priority.BULK)
        assert lease is not None


async def test_behind_another_quota_interactive_requests_overtake_bulk_ones() -> None:
    gate = Gate(events=EventBus(), retry=RETRY, random=Longest(), count_units=False)
    await gate.open("hash", Limits(reads=1))
    bulk = await take(gate)
    interactive_read = gate.acquire_nowait(Operation.READ, Priority.INTERACTIVE)
    assert interactive_read is not None
    waiting = [
        asyncio.create_task(take(gate, priority))
        for priority in (Priority.BULK, Priority.INTERACTIVE)
    ]
    await asyncio.sleep(0.01)
    assert gate.queued()[Operation.READ] == 2
    gate.cancel(interactive_read)
    await asyncio.sleep(0.01)
    assert [task.done() for task in waiting] == [False, True]
    gate.cancel(waiting[1].result())
    await asyncio.sleep(0.01)
    assert not waiting[0].done()
    gate.cancel(bulk)
    gate.cancel(await waiting[0])
    await gate.close()


async def test_a_gate_may_be_looked_at_before_its_opening_and_closed_twice() -> None:
    gate = Gate(events=EventBus(), retry=RETRY, random=Longest())
    assert repr(gate) == "<Gate >"
    assert gate.in_flight() == gate.queued() == {}
    with pytest.raises(StoreStateError, match="closed"):
        gate.acquire_nowait(Operation.READ, Priority.BULK)
    await gate.close()
    async with open_gate() as opened:
        await refused(opened)
        opened.back_off(await take(opened))
        waiting = asyncio.create_task(take(opened))
        await asyncio.sleep(0.01)
        assert repr(opened).startswith("<Gate read: 1 in flight, 1 queued, write: 0 in flight")
        # While its timer is set; `open_gate` closes it once more.
        await opened.close()
        with pytest.raises(StoreStateError):
            await waiting


async def test_a_wait_of_which_only_its_length_is_known_is_told_as_an_exhausted_quota() -> None:
    events = EventBus()
    seen: list[object] = []
    events.subscribe(seen.append)
    gate = Gate(events=events, retry=RETRY, random=Longest())
    await gate.open("hash", Limits())
    gate.wait_for(3)
    began_at = now()
    gate.cancel(await take(gate))
    assert now() - began_at == pytest.approx(3)
    assert seen == [QuotaExhausted(None, 0.0)]
    await gate.close()
