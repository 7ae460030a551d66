"""Requests that aiohttp has built before; faults of these are in `test_session.py`."""

from __future__ import annotations

import asyncio
import functools
import gc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import aiohttp
import pytest

from bc_attrvals import (
    AttributeValueUpsert,
    ConnectionLostError,
    Limits,
    RequestTimeoutError,
    RetryPolicy,
    Store,
)
from bc_attrvals.core.requests import Operation, Request
from bc_attrvals.transport.reused_requests import ReusedRequest
from bc_attrvals.transport.session import Session
from tests.probes import at_rest, until
from tests.raw_server import (
    Connection,
    RawRequest,
    RawServer,
    answer,
    page_body,
    row,
    rows_body,
    store_on,
)

pytestmark = pytest.mark.usefixtures("no_task_left")

ONCE = RetryPolicy(attempts=1)
#: Values whose JSON has other lengths, in characters and in bytes.
VALUES = ["a", "ä" * 200, "b" * 255, "\U0001f600", "c"]


class Seen:
    """The requests that go through aiohttp's session, as a tool that wraps a method sees them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, method: str, *, is_async: bool) -> None:
        self.methods: list[str] = []
        self.contents: list[Any] = []
        send = getattr(aiohttp.ClientSession, method)

        @functools.wraps(send)
        def wrapped(session: aiohttp.ClientSession, method: str, url: Any, **options: Any) -> Any:
            self.methods.append(method)
            self.contents.append(options["data"])
            return send(session, method, url, **options)

        @functools.wraps(send)
        async def awaited(*arguments: Any, **options: Any) -> aiohttp.ClientResponse:
            response: aiohttp.ClientResponse = await wrapped(*arguments, **options)
            return response

        monkeypatch.setattr(aiohttp.ClientSession, method, awaited if is_async else wrapped)


class Built(dict[str, str]):
    """Counts the requests that aiohttp builds: it adds its default headers to each of them.

    A counter around a function of aiohttp would be a tool that turns the reuse off.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(aiohttp.ClientRequest.DEFAULT_HEADERS)
        self.count = 0
        monkeypatch.setattr(aiohttp.ClientRequest, "DEFAULT_HEADERS", self)

    def items(self) -> Any:
        self.count += 1
        return super().items()


async def put(store: Store, customer: int, value: str) -> None:
    stored = await store.attribute_values.put_batch([AttributeValueUpsert(customer, 1, value)])
    assert [one.attribute_value for one in stored] == [value]


async def echo(request: RawRequest, connection: Connection) -> None:
    """Answer as a store that holds one row does."""
    if request.method == "DELETE":
        await connection.say(b"HTTP/1.1 204 No Content\r\n\r\n")
        return
    if request.method == "PUT":
        rows = [row(1, one["customer_id"], 1, one["value"]) for one in request.items]
        await connection.say(answer(rows_body(rows)))
        return
    customer = int(request.query.get("customer_id:in", "1"))
    size = {"total": 1, "per_page": 250, "page": 1, "total_pages": 1}
    await connection.say(answer(page_body([row(1, customer)], **size)))


async def call_all(store: Store) -> int:
    """Make calls of each method, with other URLs and contents; return their number."""
    values = store.attribute_values
    for customer, value in enumerate(VALUES, 1):
        await put(store, customer, value)
        found = await values.get(customer, 1)
        assert found is not None
        assert found.customer_id == customer
        await values.delete_batch([customer])
        await values.get_page()
    await at_rest(store)
    return 4 * len(VALUES)


def traced(begun: list[str]) -> aiohttp.TraceConfig:
    async def note(
        session: object, context: object, parameters: aiohttp.TraceRequestStartParams
    ) -> None:
        begun.append(parameters.method)

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(note)
    return trace


