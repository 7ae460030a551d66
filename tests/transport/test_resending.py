"""What keeps aiohttp from sending again by itself; over HTTP, see `test_session.py`."""

from __future__ import annotations

import aiohttp

from bc_attrvals.transport.resending import no_resend, with_no_resend


async def test_the_private_attribute_of_a_callers_session_is_still_there() -> None:
    """`with_no_resend` in transport/resending.py reads it: see there what is lost without."""

    async def own(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        return await handler(request)

    async with aiohttp.ClientSession(middlewares=(own,)) as session:
        assert with_no_resend(session) == (no_resend, own)
