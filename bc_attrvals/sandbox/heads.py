"""The heads of requests: those of plain requests are parsed here, all others by aiohttp.

A plain request is what clients of the service send: a head of few short lines in ASCII, and a body
of a stated length, as it is. All else is left to aiohttp, which also refuses malformed heads. So
this module must not accept what aiohttp refuses or reads differently.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

import attrs
from aiohttp import web
from aiohttp.http import HttpVersion11
from multidict import CIMultiDict, CIMultiDictProxy

RawHeaders = tuple[tuple[bytes, bytes], ...]

# Less than each limit of aiohttp's own.
_MOST_BYTES: Final = 8_000
_MOST_HEADERS: Final = 64
_REQUEST_LINE: Final = re.compile(
    rb"(GET|PUT|POST|DELETE) (/stores/[A-Za-z0-9/_.:?=&,%+~-]*) HTTP/1\.1"
)
_HEADER: Final = re.compile(rb"([A-Za-z0-9_-]+): *([!-~](?:[ -~]*[!-~])?)")
_HOST: Final = re.compile(rb"[A-Za-z0-9.:-]+")
_LENGTH: Final = re.compile(rb"0|[1-9][0-9]{0,6}")
# They change how a body or a connection is read.
_NOT_PLAIN: Final = frozenset({b"content-encoding", b"expect", b"transfer-encoding", b"upgrade"})
# The connections of HTTP/1.1 persist by default.
_DEFAULT: Final = b"keep-alive"
_TOKEN_HEADERS: Final = frozenset({b"x-auth-token", b"authorization", b"cookie"})


@attrs.frozen
class Head:
    """What the sandbox reads of a request's head; `shown` are its headers without a token."""

    method: str
    raw_path: str
    token: bytes = attrs.field(repr=False)
    accept: str
    content_type: str
    shown: CIMultiDictProxy[str] = attrs.field(repr=False)
    content_length: int = 0
    is_http_11: bool = True
    keep_alive: bool = True


def head_of(request: web.BaseRequest) -> Head:
    """Return the head of a request that aiohttp has parsed."""
    return _head(
        request.method,
        request.raw_path,
        request.raw_headers,
        is_http_11=request.version >= HttpVersion11,
        keep_alive=request.keep_alive,
    )


# Clients repeat their heads, but for the length of the body.
@lru_cache(maxsize=256)
def plain_head(raw: bytes) -> Head | None:
    """Parse a head, given without the empty line at its end; None if it is not plain."""
    first, *lines = raw.split(b"\r\n")
    request_line = _REQUEST_LINE.fullmatch(first)
    found = [_HEADER.fullmatch(line) for line in lines]
    raw_headers = tuple((one[1], one[2]) for one in found if one is not None)
    headers = {name.lower(): value for name, value in raw_headers}
    length = headers.get(b"content-length", b"0")
    if (
        request_line is None
        or len(raw) > _MOST_BYTES
        or not len(headers) == len(lines) <= _MOST_HEADERS
        or headers.keys() & _NOT_PLAIN
        or headers.get(b"connection", _DEFAULT) != _DEFAULT
        or not _HOST.fullmatch(headers.get(b"host", b""))
        or not _LENGTH.fullmatch(length)
    ):
        return None
    method, raw_path = request_line[1].decode(), request_line[2].decode()
    return _head(method, raw_path, raw_headers, content_length=int(length))


def _head(
    method: str,
    raw_path: str,
    raw_headers: RawHeaders,
    *,
    content_length: int = 0,
    is_http_11: bool = True,
    keep_alive: bool = True,
) -> Head:
    # The first of a name counts.
    headers = {name.lower(): value for name, value in reversed(raw_headers)}
    return Head(
        method,
        raw_path,
        headers.get(b"x-auth-token", b""),
        headers.get(b"accept", b"*/*").decode("latin-1"),
        headers.get(b"content-type", b"application/json").decode("latin-1"),
        _shown(raw_headers),
        content_length,
        is_http_11,
        keep_alive,
    )


@lru_cache(maxsize=256)
def _shown(raw_headers: RawHeaders) -> CIMultiDictProxy[str]:
    """Return the headers without a token. Clients repeat them, so log entries share them."""
    shown = [
        (
            name.decode("latin-1"),
            "***" if name.lower() in _TOKEN_HEADERS else value.decode("latin-1"),
        )
        for name, value in raw_headers
    ]
    return CIMultiDictProxy(CIMultiDict(shown))
