"""Leaving at any moment: nothing stays behind, and what is on the wire keeps its place there."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import aclosing, suppress
from typing import Any

import aiohttp
import pytest

from bc_attrvals import (
    AttributeValueUpsert,
    BCAttrValsError,
    ConnectionLostError,
    Limits,
    PartialFailureError,
    RetryPolicy,
    ServerError,
    Store,
    StoreStateError,
    TransportError,
)
from bc_attrvals.sandbox import Fault, Quirks, Sandbox
from tests.conftest import make_store
from tests.probes import at_rest, busy, check_writes, most_at_once, until, upserts

pytestmark = pytest.mark.usefixtures("no_task_left")


def overlapping(rng: random.Random, count: int) -> list[AttributeValueUpsert]:
    """Return items over few keys, so that jobs meet."""
    return [
        AttributeValueUpsert(rng.randint(1, 150), rng.randint(1, 2), f"{rng.random()}")
        for _ in range(count)
    ]


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError, BCAttrValsError):
        await task


# -- writes on the wire --


@pytest.mark.parametrize("seed", [1, 2])
async def test_40_writes_cancelled_and_started_again_at_once_never_pass_three(seed: int) -> None:
    """The service goes on with a request whose client is gone, as this one does."""
    rng = random.Random(seed)
    quirks = Quirks(abandoned_keeps_slot=True)
    async with (
        Sandbox(quota=None, quirks=quirks, latency_ms=4) as sandbox,
        make_store(sandbox) as store,
    ):
        values = store.attribute_values
        jobs = [overlapping(rng, rng.randint(10, 40)) for _ in range(40)]
        tasks = [asyncio.create_task(values.upsert(job)) for job in jobs]
        again: list[asyncio.Task[Any]] = []
        order = rng.sample(range(40), 40)
        for index in order:
            await turns(rng.randint(1, 40))
            started = sandbox.calls["upsert"]
            await cancel(tasks[index])
            # A cancelled caller is gone at once, and not when its calls are.
            assert sandbox.calls["upsert"] <= started + 3
            again.append(asyncio.create_task(values.upsert(jobs[index])))
        reports = await asyncio.gather(*again)
        for index, report in zip(order, reports, strict=True):
            assert report.ok
            assert report.stored + report.superseded == len(jobs[index])
        await at_rest(store)
        check_writes(sandbox)
        assert max(put.in_flight for put in sandbox.requests.of("upsert")) == 3
        assert sandbox.count_429 == 0
        held = await sandbox.values()
        assert held.keys() == {item.key for job in jobs for item in job}


async def test_a_cancelled_write_keeps_slot_and_keys_until_it_is_answered(
    sandbox: Sandbox,
) -> None:
    sandbox.faults.script([Fault("slow", delay_s=0.15)] * 3, "upsert")
    async with make_store(sandbox) as store:
        values = store.attribute_values
        # The first request of a Store goes alone.
        await values.get_page()
        first = asyncio.create_task(values.upsert(upserts(30)))
        await until(lambda: sandbox.in_flight("upsert") == 3)
        await cancel(first)
        assert busy(store)["in flight"] == 3
        assert busy(store)["keys"] == 30
        assert repr(values) == "<AttributeValues, 30 keys under way>"
        # Others wait for the slots, and those with the same keys for the keys.
        report = await values.upsert(upserts(30))
        assert report.stored == 30
        await at_rest(store)
    assert most_at_once(sandbox.requests.of("upsert")) == 3
    check_writes(sandbox)


async def test_a_cancelled_write_is_not_sent_again_when_it_fails(sandbox: Sandbox) -> None:
    async with make_store(sandbox) as store:
        # The first request of a Store goes alone.
        await store.attribute_values.get_page()
        sandbox.faults.add(Fault("500", delay_s=0.02))
        job = asyncio.create_task(store.attribute_values.upsert(upserts(500)))
        await until(lambda: sandbox.in_flight("upsert") == 3)
        await cancel(job)
        calls = sandbox.calls["upsert"]
        await at_rest(store)
        assert sandbox.calls["upsert"] == calls == 3


async def test_a_write_cancelled_between_tries_is_over(sandbox: Sandbox) -> None:
    sandbox.faults.add("500")
    retry = RetryPolicy(attempts=9, base_s=30.0, cap_s=30.0)
    async with make_store(sandbox, retry=retry) as store:
        job = asyncio.create_task(store.attribute_values.upsert(upserts(10)))
        await until(lambda: store.statistics().retries == 1)
        await cancel(job)
        await at_rest(store, timeout_s=1.0)
    assert sandbox.calls["upsert"] == 1


@pytest.mark.parametrize("call", ["put_batch", "delete_batch"])
async def test_a_cancelled_single_write_keeps_its_slot_too(sandbox: Sandbox, call: str) -> None:
    sandbox.faults.add(Fault("slow", delay_s=0.1))
    async with make_store(sandbox) as store:
        values = store.attribute_values
        work: Any = (
            values.put_batch(upserts(2)) if call == "put_batch" else values.delete_batch([1])
        )
        job = asyncio.create_task(work)
        await until(lambda: sandbox.in_flight() == 1)
        await cancel(job)
        assert busy(store)["in flight"] == 1
        await at_rest(store)
    (request,) = sandbox.requests
    assert request.status == (200 if call == "put_batch" else 204)


@pytest.mark.parametrize("call", ["put_batch", "delete_batch"])
async def test_a_cancelled_single_write_is_neither_sent_again_nor_sent_late(
    sandbox: Sandbox, call: str
) -> None:
    sandbox.faults.add(Fault("500", delay_s=0.05))
    async with make_store(sandbox, limits=Limits(writes=1, deletes=1)) as store:
        values = store.attribute_values

        def begin() -> asyncio.Task[Any]:
            work: Any = (
                values.put_batch(upserts(2)) if call == "put_batch" else values.delete_batch([1])
            )
            return asyncio.create_task(work)

        on_wire = begin()
        await until(lambda: sandbox.in_flight() == 1)
        queued = begin()
        await until(lambda: busy(store).get("queued"))
        await cancel(on_wire)
        await cancel(queued)
        await at_rest(store)
    assert len(sandbox.requests) == 1


async def test_a_timeout_of_the_caller_shows_what_stood_in_the_way(sandbox: Sandbox) -> None:
    sandbox.faults.add("500")
    retry = RetryPolicy(attempts=100, base_s=0.01, cap_s=0.01)
    async with make_store(sandbox, retry=retry) as store:
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.1):
                await store.attribute_values.get_page()
        await at_rest(store)
    behind: list[BaseException] = []
    one: BaseException | None = caught.value
    while one is not None and one not in behind:
        behind.append(one)
        one = one.__cause__ or one.__context__
    assert any(isinstance(found, ServerError) and found.attempts > 1 for found in behind)


# -- anything at any moment --


class BodyError(Exception):
    """Raised in the body of a loop."""


Work = Callable[[Store, random.Random], Coroutine[Any, Any, object]]


async def listed(store: Store, rng: random.Random) -> None:
    async for _ in store.attribute_values.stream():
        await turns(rng.randint(0, 2))


async def listed_and_left(store: Store, rng: random.Random) -> None:
    stop = rng.randint(1, 400)
    count = 0
    # No `aclosing`: the loop is left and the generator let go of.
    async for _ in store.attribute_values.stream():
        count += 1
        if count == stop:
            break


async def listed_and_closed(store: Store, rng: random.Random) -> None:
    pages = store.attribute_values.pages(read_ahead=rng.randint(0, 12))
    for _ in range(rng.randint(0, 4)):
        await anext(pages)
    await pages.aclose()


async def listed_and_raised(store: Store, rng: random.Random) -> None:
    async with aclosing(store.attribute_values.pages()) as pages:
        async for _ in pages:
            if rng.random() < 0.4:
                raise BodyError


async def listed_and_thrown_into(store: Store, rng: random.Random) -> None:
    pages = store.attribute_values.pages()
    await anext(pages)
    await turns(rng.randint(0, 30))
    await pages.athrow(BodyError())


async def written(store: Store, rng: random.Random) -> None:
    await store.attribute_values.upsert(overlapping(rng, 200))


async def written_one_by_one(store: Store, rng: random.Random) -> None:
    async def slowly() -> AsyncIterator[AttributeValueUpsert]:
        for item in overlapping(rng, 200):
            if rng.random() < 0.05:
                await turns(rng.randint(1, 50))
            yield item

    async for _ in store.attribute_values.upsert_stream(slowly()):
        await turns(rng.randint(0, 2))


async def written_and_left(store: Store, rng: random.Random) -> None:
    count = 0
    async for _ in store.attribute_values.upsert_stream(overlapping(rng, 300)):
        count += 1
        if count == 37:
            break


async def written_and_closed(store: Store, rng: random.Random) -> None:
    async with aclosing(store.attribute_values.upsert_stream(overlapping(rng, 300))) as outcomes:
        async for _ in outcomes:
            if rng.random() < 0.02:
                return


async def written_and_raised(store: Store, rng: random.Random) -> None:
    async with aclosing(store.attribute_values.upsert_stream(overlapping(rng, 300))) as outcomes:
        async for _ in outcomes:
            if rng.random() < 0.02:
                raise BodyError


async def written_from_a_broken_input(store: Store, rng: random.Random) -> None:
    def breaks() -> Iterator[AttributeValueUpsert]:
        yield from overlapping(rng, 50)
        raise BodyError

    await store.attribute_values.upsert(breaks())


async def one_call(store: Store, rng: random.Random) -> None:
    # Keys of its own, for `put_batch` does not look at those under way.
    await store.attribute_values.put_batch(upserts(3, first=rng.randint(10**6, 10**9)))


async def deleted(store: Store, rng: random.Random) -> None:
    await store.attribute_values.delete(range(5000, 5000 + rng.randint(1, 400)))


async def timed_out(store: Store, rng: random.Random) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(rng.random() / 20):
            await store.attribute_values.upsert(overlapping(rng, 300))


async def never_begun(store: Store, rng: random.Random) -> None:
    store.attribute_values.stream()
    store.attribute_values.upsert_stream(overlapping(rng, 9))
    store.attribute_values.pages()


WORKS: list[Work] = [
    listed,
    listed_and_left,
    listed_and_closed,
    listed_and_raised,
    listed_and_thrown_into,
    written,
    written_one_by_one,
    written_and_left,
    written_and_closed,
    written_and_raised,
    written_from_a_broken_input,
    one_call,
    deleted,
    timed_out,
    never_begun,
]


async def quietly(work: Awaitable[object]) -> None:
    with suppress(BodyError, PartialFailureError, TransportError):
        await work


@pytest.mark.parametrize("own_session", [False, True], ids=["ours", "the caller's session"])
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_60_works_left_at_random_moments_leave_nothing_behind(
    seed: int, own_session: bool, caplog: pytest.LogCaptureFixture
) -> None:
    rng = random.Random(seed)
    before = asyncio.all_tasks()
    faults = [Fault(kind, probability=0.02) for kind in ("500", "drop_after", "cut_body", "429")]
    async with (
        Sandbox(quota=None, faults=faults, latency_ms=1, seed=seed) as sandbox,
        aiohttp.ClientSession() as session,
    ):
        serving = asyncio.all_tasks()
        await sandbox.seed((customer, 1, "v") for customer in range(1000, 2200))
        limits = Limits(page_size=100)
        async with make_store(
            sandbox, limits=limits, session=session if own_session else None
        ) as store:
            tasks: list[asyncio.Task[None]] = []
            for number in range(60):
                work = WORKS[number % len(WORKS)](store, random.Random(seed * 100 + number))
                tasks.append(asyncio.create_task(quietly(work)))
                await turns(rng.randint(0, 60))
                if rng.random() < 0.5:
                    rng.choice(tasks).cancel()
            for task in rng.sample(tasks, len(tasks)):
                await turns(rng.randint(0, 20))
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            assert {type(one) for one in ended} <= {type(None), asyncio.CancelledError}
            del tasks, work, task
            gc.collect()
            await at_rest(store)
            # What the sandbox does for connections is not ours.
            ours = {
                one
                for one in asyncio.all_tasks() - serving
                if "bc_attrvals/sandbox" not in repr(one) and "RequestHandler" not in repr(one)
            }
            assert ours - {asyncio.current_task()} == set()
            await until(lambda: not sandbox.in_flight())
            # Everything works as before.
            report = await store.attribute_values.upsert(upserts(50, first=9000))
            assert report.stored == 50
        assert session.closed is False
    gc.collect()
    await turns(5)
    assert asyncio.all_tasks() - before <= {asyncio.current_task()}
    assert [one.getMessage() for one in caplog.records if one.levelno >= logging.ERROR] == []
    check_writes(sandbox)


async def test_a_loop_left_without_closing_is_cleaned_up_by_the_event_loop(
    sandbox: Sandbox, store: Store
) -> None:
    await sandbox.seed((customer, 1, "v") for customer in range(1, 3001))
    sandbox.latency_ms = 20
    async for _ in store.attribute_values.stream():
        break
    gc.collect()
    await turns(20)
    assert busy(store) == {}
    await until(lambda: not sandbox.in_flight())
    calls = sandbox.calls["list"]
    await turns(200)
    assert sandbox.calls["list"] == calls <= 11


async def test_a_cancelled_listing_closes_its_connections_and_frees_its_slots_at_once(
    sandbox: Sandbox, store: Store
) -> None:
    await sandbox.seed((customer, 1, "v") for customer in range(1, 3001))
    sandbox.faults.script([None], "list")
    sandbox.faults.add("hang")
    async with aclosing(store.attribute_values.pages()) as pages:
        await anext(pages)
        await until(lambda: sandbox.in_flight("list") == 10)
        assert busy(store)["connections"] == 10
    assert busy(store) == {}
    await until(lambda: not sandbox.in_flight())


async def test_the_pages_fetched_ahead_when_one_fails_are_let_go(
    sandbox: Sandbox, store: Store
) -> None:
    await sandbox.seed((customer, 1, "v") for customer in range(1, 3001))
    sandbox.faults.script([None, "403", *["hang"] * 9], "list")
    with pytest.raises(BCAttrValsError):
        async for _ in store.attribute_values.pages():
            pass
    assert busy(store) == {}


# -- closing underneath --


async def test_closing_ends_all_work_with_clear_errors(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    await sandbox.seed((customer, 1, "v") for customer in range(1, 3001))
    sandbox.faults.script([None], "list")
    sandbox.faults.add("hang")
    store = make_store(sandbox, limits=Limits(reads=2))
    await store.__aenter__()
    values = store.attribute_values
    pages = values.pages()
    await anext(pages)
    on_wire = [asyncio.create_task(one) for one in (values.upsert(upserts(100)), anext(pages))]
    await until(lambda: sandbox.in_flight() == 5)
    queued = [
        asyncio.create_task(one)
        for one in (
            values.get(1, 1),
            values.count(),
            values.put_batch(upserts(1, first=7000)),
            values.upsert(upserts(20, first=8000)),
        )
    ]
    await turns(20)
    async with asyncio.timeout(5):
        await store.aclose()
        ended = await asyncio.gather(*on_wire, *queued, return_exceptions=True)
        await pages.aclose()
    upserted, listed_, *waiting = ended
    assert isinstance(upserted, StoreStateError)
    assert upserted.report is not None
    assert upserted.report.failed == 30  # type: ignore[union-attr]
    assert upserted.report.not_sent > 0  # type: ignore[union-attr]
    lost = upserted.report.failures[0].error  # type: ignore[union-attr]
    assert isinstance(lost, ConnectionLostError)
    assert lost.may_have_been_applied
    assert isinstance(listed_, ConnectionLostError)
    assert not listed_.may_have_been_applied
    assert [type(one) for one in waiting] == [StoreStateError] * 4
    with pytest.raises(StoreStateError, match="closed"):
        await values.get_page()
    with pytest.raises(StoreStateError, match="closed"):
        await anext(values.stream())
    with pytest.raises(StoreStateError, match="closed"):
        _ = store.attribute_values
    await store.aclose()
    gc.collect()
    assert [one for one in caplog.records if one.levelno >= logging.ERROR] == []


async def test_closing_ends_a_stream_of_outcomes_with_one_for_each_item_read(
    sandbox: Sandbox,
) -> None:
    sandbox.latency_ms = 5
    read: list[AttributeValueUpsert] = []

    async def endless() -> AsyncIterator[AttributeValueUpsert]:
        while True:
            item = AttributeValueUpsert(len(read) + 1, 1, "v")
            read.append(item)
            yield item

    seen: list[Any] = []
    store = make_store(sandbox)
    async with asyncio.timeout(5), store:

        async def take() -> None:
            async for outcome in store.attribute_values.upsert_stream(endless()):
                seen.append(outcome)

        taking = asyncio.create_task(take())
        await until(lambda: len(seen) >= 100)
        await store.aclose()
        with pytest.raises(StoreStateError) as caught:
            await taking
    assert sorted(one.item.customer_id for one in seen) == [one.customer_id for one in read]
    assert caught.value.report is not None
    assert {type(one.error) for one in seen} <= {type(None), StoreStateError, ConnectionLostError}


async def test_closing_in_the_body_of_a_loop_ends_the_loop(sandbox: Sandbox) -> None:
    await sandbox.seed((customer, 1, "v") for customer in range(1, 3001))
    seen: list[Any] = []

    async def take(items: AsyncIterator[Any], store: Store) -> None:
        async for item in items:
            seen.append(item)
            if len(seen) == 5:
                await store.aclose()

    async with asyncio.timeout(5):
        for start in (
            lambda store: store.attribute_values.upsert_stream(upserts(500)),
            lambda store: store.attribute_values.upsert_stream(iter(upserts(500))),
            lambda store: store.attribute_values.stream(),
            lambda store: store.attribute_values.pages(read_ahead=0),
        ):
            seen.clear()
            async with make_store(sandbox, limits=Limits(page_size=100)) as store:
                with pytest.raises((StoreStateError, ConnectionLostError)):
                    await take(start(store), store)
            assert len(seen) >= 5


async def test_closing_in_the_middle_of_retries_does_not_wait_for_them(sandbox: Sandbox) -> None:
    sandbox.faults.add("500")
    retry = RetryPolicy(attempts=9, base_s=60.0, cap_s=60.0)
    async with asyncio.timeout(5):
        async with make_store(sandbox, retry=retry) as store:
            jobs = [
                asyncio.create_task(store.attribute_values.upsert(upserts(10))),
                asyncio.create_task(store.attribute_values.get_page()),  # type: ignore[arg-type]
                asyncio.create_task(store.attribute_values.delete([1])),  # type: ignore[arg-type]
            ]
            await until(lambda: store.statistics().retries == 3)
        ended = await asyncio.gather(*jobs, return_exceptions=True)
    assert [type(one) for one in ended] == [StoreStateError] * 3
    assert [one.attempts for one in ended if isinstance(one, BCAttrValsError)] == [1, 1, 1]


async def test_a_close_that_is_cancelled_can_be_done_again(sandbox: Sandbox) -> None:
    sandbox.faults.add("hang")
    store = make_store(sandbox)
    await store.__aenter__()
    job = asyncio.create_task(store.attribute_values.upsert(upserts(10)))
    await until(lambda: sandbox.in_flight() == 1)
    closing = asyncio.create_task(store.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.gather(closing, job, return_exceptions=True)
    await store.aclose()
    gc.collect()
    await until(lambda: not sandbox.in_flight())


@pytest.mark.usefixtures("quick_probes")
async def test_cancelled_work_that_is_on_the_wire_does_not_hold_up_the_close(
    sandbox: Sandbox,
) -> None:
    sandbox.faults.add("hang")
    async with asyncio.timeout(5):
        async with make_store(sandbox) as store:
            job = asyncio.create_task(store.attribute_values.upsert(upserts(100)))
            await until(lambda: sandbox.in_flight() == 3)
            await cancel(job)
            assert busy(store)["in flight"] == 3
    await until(lambda: not sandbox.in_flight())


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="new in Python 3.12")
async def test_all_works_where_tasks_begin_eagerly(sandbox: Sandbox) -> None:
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)

    async def items() -> AsyncIterator[AttributeValueUpsert]:
        for item in upserts(150):
            yield item

    async def broken() -> AsyncIterator[AttributeValueUpsert]:
        raise BodyError
        yield

    sandbox.faults.script(["500", None, "drop_after"], "upsert")
    async with asyncio.timeout(10), make_store(sandbox, limits=Limits(page_size=20)) as store:
        values = store.attribute_values
        assert (await values.upsert(items())).stored == 150
        with pytest.raises(BodyError):
            await values.upsert(broken())
        ids = [value.id async for value in values.stream()]
        assert len(ids) == 150
        assert (await values.delete(iter(ids))).deleted == 150
        async with aclosing(values.upsert_stream(items())) as outcomes:
            await anext(outcomes)
        await at_rest(store)
    check_writes(sandbox)
