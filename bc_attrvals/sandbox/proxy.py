"""An HTTPS proxy that leads one host to the sandbox and refuses all others.

SDKs fix `https://api.bigcommerce.com` as their address. Behind this proxy they reach the sandbox
unchanged: CONNECT to that host opens a tunnel to the sandbox's own TLS port. The proxy does not
read what goes through.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from http import HTTPStatus
from typing import Final

from bc_attrvals.sandbox.certificates import SERVICE_HOST

_HEAD_BYTES: Final = 16_384
_HEAD_S: Final = 10.0
_CHUNK_BYTES: Final = 65_536


class ConnectProxy:
    """A proxy for the method CONNECT, from `start` to `aclose`."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._tunnels: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int) -> int:
        """Listen, on a free port if it is 0; returns the port. Raises OSError if it is taken."""
        self._server = await asyncio.start_server(self._accept, host, port, limit=_HEAD_BYTES)
        return int(self._server.sockets[0].getsockname()[1])

    async def aclose(self) -> None:
        """Stop listening and cut all tunnels."""
        if self._server is not None:
            self._server.close()
        tunnels = list(self._tunnels)
        for tunnel in tunnels:
            tunnel.cancel()
        await asyncio.gather(*tunnels, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tunnels.add(task)
        task.add_done_callback(self._tunnels.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                refusal = await self._refusal(reader)
                if refusal is None:
                    await self._tunnel(reader, writer)
                else:
                    writer.write(refusal)
                    await writer.drain()
        finally:
            writer.close()

    async def _refusal(self, reader: asyncio.StreamReader) -> bytes | None:
        """Read the request's head; returns the refusal, None to open the tunnel."""
        try:
            async with asyncio.timeout(_HEAD_S):
                head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return _refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "The head is too long.")
        method, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
        if method != "CONNECT":
            return _refuse(HTTPStatus.METHOD_NOT_ALLOWED, "This proxy takes CONNECT only.")
        if rest.partition(" ")[0].lower() != f"{SERVICE_HOST}:443":
            return _refuse(HTTPStatus.FORBIDDEN, f"This proxy leads to {SERVICE_HOST} only.")
        return None

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection(*self._target)
        try:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            ways = [
                asyncio.create_task(_copy(reader, inner_writer)),
                asyncio.create_task(_copy(inner_reader, writer)),
            ]
            try:
                # Either end may close; TLS has no use for a half-open connection.
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        finally:
            inner_writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while chunk := await reader.read(_CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()


def _refuse(status: HTTPStatus, text: str) -> bytes:
    body = f"{text}\n".encode()
    return (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: text/plain\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    ).encode() + body
