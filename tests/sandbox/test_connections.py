"""Malformed requests: answered, and no error of the sandbox."""

from __future__ import annotations

import asyncio
import logging

import pytest

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
