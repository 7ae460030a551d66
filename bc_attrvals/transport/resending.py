"""Keeps aiohttp from resending a request by itself, and notes which request opened a connection.

Used by the session. aiohttp sends an idempotent request again when a kept-alive connection drops
(RFC 9112, section 9.3.1). That request would have no slot and no quota unit.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Final

import aiohttp
from aiohttp.abc import AbstractStreamWriter

from bc_attrvals.transport.deadlines import Deadline
from bc_attrvals.transport.failures import lost_before_answer

JSON: Final = "application/json"
#: The deadline of the request under way, noted on when a socket is made for it.
attempt_under_way: ContextVar[Deadline | None] = ContextVar("attempt_under_way", default=None)


class Body(aiohttp.Payload):
    """The JSON of a write. aiohttp does not send it a second time, because it is `consumed`.

    aiohttp before 3.14.1 does not check that; there a second write raises.
    """

    consumed = True
    autoclose = True
    size = 0

    def __init__(self, content: bytes) -> None:
        # What aiohttp makes of bytes, without its search by type: 1.2 % of a PUT of ten items.
        super().__init__(content, content_type=JSON)
        self._content = content
        self.size = len(content)
        self.was_written = False

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return the JSON as a string."""
        return self._content.decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write it, once."""
        await self.write_with_length(writer, None)

    async def write_with_length(
        self, writer: AbstractStreamWriter, content_length: int | None
    ) -> None:
        """Write it, once; its size is the content's length."""
        del content_length
        if self.was_written:
            # The new connection was made to send it again; the lost one may have been an old one.
            if (attempt := attempt_under_way.get()) is not None:
                attempt.has_connected = False
            raise ConnectionResetError("the connection was lost after the body was sent")
        self.was_written = True
        await writer.write(self._content)


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
