"""Malformed requests: answered, and no error of the sandbox."""

from __future__ import annotations

import asyncio
import logging

import pytest
from yarl import URL

from tests.sandbox.api import running


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
