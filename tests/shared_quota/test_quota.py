"""The protocol of quotas, for both that there are; and what is shared through a real Valkey."""

from __future__ import annotations

import asyncio
import logging
import pickle
import time
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from bc_attrvals import AttributeValueUpsert, Limits, Operation, Priority, RetryPolicy, Store
from bc_attrvals.errors import InvalidInputError, StoreStateError
from bc_attrvals.events import EventBus
from bc_attrvals.sandbox import Sandbox
from bc_attrvals.scheduling.admission import Admission
from bc_attrvals.scheduling.local_quota import LocalQuota
from bc_attrvals.scheduling.quota import Quota
from tests.conftest import make_store
from tests.probes import at_rest, most_at_once, until, upserts
from tests.processes import Worker, started
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
    lost_and_regained,
    opened,
    settled,
    told,
)
from tests.valkey import Valkey

from bc_attrvals.shared_quota import RedisQuota  # isort: skip - skipped where redis is missing

pytestmark = pytest.mark.usefixtures("no_task_left")


class FourMethods:
    """A user's quota with no more than the protocol asks for."""

    def __init__(self, quota: Quota) -> None:
        self.open = quota.open
        self.acquire = quota.acquire
        self.release = quota.release
        self.close = quota.close


def admitting(quota: Quota | None = None) -> Any:
    return Admission(events=EventBus(), retry=RetryPolicy(), random=Random(1), quota=quota)


KINDS: dict[str, Callable[[Callable[[], RedisQuota]], Any]] = {
    "in this process": lambda _: admitting(),
    "shared": lambda shared: shared(),
    "shared, behind admission": lambda shared: admitting(shared()),
    "a user's, behind admission": lambda _: admitting(FourMethods(LocalQuota())),
}


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest, valkey: Valkey, namespace: str) -> Make:
    """Make a quota, or what admits requests over one; the same is promised of all."""
    return lambda: KINDS[request.param](lambda: RedisQuota(valkey.url, namespace=namespace))


# --- one set of tests for all kinds ---------------------------------------------------


async def test_no_more_at_once_than_the_limits_allow(make: Make) -> None:
    async with opened(make(), reads=4, writes=3, deletes=2) as [quota]:
        await learn(quota, {})
        counts = {}
        for operation in Operation:
            tasks = asking(quota, operation, BULK, 6)
            await until(lambda tasks=tasks: granted(tasks))
            await settled()
            counts[operation] = len(granted(tasks))
            # A slot given back goes to one that waits.
            quota.release(granted(tasks)[0], {})
            await until(lambda tasks=tasks, had=counts[operation]: len(granted(tasks)) > had)
            await ended(*tasks[counts[operation] + 1 :])
            for lease in granted(tasks)[1:]:
                quota.release(lease, {})
        assert counts == {READ: 4, WRITE: 3, DELETE: 2}


async def test_no_request_when_the_quota_is_spent_and_all_of_it_when_the_window_opens(
    make: Make,
) -> None:
    async with opened(make(), writes=50) as [quota]:
        ends_at = time.monotonic() + 0.5

        def now_left(left: int) -> Any:
            reset_ms = int((ends_at - time.monotonic()) * 1000)
            # Never whole seconds, which might be all that the service's clock has.
            return told(left, quota=5, reset_ms=reset_ms, window_ms=600)

        await learn(quota, now_left(2))
        tasks = asking(quota, WRITE, BULK, 8)
        await until(lambda: len(granted(tasks)) == 2)
        await settled()
        assert len(granted(tasks)) == 2
        for lease in granted(tasks):
            quota.release(lease, now_left(0))
        await until(lambda: len(granted(tasks)) == 7)
        # No earlier than the answers allow, and late by little.
        assert ends_at <= time.monotonic() < ends_at + 0.2
        await settled()
        assert len(granted(tasks)) == 7
        await ended(tasks[7])


async def test_an_answer_that_never_came_costs_its_unit(make: Make) -> None:
    async with opened(make(), writes=50) as [quota]:
        await learn(quota, told(3))
        quota.release(await quota.acquire(WRITE, BULK), None)
        tasks = asking(quota, WRITE, BULK, 4)
        await until(lambda: len(granted(tasks)) == 2)
        await settled()
        assert len(granted(tasks)) == 2
        await ended(*tasks)


# Four methods have no word for it: a user's unit counts as spent.
@pytest.mark.parametrize("make", [kind for kind in KINDS if "user" not in kind], indirect=True)
async def test_a_request_that_never_left_gives_its_unit_back(make: Make) -> None:
    async with opened(make(), writes=50) as [quota]:
        await learn(quota, told(3))
        for _ in range(9):
            quota.cancel(await asyncio.wait_for(quota.acquire(WRITE, BULK), 5))
        tasks = asking(quota, WRITE, BULK, 4)
        await until(lambda: len(granted(tasks)) == 3)
        await settled()
        assert len(granted(tasks)) == 3
        await ended(*tasks)


