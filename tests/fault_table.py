"""What each fault must give, and how a raw server serves it: the rows of `test_fault_matrix.py`."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Mapping
from typing import Any

import attrs

from tests.raw_server import Connection, RawRequest, Script, answer, page_body, row

OK = "ok"
#: Two tries in all: whether a fault is tried again shows in the count.
TRIES = 2
#: What a request refused for load without end is sent: `_REFUSALS_PER_ATTEMPT` for each try.
REFUSALS = 4 * TRIES
#: With headers five waits for the window come before that.
QUOTA_REFUSALS = 5 + REFUSALS


@attrs.frozen
class Row:
    """One fault: the error of a read, a write and a delete (`ok`: none), and what is done then.

    `sent` is how often a request is sent that meets nothing else; `ends` whether a bulk job is over
    with it; `timeout` the seconds of a try. `bulk` is the error of a bulk write, where it is not
    that of a single one: what no answer confirms is read back. `is_odd_row` marks a page of which
    one row can't be read: what that costs those who need parts of rows, `test_odd_rows.py` shows.
    """

    name: str
    script: Script
    read: str
    write: str
    delete: str
    sent: int = TRIES
    ends: bool = False
    timeout: float = 10.0
    bulk: str | None = None
    is_odd_row: bool = False


def say(raw: bytes) -> Script:
    """Say these bytes, then close the connection."""

    async def script(_: RawRequest, connection: Connection) -> None:
        await connection.say(raw)
        connection.close()

    return script


def keep(raw: bytes) -> Script:
    """Say these bytes, which are a whole answer, and keep the connection."""

    async def script(_: RawRequest, connection: Connection) -> None:
        await connection.say(raw)

    return script


def then_reset(raw: bytes) -> Script:
    """Say these bytes, and reset the connection once they have arrived."""

    async def script(_: RawRequest, connection: Connection) -> None:
        if raw:
            await connection.say(raw)
            # Client and server share the loop: in these turns it reads what was said.
            for _ in range(5):
                await asyncio.sleep(0)
        connection.reset()

    return script


def then_hang(raw: bytes) -> Script:
    """Say these bytes, then nothing."""

    async def script(_: RawRequest, connection: Connection) -> None:
        await connection.say(raw)
        await connection.hang()

    return script


def drip(raw: bytes) -> Script:
    """Say a byte now and again, and never come to an end."""

    async def script(_: RawRequest, connection: Connection) -> None:
        for byte in raw:
            await connection.say(bytes([byte]))
            await asyncio.sleep(0.03)
        await connection.hang()

    return script


async def endless(_: RawRequest, connection: Connection) -> None:
    await connection.say(HEAD + b"\r\n")
    while True:
        await connection.say(b" " * 65536)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
PAGE = page_body([row(1, 1)], total=1, per_page=250, page=1, total_pages=1)
GOOD = answer(PAGE)
ZIPPED = gzip.compress(PAGE)
BOMB = gzip.compress(b" " * 2**22, 9)


def lost(name: str, script: Script) -> Row:
    """Return the row of a fault of the connection: sent, no answer."""
    error = "ConnectionLostError"
    return Row(name, script, error, error, error)


def late(name: str, script: Script) -> Row:
    """Return the row of an answer that does not come in time."""
    error = "RequestTimeoutError"
    return Row(name, script, error, error, error, timeout=0.12)


def garbled(
    name: str, body: bytes, headers: Mapping[str, str] | None = None, status: int = 200
) -> Row:
    """Return the row of a 200 that can't be read, and so confirms neither write nor delete."""
    script = keep(answer(body, status, headers or {}))
    unconfirmed = "UnconfirmedError"
    return Row(name, script, "DecodeError", "DecodeError", unconfirmed, bulk=unconfirmed)


def refused(
    status: int,
    error: str,
    body: bytes = b'{"title": "no"}',
    *,
    name: str | None = None,
    headers: Mapping[str, str] | None = None,
    sent: int = 1,
    ends: bool = False,
) -> Row:
    """Return the row of an answer with the status of an error."""
    script = keep(answer(body, status, headers or {}))
    return Row(name or str(status), script, error, error, error, sent=sent, ends=ends)


def _page(**changes: Any) -> bytes:
    document = json.loads(PAGE)
    for path, value in changes.items():
        place = document
        *steps, last = path.split("__")
        for step in steps:
            place = place[int(step) if isinstance(place, list) else step]
        place[last] = value
    return json.dumps(document).encode()


