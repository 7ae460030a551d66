"""Plain heads: parsed as aiohttp parses them, and nothing else is plain."""

from __future__ import annotations

import asyncio
import random

import pytest
from aiohttp import web

from bc_attrvals.sandbox.heads import Head, head_of, plain_head

PATH = b"/stores/sandbox/v3/customers/attribute-values"
HOST = b"Host: 127.0.0.1:8080"


def raw(*lines: bytes, first: bytes = b"GET " + PATH + b" HTTP/1.1") -> bytes:
    return b"\r\n".join([first, *lines])


def test_a_plain_head_is_read() -> None:
    head = plain_head(
        raw(
            HOST,
            b"x-auth-token: secret",
            b"Accept:  application/json ",
            b"Content-Length: 12",
            b"Connection: keep-alive",
            first=b"PUT " + PATH + b"?a=1%2C2&b:in=3 HTTP/1.1",
        ).replace(b"json ", b"json")
    )
    assert head is not None
    assert (head.method, head.raw_path) == ("PUT", PATH.decode() + "?a=1%2C2&b:in=3")
    assert (head.token, head.accept, head.content_type) == (
        b"secret",
        "application/json",
        "application/json",
    )
    assert (head.content_length, head.is_http_11, head.keep_alive) == (12, True, True)
    assert head.shown["X-Auth-Token"] == "***"
    assert "secret" not in repr(head)


@pytest.mark.parametrize(
    "head",
    [
        raw(),
        raw(b"Host: a", b"Host: a"),
        raw(b"Host: a b"),
        raw(b"Host: "),
        raw(HOST, b"Transfer-Encoding: chunked"),
        raw(HOST, b"Content-Encoding: gzip"),
        raw(HOST, b"Expect: 100-continue"),
        raw(HOST, b"Upgrade: websocket"),
        raw(HOST, b"Connection: close"),
        raw(HOST, b"Content-Length: +1"),
        raw(HOST, b"Content-Length: 1, 1"),
        raw(HOST, b"Content-Length: 1", b"content-length: 1"),
        raw(HOST, b"Accept: a", b" b"),
        raw(HOST, b"Accept : a"),
        raw(HOST, b"Accept"),
        raw(HOST, b"Accept: a\tb"),
        raw(HOST, b"Accept: a\0"),
        raw(HOST, b"Accept: \xe9"),
        raw(HOST, b"Accept: a\n"),
        raw(HOST, b"X: " + b"x" * 8_000),
        raw(HOST, *[b"X%d: x" % number for number in range(64)]),
        raw(HOST, first=b"HEAD " + PATH + b" HTTP/1.1"),
        raw(HOST, first=b"GET " + PATH + b" HTTP/1.0"),
        raw(HOST, first=b"GET  " + PATH + b" HTTP/1.1"),
        raw(HOST, first=b"GET " + PATH + b"#a HTTP/1.1"),
        raw(HOST, first=b"GET http://a" + PATH + b" HTTP/1.1"),
        raw(HOST, first=b"GET /sandbox HTTP/1.1"),
        raw(HOST, first=b""),
    ],
)
def test_what_is_not_plain_is_left_to_aiohttp(head: bytes) -> None:
    assert plain_head(head) is None


def random_heads() -> list[bytes]:
    draw = random.Random(1)
    names = [b"Accept", b"accept", b"X-Auth-Token", b"Cookie", b"Content-Type", b"X-A", b"x_b"]
    names += [b"Connection", b"Keep-Alive", b"TE", b"User-Agent"]
    values = [b"a", b"application/json", b"keep-alive", b"a:b", b"a, b; q=0", b'"a"', b"~!", b"Z z"]
    queries = [b"", b"?", b"?a:in=1,2", b"?a=%2c+b", b"??", b"?a=/../b", b"//b", b"/./c:1", b"%00"]
    return [
        raw(
            HOST,
            *[
                draw.choice(names) + b":" + b" " * draw.randrange(3) + draw.choice(values)
                for _ in range(draw.randrange(5))
            ],
            first=draw.choice([b"GET ", b"PUT ", b"POST ", b"DELETE "])
            + PATH
            + draw.choice(queries)
            + b" HTTP/1.1",
        )
        for _ in range(300)
    ]


async def test_plain_heads_are_read_as_aiohttp_reads_them() -> None:
    seen: list[Head] = []

    async def handle(request: web.BaseRequest) -> web.Response:
        seen.append(head_of(request))
        return web.Response()

    server = web.Server(handle)
    accepting = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    host, port = accepting.sockets[0].getsockname()
    reader, writer = await asyncio.open_connection(host, port)
    plain = 0
    for head in random_heads():
        parsed = plain_head(head)
        if parsed is None:
            continue
        plain += 1
        writer.write(head + b"\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        assert seen.pop() == parsed
    assert plain > 100
    writer.close()
    await writer.wait_closed()
    accepting.close()
    await server.shutdown()