async def test_the_first_request_goes_alone_until_an_answer(make: Make) -> None:
    async with opened(make(), writes=3) as [quota]:
        tasks = [*asking(quota, WRITE, BULK, 2), *asking(quota, READ, INTERACTIVE, 2)]
        await until(lambda: granted(tasks))
        await settled()
        (first,) = granted(tasks)
        quota.release(first, {})
        await until(lambda: len(granted(tasks)) == 4)
        for lease in granted(tasks)[1:]:
            quota.cancel(lease) if hasattr(quota, "cancel") else quota.release(lease, None)


async def test_interactive_requests_go_first_and_bulk_still_moves(make: Make) -> None:
    async with opened(make(), writes=1) as [quota]:
        await learn(quota, {})
        order: list[Priority] = []
        first = await quota.acquire(WRITE, BULK)

        async def one(priority: Priority) -> None:
            lease = await quota.acquire(WRITE, priority)
            order.append(priority)
            quota.release(lease, {})

        tasks = [asyncio.ensure_future(one(BULK)) for _ in range(4)]
        await settled(0.02)
        tasks += [asyncio.ensure_future(one(INTERACTIVE)) for _ in range(16)]
        await settled()
        quota.release(first, {})
        await asyncio.gather(*tasks)
        assert order[:7] == [INTERACTIVE] * 7
        assert Counter(order[:16])[BULK] == 2


async def test_a_cancelled_acquire_leaves_nothing_taken(make: Make) -> None:
    async with opened(make(), writes=1) as [quota]:
        await learn(quota, told(3))
        first = await quota.acquire(WRITE, BULK)
        waiting = asking(quota, WRITE, BULK, 3)
        await settled()
        waiting[0].cancel()
        # Granted and cancelled at about the same moment, whichever comes first.
        quota.release(first, None)
        await settled(0.001)
        if not waiting[1].cancel():
            quota.release(waiting[1].result(), told(2))
        await until(waiting[2].done)
        quota.release(waiting[2].result(), told(2))
        lease = await asyncio.wait_for(quota.acquire(WRITE, BULK), 5)
        quota.release(lease, told(1))


async def test_closing_ends_all_that_wait_and_what_comes_after(make: Make) -> None:
    async with opened(make(), writes=1) as [quota]:
        await learn(quota, {})
        lease = await quota.acquire(WRITE, BULK)
        waiting = asking(quota, WRITE, BULK, 2)
        await settled(0.02)
        await quota.close()
        for task in waiting:
            with pytest.raises(StoreStateError):
                await task
        with pytest.raises(StoreStateError):
            await quota.acquire(WRITE, BULK)
        quota.release(lease, None)


async def test_the_reserve_is_left_to_others(make: Make) -> None:
    async with opened(make(), writes=50, reserve=4) as [quota]:
        await learn(quota, told(9))
        tasks = asking(quota, WRITE, BULK, 8)
        await until(lambda: len(granted(tasks)) == 5)
        await settled()
        assert len(granted(tasks)) == 5
        await ended(*tasks)


# --- shared --------------------------------------------------------------------------------------


async def test_an_interactive_call_overtakes_bulk_calls_of_its_own_store(
    shared: Make, valkey: Valkey, namespace: str
) -> None:
    """Bulk calls that wait for shared leases hold no slot of their own process."""
    async with opened(shared(), writes=3) as [other]:
        await learn(other, {})
        taken = [await other.acquire(WRITE, BULK) for _ in range(3)]
        async with (
            Sandbox(quota=None, store_hash=STORE) as sandbox,
            make_store(sandbox, quota=shared()) as store,
        ):
            bulk = asyncio.ensure_future(store.attribute_values.upsert(upserts(100)))
            await until(lambda: store.statistics().queued[WRITE] >= 3)
            await settled()
            queued = store.statistics().queued[WRITE]
            item = AttributeValueUpsert(9_999, 1, "now")
            single = asyncio.ensure_future(store.attribute_values.put_batch([item]))
            await until(lambda: store.statistics().queued[WRITE] == queued + 1)
            await settled()
            assert store.statistics().in_flight[WRITE] == 0
            assert sandbox.requests.seen == 0
            other.release(taken.pop(), {})
            await single
            assert sandbox.requests[0].item_count == 1
            for lease in taken:
                other.release(lease, {})
            await bulk
            assert sandbox.peak_in_flight("upsert") <= 3
            await at_rest(store)