async def test_reads_and_writes_reuse_one_request_each_and_are_the_same_as_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built = Built(monkeypatch)
    begun: list[str] = []
    async with store_on(echo, retry=ONCE) as (store, server):
        count = await call_all(store)
    # A DELETE is built anew, because its URL is all that says what it destroys.
    first = 2 + len(VALUES)
    assert built.count == first
    async with store_on(echo, retry=ONCE, trace_configs=[traced(begun)]) as (store, other):
        await call_all(store)
    assert len(begun) == built.count - first == count == len(server.requests) == len(other.requests)
    for one, another in zip(server.requests, other.requests, strict=True):
        host = {"host": f"127.0.0.1:{server.port}"}
        assert one.headers == {**another.headers, **host}
        assert (one.method, one.target, one.body) == (another.method, another.target, another.body)
        assert int(one.headers.get("content-length", "0")) == len(one.body)


async def test_calls_at_once_have_requests_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    built = Built(monkeypatch)
    gate = asyncio.Event()

    async def script(request: RawRequest, connection: Connection) -> None:
        if 1 < len(server.requests) <= 4:
            await gate.wait()
        await echo(request, connection)

    async with store_on(script, retry=ONCE, limits=Limits(writes=3)) as (store, server):
        # One request alone finds out whether there is a quota.
        await put(store, 1, "first")
        async with asyncio.TaskGroup() as tasks:
            for customer in range(2, 41):
                tasks.create_task(put(store, customer, f"{customer}" * (customer * 3)))
            await until(lambda: len(server.requests) == 4)
            gate.set()
        await at_rest(store)
    assert built.count == 3
    assert sorted(one.items[0]["customer_id"] for one in server.requests) == [*range(1, 41)]


@pytest.mark.parametrize(
    ("method", "is_async"), [("request", False), ("_request", False), ("_request", True)]
)
async def test_a_tool_that_wraps_aiohttps_session_sees_each_call_whenever_it_comes(
    monkeypatch: pytest.MonkeyPatch, method: str, is_async: bool
) -> None:
    built = Built(monkeypatch)
    with monkeypatch.context() as first:
        early = Seen(first, method, is_async=is_async)
        async with store_on(echo, retry=ONCE) as (store, server):
            assert await call_all(store) == len(early.methods) == built.count
        assert [one.method for one in server.requests] == early.methods
    async with store_on(echo, retry=ONCE) as (store, server):
        before = await call_all(store)
        with monkeypatch.context() as second:
            late = Seen(second, method, is_async=is_async)
            assert await call_all(store) == len(late.methods)
        assert [one.method for one in server.requests[before:]] == late.methods
        built.count = 0
        await put(store, 1, "again")
        assert built.count == 0


async def test_a_tool_that_gets_the_content_gets_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    async with store_on(echo, retry=ONCE) as (store, server):
        seen = Seen(monkeypatch, "_request", is_async=True)
        await call_all(store)
    assert [one.body or None for one in server.requests] == seen.contents


async def test_headers_that_a_tool_adds_to_a_request_are_sent_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    send = aiohttp.ClientRequest.send
    sent = 0

    @functools.wraps(send)
    def with_span(request: aiohttp.ClientRequest, connection: Any) -> Any:
        # As tracers do: not over a header that is there already.
        nonlocal sent
        sent += 1
        request.headers.setdefault("traceparent", f"{sent}")
        return send(request, connection)

    monkeypatch.setattr(aiohttp.ClientRequest, "send", with_span)
    async with store_on(echo, retry=ONCE) as (store, server):
        count = await call_all(store)
    spans = [int(one.headers["traceparent"]) for one in server.requests]
    assert spans == [*range(1, count + 1)]


async def test_a_session_class_of_somebody_else_makes_each_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built = Built(monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)

        class Tool(aiohttp.ClientSession):
            pass

    monkeypatch.setattr(aiohttp, "ClientSession", Tool)
    async with store_on(echo, retry=ONCE) as (store, _):
        assert await call_all(store) == built.count


async def test_a_callers_session_makes_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    built = Built(monkeypatch)
    async with (
        aiohttp.ClientSession() as session,
        store_on(echo, retry=ONCE, session=session) as (store, _),
    ):
        assert await call_all(store) == built.count


