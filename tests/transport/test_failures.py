"""aiohttp's exceptions as errors of ours: what was never sent, what may be sent again at once."""

from __future__ import annotations

import ssl

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey

from bc_attrvals.errors import (
    CertificateError,
    ConnectionFailedError,
    ConnectionLostError,
    HookError,
    RequestTimeoutError,
    TransportError,
)
from bc_attrvals.transport.failures import hook_error, map_error

KEY = ConnectionKey("store.example", 443, True, True, None, None, None)


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (
            aiohttp.ClientConnectorCertificateError(KEY, ssl.CertificateError("self-signed")),
            CertificateError,
            "no trusted connection",
        ),
        (
            aiohttp.ServerFingerprintMismatch(b"a", b"b", "store.example", 443),
            CertificateError,
            "fingerprint is another",
        ),
        (aiohttp.ClientConnectorError(KEY, OSError(1, "no")), ConnectionFailedError, "no conn"),
        (aiohttp.ConnectionTimeoutError("late"), ConnectionFailedError, "no connection: late"),
        (aiohttp.ServerDisconnectedError(), ConnectionLostError, "before the answer came"),
        (aiohttp.ClientOSError(104, "reset"), ConnectionLostError, "before the answer came"),
        (TimeoutError(), RequestTimeoutError, "within 7.5 s"),
        (TimeoutError(110, "the system's own"), ConnectionLostError, "TimeoutError"),
        (aiohttp.ClientPayloadError("short"), ConnectionLostError, "was cut off"),
        (ConnectionResetError("closing"), ConnectionLostError, "ConnectionResetError"),
        (KeyError("x-auth-token"), HookError, "raised KeyError"),
    ],
)
def test_each_exception_has_its_error(
    error: Exception, kind: type[TransportError], says: str
) -> None:
    mapped = map_error(error, 7.5)
    assert type(mapped) is kind
    assert says in str(mapped)
    assert mapped.__cause__ is mapped.__context__ is None


@pytest.mark.parametrize(
    ("error", "was_kept_alive"),
    [
        (aiohttp.ServerDisconnectedError(), True),
        (aiohttp.ClientOSError(104, "reset"), True),
        (ConnectionResetError("closing"), True),
        (aiohttp.ClientPayloadError("short"), False),
    ],
)
def test_only_a_connection_lost_before_any_answer_may_have_been_idle(
    error: Exception, was_kept_alive: bool
) -> None:
    mapped = map_error(error, 30.0)
    assert isinstance(mapped, ConnectionLostError)
    assert mapped.was_kept_alive is was_kept_alive


def test_a_hooks_words_are_not_quoted_and_its_place_is_named() -> None:
    try:
        raise ValueError("X-Auth-Token: secret")
    except ValueError as error:
        mapped = hook_error(error)
    assert "secret" not in str(mapped)
    assert "ValueError at test_failures.py:" in str(mapped)
