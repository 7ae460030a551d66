"""The transport: one request out, status, headers and bytes in; faults become our errors.

aiohttp is wrapped here and nowhere else. Redirects are not followed and no cookies are kept, so
that the access token travels to one place only. An error raised here never has aiohttp's
exception behind it, for that one carries the request's headers, token included.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import aiohttp
import msgspec
from aiohttp import hdrs, http_exceptions
from multidict import CIMultiDict, CIMultiDictProxy, istr
from yarl import URL

from bc_attrvals.core.requests import Operation, Request
from bc_attrvals.core.responses import is_success
from bc_attrvals.errors import (
    ConnectionFailedError,
    ConnectionLostError,
    DecodeError,
    RequestTimeoutError,
    StoreStateError,
    TransportError,
)
from bc_attrvals.transport.deadlines import Deadline, Deadlines

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.tracing import Trace

__all__ = ["Answer", "Session"]

_logger = logging.getLogger(__name__)

_AUTH_TOKEN: Final = istr("X-Auth-Token")
_REQUEST_ID: Final = istr("X-Request-Id")
_JSON: Final = "application/json"
# Deadlines are kept by `Deadlines`, to the connection's making as well.
_NO_TIMEOUT: Final = aiohttp.ClientTimeout(total=None)
_RECEIVE_BYTES: Final = 64 * 1024
# As aiohttp has it, to be told from what a test puts in its place.
_REQUEST: Final = aiohttp.ClientSession.request


# A Struct, for one is made for each call.
class Answer(msgspec.Struct, frozen=True):
    """One answer, read whole; `headers` ignore the case of names."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def request_id(self) -> str | None:
        """The service's `X-Request-Id`, printable and cut to a line's length."""
        return _request_id(self.headers)


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
        reason = type(error).__name__
    message = f"the connection was lost before the answer came ({reason})"
    raise ConnectionLostError(message)


class _Connector(aiohttp.TCPConnector):
    """A connector whose plain connections receive into memory that malloc has at hand.

    asyncio asks for 256 KiB whenever something has come (`max_size` of its selector transports) and
    keeps what was filled. Until a process has once freed as much in one piece, glibc maps it anew
    each time and unmaps it (from 128 KiB on, mallopt(3)): some 25 us. A page is 40 KiB, so less
    will do. Over TLS, and by uvloop, nothing is mapped.
    """

    # aiohttp's own, called for each new connection; without it connections are as they ever were.
    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's name
    ) -> ResponseHandler:
        protocol = await super()._create_connection(req, traces, timeout)
        transport = protocol.transport
        if transport is not None and hasattr(transport, "max_size"):
            transport.max_size = _RECEIVE_BYTES
        return protocol


