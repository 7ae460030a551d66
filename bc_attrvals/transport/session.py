"""The transport: one request out, status, headers and bytes in; faults become our errors.

aiohttp is used here and nowhere else. Redirects are not followed and no cookies are kept, so that
the access token travels to one place only. An error raised here never has aiohttp's exception
behind it, because that one carries the request's headers, token included.
"""

from __future__ import annotations

import asyncio
import socket
import warnings
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Final

import aiohttp
from aiohttp import hdrs, http_exceptions
from multidict import CIMultiDict, istr
from yarl import URL

from bc_attrvals.core.requests import Operation, Request
from bc_attrvals.core.responses import Response, is_success, request_id_of
from bc_attrvals.errors import (
    BCAttrValsError,
    ConnectionFailedError,
    ConnectionLostError,
    DecodeError,
    HookError,
    StoreStateError,
    TransportError,
)
from bc_attrvals.transport.deadlines import Deadline, Deadlines
from bc_attrvals.transport.failures import (
    hook_error,
    lost_before_answer,
    map_error,
    never_sent,
)
from bc_attrvals.transport.trust import connect_once

_AUTH_TOKEN: Final = istr("X-Auth-Token")
_JSON: Final = "application/json"
# `Deadlines` keeps the deadline of the whole attempt.
_NO_TIMEOUT: Final = aiohttp.ClientTimeout(total=None)
#: Content encodings that aiohttp unpacks, or refuses by itself where a package is missing.
_ENCODINGS: Final = frozenset({"", "identity", "gzip", "deflate", "br", "zstd"})


class _Attempt:
    """One request on its way, as far as its connection is concerned."""

    __slots__ = ("has_connected", "was_accepted")

    def __init__(self) -> None:
        self.has_connected = False
        # Whether an answer of success had begun.
        self.was_accepted = False


_attempt: ContextVar[_Attempt | None] = ContextVar("_attempt", default=None)


def _new_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """Make a socket as aiohttp does, and note whose: other requests reuse a kept connection."""
    attempt = _attempt.get()
    if attempt is not None:
        attempt.has_connected = True
    family, kind, protocol, *_ = address
    return socket.socket(family, kind, protocol)