TABLE = [
    lost("reset at once", then_reset(b"")),
    lost("closed at once", say(b"")),
    lost("closed in the status line", say(b"HTTP/1.1 2")),
    lost("reset in the headers", then_reset(HEAD + b"X-Half: ")),
    lost("closed in the headers", say(HEAD + b"X-Half: ")),
    lost("reset in the body", then_reset(GOOD[:-9])),
    lost("closed in the body: a length too long", say(GOOD[:-9])),
    lost("a length that is no number", say(HEAD + b"Content-Length: many\r\n\r\n{}")),
    lost("a negative length", say(HEAD + b"Content-Length: -2\r\n\r\n{}")),
    lost("two lengths", say(HEAD + b"Content-Length: 2\r\nContent-Length: 5\r\n\r\n{}   ")),
    lost(
        "a length and chunks",
        say(HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"),
    ),
    lost("a bad chunk", say(HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n")),
    lost("chunks that stop", say(HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n")),
    lost("no HTTP", say(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")),
    lost("noise", say(bytes(range(256)) * 4)),
    lost("a status of five digits", say(b"HTTP/1.1 99999 OK\r\n\r\n")),
    lost("an endless header", say(HEAD + b"X-Long: " + b"x" * 70_000 + b"\r\n\r\n")),
    lost("bad gzip", say(answer(b"never zipped", headers={"Content-Encoding": "gzip"}))),
    late("nothing at all", then_hang(b"")),
    late("headers without end", then_hang(HEAD)),
    late("a body that stops", then_hang(GOOD[:-9])),
    late("headers by drops", drip(HEAD)),
    late("a body by drops", drip(GOOD)),
    Row(
        "a body without end",
        endless,
        "DecodeError",
        "DecodeError",
        "DecodeError",
        bulk="UnconfirmedError",
    ),
    Row(
        "a gzip bomb",
        say(answer(BOMB, headers={"Content-Encoding": "gzip"})),
        "DecodeError",
        "DecodeError",
        "DecodeError",
        bulk="UnconfirmedError",
    ),
    garbled("a length too short", PAGE[:-9]),
    attrs.evolve(garbled("200 with nothing", b""), delete=OK),
    attrs.evolve(garbled("200 with an empty object", b"{}"), delete=OK),
    garbled("200 with errors", b'{"errors": [{"status": 500}]}'),
    garbled("200 with a title", b'{"title": "An error occurred"}'),
    garbled("202 with nothing", b"", status=202),
    garbled("202 with an empty object", b"{}", status=202),
    garbled("207 with a body", b'{"data": [{"status": 500}]}', status=207),
    garbled("200 with HTML", b"<html>all is well</html>"),
    garbled("200 with null", b"null"),
    garbled("200 with an array", b"[]"),
    attrs.evolve(garbled("200 with data null", b'{"data": null}'), delete=OK),
    garbled("200 with half a page", PAGE[: len(PAGE) // 2]),
    garbled("200 in UTF-16", PAGE.decode().encode("utf-16"), {"Content-Type": "x; charset=utf-16"}),
    attrs.evolve(
        garbled("200 with bytes that are no UTF-8", PAGE.replace(b'"v"', b'"\xff"')),
        is_odd_row=True,
    ),
    garbled("200 nested deeply", b'{"data":' + b"[" * 20_000),
    garbled("200 with NaN for an id", PAGE.replace(b'"id": 1', b'"id": NaN')),
    garbled("200 with an endless number", PAGE.replace(b'"id": 1', b'"id": ' + b"9" * 20_000)),
    attrs.evolve(garbled("200 with an id as a string", _page(data__0__id="1")), is_odd_row=True),
    attrs.evolve(
        garbled(
            "200 with a date of no calendar", _page(data__0__date_created="2024-02-31T00:00:00Z")
        ),
        is_odd_row=True,
    ),
    Row(
        "204 for 200",
        keep(b"HTTP/1.1 204 No Content\r\n\r\n"),
        "DecodeError",
        "DecodeError",
        OK,
        bulk="UnconfirmedError",
    ),
    refused(101, "APIError"),
    refused(302, "APIError", headers={"Location": "http://192.0.2.1/stolen"}, ends=True),
    refused(307, "APIError", headers={"Location": "//192.0.2.1/stolen"}, ends=True),
    refused(400, "APIError"),
    refused(401, "AuthenticationError", ends=True),
    refused(401, "AuthenticationError", b"<html>", name="401 with HTML", ends=True),
    Row(
        "401 cut off",
        then_reset(answer(b'{"title": "no"}', 401)[:-5]),
        "AuthenticationError",
        "AuthenticationError",
        "AuthenticationError",
        sent=1,
        ends=True,
    ),
    refused(403, "PermissionDeniedError", ends=True),
    refused(404, "NotFoundError", ends=True),
    refused(405, "APIError"),
    refused(408, "APIError", sent=TRIES),
    refused(409, "APIError", sent=TRIES),
    refused(413, "PayloadTooLargeError"),
    refused(414, "APIError"),
    refused(422, "UnprocessableError"),
    refused(422, "UnprocessableError", b'{"errors": {}}', name="422 that names none"),
    refused(
        422,
        "UnprocessableError",
        b'{"title": "Max batch size allowed is 5", "errors": {}}',
        name="422 that names a size",
    ),
    refused(423, "APIError", sent=TRIES),
    refused(429, "RateLimitError", sent=REFUSALS),
    refused(
        429,
        "RateLimitError",
        name="429 with headers",
        headers={
            "X-Rate-Limit-Time-Window-Ms": "30000",
            "X-Rate-Limit-Time-Reset-Ms": "1",
            "X-Rate-Limit-Requests-Quota": "150",
            "X-Rate-Limit-Requests-Left": "0",
        },
        sent=QUOTA_REFUSALS,
    ),
    refused(
        429,
        "RateLimitError",
        name="429 with absurd headers",
        headers={
            "X-Rate-Limit-Time-Window-Ms": "-1",
            "X-Rate-Limit-Time-Reset-Ms": "9" * 40,
            "X-Rate-Limit-Requests-Quota": "NaN",
            "X-Rate-Limit-Requests-Left": "0",
            "X-Retry-After": "inf",
        },
        sent=REFUSALS,
    ),
    refused(500, "ServerError", sent=TRIES),
    refused(501, "ServerError"),
    refused(502, "ServerError", b"<html>", sent=TRIES),
    refused(503, "ServerError", sent=TRIES),
    refused(
        503,
        "StoreSuspendedError",
        b'{"title": "The store is suspended"}',
        name="503 of a suspended store",
        ends=True,
    ),
    refused(504, "ServerError", b"", sent=TRIES),
    refused(505, "ServerError"),
    refused(520, "ServerError", sent=TRIES),
]


def _with(*lines: bytes) -> Any:
    def change(raw: bytes) -> bytes:
        first, rest = raw.split(b"\r\n", 1)
        return b"\r\n".join([first, *lines, rest])

    return change


def _http_1_0(raw: bytes) -> bytes:
    return raw.replace(b"HTTP/1.1", b"HTTP/1.0", 1)


def _zipped(raw: bytes) -> bytes:
    head, body = raw.split(b"\r\n\r\n", 1)
    if not body:
        return raw
    status = head.split(b"\r\n")[0]
    packed = gzip.compress(body)
    length = b"Content-Length: %d" % len(packed)
    return b"\r\n".join([status, b"Content-Encoding: gzip", length, b"", b""]) + packed


def _chunked(raw: bytes) -> bytes:
    head, body = raw.split(b"\r\n\r\n", 1)
    if not body:
        return raw
    status = head.split(b"\r\n")[0]
    chunks = b"".join(b"%x\r\n%b\r\n" % (1, body[at : at + 1]) for at in range(len(body)))
    return status + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


def _limits(window: bytes, reset: bytes, quota: bytes, left: bytes) -> Any:
    return _with(
        b"X-Rate-Limit-Time-Window-Ms: " + window,
        b"X-Rate-Limit-Time-Reset-Ms: " + reset,
        b"X-Rate-Limit-Requests-Quota: " + quota,
        b"X-Rate-Limit-Requests-Left: " + left,
    )


#: What an answer may have about it and be good all the same.
HARMLESS: dict[str, Any] = {
    "100 Continue first": lambda raw: b"HTTP/1.1 100 Continue\r\n\r\n" + raw,
    "103 Early Hints first": lambda raw: b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" + raw,
    "HTTP/1.0": _http_1_0,
    "a connection that closes": _with(b"Connection: close"),
    "gzip": _zipped,
    "chunks of one byte": _chunked,
    "a charset that is not its own": _with(b"Content-Type: text/plain; charset=utf-16"),
    "a content type twice": _with(b"Content-Type: text/html", b"Content-Type: application/xml"),
    "a cookie": _with(b"Set-Cookie: a=b; Domain=evil.example"),
    "a location with 200": _with(b"Location: http://192.0.2.1/"),
    "a request id of bytes": _with(b"X-Request-Id: \xff\xfe" + b"i" * 4000),
    "a date of 1970": _with(b"Date: Thu, 01 Jan 1970 00:00:00 GMT"),
    "negative limits": _limits(b"-30000", b"-1", b"-150", b"-1"),
    "limits beyond all": _limits(b"9" * 30, b"9" * 30, b"9" * 30, b"0"),
    "limits in words": _limits(b"soon", b"NaN", b"Infinity", b"none"),
    "limits by fractions": _limits(b"3e4", b"1.5", b"1_50", b"0x0"),
    "limits that are empty": _limits(b"", b"", b"", b""),
    "a reset longer than its window": _limits(b"30000", b"86400000", b"150", b"0"),
    "a quota of 0": _limits(b"30000", b"20000", b"0", b"0"),
    "more left than the quota": _limits(b"30000", b"20000", b"150", b"99999"),
    "limits twice": _with(
        b"X-Rate-Limit-Requests-Left: 149",
        b"X-Rate-Limit-Requests-Left: 0",
        b"X-Rate-Limit-Requests-Quota: 150",
        b"X-Rate-Limit-Time-Reset-Ms: 20000",
    ),
    "a retry-after with 200": _with(b"X-Retry-After: 9999"),
}