class Session:
    """Sends requests over an aiohttp session, its own or the caller's."""

    __slots__ = (
        "_authority",
        "_deadlines",
        "_direct",
        "_headers",
        "_max_response_bytes",
        "_middlewares",
        "_owned",
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
    ) -> None:
        loop = asyncio.get_running_loop()
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
        # `request` takes its arguments only to hand them on to this, which costs 5 us; what stands
        # in for aiohttp in tests replaces this or that. A caller's session may have its own.
        self._direct = (
            session is None
            and hasattr(aiohttp.ClientSession, "_request")
            and aiohttp.ClientSession.request is _REQUEST
        )
        self._middlewares: tuple[aiohttp.ClientMiddlewareType, ...] | None
        if session is None:
            # The scheduler limits what is under way; a second limit here would only hide waits.
            session = aiohttp.ClientSession(
                connector=_Connector(limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=self._headers,
                middlewares=(_no_resend,),
                trace_configs=list(trace_configs),
            )
            self._headers = self._middlewares = None
            if getattr(session, "_retry_connection", None) is True:
                # The private switch of what `_no_resend` is there for, which costs less.
                session._retry_connection = False  # noqa: SLF001
                self._middlewares = ()
        else:
            if session.closed:
                raise StoreStateError("the aiohttp session given to the Store is closed")
            if getattr(session, "_loop", loop) is not loop:
                message = "the aiohttp session given to the Store was made in another event loop"
                raise StoreStateError(message)
            # Given for one request, middlewares replace the session's; the caller's stay in use.
            own: Sequence[aiohttp.ClientMiddlewareType] = getattr(session, "_middlewares", ())
            self._middlewares = (_no_resend, *own)
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

    async def send(self, request: Request, timeout_s: float) -> Answer:
        """Send one request once and read the whole answer, whatever its status.

        Raises `ConnectionFailedError` (never sent), `ConnectionLostError`, `RequestTimeoutError`
        (of the whole attempt), `DecodeError` when the answer is too long, or `StoreStateError` when
        a caller has closed their session. Cancellation closes the connection; a write may then
        have been applied.
        """
        if self._session.closed:
            raise StoreStateError("the aiohttp session given to the Store is closed")
        deadline = self._deadlines.begin(timeout_s)
        mapped: TransportError
        try:
            return await self._exchange(request, deadline)
        except asyncio.CancelledError as cancelled:
            if not deadline.was_missed():
                # It becomes the cause of a caller's TimeoutError, with aiohttp's frames and the
                # headers in them.
                raise cancelled.with_traceback(None) from None
            mapped = _timeout_error(timeout_s)
        except (
            aiohttp.ClientError,
            http_exceptions.HttpProcessingError,
            TimeoutError,
            OSError,
        ) as error:
            mapped = _map_error(error, timeout_s)
        except TransportError as error:
            # aiohttp's frames behind it have the headers, which reporters of crashes show.
            mapped = error.with_traceback(None)
        finally:
            self._deadlines.end(deadline)
        mapped.method, mapped.path = request.method, request.resource
        mapped.may_have_been_applied = request.operation is not Operation.READ and not isinstance(
            mapped, ConnectionFailedError
        )
        raise mapped

    async def _exchange(self, request: Request, deadline: Deadline) -> Answer:
        session = self._session
        send = session._request if self._direct else session.request  # noqa: SLF001
        response = await send(
            request.method,
            self._url(request),
            data=request.body,
            headers=self._headers,
            allow_redirects=False,
            middlewares=self._middlewares,
            timeout=_NO_TIMEOUT,
            # Whatever a caller's session does otherwise: answers are read here, errors mapped.
            raise_for_status=False,
            auto_decompress=True,
        )
        try:
            body = await self._read(response)
        except (
            aiohttp.ClientError,
            http_exceptions.HttpProcessingError,
            DecodeError,
            TimeoutError,
            OSError,
        ):
            response.close()
            if is_success(response.status):
                raise
            # The status of a refusal is worth more than its words: it decides what happens next.
            body = b""
        except asyncio.CancelledError:
            response.close()
            if not deadline.was_missed():
                raise
            if is_success(response.status):
                raise TimeoutError from None
            body = b""
        except BaseException:
            response.close()
            raise
        answer = Answer(response.status, response.headers, body)
        if _logger.isEnabledFor(logging.DEBUG):
            _logger.debug(
                "%s %s: %d, %d bytes, request id %s",
                request.method,
                request.resource,
                answer.status,
                len(body),
                answer.request_id,
            )
        return answer

    def _url(self, request: Request) -> URL:
        url = self._urls.get(request.path)
        if url is None:
            path, _, query = request.path.partition("?")
            # Encoded already: yarl would quote what the service wants raw. Built of its parts, for
            # taking a whole URL apart costs three times as much.
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
        if content.is_eof():
            # All of it has arrived, as nearly always, and is at hand.
            body = content.read_nowait()
            if len(body) > self._max_response_bytes:
                raise self._too_long(response)
        else:
            body = await self._read_in_pieces(response)
        # Whole, it has let go of its connection by itself.
        if not response.closed:
            response.release()
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
        request_id = _request_id(response.headers)
        return DecodeError(message, status=response.status, request_id=request_id)


def _request_id(headers: Mapping[str, str]) -> str | None:
    text = headers.get(_REQUEST_ID)
    if text is None:
        return None
    text = text[:100]
    if text.isprintable():
        return text
    # It is logged and printed, and bytes that are no UTF-8 are lone surrogates here.
    return "".join(c if c.isprintable() else "?" for c in text)


def _timeout_error(timeout_s: float) -> RequestTimeoutError:
    return RequestTimeoutError(f"no whole answer within {timeout_s:g} s")


def _map_error(error: Exception, timeout_s: float) -> TransportError:
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
        # str() of both names host, port and the fault of the certificate.
        return ConnectionFailedError(f"no trusted connection: {error}", retryable=False)
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return ConnectionFailedError(f"no connection: {error}")
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return ConnectionFailedError(f"no connection: the proxy answered {error.status}")
    if isinstance(error, TimeoutError):
        return _timeout_error(timeout_s)
    if isinstance(error, aiohttp.ClientPayloadError):
        reason = "the answer was cut off or can't be unpacked"
    elif isinstance(error, aiohttp.ClientResponseError | http_exceptions.HttpProcessingError):
        reason = "the answer is no well-formed HTTP"
    else:
        reason = f"the connection was lost ({type(error).__name__})"
    return ConnectionLostError(reason)
