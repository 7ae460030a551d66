"""Requests that aiohttp has built once, and that are sent again with another URL and content.

Used by the session. The requests of one method differ in URL and content alone, and building one
anew takes a seventh of a PUT of ten items (CPU over TLS, CPython 3.11 and 3.13). aiohttp lets a
middleware change its request and send it several times (aiohttp reference, `ClientRequest`, and
Client middleware). So the first request of a method is kept, together with the handler that sends
it.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable
from types import FrameType
from typing import Final

import aiohttp
from aiohttp import hdrs
from aiohttp.abc import AbstractStreamWriter
from yarl import URL

from bc_attrvals.core.requests import Operation, Request
from bc_attrvals.transport.resending import no_resend

JSON: Final = "application/json"
_OWN: Final = __name__.rpartition(".")[0]


class ReusedRequest(aiohttp.Payload):
    """A request of one method, and its present content, which is JSON. One call at a time.

    The first call is made by `aiohttp.ClientSession.request`, with `keep` as the middleware and
    this object as the data if there is content. Those after it are made by `send`.
    """

    autoclose = True
    size = 0

    def __init__(self) -> None:
        # What aiohttp makes of bytes, without its search by type: 1.2 % of a PUT of ten items.
        super().__init__(b"", content_type=JSON)
        #: The path with the query of the last call.
        self.path = ""
        self._content = b""
        self._is_written = False
        self._request: aiohttp.ClientRequest | None = None
        self._handler: aiohttp.ClientHandlerType | None = None

    @property
    def is_kept(self) -> bool:
        """Whether the last call has left as a whole, and `send` can make the next."""
        return self._is_written and self._request is not None

    async def keep(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Send the request for the first time, and keep it; a middleware."""
        response = await no_resend(request, handler)
        if not _is_watched():
            self._request, self._handler = request, handler
        return response

    def fill(self, content: bytes | None) -> None:
        """Set the content of the next call."""
        if content is None:
            self._is_written = True
            return
        self._is_written = False
        self._content = content
        self.size = len(content)
        if self._request is not None:
            self._request.headers[hdrs.CONTENT_LENGTH] = str(self.size)

    def send(self, url: URL | None) -> Awaitable[aiohttp.ClientResponse] | None:
        """Make the next call, to the last URL if `url` is None. Return None if none is kept."""
        if self._request is None or self._handler is None:
            return None
        if url is not None:
            self._request.url = url
        return self._handler(self._request)

    def discard(self) -> None:
        """Forget the request, which refers to this object."""
        self._request = self._handler = None

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return the JSON as a string."""
        return self._content.decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write the JSON."""
        await self.write_with_length(writer, None)

    async def write_with_length(
        self, writer: AbstractStreamWriter, content_length: int | None
    ) -> None:
        """Write the JSON; its length is the content's length."""
        del content_length
        await writer.write(self._content)
        self._is_written = True


class ReusedRequests:
    """The requests of a session that are not under way."""

    __slots__ = ("_idle",)

    def __init__(self) -> None:
        self._idle: dict[str, list[ReusedRequest]] = {}

    def take(self, request: Request) -> ReusedRequest | None:
        """Return a request of the same method, which may be a new one; None for a DELETE.

        What a DELETE destroys is in its URL alone, so that is never changed.
        """
        if request.operation is Operation.DELETE:
            return None
        idle = self._idle.get(request.method)
        return idle.pop() if idle else ReusedRequest()

    def give_back(self, reused: ReusedRequest, request: Request) -> None:
        """Keep a request that was answered, for the next call."""
        if reused.is_kept:
            reused.path = request.path
            self._idle.setdefault(request.method, []).append(reused)

    def close(self) -> None:
        """Forget all."""
        for idle in self._idle.values():
            while idle:
                idle.pop().discard()


def _is_watched() -> bool:
    """Return whether something else stands between the session of a Store and aiohttp.

    Tools that record or trace requests put their own function around aiohttp's. They would miss a
    call that does not go through it. One that is put there later still misses the calls whose
    request is kept by then.
    """
    frame = inspect.currentframe()
    while frame is not None and not _is_of("aiohttp", frame):
        frame = frame.f_back
    while frame is not None and _is_of("aiohttp", frame):
        frame = frame.f_back
    return frame is None or not _is_of(_OWN, frame)


def _is_of(package: str, frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).startswith(package + ".")
