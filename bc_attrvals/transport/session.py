"""The transport: one request out, status, headers and bytes in; failures become our errors.

Redirects are not followed and no cookies are kept, so the access token goes to one host only. An
error raised here never has aiohttp's exception as its cause or context, because that holds the
request's headers, token included.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Awaitable, Sequence
from typing import Any, Final

import aiohttp
from aiohttp import hdrs, http_exceptions
from multidict import CIMultiDict, istr
from yarl import URL

from bc_attrvals.core.requests import Operation, Request
from bc_attrvals.core.responses import SUCCESS, Response, request_id_of
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
    map_error,
    never_sent,
)
from bc_attrvals.transport.resending import (
    attempt_under_way,
    new_socket,
    no_resend,
    with_no_resend,
)
from bc_attrvals.transport.reused_requests import JSON, ReusedRequest, ReusedRequests
from bc_attrvals.transport.trust import connect_once

_AUTH_TOKEN: Final = istr("X-Auth-Token")
# `Deadlines` limits the time of the whole attempt.
_NO_TIMEOUT: Final = aiohttp.ClientTimeout(total=None)
#: Errors after which the status of an answer that has begun is still used.
_KNOWN: Final = (
    aiohttp.ClientError,
    http_exceptions.HttpProcessingError,
    DecodeError,
    HookError,
    TimeoutError,
    OSError,
)
#: Content encodings that aiohttp decodes. It raises by itself if a package for one is missing.
_ENCODINGS: Final = frozenset({"", "identity", "gzip", "deflate", "br"}) | (
    # Since aiohttp 3.13.
    {"zstd"} if [int(one) for one in aiohttp.__version__.split(".")[:2]] >= [3, 13] else set()
)


class Session:
    """Sends requests over an aiohttp session, its own or the caller's."""

    __slots__ = (
        "_authority",
        "_deadlines",
        "_has_answered",
        "_headers",
        "_max_response_bytes",
        "_options",
        "_owned",
        "_proxy",
        "_reused",
        "_root",
        "_scheme",
        "_session",
        "_write_options",
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
        # A URL without a path has the path "/".
        self._root = base.raw_path.rstrip("/")
        self._max_response_bytes = max_response_bytes
        self._deadlines = Deadlines()
        headers = {
            _AUTH_TOKEN: access_token,
            hdrs.ACCEPT: JSON,
            hdrs.CONTENT_TYPE: JSON,
            hdrs.USER_AGENT: user_agent,
        }
        # aiohttp also sends the session's headers to the proxy, outside of TLS.
        is_of_session = session is None and proxy is None
        self._headers = CIMultiDict(headers) if is_of_session else None
        of_request = {} if is_of_session else headers
        # Redirects are not followed: the access token must not travel.
        options: dict[str, Any] = {"allow_redirects": False}
        self._write_options = options | {"headers": CIMultiDict(of_request)}
        # What is compared and deleted must not come from a cache (RFC 9111, 5.2.1.4), which may
        # store answers to requests without an `Authorization` header.
        self._options = options | {
            "headers": CIMultiDict(of_request | {hdrs.CACHE_CONTROL: "no-cache"})
        }
        # Errors raised below hold this frame, and crash reporters show its local variables.
        del access_token, headers, of_request
        self._owned = session is None
        self._proxy = proxy
        self._has_answered = False
        if session is None:
            # The scheduler limits the requests under way; a second limit would only hide waits.
            session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, socket_factory=new_socket),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=self._headers,
                timeout=_NO_TIMEOUT,
                middlewares=(no_resend,),
                trace_configs=list(trace_configs),
                proxy=proxy,
            )
            del proxy
        else:
            if session.closed:
                raise StoreStateError("the aiohttp session given to the Store is closed")
            if _loop_of(session) is not asyncio.get_running_loop():
                message = "the aiohttp session given to the Store was made in another event loop"
                raise StoreStateError(message)
            for each in (self._options, self._write_options):
                each |= {
                    "middlewares": with_no_resend(session),
                    "timeout": _NO_TIMEOUT,
                    # Overrides the session's own settings: answers are read here, errors mapped.
                    "raise_for_status": False,
                    "auto_decompress": True,
                }
        self._session = session
        # Traces see only what `aiohttp.ClientSession.request` sends, and a tunnel through a proxy
        # changes its request.
        is_reused = is_of_session and not session.trace_configs
        self._reused = ReusedRequests(session) if is_reused else None

    @property
    def closed(self) -> bool:
        """Whether the aiohttp session is closed."""
        return self._session.closed

    async def aclose(self) -> None:
        """Close the aiohttp session if it is our own."""
        self._deadlines.close()
        if self._reused is not None:
            self._reused.close()
        if self._owned:
            await self._session.close()

    async def send(self, request: Request, timeout_s: float) -> Response:
        """Send one request once and read the whole answer, whatever its status.

        Raises `ConnectionFailedError` (not sent), `ConnectionLostError`, `RequestTimeoutError`
        (for the whole attempt), `HookError` if a trace, middleware or session of the caller raised,
        `DecodeError` if the answer is too long or has an unknown content encoding, and
        `StoreStateError` if the caller has closed their session. Cancellation closes the
        connection; a write may then have been applied.
        """
        attempt = self._deadlines.begin(timeout_s)
        attempt_under_way.set(attempt)
        response: aiohttp.ClientResponse | None = None
        reused = None if self._reused is None else self._reused.take(request)
        try:
            response = await self._begin(request, reused)
            stream = response.content
            if (
                isinstance(stream, aiohttp.StreamReader)
                and stream.is_eof()
                and stream.exception() is None
            ):
                # Usually the whole body has arrived by now.
                body = stream.read_nowait()
            else:
                body = await self._read(response)
            if not body and response.status != 204:
                body = await self._read_before(response)
            if len(body) > self._max_response_bytes or hdrs.CONTENT_ENCODING in response.headers:
                self._check(response, body)
            # A response that was read to its end has released its connection by itself.
            if not response.closed:
                response.release()
            self._has_answered = True
            if reused is not None and self._reused is not None:
                self._reused.give_back(reused, request)
            return Response(response.status, response.headers, body)
        except BaseException as error:  # noqa: BLE001 - hooks of the caller raise what they like
            failure = self._failure(error, request, response, attempt, timeout_s)
            # Its frames hold the headers, which crash reporters show, and the response, which may
            # hold the error.
            error.__traceback__ = None
            if reused is not None:
                reused.discard()
        finally:
            self._deadlines.end(attempt)
        if failure is None:
            assert response is not None
            self._has_answered = True
            return Response(response.status, response.headers, b"")
        # Crash reporters show the local variables of this frame.
        del response, reused
        raise failure from None

    def _begin(
        self, request: Request, reused: ReusedRequest | None
    ) -> Awaitable[aiohttp.ClientResponse]:
        content = request.body
        options = self._options if content is None else self._write_options
        if reused is None:
            return self._session.request(
                request.method, self._url(request), data=content, **options
            )
        reused.fill(content)
        # The writes of a resource have one URL.
        url = None if reused.path == request.path else self._url(request)
        return reused.send(url) or self._session.request(
            request.method,
            self._url(request),
            data=None if content is None else reused,
            middlewares=(reused.keep,),
            **options,
        )

    def _failure(
        self,
        error: BaseException,
        request: Request,
        response: aiohttp.ClientResponse | None,
        attempt: Deadline,
        timeout_s: float,
    ) -> BaseException | None:
        """Return the error that ends an attempt; None if the answer's status is used instead."""
        is_known = isinstance(error, _KNOWN)
        if isinstance(error, asyncio.CancelledError) and attempt.was_missed():
            error, is_known = TimeoutError(), True
        if response is not None:
            response.close()
        if is_known and response is not None:
            attempt.was_accepted = response.status in SUCCESS
            # A hook that took the body will take it again, so a write goes straight to read-back.
            is_taken = isinstance(error, HookError) and request.operation is Operation.WRITE
            if is_taken or not attempt.was_accepted:
                # The status of a refusal decides what follows, with or without its body.
                return None
        mapped = self._mapped(error, timeout_s)
        if isinstance(mapped, HookError) and self._session.closed:
            # aiohttp raises a `RuntimeError` for a closed session.
            mapped = _closed_error()
        if isinstance(mapped, ConnectionLostError):
            # A caller's session does not show whether it opened a new connection.
            reused = not attempt.has_connected if self._owned else self._has_answered
            mapped.was_kept_alive = mapped.was_kept_alive and reused
        if isinstance(mapped, TransportError):
            mapped.method, mapped.path = request.method, request.resource
            mapped.was_accepted = attempt.was_accepted
            mapped.may_have_been_applied = (
                request.operation is not Operation.READ
                and not isinstance(mapped, ConnectionFailedError)
            )
        return mapped

    def _mapped(self, error: BaseException, timeout_s: float) -> BaseException:
        """Return our error, or an exception that ends the task."""
        if isinstance(error, asyncio.CancelledError):
            task = asyncio.current_task()
            if task is None or task.cancelling():
                return error
            # Nobody cancelled this task: a hook raised it, or the session was closed.
            return hook_error(error)
        if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit | BCAttrValsError):
            return error
        return map_error(error, timeout_s)

    async def check_trust(self, timeout_s: float) -> None:
        """Raise `CertificateError` if every request would end with it. Sends nothing.

        It checks only over TLS and before the first answer, and not a caller's session, whose
        connections may be made in another way.
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

    def _url(self, request: Request) -> URL:
        path, _, query = request.path.partition("?")
        # Encoded already: yarl would quote what the service wants raw. It is built from its parts,
        # because parsing a whole URL costs three times as much.
        return URL.build(
            scheme=self._scheme,
            authority=self._authority,
            path=self._root + path,
            query_string=query,
            encoded=True,
        )

    async def _read_before(self, response: aiohttp.ClientResponse) -> bytes:
        """Return a body that a hook has read before, from the copy that aiohttp keeps.

        Raises `HookError` if there is no copy: the hook took the bytes from the stream, or released
        the connection before they arrived.
        """
        content = response.content
        is_taken = isinstance(content, aiohttp.StreamReader) and (
            content.total_bytes > 0 or (response.closed and not content.is_eof())
        )
        try:
            # `read` raises once the connection was released, `text` does not; Latin-1 maps bytes
            # one to one.
            body = (await response.text("latin-1")).encode("latin-1")
        except aiohttp.ClientError:
            if not is_taken:
                raise
            body = b""
        if is_taken and not body:
            message = "a trace, middleware or session of the caller took the body of the answer"
            raise HookError(message)
        return body

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        """Read the body in pieces, so that decompression stops at `max_response_bytes`."""
        content = response.content
        if not isinstance(content, aiohttp.StreamReader):
            # A fake of aiohttp's response, as testing tools make them.
            return await response.read()
        if content.exception() is not None:
            # Broken, or released by a hook: `_read_before` distinguishes these.
            return b""
        pieces: list[bytes] = []
        size = 0
        while not content.at_eof():
            pieces.append(await content.readany())
            size += len(pieces[-1])
            if size > self._max_response_bytes:
                raise self._too_long(response)
        return b"".join(pieces)

    def _check(self, response: aiohttp.ClientResponse, body: bytes) -> None:
        if len(body) > self._max_response_bytes:
            raise self._too_long(response)
        encoding = response.headers.get(hdrs.CONTENT_ENCODING, "")
        if encoding.lower() not in _ENCODINGS:
            message = f"the body is packed as {encoding[:40]!r}, which can't be unpacked"
            request_id = request_id_of(response.headers)
            raise DecodeError(message, status=response.status, request_id=request_id)

    def _too_long(self, response: aiohttp.ClientResponse) -> DecodeError:
        message = f"the answer is longer than {self._max_response_bytes} bytes"
        request_id = request_id_of(response.headers)
        return DecodeError(message, status=response.status, request_id=request_id)


def _loop_of(session: aiohttp.ClientSession) -> asyncio.AbstractEventLoop:
    with warnings.catch_warnings():
        # Deprecated, but the only public way to read it.
        warnings.simplefilter("ignore", DeprecationWarning)
        return session.loop


def _closed_error() -> StoreStateError:
    return StoreStateError("the aiohttp session given to the Store is closed")
