"""Adapts aiohttp's server: watches connections, and cuts them off.

aiohttp keeps a handler running when its client disconnects, as a service would. The sandbox counts
such requests separately, so it watches the connection of each request.
"""

from __future__ import annotations

import logging
import socket
import struct
from asyncio.trsock import TransportSocket
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpProcessingError
from aiohttp.web_protocol import RequestHandler

W = TypeVar("W")

# Linger on, for 0 seconds: closing sends a reset instead of an orderly end.
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


def _is_a_fault_here(record: logging.LogRecord) -> bool:
    """Return False for a malformed request, which is answered 400 and is the client's mistake."""
    return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)


_LOG: Final = logging.getLogger(__name__)
_LOG.addFilter(_is_a_fault_here)


class ConnectionServer(web.Server, Generic[W]):
    """aiohttp's low-level server, with a callback for each request whose connection is lost."""

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        when_lost: Callable[[W], None],
        *,
        max_line_size: int,
    ) -> None:
        super().__init__(handler, access_log=None, max_line_size=max_line_size, logger=_LOG)
        #: What `when_lost` is called with if this connection is lost.
        self.watched: dict[RequestHandler, W] = {}
        self._when_lost = when_lost

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        """Call back for the connection's request. Called by aiohttp."""
        super().connection_lost(handler, exc)
        watched = self.watched.pop(handler, None)
        if watched is not None:
            self._when_lost(watched)

    def has_idle_connections(self) -> bool:
        """Whether a client could send another request over an open connection."""
        return len(self.watched) < len(self.connections)

    def abort_all(self) -> None:
        """Close every connection, without sending what is buffered."""
        for connection in self.connections:
            if connection.transport is not None:
                connection.transport.abort()


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


class ReadyResponse(web.StreamResponse):
    """A response whose head and body are bytes already; aiohttp builds no headers for it."""

    def __init__(self, status: int, content: bytes, *, keep_alive: bool) -> None:
        super().__init__(status=status)
        self._content = content
        self._is_kept_alive = keep_alive

    @property
    def keep_alive(self) -> bool:
        """Whether the connection stays open for the next request."""
        return self._is_kept_alive

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        """Write it all. Raises ConnectionError if the connection is closing."""
        writer = request.writer
        await writer.write(self._content)
        await writer.drain()
        return writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Do nothing: all is written."""
