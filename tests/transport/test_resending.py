"""What keeps aiohttp from sending again by itself; over HTTP, see `test_session.py`."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from bc_attrvals.transport.deadlines import Deadlines
from bc_attrvals.transport.resending import Body, attempt_under_way, no_resend, with_no_resend


async def test_the_private_attribute_of_a_callers_session_is_still_there() -> None:
    """`with_no_resend` in transport/resending.py reads it: see there what is lost without."""

    async def own(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        return await handler(request)

    async with aiohttp.ClientSession(middlewares=(own,)) as session:
        assert with_no_resend(session) == (no_resend, own)


async def test_a_body_is_written_once_where_aiohttp_does_not_ask_whether_it_may_be_again() -> None:
    """aiohttp before 3.14.1 sends a PUT again without a look at `consumed`."""
    written: list[bytes] = []

    class Writer:
        async def write(self, chunk: bytes) -> None:
            written.append(chunk)

    writer: Any
    body, writer = Body(b"[]"), Writer()
    attempt = Deadlines().begin(30.0)
    attempt.has_connected = True
    attempt_under_way.set(attempt)
    assert (body.consumed, body.size, body.decode(), await body.as_bytes()) == (
        True,
        2,
        "[]",
        b"[]",
    )
    await body.write(writer)
    with pytest.raises(ConnectionResetError):
        await body.write(writer)
    assert written == [b"[]"]
    # The connection that aiohttp has made to send it again is not the one that was lost.
    assert not attempt.has_connected
