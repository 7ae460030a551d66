"""Requests of any shape: answered alike, whether the sandbox or aiohttp parses them."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from functools import partial
from pathlib import Path

import pytest
from yarl import URL

from bc_attrvals.sandbox import Fault, Sandbox
from bc_attrvals.sandbox.resources import Applied, Request, Resources
from tests.sandbox.api import item, running, until


@pytest.mark.parametrize(
    "head",
    [
        b"GET /stores/sandbox/v3/customers HTTP/1.1\r\nHost: localhost\r\nX-A: a\0b\r\n\r\n",
        b"GET /sandbox HTTP/1.1\r\nHost: local\0host\r\n\r\n",
        b"GET /sand\0box HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\0\r\n\r\n",
    ],
)
async def test_a_nul_byte_is_answered_400_without_a_traceback(
    head: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with running() as (sandbox, api):
        reader, writer = await asyncio.open_connection("127.0.0.1", sandbox.port)
        writer.write(head)
        assert (await reader.read()).split()[1] == b"400"
        writer.close()
        await writer.wait_closed()
        assert (await api.get()).status == 200
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    ("method", "version", "header", "connection", "is_open"),
    [
        ("GET", "1.1", "", None, True),
        ("GET", "1.1", "Connection: close\r\n", b"close", False),
        ("GET", "1.0", "", b"close", False),
        ("GET", "1.0", "Connection: keep-alive\r\n", b"keep-alive", True),
        ("HEAD", "1.1", "", None, True),
        ("DELETE", "1.1", "", None, True),
    ],
)
async def test_an_answers_head_fits_its_request(
    method: str, version: str, header: str, connection: bytes | None, is_open: bool
) -> None:
    async with running() as (sandbox, api):
        reader, writer = await asyncio.open_connection("127.0.0.1", sandbox.port)
        request = (
            f"{method} {URL(api.path).raw_path} HTTP/{version}\r\nHost: localhost\r\n"
            f"X-Auth-Token: {api.token}\r\n{header}\r\n"
        ).encode()
        for _ in range(2 if is_open else 1):
            writer.write(request)
            status, *lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[:-2]
            headers = dict(line.split(b": ", 1) for line in lines)
            assert int(status.split()[1]) == {"GET": 200, "HEAD": 405, "DELETE": 204}[method]
            assert headers.get(b"Connection") == connection
            assert {b"Date", b"Server", b"X-Request-Id"} <= headers.keys()
            assert (b"Content-Length" in headers) == (method != "DELETE")
            if method == "GET":
                body = await reader.readexactly(int(headers[b"Content-Length"]))
                assert body.startswith(b'{"data":[]')
        if not is_open:
            assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


def put(customer_id: int, token: str, *headers: str) -> bytes:
    body = f'[{{"customer_id":{customer_id},"attribute_id":1,"value":"v"}}]'
    lines = [
        "PUT /stores/sandbox/v3/customers/attribute-values HTTP/1.1",
        "Host: localhost",
        f"X-Auth-Token: {token}",
        f"Content-Length: {len(body)}",
        *headers,
        "",
        body,
    ]
    return "\r\n".join(lines).encode()


async def answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Return the status and body of the next answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
    return head.split()[1], await reader.readexactly(length)


async def test_requests_that_arrive_together_are_answered_in_their_order() -> None:
    async with running(latency_ms=1) as (sandbox, api):
        reader, writer = await asyncio.open_connection("127.0.0.1", sandbox.port)
        writer.write(put(1, api.token))
        await until(lambda: sandbox.requests.seen == 1)
        writer.write(put(2, api.token) + put(3, api.token)[:150])
        for number in (1, 2):
            status, body = await answer(reader)
            assert (status, b'"customer_id":%d,' % number in body) == (b"200", True)
        writer.write(put(3, api.token)[150:])
        assert (await answer(reader))[0] == b"200"
        assert [one.body[16:17] for one in sandbox.requests] == [b"1", b"2", b"3"]
        assert sandbox.peak_in_flight("upsert") == 1
        writer.close()
        await writer.wait_closed()


async def test_large_requests_may_wait_for_the_answer_of_the_first() -> None:
    async with running(faults=[Fault("slow", delay_s=0.05, times=1)]) as (sandbox, api):
        reader, writer = await asyncio.open_connection("127.0.0.1", sandbox.port)
        writer.write(put(1, api.token))
        await until(lambda: sandbox.in_flight() == 1)
        # More than a connection keeps while it is busy.
        assert sandbox._service.backend is not None
        (connection,) = sandbox._service.backend.server.plain
        large = f"GET {URL(api.path).raw_path} HTTP/1.1\r\nHost: a\r\nX-A: {'a' * 8_000}\r\n\r\n"
        writer.write(large.encode() * 10)
        await until(lambda: len(connection._early) > 80_000)
        async with asyncio.timeout(5):
            statuses = [(await answer(reader))[0] for _ in range(11)]
            assert statuses == [b"200", *[b"401"] * 10]
            writer.write(put(3, api.token))
            assert (await answer(reader))[0] == b"200"
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("cut", [10, 100, 135, 150])
async def test_a_request_may_arrive_in_pieces(cut: int) -> None:
    async with running() as (sandbox, api):
        reader, writer = await asyncio.open_connection("127.0.0.1", sandbox.port)
        request = put(1, api.token)
        writer.write(request)
        assert (await answer(reader))[0] == b"200"
        writer.write(request[:cut])
        for _ in range(20):
            await asyncio.sleep(0)
        writer.write(request[cut:])
        assert (await answer(reader))[0] == b"200"
        writer.write(request)
        assert (await answer(reader))[0] == b"200"
        assert await sandbox.count() == 1
        writer.close()
        await writer.wait_closed()


async def test_a_client_that_sends_without_reading_is_read_no_further() -> None:
    async with running(faults=[Fault("hang", times=1)]) as (sandbox, api):
        reader, writer = await asyncio.open_connection("127.0.0.1", sandbox.port)
        request = put(1, api.token)
        writer.write(request)
        await until(lambda: sandbox.in_flight() == 1)
        # More than the buffers of sandbox and sockets hold.
        writer.write(request * 100_000)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await writer.drain()
        assert sandbox.requests.seen == 1
        writer.transport.abort()
        assert await reader.read() == b""


def is_seen_or_late(sandbox: Sandbox, requests: int, patience_s: float) -> bool:
    return sandbox.requests.seen == requests or time.monotonic() > patience_s


async def test_a_client_that_reads_late_gets_all_its_answers() -> None:
    async with running() as (sandbox, api):
        await sandbox.seed((number, 1, "v" * 255) for number in range(1, 251))
        url = URL(api.path)
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", sandbox.port))
        reader, writer = await asyncio.open_connection(sock=client, limit=4096)
        request = (
            f"GET {url.raw_path}?limit=250 HTTP/1.1\r\nHost: localhost\r\n"
            f"X-Auth-Token: {api.token}\r\n\r\n"
        ).encode()
        sent = 0
        while sent == sandbox.requests.seen and sent < 100:
            await until(lambda: not sandbox.in_flight())
            writer.write(request)
            sent += 1
            await until(partial(is_seen_or_late, sandbox, sent, time.monotonic() + 0.15))
        # The sockets hold some answers, and the sandbox one more.
        assert sent < 100
        writer.write(request)
        for _ in range(sent + 1):
            async with asyncio.timeout(5):
                status, body = await answer(reader)
            assert (status, len(json.loads(body)["data"])) == (b"200", 250)
        assert sandbox.requests.seen == sent + 1
        writer.close()
        await writer.wait_closed()


async def test_a_failure_of_the_sandbox_is_answered_500_and_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(resources: Resources, requests: list[Request]) -> list[Applied]:
        raise ZeroDivisionError(resources, requests)

    monkeypatch.setattr(Resources, "apply_together", fail)
    async with running() as (sandbox, api):
        # The first one is counted in a task, the second one needs none.
        for headers in ((), (), ("Connection: close",)):
            reader, writer = await asyncio.open_connection("127.0.0.1", sandbox.port)
            writer.write(put(1, api.token, *headers))
            async with asyncio.timeout(5):
                assert (await reader.read()).split()[1] == b"500"
            writer.close()
            await writer.wait_closed()
        assert [one.status for one in sandbox.requests] == [None] * 3
        assert sandbox.in_flight() == 0
    raised = [record.exc_info[0] for record in caplog.records if record.exc_info]
    assert raised == [ZeroDivisionError] * 3


async def test_a_client_that_goes_away_is_counted_out_and_its_write_is_stored() -> None:
    async with running(max_concurrent_puts=1) as (sandbox, api):
        await api.put(item(9))
        reader, writer = await asyncio.open_connection("127.0.0.1", sandbox.port)
        _, idle = await asyncio.open_connection("127.0.0.1", sandbox.port)
        writer.write(put(1, api.token))
        writer.transport.abort()
        await until(lambda: sandbox.requests.seen == 2)
        await until(lambda: not sandbox.in_flight())
        assert (await api.put(item(2))).status == 200
        assert set(await sandbox.values()) == {(9, 1), (1, 1), (2, 1)}
        assert await reader.read() == b""
        idle.close()
        await idle.wait_closed()


async def test_a_write_that_has_arrived_is_stored_when_the_sandbox_closes(tmp_path: Path) -> None:
    database = tmp_path / "store.db"
    async with running(database) as (sandbox, api):
        reader, writer = await asyncio.open_connection("127.0.0.1", sandbox.port)
        writer.write(put(1, api.token))
        await answer(reader)
        # While another connection is idle, a write waits for a few turns of the loop.
        _, idle = await asyncio.open_connection("127.0.0.1", sandbox.port)
        writer.write(put(2, api.token))
        await until(lambda: sandbox.requests.seen == 2)
        await sandbox.aclose()
        last = sandbox.requests[-1]
        assert (sandbox.in_flight(), last.item_count, last.status) == (0, 1, None)
        for one in (writer, idle):
            one.close()
    async with running(database) as (sandbox, _):
        assert set(await sandbox.values()) == {(1, 1), (2, 1)}
