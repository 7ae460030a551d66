"""Maps the exceptions of aiohttp and of hooks to our errors. Pure.

No error has aiohttp's exception as its cause or context, because that holds the request's headers.
"""

from __future__ import annotations

from pathlib import PurePath

import aiohttp
from aiohttp import http_exceptions

from bc_attrvals.errors import (
    CertificateError,
    ConnectionFailedError,
    ConnectionLostError,
    HookError,
    RequestTimeoutError,
    TransportError,
)


def lost_before_answer(
    error: aiohttp.ClientOSError | aiohttp.ServerDisconnectedError,
) -> ConnectionLostError:
    """Return the error of a connection lost before the head of an answer was complete."""
    message = f"the connection was lost before the answer came ({type(error).__name__})"
    lost = ConnectionLostError(message)
    # Otherwise the message is the part of an answer that had arrived.
    lost.was_kept_alive = isinstance(error, OSError) or isinstance(error.message, str)
    return lost


def map_error(error: BaseException, timeout_s: float) -> TransportError:
    """Return the error for a request that ended with an exception of aiohttp or of a hook."""
    if _is_of_trace(error):
        # A trace may make its own calls, and their failures do not concern this request.
        return hook_error(error)
    failed = never_sent(error)
    if failed is not None:
        return failed
    if isinstance(error, aiohttp.ClientOSError | aiohttp.ServerDisconnectedError):
        return lost_before_answer(error)
    if isinstance(error, TimeoutError) and error.errno is None:
        return RequestTimeoutError(f"no whole answer within {timeout_s:g} s")
    if not isinstance(error, aiohttp.ClientError | http_exceptions.HttpProcessingError | OSError):
        return hook_error(error)
    if isinstance(error, aiohttp.ClientPayloadError):
        reason = _unpacking(error) or "the answer was cut off"
    elif isinstance(error, aiohttp.ClientResponseError | http_exceptions.HttpProcessingError):
        reason = _unpacking(error) or "the answer is no well-formed HTTP"
    else:
        reason = f"the connection was lost ({type(error).__name__})"
    lost = ConnectionLostError(reason)
    # The connection closed while the request was being written.
    lost.was_kept_alive = isinstance(error, ConnectionError)
    return lost


def never_sent(error: BaseException) -> ConnectionFailedError | None:
    """Return the error for a connection that could not be made; None for other exceptions."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        # str() gives host, port and what is wrong with the certificate.
        return CertificateError(f"no trusted connection: {error}", retryable=False)
    if isinstance(error, aiohttp.ServerFingerprintMismatch):
        message = "no trusted connection: the certificate's fingerprint is another"
        return CertificateError(message, retryable=False)
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        # These include a TLS handshake that ended with an alert.
        return ConnectionFailedError(f"no connection: {error}")
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return ConnectionFailedError(f"no connection: the proxy answered {error.status}")
    return None


def _is_of_trace(error: BaseException) -> bool:
    frame = error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_globals.get("__name__") == "aiohttp.tracing":
            return True
        frame = frame.tb_next
    return False


def _unpacking(error: Exception) -> str | None:
    """Return what is wrong with the answer's content encoding; None for other errors."""
    for line in str(error).splitlines():
        _, found, rest = line.partition("Can not decode content-encoding: ")
        if found:
            # Such as "brotli (br). Please install `Brotli`", followed by quoted bytes.
            return f"the answer can't be unpacked: {rest.partition(chr(39))[0]}"
    return None


def hook_error(error: BaseException) -> HookError:
    """Return the error for an exception of a caller's hook: its class and place, not its message.

    The message may quote the request's headers.
    """
    kind, place = type(error).__name__, ""
    frame = error.__traceback__
    while frame is not None:
        place = f" at {PurePath(frame.tb_frame.f_code.co_filename).name}:{frame.tb_lineno}"
        frame = frame.tb_next
    return HookError(f"a trace, middleware or session of the caller raised {kind}{place}")
