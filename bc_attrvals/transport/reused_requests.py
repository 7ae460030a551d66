"""Requests that aiohttp has built once, and that are sent again with another URL and content.

Used by the session. The requests of one method differ in URL and content alone, and building one
anew takes a seventh of a PUT of ten items (CPU over TLS, CPython 3.11 and 3.13). aiohttp lets a
middleware change its request and send it several times (aiohttp reference, `ClientRequest`, and
Client middleware). So the first request of a method is kept, together with the handler that sends
it. The reference does not say that a handler may be called after its middleware has returned; the
tests of this module fail if aiohttp changes that.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable
from operator import is_
from types import FunctionType
from typing import Final

import aiohttp
from aiohttp import hdrs
from aiohttp.abc import AbstractStreamWriter
from yarl import URL

from bc_attrvals.core.requests import Operation, Request
from bc_attrvals.transport.resending import no_resend

JSON: Final = "application/json"
#: What makes a request and its coroutine. The other functions that send it are coroutines.
_MAKING: Final = frozenset({"__init__", "request"})


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
    """The requests of a session that are not under way.

    Tools that record, trace or fake requests replace functions of aiohttp's classes. They would
    miss a call that does not go through these, and headers of theirs would be sent again. So no
    request is reused in a session made where one of these functions is not aiohttp's, nor while one
    that makes or sends a request is replaced. Of others that are replaced later, only the next
    session notices.
    """

    __slots__ = ("_functions", "_idle")

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._idle: dict[str, list[ReusedRequest]] = {}
        #: Classes, names and functions that are looked at; None if one of a class is not aiohttp's,
        #: or after `close`.
        self._functions = _functions_of(type(session), aiohttp.ClientRequest)

    def take(self, request: Request) -> ReusedRequest | None:
        """Return a request of the same method, which may be a new one; None for a DELETE.

        What a DELETE destroys is in its URL alone, so that is never changed. None is also returned
        while a tool has replaced functions of aiohttp.
        """
        if request.operation is Operation.DELETE or self._functions is None:
            return None
        classes, names, functions = self._functions
        if not all(map(is_, map(getattr, classes, names), functions)):
            return None
        idle = self._idle.get(request.method)
        return idle.pop() if idle else ReusedRequest()

    def give_back(self, reused: ReusedRequest, request: Request) -> None:
        """Keep a request that was answered for the next call, or discard it."""
        if reused.is_kept and self._functions is not None:
            reused.path = request.path
            self._idle.setdefault(request.method, []).append(reused)
        else:
            reused.discard()

    def close(self) -> None:
        """Forget all, also those that are given back later."""
        self._functions = None
        for idle in self._idle.values():
            while idle:
                idle.pop().discard()


def _functions_of(
    *classes: type,
) -> tuple[tuple[type, ...], tuple[str, ...], tuple[FunctionType, ...]] | None:
    """Return what is looked at; None if a class or one of its functions is not aiohttp's own."""
    found = []
    for each in classes:
        if not each.__module__.startswith("aiohttp."):
            return None
        for name, value in vars(each).items():
            # Not `isinstance`: proxies such as wrapt's have the class of what they wrap.
            if type(value) is FunctionType:
                if not str(value.__globals__.get("__name__")).startswith("aiohttp."):
                    return None
                if name in _MAKING or inspect.iscoroutinefunction(value):
                    found.append((each, name, value))
            elif callable(value):
                return None
    of_classes, names, functions = zip(*found, strict=True)
    return of_classes, names, functions
