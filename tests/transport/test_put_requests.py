"""PUTs over a request that aiohttp has built before; faults of these are in `test_session.py`."""

from __future__ import annotations

import asyncio
import functools
from contextlib import suppress
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
from bc_attrvals.transport.session import Session
from tests.probes import at_rest, until
from tests.raw_server import Connection, RawRequest, answer, row, rows_body, store_on

pytestmark = pytest.mark.usefixtures("no_task_left")

ONCE = RetryPolicy(attempts=1)
#: Values whose JSON has other lengths, in characters and in bytes.
VALUES = ["a", "ä" * 200, "b" * 255, "\U0001f600", "c"]


async def echo(request: RawRequest, connection: Connection) -> None:
    await connection.say(
        answer(rows_body([row(1, one["customer_id"], 1, one["value"]) for one in request.items]))
    )


class Seen:
    """The requests that go through aiohttp's session, as a tool that wraps it sees them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bodies: list[object] = []
        send = aiohttp.ClientSession._request

        @functools.wraps(send)
        async def wrapped(
            session: aiohttp.ClientSession, method: str, url: Any, **options: Any
        ) -> aiohttp.ClientResponse:
            self.bodies.append(options.get("data"))
            return await send(session, method, url, **options)

        monkeypatch.setattr(aiohttp.ClientSession, "_request", wrapped)


class Built:
    """Counts the requests that aiohttp builds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        init = aiohttp.ClientRequest.__init__

        def counted(request: aiohttp.ClientRequest, *arguments: Any, **options: Any) -> None:
            self.count += 1
            init(request, *arguments, **options)

        monkeypatch.setattr(aiohttp.ClientRequest, "__init__", counted)


async def put(store: Store, customer: int, value: str) -> None:
    stored = await store.attribute_values.put_batch([AttributeValueUpsert(customer, 1, value)])
    assert [one.attribute_value for one in stored] == [value]


async def test_later_puts_reuse_the_request_and_differ_in_their_content_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built = Built(monkeypatch)
    async with store_on(echo, retry=ONCE) as (store, server):
        for customer, value in enumerate(VALUES, 1):
            await put(store, customer, value)
        await at_rest(store)
    assert built.count == 1
    assert [request.items[0]["value"] for request in server.requests] == VALUES
    lengths = [int(request.headers["content-length"]) for request in server.requests]
    assert lengths == [len(request.body) for request in server.requests]
    first, *others = ({**one.headers, "content-length": ""} for one in server.requests)
    assert all(headers == first for headers in others)
    assert {request.target for request in server.requests} == {server.requests[0].target}


async def test_puts_at_once_have_requests_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
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


async def test_a_tool_that_wraps_aiohttps_session_sees_each_put(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with store_on(echo, retry=ONCE) as (store, _):
        seen = Seen(monkeypatch)
        for customer, value in enumerate(VALUES, 1):
            await put(store, customer, value)
        await at_rest(store)
    assert len(seen.bodies) == len(VALUES)


async def test_traces_see_each_put() -> None:
    begun: list[str] = []
    trace = aiohttp.TraceConfig()

    async def note(
        session: object, context: object, parameters: aiohttp.TraceRequestStartParams
    ) -> None:
        begun.append(parameters.method)

    trace.on_request_start.append(note)
    async with store_on(echo, retry=ONCE, trace_configs=[trace]) as (store, _):
        for customer, value in enumerate(VALUES, 1):
            await put(store, customer, value)
        await at_rest(store)
    assert begun == ["PUT"] * len(VALUES)


async def test_a_callers_session_sends_each_put(monkeypatch: pytest.MonkeyPatch) -> None:
    built = Built(monkeypatch)
    async with (
        aiohttp.ClientSession() as session,
        store_on(echo, retry=ONCE, session=session) as (store, _),
    ):
        for customer, value in enumerate(VALUES, 1):
            await put(store, customer, value)
        await at_rest(store)
    assert built.count == len(VALUES)


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


async def test_a_put_that_was_answered_before_it_had_left_is_not_used_again(
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
    session = Session(url, "token", user_agent="test", max_response_bytes=1_000)
    statuses = []
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
