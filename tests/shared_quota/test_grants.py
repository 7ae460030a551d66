"""What the script in the server decides: who is next, and what each gets of a scarce quota."""

from __future__ import annotations

import asyncio
from collections import Counter

import msgspec
import pytest

from bc_attrvals import AttributeValueFilter, Limits
from bc_attrvals.sandbox import Sandbox
from tests.conftest import make_store
from tests.probes import until, upserts
from tests.shared_quota.quotas import (
    BULK,
    DELETE,
    INTERACTIVE,
    READ,
    STORE,
    WRITE,
    Make,
    asking,
    ended,
    granted,
    learn,
    opened,
    settled,
    told,
)
from tests.valkey import Valkey

pytestmark = pytest.mark.usefixtures("no_task_left")


async def test_slots_and_units_are_counted_over_all_processes(shared: Make) -> None:
    async with opened(shared(), shared(), shared(), writes=3) as quotas:
        await learn(quotas[0], told(5))
        tasks = [task for quota in quotas for task in asking(quota, WRITE, BULK, 3)]
        await until(lambda: len(granted(tasks)) == 3)
        await settled()
        assert len(granted(tasks)) == 3
        owner = next(quota for quota in quotas if quota._member._leases.held)
        for left in (4, 3):
            lease = next(iter(owner._member._leases.held.values()))
            owner.release(lease, told(left, reset_ms=50_000 + left))
            await settled()
            owner = next(quota for quota in quotas if quota._member._leases.held)
        assert len(granted(tasks)) == 5
        assert quotas[0].snapshot().quota == 10
        await ended(*tasks)


async def test_a_later_answer_includes_those_that_came_without_headers(shared: Make) -> None:
    async with opened(shared()) as [quota]:
        await learn(quota, told(9))
        await learn(quota, {})
        await settled()
        await learn(quota, told(7, reset_ms=49_000))
        await until(lambda: quota.snapshot().left == 7)


async def test_a_cold_start_of_many_sends_one_request_first(shared: Make) -> None:
    async with opened(*(shared() for _ in range(4))) as quotas:
        tasks = [task for quota in quotas for task in asking(quota, READ, BULK, 5)]
        await until(lambda: granted(tasks))
        await settled()
        assert len(granted(tasks)) == 1
        asked = next(quota for quota in quotas if quota._member._leases.held)
        asked.release(granted(tasks)[0], told(4, quota=5))
        await until(lambda: len(granted(tasks)) == 5)
        await settled()
        assert len(granted(tasks)) == 5
        await ended(*tasks)


async def test_ten_times_the_work_starves_nobody(shared: Make) -> None:
    async with opened(shared(), shared(), writes=2) as quotas:
        await learn(quotas[0], {})
        order: list[int] = []

        async def one(index: int) -> None:
            lease = await quotas[index].acquire(WRITE, BULK)
            order.append(index)
            await asyncio.sleep(0.002)
            quotas[index].release(lease, {})

        tasks = [asyncio.ensure_future(one(0)) for _ in range(200)]
        await settled()
        order.clear()
        await asyncio.gather(*(one(1) for _ in range(20)))
        assert order.count(0) <= 30
        await asyncio.gather(*tasks)


async def test_interactive_goes_before_bulk_of_another_process(shared: Make) -> None:
    async with opened(shared(), shared(), writes=1) as [bulk, web]:
        await learn(bulk, {})
        first = await bulk.acquire(WRITE, BULK)
        waiting = asking(bulk, WRITE, BULK, 5)
        await settled()
        single = asking(web, WRITE, INTERACTIVE, 1)
        await settled()
        bulk.release(first, {})
        await until(single[0].done)
        assert not granted(waiting)
        await ended(*waiting)


async def test_a_server_whose_clock_was_set_back_goes_on(
    shared: Make, valkey: Valkey, namespace: str
) -> None:
    from redis.asyncio import Redis

    async with Redis.from_url(valkey.url) as redis, opened(shared(), writes=5) as [quota]:
        await learn(quota, told(0, quota=5, reset_ms=399, window_ms=400))
        key = f"{namespace}:{{{STORE}}}"
        state = msgspec.msgpack.decode(await redis.get(key))
        for one in (state["q"], state, *state["p"].values()):
            for name in ("now", "believed", "low", "high", "probed", "ends"):
                if one.get(name):
                    one[name] += 3_600_000
        await redis.set(key, msgspec.msgpack.encode(state))
        lease = await asyncio.wait_for(quota.acquire(WRITE, BULK), 2)
        quota.release(lease, told(4, quota=5, reset_ms=399, window_ms=400))


async def test_state_that_nobody_uses_goes_by_itself(
    shared: Make, valkey: Valkey, namespace: str
) -> None:
    from redis.asyncio import Redis

    async with Redis.from_url(valkey.url) as redis, opened(shared()) as [quota]:
        await learn(quota, told(3))
        keys = [key async for key in redis.scan_iter(match=f"{namespace}*")]
        assert keys == [f"{namespace}:{{{STORE}}}".encode()]
        assert 0 < await redis.pttl(keys[0]) <= 120_000


# --- shares of a scarce quota --------------------------------------------------------------------


