"""aiohttp's exceptions, and those of hooks, as errors of ours. Pure.

No error has aiohttp's exception behind it, because that one carries the request's headers.
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
    """Return the error of a connection that was lost before any or all of an answer's head."""
    message = f"the connection was lost before the answer came ({type(error).__name__})"
    lost = ConnectionLostError(message)
    # The other kind of message is what had come of an answer.
    lost.was_kept_alive = isinstance(error, OSError) or isinstance(error.message, str)
    return lost


def map_error(error: BaseException, timeout_s: float) -> TransportError:
    """Return the error of a request that ended by an exception of aiohttp's or of a hook."""
    if _is_of_trace(error):
        # One that makes a call of its own, say: what became of that is not this request's.
        return hook_error(error)
    failed = never_sent(error)
    if failed is not None:
        return failed
    if isinstance(error, aiohttp.ClientOSError | aiohttp.ServerDisconnectedError):
        return lost_before_answer(error)
    if isinstance(error, TimeoutError):
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
    # Writing to a connection that closes at this moment.
    lost.was_kept_alive = isinstance(error, ConnectionResetError)
    return lost


def never_sent(error: BaseException) -> ConnectionFailedError | None:
    """Return the error for a connection that could not be made, if that is what happened."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        # str() names host, port and the fault of the certificate.
        return CertificateError(f"no trusted connection: {error}", retryable=False)
    if isinstance(error, aiohttp.ServerFingerprintMismatch):
        message = "no trusted connection: the certificate's fingerprint is another"
        return CertificateError(message, retryable=False)
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        # A handshake that an alert ended is among these.
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
    """Return what is wrong with the answer's content encoding, if that is what is wrong."""
    for line in str(error).splitlines():
        _, found, rest = line.partition("Can not decode content-encoding: ")
        if found:
            # Such as "brotli (br). Please install `Brotli`", and then what aiohttp quotes.
            return f"the answer can't be unpacked: {rest.partition(chr(39))[0]}"
    return None


def hook_error(error: BaseException) -> HookError:
    """Return the error for what a hook of the caller raised: its class and place, not its words.

    Its words may quote the request's headers.
    """
    kind, place = type(error).__name__, ""
    frame = error.__traceback__
    while frame is not None:
        place = f" at {PurePath(frame.tb_frame.f_code.co_filename).name}:{frame.tb_lineno}"
        frame = frame.tb_next
    return HookError(f"a trace, middleware or session of the caller raised {kind}{place}")
