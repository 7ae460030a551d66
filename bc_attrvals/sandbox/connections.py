"""Adapts aiohttp's server: watches connections, and cuts them off.

aiohttp keeps a handler running when its client disconnects, as a service would. The sandbox counts
such requests separately, so it watches the connection of each request.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from asyncio.trsock import TransportSocket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from aiohttp import web
from aiohttp.http import HttpProcessingError
from aiohttp.web_protocol import RequestHandler

# Linger on, for 0 seconds: closing sends a reset instead of an orderly end.
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


def _is_a_fault_here(record: logging.LogRecord) -> bool:
    """Return False for a malformed request, which is answered 400 and is the client's mistake."""
    return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)


_LOG: Final = logging.getLogger(__name__)
_LOG.addFilter(_is_a_fault_here)


class ConnectionServer(web.Server):
    """aiohttp's low-level server, with a callback for the loss of each connection."""

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        *,
        max_line_size: int,
    ) -> None:
        super().__init__(handler, access_log=None, max_line_size=max_line_size, logger=_LOG)
        self._transports: dict[RequestHandler, asyncio.Transport] = {}
        self._when_lost: dict[RequestHandler, Callable[[], None]] = {}

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        """Remember the transport. Called by aiohttp."""
        super().connection_made(handler, transport)
        self._transports[handler] = transport

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        """Call the connection's watcher. Called by aiohttp."""
        super().connection_lost(handler, exc)
        self._transports.pop(handler, None)
        when_lost = self._when_lost.pop(handler, None)
        if when_lost is not None:
            when_lost()

    def watch(self, request: web.BaseRequest, when_lost: Callable[[], None]) -> None:
        """Call `when_lost` once if the request's connection ends; a connection has one watcher."""
        self._when_lost[request.protocol] = when_lost

    def unwatch(self, request: web.BaseRequest) -> None:
        """Stop watching the request's connection."""
        self._when_lost.pop(request.protocol, None)

    def abort_all(self) -> None:
        """Close every connection that is still open, without sending what is buffered."""
        for transport in list(self._transports.values()):
            transport.abort()


def is_connected(request: web.BaseRequest) -> bool:
    """Whether an answer could still reach the client."""
    transport = request.transport
    return transport is not None and not transport.is_closing()


def drop(request: web.BaseRequest, *, reset: bool) -> web.StreamResponse:
    """Close the connection without an answer, by a reset or an orderly close.

    The response returned is never sent.
    """
    transport = request.transport
    if transport is not None:
        found: object = transport.get_extra_info("socket")
        if reset and isinstance(found, TransportSocket):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        transport.abort()
    return web.Response()


async def send_cut_off(
    request: web.BaseRequest, response: web.Response, body: bytes
) -> web.StreamResponse:
    """Send the head of the response and half of `body`, then close the connection."""
    cut = web.StreamResponse(status=response.status, headers=response.headers)
    cut.content_length = len(body)
    # The client may be gone already.
    with suppress(ConnectionError):
        await cut.prepare(request)
        await cut.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.close()
    return cut
