"""Prebuilt pages over loopback, from a process of its own, so that the client is what is measured.

An asyncio `Protocol` and no framework: it costs a fraction of what any client does. The store's
hash says how many rows the store holds, so that one server has all sizes: `hash_of(rows)`. Row n
belongs to customer n and attribute 1 and holds `value_of(n)`. A PUT is answered with its own rows,
as the service does, and forgotten. Each answer counts a quota down. It serves on two ports, with
TLS and without.
"""

from __future__ import annotations

import asyncio
import sys
import time
from functools import lru_cache

import msgspec

from bc_attrvals.sandbox.certificates import Authority
from benchmarks.harness import Child, say

_DATES = b'"date_created":"2024-10-24T04:32:20Z","date_modified":"2025-02-03T17:05:41Z"'
_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
    b"X-Request-Id: 8a1f0f2f6d7b4c0f9d0e6a3b5c7d9e1f\r\n"
    b"X-Rate-Limit-Time-Window-Ms: 30000\r\n"
    b"X-Rate-Limit-Time-Reset-Ms: %d\r\n"
    b"X-Rate-Limit-Requests-Quota: %d\r\n"
    b"X-Rate-Limit-Requests-Left: %d\r\n"
    b"Content-Length: %d\r\n\r\n"
)
_WINDOW_MS, _QUOTA = 30_000, 100_000_000


def hash_of(rows: int, *, prebuilt: bool = False) -> str:
    """Return the hash of the store that holds so many rows.

    Pages are built once where they are `prebuilt`, else anew for each request.
    """
    return f"{'p' if prebuilt else 'r'}{rows}"


def value_of(number: int) -> str:
    """Return the value of a row."""
    return f"value {number}"


class _Quota:
    """A quota that counts down as a store's does, and that is never spent."""

    def __init__(self) -> None:
        self._window = self._used = 0

    def head(self, size: int) -> bytes:
        """Return the head of an answer whose body has so many bytes."""
        window, into_ms = divmod(int(1_000 * time.monotonic()), _WINDOW_MS)
        if window != self._window:
            self._window, self._used = window, 0
        self._used += 1
        return _HEAD % (_WINDOW_MS - into_ms, _QUOTA, _QUOTA - self._used, size)


_quota = _Quota()


def _page(rows: int, page: int, limit: int) -> bytes:
    first = (page - 1) * limit + 1
    data = b",".join(
        b'{"id":%d,"attribute_id":1,"attribute_value":"value %d","customer_id":%d,%s}'
        % (n, n, n, _DATES)
        for n in range(first, min(first + limit, rows + 1))
    )
    count = max(0, min(limit, rows + 1 - first))
    meta = b'"total":%d,"count":%d,"per_page":%d,"current_page":%d,"total_pages":%d' % (
        rows,
        count,
        limit,
        page,
        -(-rows // limit),
    )
    links = b'"links":{"previous":"?page=%d","current":"?page=%d","next":"?page=%d"}' % (
        page - 1,
        page,
        page + 1,
    )
    return b'{"data":[%s],"meta":{"pagination":{%s,%s}}}' % (data, meta, links)


_prebuilt_page = lru_cache(maxsize=400)(_page)


class _Row(msgspec.Struct):
    attribute_id: int
    value: str
    customer_id: int


_ROWS = msgspec.json.Decoder(list[_Row])
_ENCODE = msgspec.json.encode


def _echo(body: bytes) -> bytes:
    data = b",".join(
        b'{"id":%d,"attribute_id":%d,"attribute_value":%s,"customer_id":%d,%s}'
        % (row.customer_id, row.attribute_id, _ENCODE(row.value), row.customer_id, _DATES)
        for row in _ROWS.decode(body)
    )
    return b'{"data":[%s],"meta":{}}' % data


class _Connection(asyncio.Protocol):
    """Answers one request after the other; bodies need a Content-Length."""

    def __init__(self) -> None:
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received = received = self._received + data if self._received else data
        end = received.find(b"\r\n\r\n")
        if end < 0:
            return
        method, path, _ = received[: received.index(b"\r\n")].split(b" ")
        size = 0
        if method == b"PUT":
            # Clients write the name as they like.
            at = received[:end].lower().index(b"content-length:") + len(b"content-length:")
            size = int(received[at : received.index(b"\r\n", at)])
        if len(received) < end + 4 + size:
            return
        self._received = b""
        store = path.split(b"/", 3)[2]
        if method == b"PUT":
            body = _echo(received[end + 4 :])
        else:
            query = dict(part.split(b"=") for part in path.partition(b"?")[2].split(b"&"))
            build = _prebuilt_page if store[:1] == b"p" else _page
            body = build(int(store[1:]), int(query[b"page"]), int(query[b"limit"]))
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(_quota.head(len(body)) + body)


class PageServer(Child):
    """`with PageServer() as server:`; then `server.url` or `server.tls_url`.

    A client of the latter trusts `server.ca_file`.
    """

    def __init__(self) -> None:
        """Start the process and wait until it serves."""
        super().__init__("benchmarks.page_server")
        self.url, self.tls_url, self.ca_file = self.answer()


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    authority = Authority(None, "127.0.0.1")
    plain = await loop.create_server(_Connection, "127.0.0.1", 0)
    tls = await loop.create_server(_Connection, "127.0.0.1", 0, ssl=authority.context)
    port, tls_port = (one.sockets[0].getsockname()[1] for one in (plain, tls))
    urls = f"http://127.0.0.1:{port}", f"https://127.0.0.1:{tls_port}"
    say([*urls, str(authority.ca_file)])
    # Until the process that started this one closes its input or ends.
    await asyncio.to_thread(sys.stdin.read)
    authority.close()


if __name__ == "__main__":
    asyncio.run(_serve())
