"""One process as a member: however it is closed, it leaves nothing."""

from __future__ import annotations

import asyncio
import gc
import time

import pytest

from bc_attrvals import Limits, Store
from bc_attrvals.errors import StoreStateError
from bc_attrvals.sandbox import Sandbox
from tests.conftest import make_store
from tests.probes import until, upserts
from tests.shared_quota.quotas import BULK, STORE, WRITE, Watched
from tests.valkey import Valkey

from bc_attrvals.shared_quota import RedisQuota  # isort: skip - skipped where redis is missing

pytestmark = pytest.mark.usefixtures("no_task_left")


async def connections(own_valkey: Valkey) -> int:
    from redis.asyncio import Redis

    async with Redis.from_url(own_valkey.url) as redis:
        return len(await redis.client_list()) - 1


async def gone(own_valkey: Valkey) -> None:
    async with asyncio.timeout(3):
        while await connections(own_valkey):  # noqa: ASYNC110 - nobody tells when they are
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("again", [True, False])
async def test_a_store_whose_closing_is_cancelled_leaves_nothing(
    own_valkey: Valkey, again: bool
) -> None:
    async with Sandbox(quota=None, latency_ms=50) as sandbox:
        before = asyncio.all_tasks()
        for turns in (0, 1, 3, 6, 14):
            store = make_store(sandbox, quota=RedisQuota(own_valkey.url, timeout_s=1.0))
            await store.__aenter__()
            work = asyncio.ensure_future(store.attribute_values.upsert(upserts(100)))
            await until(lambda: sandbox.in_flight() == 3)
            closing = asyncio.ensure_future(store.aclose())
            for _ in range(turns):
                await asyncio.sleep(0)
            closing.cancel()
            await asyncio.wait([closing])
            if again or not turns:
                await store.aclose()
            await gone(own_valkey)
            await asyncio.wait([work], timeout=3)
            assert isinstance(work.exception(), Exception)
            await until(lambda: not asyncio.all_tasks() - before - {asyncio.current_task()})
            # Entered again, it works as before.
            async with store:
                assert store._quota.connected  # type: ignore[union-attr]
            await until(lambda: not sandbox.in_flight())


async def test_closing_that_is_cancelled_returns_at_once_and_is_finished_by_another(
    own_valkey: Valkey,
) -> None:
    one = Watched(own_valkey.url)
    await one.quota.open(STORE, Limits())
    await one.quota.acquire(WRITE, BULK)
    with own_valkey.standing_still():
        closing = asyncio.ensure_future(one.quota.close())
        # It waits for the server to hear of it.
        await asyncio.sleep(0.05)
        assert not closing.done()
        began_at = time.monotonic()
        closing.cancel()
        await asyncio.wait([closing])
        assert closing.cancelled()
        assert time.monotonic() - began_at < 0.5
        assert not one.quota.connected
    await one.quota.close()
    assert one.quota._member._link is None
    await gone(own_valkey)


def test_a_loop_that_ends_while_a_shared_quota_is_closed_closes_it(
    own_valkey: Valkey,
) -> None:
    async def main() -> RedisQuota:
        one = Watched(own_valkey.url)
        await one.quota.open(STORE, Limits())
        closing = asyncio.ensure_future(one.quota.close())
        await asyncio.sleep(0.001)
        closing.cancel()
        return one.quota

    quota = asyncio.run(main())
    assert quota._member._link is None
    asyncio.run(gone(own_valkey))


@pytest.mark.parametrize("how", ["asyncio.run", "closed at once"])
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_quota_and_its_store_are_closed_after_their_loop_has_ended(
    how: str, own_valkey: Valkey
) -> None:
    async def leave_open() -> tuple[Store, RedisQuota, Watched]:
        lonely = Watched(own_valkey.url, lease_s=0.4)
        await lonely.quota.open("other", Limits(writes=1))
        await lonely.quota.acquire(WRITE, BULK)
        quota = RedisQuota(own_valkey.url)
        async with Sandbox(quota=None, store_hash=STORE) as sandbox:
            store = make_store(sandbox, quota=quota)
            await store.__aenter__()
            await store.attribute_values.count()
        return store, quota, lonely

    async def late() -> None:
        for _ in range(2):
            await store.aclose()
            await quota.close()
            await lonely.quota.close()
        with pytest.raises(StoreStateError):
            await quota.acquire(WRITE, BULK)
        # The slot that was held comes back.
        await lonely.quota.open("other", Limits(writes=1))
        lease = await asyncio.wait_for(lonely.quota.acquire(WRITE, BULK), 5)
        lonely.quota.release(lease, {})
        await lonely.quota.close()

    if how == "asyncio.run":
        store, quota, lonely = asyncio.run(leave_open())
        # Closed with the loop, while they are all still referred to.
        asyncio.run(gone(own_valkey))
    else:
        loop = asyncio.new_event_loop()
        store, quota, lonely = loop.run_until_complete(leave_open())
        # What aiohttp and redis-py left undone is theirs to complain of.
        loop.set_exception_handler(lambda *_: None)
        tasks = asyncio.all_tasks(loop)
        loop.close()
    asyncio.run(late())
    if how == "asyncio.run":
        asyncio.run(gone(own_valkey))
    else:
        for task in tasks:
            # Never to be finished: asyncio would report each.
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        # Its sockets are dropped here, not in a later test.
        del store, quota, lonely, task, tasks, loop
        gc.collect()
