"""Traces, middlewares and sessions of the caller: they may read first, raise and cancel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import pytest

from bc_attrvals import (
    DecodeError,
    HookError,
    Limits,
    RetryPolicy,
    Store,
    UnconfirmedError,
    UpsertReport,
)
from bc_attrvals.sandbox import Sandbox
from tests.conftest import make_store
from tests.probes import at_rest, upserts
from tests.raw_server import (
    TOKEN,
    Connection,
    RawRequest,
    RawServer,
    answer,
    page_body,
    row,
    rows_body,
    store_on,
)
from tests.transport.test_session import chain_of, check_no_token, saying

pytestmark = pytest.mark.usefixtures("no_task_left")

ONCE = RetryPolicy(attempts=1)
ECHO = answer(rows_body([row(7, 1, 1, "v1")]))
READERS: dict[str, Callable[[aiohttp.ClientResponse], Awaitable[object]]] = {
    "read": aiohttp.ClientResponse.read,
    "text": aiohttp.ClientResponse.text,
    "json": aiohttp.ClientResponse.json,
}


async def release(response: aiohttp.ClientResponse) -> None:
    await response.read()
    response.release()


READERS["read and released"] = release


@asynccontextmanager
async def hooked(
    how: str, hook: Callable[[aiohttp.ClientResponse], Awaitable[object]], **options: Any
) -> AsyncIterator[tuple[Store, RawServer]]:
    """Open a Store whose answers go through a hook: a trace's, a middleware's or a session's."""
    raw = answer(rows_body([row(7, 1, 1, "v1")]), headers={"Content-Type": "application/json"})
    if how == "trace":
        trace = aiohttp.TraceConfig()

        async def ended(_: object, __: object, params: aiohttp.TraceRequestEndParams) -> None:
            await hook(params.response)

        trace.on_request_end.append(ended)
        async with store_on(saying(raw, close=False), trace_configs=[trace], **options) as opened:
            yield opened
        return

    async def middleware(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        response = await handler(request)
        await hook(response)
        return response

    async with (
        aiohttp.ClientSession(middlewares=(middleware,)) as session,
        store_on(saying(raw, close=False), session=session, **options) as opened,
    ):
        yield opened


@pytest.mark.parametrize("how", ["trace", "middleware"])
@pytest.mark.parametrize("reader", READERS)
async def test_a_body_that_a_hook_read_first_is_there_all_the_same(how: str, reader: str) -> None:
    async with hooked(how, READERS[reader], retry=ONCE) as (store, server):
        for _ in range(3):
            (stored,) = await store.attribute_values.put_batch(upserts(1))
            assert (stored.id, stored.value) == (7, "v1")
        report = await store.attribute_values.upsert(upserts(1))
        assert (report.stored, report.failed) == (1, 0)
        assert len(server.requests) == 4
        # The connection was kept, read first or not.
        assert server.connections == 1
        await at_rest(store)


async def take(response: aiohttp.ClientResponse) -> None:
    await response.content.read()


async def take_in_pieces(response: aiohttp.ClientResponse) -> None:
    async for _ in response.content.iter_any():
        pass


async def take_a_part(response: aiohttp.ClientResponse) -> None:
    await response.content.read(5)


async def release_unread(response: aiohttp.ClientResponse) -> None:
    response.release()


async def close(response: aiohttp.ClientResponse) -> None:
    response.close()


@pytest.mark.parametrize("how", ["trace", "middleware"])
@pytest.mark.parametrize("taker", [take, take_in_pieces, take_a_part, release_unread, close])
async def test_a_write_whose_body_a_hook_took_is_read_back(
    how: str, taker: Callable[[aiohttp.ClientResponse], Awaitable[object]]
) -> None:
    """aiohttp keeps no copy of it. The answer was of success, so the value is looked for."""
    held: list[dict[str, Any]] = []

    async def hook(response: aiohttp.ClientResponse) -> None:
        if response.method in taken:
            await taker(response)

    async def script(request: RawRequest, connection: Connection) -> None:
        if request.method == "PUT":
            held[:] = [row(7, 1, 1, request.items[0]["value"])]
            await connection.say(answer(rows_body(held)))
        elif request.method == "GET":
            await connection.say(
                answer(page_body(held, total=1, per_page=250, page=1, total_pages=1))
            )
        else:
            await connection.say(answer(b"{}"))

    taken = {"PUT"}
    retry = RetryPolicy(attempts=3, base_s=0.001, cap_s=0.001)
    async with hooked(how, hook, retry=retry) as (store, server):
        server.script = script
        values = store.attribute_values
        assert (await values.upsert(upserts(1))).stored == 1
        (stored,) = await values.put_batch(upserts(1))
        assert stored.value == "v1"
        assert [one.method for one in server.requests] == ["PUT", "GET"] * 2
        taken = {"PUT", "GET"}
        report = await values.upsert(upserts(1), raise_on_failure=False)
        assert (report.failed, report.calls) == (1, 4)
        assert isinstance(report.failures[0].error, HookError | DecodeError)
        taken = {"DELETE"}
        # What stood there was nobody's to see, so it confirms nothing.
        with pytest.raises((HookError, UnconfirmedError)) as caught:
            await values.delete([7])
        report_of_deletes: Any = caught.value.report
        assert (report_of_deletes.deleted, report_of_deletes.calls) == (0, 3)
        await at_rest(store)


async def test_a_body_that_a_hook_read_first_is_no_longer_than_any_other() -> None:
    trace = aiohttp.TraceConfig()

    async def ended(_: object, __: object, params: aiohttp.TraceRequestEndParams) -> None:
        await params.response.read()

    trace.on_request_end.append(ended)
    body = page_body([], total=0, per_page=250, page=1, total_pages=0) + b" " * 70_000
    limits = Limits(max_response_bytes=65_536)
    async with store_on(saying(answer(body)), trace_configs=[trace], limits=limits, retry=ONCE) as (
        store,
        _,
    ):
        with pytest.raises(DecodeError, match="longer than 65536 bytes"):
            await store.attribute_values.get_page()


async def test_a_hook_that_reads_bytes_beyond_ascii_changes_none() -> None:
    body = page_body([row(1, 1, value="Ünïcødé €")], total=1, per_page=250, page=1, total_pages=1)
    trace = aiohttp.TraceConfig()

    async def ended(_: object, __: object, params: aiohttp.TraceRequestEndParams) -> None:
        await params.response.read()

    trace.on_request_end.append(ended)
    async with store_on(saying(answer(body)), trace_configs=[trace]) as (store, _):
        (value,) = (await store.attribute_values.get_page()).data
    assert value.value == "Ünïcødé €"


async def test_a_double_of_a_response_without_aiohttps_stream_is_read_by_its_read() -> None:
    class Double(aiohttp.ClientResponse):
        """As recorders of HTTP traffic make them."""

        content = object()  # type: ignore[assignment]

        async def read(self) -> bytes:
            return rows_body([row(9, 1, 1, "v1")])

        async def start(self, connection: Any) -> aiohttp.ClientResponse:
            response = await super().start(connection)
            del self.content
            return response

    async with (
        aiohttp.ClientSession(response_class=Double) as session,
        store_on(saying(answer(b"")), session=session, retry=ONCE) as (store, _),
    ):
        (stored,) = await store.attribute_values.put_batch(upserts(1))
    assert stored.id == 9


class Odd(BaseException):
    """No Exception."""


@pytest.mark.parametrize("how", ["trace", "middleware"])
@pytest.mark.parametrize("error", [ValueError, RuntimeError, asyncio.CancelledError, Odd])
async def test_a_hook_that_raises_once_costs_a_try_and_each_time_a_named_error(
    how: str, error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    raised = 0

    async def hook(response: aiohttp.ClientResponse) -> None:
        nonlocal raised
        if raised < most:
            raised += 1
            raise error(f"headers were {TOKEN}")

    retry = RetryPolicy(attempts=3, base_s=0.001, cap_s=0.001)
    for most in (1, 3):
        raised = 0
        async with hooked(how, hook, retry=retry) as (store, server):
            report = await store.attribute_values.upsert(upserts(1), raise_on_failure=False)
            assert (report.stored, report.failed) == ((1, 0) if most == 1 else (0, 1))
            assert len(server.requests) == most + (most == 1)
            await at_rest(store)
        if most == 3:
            failed = report.failures[0].error
            assert isinstance(failed, HookError)
            assert f"{error.__name__} at test_hooks.py:" in str(failed)
            assert failed.may_have_been_applied
            assert chain_of(failed) == [failed]
            check_no_token(failed, caplog.records)


@pytest.mark.parametrize("is_own", [True, False])
async def test_what_a_trace_fails_to_reach_is_not_taken_for_the_service(
    unused_tcp_port: int, is_own: bool
) -> None:
    trace = aiohttp.TraceConfig()

    async def report(_: object, __: object, params: aiohttp.TraceRequestEndParams) -> None:
        async with aiohttp.ClientSession() as metrics:
            await metrics.get(f"http://127.0.0.1:{unused_tcp_port}/")

    trace.on_request_end.append(report)
    async with aiohttp.ClientSession(trace_configs=[trace]) as session:
        options: dict[str, Any] = {"trace_configs": [trace]} if is_own else {"session": session}
        nothing = saying(b"HTTP/1.1 204 No Content\r\n\r\n", close=False)
        async with store_on(nothing, retry=ONCE, **options) as (store, server):
            with pytest.raises(HookError, match="raised ClientConnectorError") as caught:
                await store.attribute_values.delete_batch([1])
            assert len(server.requests) == 1
            await at_rest(store)
    assert caught.value.may_have_been_applied


async def test_a_real_cancellation_is_no_hooks() -> None:
    async def hook(response: aiohttp.ClientResponse) -> None:
        await asyncio.sleep(60)

    async with hooked("trace", hook) as (store, server):
        task = asyncio.create_task(store.attribute_values.get_page())
        while not server.requests:  # noqa: ASYNC110 - the server does not say
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await at_rest(store)


async def test_vcrpy_records_a_session_and_replays_it(sandbox: Sandbox, tmp_path: Path) -> None:
    vcr = pytest.importorskip("vcr", reason="needs bc_attrvals[dev]")

    async def work() -> tuple[UpsertReport, int, int]:
        async with make_store(sandbox) as store:
            values = store.attribute_values
            report = await values.upsert(upserts(25))
            rows = [row async for row in values.stream()]
            deleted = await values.delete([rows[0].id])
            return attrs.evolve(report, seconds=0.0), len(rows), deleted.deleted

    cassette = str(tmp_path / "session.yaml")
    with vcr.use_cassette(cassette):
        recorded = await work()
    count = len(sandbox.requests)
    with vcr.use_cassette(cassette, record_mode="none"):
        assert await work() == recorded
    assert recorded[0].stored == recorded[1] == 25
    assert len(sandbox.requests) == count


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_the_end_of_a_process_in_a_call_shows_no_token(kind: type[BaseException]) -> None:
    async def end(*_: object) -> None:
        raise kind

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(end)

    async def work() -> None:
        url = "http://127.0.0.1:9"
        async with Store("hash", TOKEN, base_url=url, trace_configs=[trace]) as store:
            await store.attribute_values.get_page()

    with pytest.raises(kind) as caught:
        asyncio.run(work())
    check_no_token(caught.value, [])
