"""A server that says exactly the bytes it is told to: for answers no decent server would give."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import parse_qs

import attrs

from bc_attrvals import RetryPolicy, Store

TOKEN = "t0ken-nobody-may-see"


@attrs.frozen
class RawRequest:
    """One request as it came; `connection` counts from 1."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    connection: int

    @property
    def query(self) -> dict[str, str]:
        query = parse_qs(self.target.partition("?")[2])
        return {name: values[0] for name, values in query.items()}

    @property
    def page(self) -> int:
        return int(self.query["page"])

    @property
    def items(self) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = json.loads(self.body)
        return items


class Connection:
    """What a script may do to the connection it got a request on."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def say(self, raw: bytes) -> None:
        self._writer.write(raw)
        await self._writer.drain()

    def close(self) -> None:
        self._writer.close()

    def reset(self) -> None:
        """Close with a reset, not an orderly end."""
        found = self._writer.get_extra_info("socket")
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def hang(self) -> None:
        """Say nothing until the client goes away."""
        with suppress(ConnectionError):
            while await self._reader.read(1024):
                pass


Script = Callable[[RawRequest, Connection], Awaitable[None]]


class RawServer:
    """Serves on loopback by calling one script for each request."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[RawRequest] = []
        self.connections = 0
        self.open_connections = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def stop_listening(self) -> None:
        """Refuse connections from here on; those there are stay."""
        self._server.close()

    async def aclose(self) -> None:
        self.stop_listening()
        for writer in list(self._writers):
            writer.transport.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of our own: asyncio before 3.12 reports a cancelled one as an error.
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self.connections += 1
        self.open_connections += 1
        number = self.connections
        try:
            while (request := await _read_request(reader, number)) is not None:
                self.requests.append(request)
                await self.script(request, Connection(reader, writer))
                if writer.is_closing():
                    return
        except ConnectionError:
            pass
        finally:
            self.open_connections -= 1
            self._writers.discard(writer)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


async def _read_request(reader: asyncio.StreamReader, connection: int) -> RawRequest | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head[:-4].split("\r\n")
    method, target, _ = first.split(" ")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return RawRequest(method, target, headers, body, connection)


def answer(
    body: bytes = b"",
    status: int = 200,
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
) -> bytes:
    """Return a whole, well-formed answer."""
    pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
    lines = [f"HTTP/1.1 {status} Said", *(f"{name}: {value}" for name, value in pairs)]
    lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def row(id: int, customer_id: int, attribute_id: int = 1, value: str = "v") -> dict[str, Any]:
    """Return one row as the service writes it."""
    return {
        "id": id,
        "customer_id": customer_id,
        "attribute_id": attribute_id,
        "attribute_value": value,
        "date_created": "2024-10-24T04:32:20Z",
        "date_modified": "2024-10-24T04:32:20Z",
    }


def page_body(
    rows: list[dict[str, Any]], *, total: int, per_page: int, page: int, total_pages: int
) -> bytes:
    """Return the body of one page of a listing."""
    pagination = {
        "total": total,
        "count": len(rows),
        "per_page": per_page,
        "current_page": page,
        "total_pages": total_pages,
    }
    return json.dumps({"data": rows, "meta": {"pagination": pagination}}).encode()


def rows_body(rows: list[dict[str, Any]]) -> bytes:
    """Return the body of the answer to a PUT."""
    return json.dumps({"data": rows, "meta": {}}).encode()


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[RawServer]:
    """Serve a script."""
    server = RawServer(script)
    await server.start()
    try:
        yield server
    finally:
        await server.aclose()


@asynccontextmanager
async def store_on(script: Script, **options: Any) -> AsyncIterator[tuple[Store, RawServer]]:
    """Serve a script, and open a Store on it."""
    options.setdefault("retry", RetryPolicy(base_s=0.001, cap_s=0.01))
    async with (
        serving(script) as server,
        Store("hash", TOKEN, base_url=server.url, **options) as store,
    ):
        yield store, server
