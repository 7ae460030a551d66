"""Serves connections: plain requests at once, all others by aiohttp's server.

aiohttp takes most of the time that a small request needs. So a connection parses the requests that
arrive whole, one after the other, if they are plain: see `heads`. From the first other one on,
aiohttp serves the connection. Both keep a handler running when its client disconnects, as a service
would. The sandbox counts such requests separately, so it is called when a connection is lost.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from asyncio.trsock import TransportSocket
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, cast

import attrs
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpProcessingError
from aiohttp.web_protocol import RequestHandler
from msgspec import Struct

from bc_attrvals.sandbox.heads import Head, head_of, plain_head

# Linger on, for 0 seconds: closing sends a reset instead of an orderly end.
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
_MOST_EARLY_BYTES: Final = 65_536


def _is_a_fault_here(record: logging.LogRecord) -> bool:
    """Return False for a malformed request, which is answered 400 and is the client's mistake."""
    return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)


_LOG: Final = logging.getLogger(__name__)
_LOG.addFilter(_is_a_fault_here)


class Reply(Struct, frozen=True):
    """A whole answer as it is sent, and whether the connection stays open after it."""

    status: int
    content: bytes
    keep_alive: bool


@attrs.define
class Exchange:
    """One request and its connection; `connection` identifies it."""

    head: Head
    connection: object
    transport: asyncio.Transport | None
    body: bytes = attrs.field(default=b"", repr=False)

    async def read_body(self) -> bytes:
        """Return the whole body."""
        return self.body

    def is_connected(self) -> bool:
        """Whether an answer could still reach the client."""
        return self.transport is not None and not self.transport.is_closing()

    def drop(self, *, reset: bool) -> None:
        """Close the connection without an answer, by a reset or an orderly close."""
        if self.transport is not None:
            found: object = self.transport.get_extra_info("socket")
            if reset and isinstance(found, TransportSocket):
                found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self.transport.abort()


class AiohttpExchange(Exchange):
    """A request that aiohttp has parsed; its body may still be on its way."""

    def __init__(self, request: web.BaseRequest) -> None:
        super().__init__(head_of(request), request.protocol, request.transport)
        self._request = request

    async def read_body(self) -> bytes:
        """Read the body. Raises what aiohttp does for one too large or cut off."""
        return await self._request.read()


def failure(error: Exception) -> Reply:
    """Log a failure of the sandbox itself; returns the reply."""
    _LOG.error("Error handling a request", exc_info=error)
    head = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    return Reply(500, head, keep_alive=False)


class Serving(Protocol):
    """What serves the requests."""

    def serve_at_once(self, exchange: Exchange, send: Callable[[Reply], None]) -> bool:
        """Serve a request that needs no task, and send its reply; False if it needs one."""

    async def serve(self, exchange: Exchange) -> Reply | None:
        """Serve a request; returns its reply, None if its connection was dropped."""

    def abandoned(self, connection: object) -> None:
        """Note that a connection was lost."""


class ConnectionServer(web.Server):
    """The open connections, and aiohttp's low-level server for those that are not plain."""

    def __init__(
        self,
        serving: Serving,
        serve_by_aiohttp: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        *,
        max_line_size: int,
    ) -> None:
        super().__init__(
            serve_by_aiohttp, access_log=None, max_line_size=max_line_size, logger=_LOG
        )
        #: The open connections whose requests were all plain so far.
        self.plain: set[PlainConnection] = set()
        self.serving = serving

    def __len__(self) -> int:
        """Return how many connections are open."""
        return len(self.plain) + len(self.connections)

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        """Report the loss. Called by aiohttp."""
        super().connection_lost(handler, exc)
        self.serving.abandoned(handler)

    def abort_all(self) -> None:
        """Close every connection, without sending what is buffered."""
        connections: list[PlainConnection | RequestHandler] = [*self.plain, *self.connections]
        for connection in connections:
            if connection.transport is not None:
                connection.transport.abort()


class PlainConnection(asyncio.Protocol):
    """A connection to the sandbox, until its first request that is not plain."""

    def __init__(self, server: ConnectionServer) -> None:
        self.transport: asyncio.Transport | None = None
        self._server = server
        self._task: asyncio.Task[None] | None = None
        self._is_busy = False
        self._is_full = False
        # What arrives before the last answer is sent.
        self._early = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection. Called by the loop."""
        self.transport = cast("asyncio.Transport", transport)
        self._server.plain.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Report the loss. Called by the loop."""
        del exc
        self._server.plain.discard(self)
        self._server.serving.abandoned(self)

    def pause_writing(self) -> None:
        """Handle no request until the client has read more. Called by the loop."""
        self._is_full = True

    def resume_writing(self) -> None:
        """Handle the next request. Called by the loop."""
        self._is_full = False
        self._go_on()

    def data_received(self, data: bytes) -> None:
        """Handle a request. Called by the loop."""
        transport = self.transport
        if transport is None:
            return
        if self._is_busy or self._is_full:
            self._early += data
            if len(self._early) > _MOST_EARLY_BYTES:
                transport.pause_reading()
            return
        raw_head, end, body = data.partition(b"\r\n\r\n")
        head = plain_head(raw_head) if end else None
        if head is None or len(body) != head.content_length:
            self._hand_over(transport, data)
            return
        self._is_busy = True
        exchange = Exchange(head, self, transport, body)
        if not self._server.serving.serve_at_once(exchange, self._send):
            self._task = asyncio.get_running_loop().create_task(self._serve(exchange))

    async def _serve(self, exchange: Exchange) -> None:
        try:
            reply = await self._server.serving.serve(exchange)
        except Exception as error:  # noqa: BLE001 - as aiohttp does for its requests
            reply = failure(error)
        finally:
            self._task = None
        if reply is not None:
            self._send(reply)

    def _send(self, reply: Reply) -> None:
        self._is_busy = False
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        transport.write(reply.content)
        if reply.keep_alive:
            self._go_on()
        else:
            transport.close()

    def _go_on(self) -> None:
        """Let aiohttp handle what arrived too early, if the connection is free for it."""
        if self._early and self.transport is not None and not self._is_busy and not self._is_full:
            self._hand_over(self.transport, self._early)

    def _hand_over(self, transport: asyncio.Transport, data: bytes) -> None:
        """Let aiohttp serve the connection from here on."""
        self._server.plain.discard(self)
        handler = self._server()
        transport.resume_reading()
        transport.set_protocol(handler)
        handler.connection_made(transport)
        handler.data_received(data)


class ReadyResponse(web.StreamResponse):
    """A whole answer as bytes; aiohttp builds no headers for it."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(status=reply.status)
        self._reply = reply

    @property
    def keep_alive(self) -> bool:
        """Whether the connection stays open for the next request."""
        return self._reply.keep_alive

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        """Write it all. Raises ConnectionError if the connection is closing."""
        writer = request.writer
        await writer.write(self._reply.content)
        await writer.drain()
        return writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Do nothing: all is written."""