async def test_a_reading_and_a_writing_process_get_half_of_a_window(shared: Make) -> None:
    limits = Limits(page_size=5)
    async with (
        Sandbox(quota=40, window_s=1.0, latency_ms=2) as sandbox,
        make_store(sandbox, quota=shared(), limits=limits) as reader,
        make_store(sandbox, quota=shared(), limits=limits) as writer,
    ):
        await sandbox.seed((customer, 2, "v") for customer in range(1, 201))
        await sandbox.reset(["quota"])

        async def list_all() -> None:
            wanted = AttributeValueFilter(attribute_id_in=[2])
            assert len([row async for row in reader.attribute_values.stream(wanted)]) == 200

        await asyncio.gather(writer.attribute_values.upsert(upserts(400)), list_all())
        assert sandbox.calls == {"upsert": 40, "list": 40}
        assert sandbox.count_429 == 0
        calls = [one.operation for one in sandbox.requests]
        assert Counter(calls[:40])["list"] == pytest.approx(20, rel=0.15)
        # A machine that stands still for a moment costs a window a few units.
        assert sandbox.windows[0].granted >= 0.9 * 40


async def test_units_are_held_back_for_the_job_that_is_slower(shared: Make) -> None:
    async with opened(shared(), shared(), reads=30) as [reader, writer]:
        await learn(reader, told(20, quota=100))
        writes = asking(writer, WRITE, BULK, 1)
        await until(lambda: granted(writes))
        reads = asking(reader, READ, BULK, 30)
        await until(lambda: len(granted(reads)) == 10)
        await settled(0.04)
        assert len(granted(reads)) == 10
        # Interactive requests have no share, and are not held back.
        single = await asyncio.wait_for(reader.acquire(READ, INTERACTIVE), 5)
        reader.cancel(single)
        for _ in range(9):
            writer.release(granted(writes)[-1], None)
            writes += asking(writer, WRITE, BULK, 1)
            await until(writes[-1].done)
        assert len(granted(reads)) == 10
        await ended(*reads)


async def test_each_job_of_a_process_has_a_share(shared: Make) -> None:
    async with opened(shared(), shared(), reads=40) as [reader, writer]:
        await learn(reader, told(20, quota=100))
        writes = asking(writer, WRITE, BULK, 1)
        await until(lambda: granted(writes))
        reader.note_flows(READ, 3)
        reads = asking(reader, READ, BULK, 30)
        await until(lambda: len(granted(reads)) == 15)
        await settled(0.04)
        assert len(granted(reads)) == 15
        await ended(*reads)


async def test_three_jobs_that_read_and_one_that_writes_have_a_quarter_each(shared: Make) -> None:
    async with (
        Sandbox(quota=40, window_s=0.4, latency_ms=2) as sandbox,
        make_store(sandbox, quota=shared(), limits=Limits(page_size=5)) as store,
    ):
        await sandbox.seed((customer, 2, "v") for customer in range(1, 101))
        await sandbox.reset(["quota"])
        wanted = AttributeValueFilter(attribute_id_in=[2])

        async def list_all() -> None:
            assert len([row async for row in store.attribute_values.stream(wanted)]) == 100

        writing = store.attribute_values.upsert(upserts(200))
        await asyncio.gather(writing, *(list_all() for _ in range(3)))
        assert sandbox.count_429 == 0
        calls = Counter(one.operation for one in sandbox.requests[:40])
        assert calls["upsert"] == pytest.approx(10, abs=2)


async def test_what_a_job_that_has_ended_did_not_take_is_there_for_the_others(
    shared: Make,
) -> None:
    async with opened(shared(), shared(), reads=30) as [reader, writer]:
        await learn(reader, told(20, quota=100))
        write = await writer.acquire(WRITE, BULK)
        reads = asking(reader, READ, BULK, 30)
        await until(lambda: len(granted(reads)) == 10)
        writer.release(write, None)
        await until(lambda: len(granted(reads)) == 19, 1)
        await ended(*reads)


async def test_requests_that_hang_hold_no_units_back_at_the_end_of_a_window(shared: Make) -> None:
    ends_at = asyncio.get_running_loop().time() + 0.4

    def now_left(left: int) -> object:
        reset_ms = int((ends_at - asyncio.get_running_loop().time()) * 1000)
        return told(left, quota=100, reset_ms=reset_ms, window_ms=600)

    async with opened(shared(), shared(), reads=30) as [reader, writer]:
        await learn(reader, now_left(20))
        await writer.acquire(WRITE, BULK)
        reads = asking(reader, READ, BULK, 30)
        await until(lambda: len(granted(reads)) == 10)
        await until(lambda: len(granted(reads)) >= 18, 1)
        assert asyncio.get_running_loop().time() < ends_at
        await ended(*reads)


async def test_units_are_never_held_back_from_all(shared: Make) -> None:
    async with opened(shared(), shared(), shared(), reads=30) as [reader, *writers]:
        await learn(reader, told(20, quota=100))
        reads = asking(reader, READ, BULK, 15)
        await until(lambda: len(granted(reads)) == 15)
        # Of a third each, the others have more to come than is left.
        operations = (WRITE, DELETE)
        late = [asking(one, op, BULK, 3) for one, op in zip(writers, operations, strict=True)]
        await until(lambda: sum(map(len, map(granted, late))) == 5)
        assert {len(granted(one)) for one in late} == {2, 3}
        await ended(*late[0], *late[1])


async def test_two_operations_of_one_process_are_served_in_turn(shared: Make) -> None:
    async with opened(shared()) as [quota]:
        await learn(quota, told(4, quota=100))
        reads, writes = asking(quota, READ, BULK, 3), asking(quota, WRITE, BULK, 3)
        await until(lambda: len(granted([*reads, *writes])) == 4)
        assert [len(granted(reads)), len(granted(writes))] == [2, 2]
        await ended(*reads, *writes)
