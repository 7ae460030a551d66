"""Checks the arguments of a Store, each with an error that names the field.

The value is never quoted where it may be the access token.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import platform
import re
from collections.abc import Iterable
from typing import Final

import aiohttp
from yarl import URL

from bc_attrvals.core.requests import DEFAULT_BASE_URL
from bc_attrvals.errors import InvalidInputError, StoreStateError
from bc_attrvals.scheduling.quota import Priority, Quota
from bc_attrvals.version import __version__

# The unreserved characters of RFC 3986: a hash of these stands in a path as it is.
STORE_HASH: Final = re.compile(r"[A-Za-z0-9_~-][A-Za-z0-9._~-]{0,99}", re.ASCII)
# Visible ASCII: anything else could end the header it stands in.
TOKEN: Final = re.compile(r"[!-~]{1,1000}", re.ASCII)
# A store's own path, as the control panel shows it, is not a base URL.
_STORE_PATH: Final = re.compile(r"/stores(/|$)")
_USER_AGENT: Final = re.compile(r"[ -~]{1,300}", re.ASCII)


def variable(name: str) -> str:
    """Return an environment variable, or raise `InvalidInputError` naming it."""
    value = os.environ.get(name)
    if not value:
        message = f"the environment variable {name} is not set"
        raise InvalidInputError(message, field=name)
    return value


def check_pattern(field: str, value: str, pattern: re.Pattern[str], what: str) -> None:
    """Raise `InvalidInputError` unless the value is a string of a pattern."""
    # The value is not quoted: arguments may have been mixed up, so it may be the token.
    if not isinstance(value, str) or not pattern.fullmatch(value):
        message = f"{field} must be a string of {what}, neither empty nor too long"
        raise InvalidInputError(message, field=field)


def check_type(field: str, value: object, expected: type) -> None:
    """Raise `InvalidInputError` for a value of another type."""
    if not isinstance(value, expected):
        message = f"{field} must be a {expected.__name__}, not {type(value).__name__}"
        raise InvalidInputError(message, field=field)


def checked_traces(traces: object) -> tuple[aiohttp.TraceConfig, ...]:
    """Return trace configs as a tuple."""
    if not isinstance(traces, Iterable):
        message = f"trace_configs must be a sequence, not {type(traces).__name__}"
        raise InvalidInputError(message, field="trace_configs")
    checked = tuple(traces)
    for one in checked:
        check_type("trace_configs", one, aiohttp.TraceConfig)
    return checked


def checked_priority(value: Priority) -> Priority:
    """Return the `Priority` of a value that may be its number."""
    try:
        return Priority(value)
    except ValueError:
        message = f"priority must be a Priority, not {value!r}"
        raise InvalidInputError(message, field="priority") from None


def checked_timeout(value: float) -> float:
    """Return seconds above 0 and below a day."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 86_400:
        message = f"timeout must be seconds, above 0 and below a day, not {value!r}"
        raise InvalidInputError(message, field="timeout")
    return float(value)


def checked_base_url(base_url: str) -> str:
    """Return the base URL without a final slash: https, or http to loopback."""
    try:
        url = URL(base_url)
        host = url.host
    except (ValueError, TypeError):
        raise InvalidInputError("base_url is no URL", field="base_url") from None
    if url.scheme not in {"http", "https"} or not host:
        raise InvalidInputError("base_url must be an https:// URL", field="base_url")
    if url.user is not None or url.password is not None or url.query_string or url.fragment:
        message = "base_url takes no user, password, query or fragment"
        raise InvalidInputError(message, field="base_url")
    if _STORE_PATH.search(url.path):
        message = (
            "base_url holds the path of a store; give the part before /stores/ alone, such as "
            f"{DEFAULT_BASE_URL} (also as BIGCOMMERCE_API_URL)"
        )
        raise InvalidInputError(message, field="base_url")
    if url.scheme == "http" and not _is_loopback(host):
        message = "base_url must be https, but for loopback: the token would travel in the clear"
        raise InvalidInputError(message, field="base_url")
    return str(url).rstrip("/")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def full_user_agent(own: str | None) -> str:
    """Return the `User-Agent`: the caller's own name, then ours."""
    if own is not None:
        check_pattern("user_agent", own, _USER_AGENT, "printable ASCII characters")
    name = f"bc_attrvals/{__version__} Python/{platform.python_version()}"
    return f"{own} {name}" if own else name


def check_absent(**given: bool) -> None:
    """Raise `InvalidInputError` for an argument that goes with the Store's own session alone."""
    for name, is_given in given.items():
        if is_given:
            message = f"{name} goes with the Store's own session; give it to yours"
            raise InvalidInputError(message, field=name)


def check_quota(quota: Quota | None) -> Quota | None:
    """Return a quota of the caller's; raise `InvalidInputError` for one that lacks a method."""
    missing = [name for name in ("open", "acquire", "release", "close") if not hasattr(quota, name)]
    if quota is not None and missing:
        message = f"quota is a {type(quota).__name__} without {', '.join(missing)}"
        raise InvalidInputError(message, field="quota")
    return quota


def check_asyncio() -> None:
    """Raise `StoreStateError` where no event loop of asyncio runs."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        message = 'a Store needs asyncio; with anyio, run it with backend="asyncio"'
        raise StoreStateError(message) from None
