"""PUTs that reuse a request which aiohttp has built before, with other content.

Used by the session. The PUTs of a resource differ in their content alone, and building a request
anew takes a seventh of a PUT of ten items (CPU over TLS, CPython 3.11 and 3.13). aiohttp lets a
middleware send its request several times (aiohttp reference, Client middleware cookbook). So the
first PUT keeps its request and the handler that sends it.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable
from types import FrameType
from typing import Final

import aiohttp
from aiohttp import hdrs
from aiohttp.abc import AbstractStreamWriter

from bc_attrvals.core.requests import Request
from bc_attrvals.transport.resending import no_resend

JSON: Final = "application/json"
_OWN: Final = __name__.rpartition(".")[0]


class PutRequests:
    """The PUTs of a session that are not under way. If not `reused`, each is made by aiohttp."""

    __slots__ = ("_idle", "_reused")

    def __init__(self, *, reused: bool) -> None:
        self._reused = reused
        self._idle: dict[str, list[PutRequest]] = {}

    def take(self, request: Request) -> PutRequest | None:
        """Return what sends a request; None if that is not a PUT."""
        if request.method != "PUT" or not self._reused:
            return None
        idle = self._idle.get(request.path)
        return idle.pop() if idle else PutRequest()

    def give_back(self, put: PutRequest, request: Request) -> None:
        """Keep a PUT that was answered, for the next one of its path."""
        if put.is_kept:
            self._idle.setdefault(request.path, []).append(put)

    def close(self) -> None:
        """Forget all."""
        for idle in self._idle.values():
            while idle:
                idle.pop().discard()


class PutRequest(aiohttp.Payload):
    """The request of a PUT, and its present content, which is JSON. One PUT at a time.

    The first is sent by `aiohttp.ClientSession.request`, with this as the data and `keep` as the
    middleware, and those after it by `send`. Call `fill` before.
    """

    autoclose = True
    size = 0

    def __init__(self) -> None:
        # What aiohttp makes of bytes, without its search by type: 1.2 % of a PUT of ten items.
        super().__init__(b"", content_type=JSON)
        self._content = b""
        self._is_written = False
        self._request: aiohttp.ClientRequest | None = None
        self._handler: aiohttp.ClientHandlerType | None = None

    @property
    def is_kept(self) -> bool:
        """Whether the last PUT has left as a whole, and `send` can send the next."""
        return self._is_written and self._request is not None

    def fill(self, content: bytes) -> None:
        """Set the content."""
        self._content = content
        self.size = len(content)
        self._is_written = False
        if self._request is not None:
            self._request.headers[hdrs.CONTENT_LENGTH] = str(self.size)

    async def keep(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Send the request for the first time, and keep it; a middleware."""
        response = await no_resend(request, handler)
        if not _is_watched():
            self._request, self._handler = request, handler
        return response

    def send(self) -> Awaitable[aiohttp.ClientResponse] | None:
        """Send the kept request; None if there is none."""
        if self._request is None or self._handler is None:
            return None
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


def _is_watched() -> bool:
    """Return whether something else stands between the session of a Store and aiohttp.

    Tools that record or trace requests put their own function around aiohttp's. They would miss a
    PUT that does not go through it. One that is put there later still misses the PUTs whose request
    is kept by then.
    """
    frame = inspect.currentframe()
    while frame is not None and not _is_of("aiohttp", frame):
        frame = frame.f_back
    while frame is not None and _is_of("aiohttp", frame):
        frame = frame.f_back
    return frame is None or not _is_of(_OWN, frame)


def _is_of(package: str, frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).startswith(package + ".")
