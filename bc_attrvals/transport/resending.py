"""Keeps aiohttp from resending a request by itself, and notes which request opened a connection.

Used by the session. aiohttp sends an idempotent request again when a kept-alive connection drops
(RFC 9112, section 9.3.1). That request would have no slot and no quota unit.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextvars import ContextVar

import aiohttp

from bc_attrvals.transport.deadlines import Deadline
from bc_attrvals.transport.failures import lost_before_answer

#: The deadline of the request under way, noted on when a socket is made for it.
attempt_under_way: ContextVar[Deadline | None] = ContextVar("attempt_under_way", default=None)


def new_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """Make a socket as aiohttp does, and note that the present request opened a connection."""
    attempt = attempt_under_way.get()
    if attempt is not None:
        attempt.has_connected = True
    family, kind, protocol, *_ = address
    return socket.socket(family, kind, protocol)


async def no_resend(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Turn a lost connection into our error, which aiohttp does not resend for."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        # The request was not sent, and aiohttp does not send it again.
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        lost = lost_before_answer(error)
    raise lost


def with_no_resend(
    session: aiohttp.ClientSession,
) -> tuple[aiohttp.ClientMiddlewareType, ...] | None:
    """Return the middlewares for requests over a caller's session: `no_resend`, then its own.

    This reads the only private attribute of aiohttp in use. Middlewares given for one request
    replace those of the session, and aiohttp has no public way to read these. Without them, a
    caller's session may send a request twice that was admitted once. If aiohttp renames the
    attribute, this returns None, and `tests/transport/test_session.py` fails.
    """
    own: Sequence[aiohttp.ClientMiddlewareType] | None = getattr(session, "_middlewares", None)
    return None if own is None else (no_resend, *own)