@pytest.mark.parametrize("ends", ["lost", "late", "cancelled"])
async def test_a_request_that_failed_is_not_used_again(
    monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    built = Built(monkeypatch)

    async def script(request: RawRequest, connection: Connection) -> None:
        if len(server.requests) != 2:
            await echo(request, connection)
        elif ends == "lost":
            connection.close()
        else:
            await connection.hang()

    async with store_on(script, retry=ONCE, timeout=0.15) as (store, server):
        await put(store, 1, "first")
        second = asyncio.create_task(put(store, 2, "second"))
        if ends == "cancelled":
            await until(lambda: len(server.requests) == 2)
            second.cancel()
        with pytest.raises((ConnectionLostError, RequestTimeoutError, asyncio.CancelledError)):
            await second
        await put(store, 3, "third")
        await put(store, 4, "fourth")
        await at_rest(store)
    assert built.count == 2
    sent = [request.items[0]["value"] for request in server.requests]
    assert sent == ["first", "second", "third", "fourth"]


@contextmanager
def no_garbage() -> Iterator[None]:
    """Fail unless the requests and responses of the block are freed without the collector."""
    kinds = aiohttp.ClientRequest, aiohttp.ClientResponse, ReusedRequest

    def found() -> list[object]:
        return [one for one in gc.get_objects() if type(one) in kinds]

    gc.collect()
    gc.disable()
    # Of other tests.
    before = found()
    try:
        yield
        assert [one for one in found() if one not in before] == []
    finally:
        gc.enable()


@pytest.mark.parametrize("status", [200, 503])
async def test_a_call_that_failed_leaves_nothing_to_the_garbage_collector(status: int) -> None:
    cut_off = answer(b"{}", status).replace(b"Content-Length: 2", b"Content-Length: 3")

    async def script(request: RawRequest, connection: Connection) -> None:
        await connection.say(cut_off)
        connection.close()

    server = RawServer(script)
    await server.start()
    with no_garbage():
        session = Session(server.url, "token", user_agent="test", max_response_bytes=1_000)
        for request in (
            Request(Operation.READ, "GET", "/values"),
            Request(Operation.WRITE, "PUT", "/values", b"[1]"),
        ):
            with suppress(ConnectionLostError):
                assert (await session.send(request, 5.0)).status == status == 503
        await session.aclose()
    await server.aclose()


async def test_a_call_answered_after_the_session_was_closed_is_not_kept() -> None:
    async def script(request: RawRequest, connection: Connection) -> None:
        await connection.say(answer(b"{}"))

    server = RawServer(script)
    await server.start()
    with no_garbage():
        session = Session(server.url, "token", user_agent="test", max_response_bytes=1_000)
        request = Request(Operation.WRITE, "PUT", "/values", b"[1]")
        await session.send(request, 5.0)
        # Its answer has arrived, and it has not gone on.
        held = session._reused
        assert held is not None
        reused = held.take(request)
        assert reused is not None
        await session.aclose()
        held.give_back(reused, request)
        del reused
    await server.aclose()


async def test_a_write_that_was_answered_before_it_had_left_is_not_used_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built = Built(monkeypatch)
    small, large = b"[1]", b"x" * 20_000_000
    received: list[bytes] = []

    async def answer_early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if str(len(large)).encode() in head:
                    writer.write(answer(b"{}", 413))
                    await hung.wait()
                    break
                received.append(await reader.readexactly(len(small)))
                writer.write(answer(b"{}"))
        writer.close()

    hung = asyncio.Event()
    server = await asyncio.start_server(answer_early, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    statuses = []
    with no_garbage():
        session = Session(url, "token", user_agent="test", max_response_bytes=1_000)
        for content in (small, small, large, small):
            request = Request(Operation.WRITE, "PUT", "/values", content)
            statuses.append((await session.send(request, 5.0)).status)
        await session.aclose()
    hung.set()
    server.close()
    await server.wait_closed()
    assert statuses == [200, 200, 413, 200]
    assert received == [small] * 3
    assert built.count == 2
