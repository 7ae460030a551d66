"""The Store: its life in event loops, its views, and a caller's own session."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from bc_attrvals import (
    AttributeValueFilter,
    AuthenticationError,
    ConnectionFailedError,
    Event,
    InvalidInputError,
    JobEnded,
    JobStarted,
    Limits,
    Operation,
    Priority,
    RequestAnswered,
    RequestSent,
    RequestTimeoutError,
    RetryPolicy,
    ServerError,
    Store,
    StoreStateError,
)
from bc_attrvals.sandbox import Sandbox
from tests.conftest import make_store
from tests.probes import at_rest, check_writes, until, upserts

TOKEN = "t0ken-nobody-may-see"


# -- its life --


def use(store: Store) -> list[Any]:
    """Return each way to use a Store, as coroutines not yet begun."""
    values = store.attribute_values
    return [
        values.get_page(),
        values.get(1, 1),
        values.count(),
        anext(values.pages()),
        anext(values.stream()),
        values.put_batch(upserts(1)),
        values.delete_batch([1]),
        values.upsert(upserts(1)),
        anext(values.upsert_stream(upserts(1))),
        values.delete([1]),
        values.delete_where(AttributeValueFilter(customer_id_in=[1])),
    ]


async def test_a_store_that_was_not_entered_or_is_closed_says_so(sandbox: Sandbox) -> None:
    store = make_store(sandbox)
    for view in (store, store.with_options(timeout=1.0)):
        with pytest.raises(StoreStateError, match="must be entered first"):
            _ = view.attribute_values
        with pytest.raises(StoreStateError, match="must be entered first"):
            view.statistics()
    async with store:
        before = use(store)
    for work in before:
        with pytest.raises(StoreStateError, match="the Store is closed"):
            await work
    with pytest.raises(StoreStateError, match="the Store is closed"):
        _ = store.attribute_values
    with pytest.raises(StoreStateError, match="the Store is closed"):
        store.statistics()
    assert "closed" in repr(store)
    await store.aclose()
    assert len(sandbox.requests) == 0


async def test_a_store_in_another_event_loop_says_so(sandbox: Sandbox) -> None:
    async with make_store(sandbox) as store:
        errors: list[BaseException] = []

        async def elsewhere() -> None:
            for work in use(store):
                try:
                    await work
                except StoreStateError as error:
                    errors.append(error)

        thread = threading.Thread(target=lambda: asyncio.run(elsewhere()))
        thread.start()
        await until(lambda: not thread.is_alive())
        thread.join()
        assert [str(error) for error in errors] == ["the Store is open in another event loop"] * 11
        # And is none the worse for it.
        assert await store.attribute_values.count() == 0
        assert len(sandbox.requests) == 1


def test_a_new_store_works_in_a_second_run_and_so_does_the_same_after_closing() -> None:
    stores: list[Store] = []

    async def main(again: bool) -> int:
        async with Sandbox(quota=None, port=port) as sandbox:
            if not again:
                stores.append(make_store(sandbox))
            async with stores[-1] as store:
                await store.attribute_values.upsert(upserts(25))
                return store.statistics().requests

    port = 0
    assert asyncio.run(main(again=False)) == 3
    assert asyncio.run(main(again=False)) == 3
    port = int(repr(stores[-1]).partition("127.0.0.1:")[2].partition(",")[0])
    # Its counts begin anew.
    assert asyncio.run(main(again=True)) == 3


def test_a_store_whose_loop_has_ended_can_be_closed_and_entered_in_another() -> None:
    stores: list[Store] = []

    async def leave_open() -> None:
        async with Sandbox(quota=None) as sandbox:
            store = make_store(sandbox)
            stores.append(store)
            await store.__aenter__()
            await store.attribute_values.count()

    async def come_back() -> None:
        (store,) = stores
        with pytest.raises(StoreStateError, match="open already"):
            await store.__aenter__()
        with pytest.raises(StoreStateError, match="another event loop"):
            await store.attribute_values.count()
        await store.aclose()
        async with store:
            with pytest.raises(ConnectionFailedError):
                await store.with_options(retry=RetryPolicy(attempts=1)).attribute_values.get_page()

    asyncio.run(leave_open())
    asyncio.run(come_back())
    gc.collect()


async def test_entering_twice_is_refused_and_harms_nobody(sandbox: Sandbox) -> None:
    async with make_store(sandbox) as store:
        with pytest.raises(StoreStateError, match="open already"):
            await store.__aenter__()
        assert await store.attribute_values.count() == 0
    async with store:
        assert await store.attribute_values.count() == 0
        assert store.statistics().requests == 1


async def test_entering_at_the_same_time_is_refused_too(sandbox: Sandbox) -> None:
    class SlowQuota:
        """A quota kept elsewhere, which takes a moment to open."""

        opened = 0
        closed = 0

        async def open(self, store_hash: str, limits: Limits) -> None:
            self.opened += 1
            await asyncio.sleep(0)

        async def acquire(self, operation: Operation, priority: Priority) -> object:
            return operation

        def release(self, lease: object, headers: Mapping[str, str] | None) -> None:
            pass

        async def close(self) -> None:
            self.closed += 1

    quota = SlowQuota()
    store = make_store(sandbox, quota=quota)
    first, second = await asyncio.gather(
        store.__aenter__(), store.__aenter__(), return_exceptions=True
    )
    assert first is store
    assert isinstance(second, StoreStateError)
    assert await store.attribute_values.count() == 0
    await store.aclose()
    assert (quota.opened, quota.closed) == (1, 1)


async def test_a_quota_that_can_not_be_opened_leaves_nothing_open(sandbox: Sandbox) -> None:
    async def refuse(*_: object) -> None:
        raise OSError("no such server")

    quota = SimpleNamespace(open=refuse, acquire=refuse, release=refuse, close=refuse)
    store = make_store(sandbox, quota=quota)
    for _ in range(2):
        with pytest.raises(OSError, match="no such server"):
            await store.__aenter__()
    gc.collect()
    assert "not entered" in repr(store)


async def test_two_stores_share_nothing(sandbox: Sandbox) -> None:
    async with make_store(sandbox) as one, make_store(sandbox) as other:
        await one.attribute_values.upsert(upserts(20))
        assert one.statistics().requests == 2
        assert other.statistics().requests == 0
        await one.aclose()
        assert await other.attribute_values.count() == 20


async def test_a_wrong_token_is_an_authentication_error(sandbox: Sandbox) -> None:
    async with Store("sandbox", TOKEN, base_url=sandbox.url) as store:
        with pytest.raises(AuthenticationError, match="check the access token") as caught:
            await store.attribute_values.get_page()
    assert caught.value.attempts == 1
    assert caught.value.request_id
    assert TOKEN not in str(caught.value)


# -- a caller's own session --


async def test_a_callers_session_is_used_and_not_closed(sandbox: Sandbox) -> None:
    async with aiohttp.ClientSession(headers={"X-Shop": "1"}) as session:
        for _ in range(2):
            async with make_store(sandbox, session=session) as store:
                await store.attribute_values.upsert(upserts(15))
                await at_rest(store)
        assert not session.closed
    assert {request.headers["X-Shop"] for request in sandbox.requests} == {"1"}


async def test_a_closed_session_is_refused_on_entering(sandbox: Sandbox) -> None:
    async with aiohttp.ClientSession() as session:
        pass
    with pytest.raises(StoreStateError, match="session given to the Store is closed"):
        await make_store(sandbox, session=session).__aenter__()


def test_a_session_of_another_loop_is_refused_on_entering() -> None:
    async def make() -> aiohttp.ClientSession:
        return aiohttp.ClientSession()

    async def main(session: aiohttp.ClientSession) -> None:
        with pytest.raises(StoreStateError, match="another event loop"):
            await Store("hash", TOKEN, session=session).__aenter__()
        await session.close()

    asyncio.run(main(asyncio.run(make())))


# -- views --


async def test_a_view_shares_everything_but_its_options(sandbox: Sandbox) -> None:
    sandbox.faults.script(["hang", "500", "500", None], "list")
    async with make_store(sandbox, timeout=5.0) as store:
        impatient = store.with_options(timeout=0.05, retry=RetryPolicy(attempts=1))
        with pytest.raises(RequestTimeoutError, match=r"within 0\.05 s"):
            await impatient.attribute_values.get_page()
        with pytest.raises(ServerError):
            await impatient.attribute_values.get_page()
        # The Store itself has kept its own.
        await store.attribute_values.get_page()
        assert store.statistics() == impatient.statistics()
        assert store.statistics().requests == 4
        # A view of a view keeps what it does not change.
        patient = impatient.with_options(timeout=5.0)
        sandbox.faults.script(["500"], "list")
        with pytest.raises(ServerError):
            await patient.attribute_values.get_page()
        assert TOKEN not in repr(patient)
        assert repr(patient).startswith("<StoreView 'sandbox' at http://127.0.0.1:")


@pytest.mark.parametrize("bad", [0, -1, float("nan"), True, "1"])
async def test_a_view_checks_its_timeout(store: Store, bad: Any) -> None:
    with pytest.raises(InvalidInputError) as caught:
        store.with_options(timeout=bad)
    assert caught.value.field == "timeout"


async def test_a_view_made_before_entering_works_after(sandbox: Sandbox) -> None:
    store = make_store(sandbox)
    view = store.with_options(priority=Priority.BULK)
    async with store:
        assert await view.attribute_values.count() == 0


async def test_keys_under_way_are_those_of_all_views(sandbox: Sandbox) -> None:
    sandbox.latency_ms = 5
    async with make_store(sandbox) as store:
        view = store.with_options(priority=Priority.INTERACTIVE)
        await asyncio.gather(
            *(one.attribute_values.upsert(upserts(40)) for one in (store, view, store))
        )
        await at_rest(store)
    check_writes(sandbox)


# -- statistics and events --


async def test_statistics_count_what_went_over_the_wire(sandbox: Sandbox) -> None:
    async with make_store(sandbox) as store:
        empty = store.statistics()
        assert (empty.requests, empty.bytes_sent, empty.bytes_received) == (0, 0, 0)
        assert empty.in_flight == empty.queued == dict.fromkeys(Operation, 0)
        sandbox.faults.script(["500"], "upsert")
        halves = upserts(20), upserts(30, first=101)
        await asyncio.gather(*map(store.attribute_values.upsert, halves))
        await store.attribute_values.get_page()
        found = store.statistics()
        assert (found.requests, found.retries, found.rate_limited) == (7, 1, 0)
        bodies = [request.body for request in sandbox.requests]
        assert found.bytes_sent == sum(map(len, bodies))
        assert found.bytes_received > 50 * 100
        assert found.slot_wait_s > 0
        with pytest.raises(AttributeError):
            found.requests = 0  # type: ignore[misc]


async def test_events_come_in_order_to_all_views_and_a_broken_callback_harms_nobody(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    received: list[Event] = []

    def broken(event: Event) -> None:
        raise RuntimeError("a bug in a progress bar")

    async with make_store(sandbox) as store:
        stop = [store.subscribe(broken), store.with_options().subscribe(received.append)]
        await store.attribute_values.upsert(upserts(30))
        for one in stop:
            one()
            one()
        await store.attribute_values.get_page()
    counts = Counter(type(event) for event in received)
    assert counts == {JobStarted: 1, RequestSent: 3, RequestAnswered: 3, JobEnded: 1}
    assert all(
        event.status == 200 and event.bytes and event.request_id
        for event in received
        if isinstance(event, RequestAnswered)
    )
    assert [record.getMessage() for record in caplog.records if record.exc_info] == [
        f"a subscriber failed on {type(event).__name__}" for event in received
    ]


@pytest.mark.parametrize(
    ("opening", "message"),
    [
        (lambda: Store("hash", "token").__aenter__(), 'run it with backend="asyncio"'),
        (lambda: Sandbox().start(), "a ThreadedSandbox serves beside any event loop"),
    ],
)
def test_without_asyncio_as_under_trio_it_says_so(
    opening: Callable[[], Coroutine[Any, Any, object]], message: str
) -> None:
    with pytest.raises(RuntimeError, match=message):
        opening().send(None)


async def test_a_page_and_the_statistics_are_plain_json(store: Store) -> None:
    await store.attribute_values.upsert(upserts(2))
    page = (await store.attribute_values.get_page()).to_dict()
    assert json.loads(json.dumps(page)) == page
    assert [row["attribute_value"] for row in page["data"]] == ["v1", "v2"]
    assert page["pagination"]["total"] == 2
    statistics = store.statistics().to_dict()
    assert json.loads(json.dumps(statistics)) == statistics
    assert (statistics["requests"], statistics["in_flight"]["write"]) == (2, 0)
    assert statistics["quota"] == dict.fromkeys(("quota", "left", "resets_in_s", "window_s"))