async def _no_resend(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Turn a lost connection into our error before aiohttp sees it.

    aiohttp sends an idempotent request again by itself when a kept-alive connection drops
    (RFC 9112 section 9.3.1), without slot or quota unit. An exception it does not know stops that.
    """
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        # Never sent, and never resent by aiohttp.
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        lost = lost_before_answer(error)
    raise lost


def _with_no_resend(
    session: aiohttp.ClientSession,
) -> tuple[aiohttp.ClientMiddlewareType, ...] | None:
    """Return the middlewares for requests over a caller's session: `_no_resend`, then their own.

    Here stands the one private attribute of aiohttp in use. Middlewares given for one request
    replace those of the session, and aiohttp has no public way to ask for these. Without it a
    caller's session may send a request twice that was admitted once; that is what is left where
    aiohttp has renamed it (None), and then `tests/transport/test_session.py` fails.
    """
    own: Sequence[aiohttp.ClientMiddlewareType] | None = getattr(session, "_middlewares", None)
    return None if own is None else (_no_resend, *own)


class Session:
    """Sends requests over an aiohttp session, its own or the caller's."""

    __slots__ = (
        "_authority",
        "_deadlines",
        "_has_answered",
        "_headers",
        "_max_response_bytes",
        "_middlewares",
        "_owned",
        "_proxy",
        "_root",
        "_scheme",
        "_session",
        "_urls",
    )

    def __init__(
        self,
        base_url: str,
        access_token: str,
        *,
        user_agent: str,
        max_response_bytes: int,
        session: aiohttp.ClientSession | None = None,
        trace_configs: Sequence[aiohttp.TraceConfig] = (),
        proxy: str | None = None,
    ) -> None:
        base = URL(base_url)
        self._scheme, self._authority = base.scheme, base.raw_authority
        # A bare host has the path "/".
        self._root = base.raw_path.rstrip("/")
        self._max_response_bytes = max_response_bytes
        self._deadlines = Deadlines()
        # Writes all go to one place; pages are asked for once.
        self._urls: dict[str, URL] = {}
        self._headers: Mapping[str, str] | None = CIMultiDict(
            {
                _AUTH_TOKEN: access_token,
                hdrs.ACCEPT: _JSON,
                hdrs.CONTENT_TYPE: _JSON,
                hdrs.USER_AGENT: user_agent,
            }
        )
        # What raises below has this frame in its traceback, and reporters of crashes show locals.
        del access_token
        self._owned = session is None
        self._proxy = proxy
        self._has_answered = False
        self._middlewares: tuple[aiohttp.ClientMiddlewareType, ...] | None = None
        if session is None:
            # The scheduler limits what is under way; a second limit here would only hide waits.
            session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, socket_factory=_new_socket),
                cookie_jar=aiohttp.DummyCookieJar(),
                # aiohttp sends headers of the session to the proxy too, outside of TLS.
                headers=self._headers if proxy is None else None,
                middlewares=(_no_resend,),
                trace_configs=list(trace_configs),
                proxy=proxy,
            )
            if proxy is None:
                self._headers = None
            del proxy
        else:
            if session.closed:
                raise StoreStateError("the aiohttp session given to the Store is closed")
            if _loop_of(session) is not asyncio.get_running_loop():
                message = "the aiohttp session given to the Store was made in another event loop"
                raise StoreStateError(message)
            self._middlewares = _with_no_resend(session)
        self._session = session

    @property
    def closed(self) -> bool:
        """Whether the aiohttp session is closed."""
        return self._session.closed

    async def aclose(self) -> None:
        """Close the aiohttp session if it is our own."""
        self._deadlines.close()
        if self._owned:
            await self._session.close()

    async def send(self, request: Request, timeout_s: float) -> Response:
        """Send one request once and read the whole answer, whatever its status.

        Raises `ConnectionFailedError` (never sent), `ConnectionLostError`, `RequestTimeoutError`
        (of the whole attempt), `HookError` where a trace, middleware or session of the caller
        raised, `DecodeError` when the answer is too long or packed in an unknown way, or
        `StoreStateError` when a caller has closed their session. Cancellation closes the
        connection; a write may then have been applied.
        """
        if self._session.closed:
            raise _closed_error()
        attempt = _Attempt()
        _attempt.set(attempt)
        mapped: BCAttrValsError
        deadline = self._deadlines.begin(timeout_s)
        try:
            return await self._exchange(request, deadline, attempt)
        except asyncio.CancelledError as cancelled:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                # It becomes the cause of a caller's TimeoutError, with aiohttp's frames and the
                # headers in them.
                raise cancelled.with_traceback(None) from None
            # Nobody cancelled this task: a hook raised it, or the session was closed.
            mapped = hook_error(cancelled)
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BCAttrValsError as error:
            # aiohttp's frames behind it have the headers, which reporters of crashes show.
            mapped = error.with_traceback(None)
        except BaseException as error:  # noqa: BLE001 - hooks of the caller raise what they like
            mapped = map_error(error, timeout_s)
        finally:
            self._deadlines.end(deadline)
        if isinstance(mapped, HookError) and self._session.closed:
            mapped = _closed_error()
        if isinstance(mapped, ConnectionLostError):
            # A session of the caller does not say whether it has connected anew.
            reused = not attempt.has_connected if self._owned else self._has_answered
            mapped.was_kept_alive = mapped.was_kept_alive and reused
        if isinstance(mapped, TransportError):
            mapped.method, mapped.path = request.method, request.resource
            mapped.was_accepted = attempt.was_accepted
            mapped.may_have_been_applied = (
                request.operation is not Operation.READ
                and not isinstance(mapped, ConnectionFailedError)
            )
        raise mapped

    async def check_trust(self, timeout_s: float) -> None:
        """Raise `CertificateError` if every request would end with it; sends nothing.

        Looked at over TLS, before the first answer. A caller's session makes its connections by
        itself, and is not looked at.
        """
        if not self._owned or self._has_answered or self._scheme != "https":
            return
        url = URL.build(scheme=self._scheme, authority=self._authority, encoded=True)
        try:
            await connect_once(url, self._proxy, timeout_s)
        except aiohttp.ClientConnectorCertificateError as error:
            untrusted = never_sent(error)
            assert untrusted is not None
        else:
            return
        raise untrusted

    async def _exchange(self, request: Request, deadline: Deadline, attempt: _Attempt) -> Response:
        response: aiohttp.ClientResponse | None = None
        data: bytes | aiohttp.Payload | None = request.body
        if request.body is not None and self._owned:
            # As aiohttp makes it of bytes, but for the search by type: 1.2 % of a PUT of ten items.
            data = aiohttp.BytesPayload(request.body, content_type=_JSON)
        try:
            response = await self._session.request(
                request.method,
                self._url(request),
                data=data,
                headers=self._headers,
                allow_redirects=False,
                middlewares=self._middlewares,
                timeout=_NO_TIMEOUT,
                # Whatever a caller's session does otherwise: answers are read here, errors mapped.
                raise_for_status=False,
                auto_decompress=True,
            )
            body = await self._read(response)
        except (
            aiohttp.ClientError,
            http_exceptions.HttpProcessingError,
            DecodeError,
            HookError,
            TimeoutError,
            OSError,
        ) as error:
            if response is None:
                raise
            response.close()
            attempt.was_accepted = is_success(response.status)
            # A write is read back at once where a hook took the body: so it will the next time.
            is_taken = isinstance(error, HookError) and request.operation is Operation.WRITE
            if attempt.was_accepted and not is_taken:
                raise
            # The status of a refusal is worth more than its words: it decides what happens next.
            body = b""
        except BaseException as error:
            if response is not None:
                response.close()
            if not (isinstance(error, asyncio.CancelledError) and deadline.was_missed()):
                raise
            attempt.was_accepted = response is not None and is_success(response.status)
            if response is None or attempt.was_accepted:
                raise TimeoutError from None
            body = b""
        self._has_answered = True
        return Response(response.status, response.headers, body)

    def _url(self, request: Request) -> URL:
        url = self._urls.get(request.path)
        if url is None:
            path, _, query = request.path.partition("?")
            # Encoded already: yarl would quote what the service wants raw. Built of its parts,
            # because taking a whole URL apart costs three times as much.
            url = URL.build(
                scheme=self._scheme,
                authority=self._authority,
                path=self._root + path,
                query_string=query,
                encoded=True,
            )
            if request.operation is Operation.WRITE:
                self._urls = {request.path: url}
        return url

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        content = response.content
        if not isinstance(content, aiohttp.StreamReader):
            # A double of aiohttp's response, as testing tools make them.
            body = await response.read()
        elif content.exception() is not None:
            # Broken, or released by a hook: what follows tells these apart.
            body = b""
        elif content.is_eof():
            # All of it has arrived, as nearly always.
            body = content.read_nowait()
        else:
            body = await self._read_in_pieces(response)
        if not body and response.status != 204:
            body = await self._read_before(response)
        if len(body) > self._max_response_bytes:
            raise self._too_long(response)
        encoding = response.headers.get(hdrs.CONTENT_ENCODING, "")
        if encoding.lower() not in _ENCODINGS:
            message = f"the body is packed as {encoding[:40]!r}, which can't be unpacked"
            raise DecodeError(
                message, status=response.status, request_id=request_id_of(response.headers)
            )
        # Read whole, it has released its connection by itself.
        if not response.closed:
            response.release()
        return body

    async def _read_before(self, response: aiohttp.ClientResponse) -> bytes:
        """Return a body that a hook has read before, from what aiohttp keeps of it.

        Raises `HookError` if it kept nothing: the hook took the bytes from the stream, or released
        the connection before they came.
        """
        content = response.content
        is_taken = isinstance(content, aiohttp.StreamReader) and (
            content.total_bytes > 0 or (response.closed and not content.is_eof())
        )
        try:
            # `read` refuses it once the connection was released; `text` does not, and Latin-1 maps
            # bytes one to one.
            body = (await response.text("latin-1")).encode("latin-1")
        except aiohttp.ClientError:
            if not is_taken:
                raise
            body = b""
        if is_taken and not body:
            message = "a trace, middleware or session of the caller took the body of the answer"
            raise HookError(message)
        return body

    async def _read_in_pieces(self, response: aiohttp.ClientResponse) -> bytes:
        """Read the body as it comes, so that a decompressed flood stops at the cap."""
        pieces: list[bytes] = []
        size = 0
        while not response.content.at_eof():
            pieces.append(await response.content.readany())
            size += len(pieces[-1])
            if size > self._max_response_bytes:
                raise self._too_long(response)
        return b"".join(pieces)

    def _too_long(self, response: aiohttp.ClientResponse) -> DecodeError:
        message = f"the answer is longer than {self._max_response_bytes} bytes"
        request_id = request_id_of(response.headers)
        return DecodeError(message, status=response.status, request_id=request_id)


def _loop_of(session: aiohttp.ClientSession) -> asyncio.AbstractEventLoop:
    with warnings.catch_warnings():
        # Deprecated, and the only public way to ask for it.
        warnings.simplefilter("ignore", DeprecationWarning)
        return session.loop


def _closed_error() -> StoreStateError:
    return StoreStateError("the aiohttp session given to the Store is closed")