async def test_under_load_there_is_one_call_to_the_server_a_request(
    shared: Make, valkey: Valkey, namespace: str
) -> None:
    from redis.asyncio import Redis

    async with (
        Redis.from_url(valkey.url) as redis,
        Sandbox(quota=None, latency_ms=3) as sandbox,
        make_store(sandbox, quota=shared()) as one,
        make_store(sandbox, quota=shared()) as two,
    ):
        before = (await redis.info("commandstats")).get("cmdstat_evalsha", {"calls": 0})["calls"]
        await asyncio.gather(
            *(
                store.attribute_values.upsert(upserts(1_500, first=first))
                for store, first in ((one, 1), (two, 10_000))
            )
        )
        calls = (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"] - before
        assert sandbox.requests.seen == 300
        assert calls <= 1.1 * 300
        assert sandbox.peak_in_flight("upsert") == 3


async def test_idle_processes_are_no_load(shared: Make, valkey: Valkey) -> None:
    from redis.asyncio import Redis

    async with Redis.from_url(valkey.url) as redis, opened(shared(lease_s=0.3)) as [quota]:
        await learn(quota, {})
        before = (await redis.info("stats"))["total_commands_processed"]
        await settled(0.5)
        assert (await redis.info("stats"))["total_commands_processed"] - before <= 1
        # It was forgotten meanwhile, and goes on all the same.
        quota.release(await quota.acquire(WRITE, BULK), {})


# --- secrets and what can't be -------------------------------------------------------------------


async def test_the_password_is_in_no_repr_log_or_error(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = Valkey.PASSWORD
    with Valkey(password=True) as valkey:
        quota = RedisQuota(valkey.url)
        assert secret not in repr(quota)
        events = await lost_and_regained(quota)
        async with opened(quota):
            quota.release(await quota.acquire(WRITE, BULK), {})
            assert secret not in repr(quota)
            valkey.stop()
            await until(lambda: not quota.connected)
            await settled()
        assert secret not in repr(events)
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps(quota)
        valkey.start()
        wrong = RedisQuota(valkey.url.replace(secret, "wrong-word"))
        with pytest.raises(InvalidInputError, match="refuses the user or password") as refused:
            await wrong.open(STORE, Limits())
        assert refused.value.__cause__ is None
        assert "wrong-word" not in repr(refused.value) + str(refused.value)
    assert secret not in caplog.text
    assert "wrong-word" not in caplog.text


async def test_one_object_serves_one_store_at_a_time(shared: Make) -> None:
    async with opened(shared()) as [quota]:
        with pytest.raises(StoreStateError, match="one Store"):
            await quota.open(STORE, Limits())
    async with opened(quota):
        quota.release(await quota.acquire(WRITE, BULK), {})


# --- whole processes -----------------------------------------------------------------------------


async def test_four_processes_use_the_whole_quota_and_meet_no_429(valkey: Valkey) -> None:
    async with Sandbox(quota=40, window_s=2, latency_ms=15, store_hash="four") as sandbox:
        workers = [Worker(sandbox, valkey.url, first=1 + i * 10_000, count=250) for i in range(4)]
        await started(*workers)
        results = await asyncio.gather(*(one.result() for one in workers))
        assert [one["stored"] for one in results] == [250] * 4
        assert sandbox.count_429 == 0
        assert most_at_once(sandbox.requests.of("upsert")) <= 3
        full = [window.granted for window in sandbox.windows[1:-1]]
        assert full
        # A machine that stands still for a moment costs a window a few units.
        assert min(full) >= 0.9 * 40
        assert sum(full) >= 0.95 * 40 * len(full)


async def test_processes_go_on_when_one_is_killed_and_when_the_server_is(
    valkey: Valkey,
) -> None:
    with Valkey() as server:
        async with Sandbox(quota=40, window_s=1.0, latency_ms=15, store_hash="kill") as sandbox:
            workers = [
                Worker(sandbox, server.url, first=1 + i * 10_000, count=400, quota={"lease_s": 2.0})
                for i in range(4)
            ]
            await started(*workers)
            await until(lambda: sandbox.requests.seen > 25 and sandbox.in_flight("upsert"))
            await workers.pop().kill()
            await until(lambda: sandbox.requests.seen > 55)
            server.stop()
            await until(lambda: sandbox.requests.seen > 80, 10)
            server.start()
            results = await asyncio.gather(*(one.result() for one in workers))
            assert [one["stored"] for one in results] == [400] * 3
            told = [one["events"] for one in results]
            back = ["SharedQuotaLost", "SharedQuotaRegained"]
            # One may be done with its work before the server is found again.
            assert back in told
            assert all(one in (back, back[:1]) for one in told)
            assert sandbox.count_429 <= 0.01 * sandbox.requests.seen
            values = await sandbox.values()
            for i in range(3):
                assert all(values[1 + i * 10_000 + k, 1] for k in range(400))


async def test_a_store_closes_its_quota_with_it(shared: Make) -> None:
    quota = shared()
    async with Sandbox(quota=None) as sandbox:
        store: Store = make_store(sandbox, quota=quota)
        async with store:
            await store.attribute_values.upsert(upserts(5))
            assert quota.connected
        assert not quota.connected
