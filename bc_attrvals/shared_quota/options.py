"""The arguments of a `RedisQuota`, checked before anything connects.

Under `quota.py`. A URL may hold a password, so an error says what is wrong and quotes nothing, and
none is raised while another is handled that would carry the URL along.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

import attrs

from bc_attrvals.errors import InvalidInputError

_NAMESPACE: Final = re.compile(r"[A-Za-z0-9_.:-]{1,100}", re.ASCII)
#: The part of `lease_s` after which the server ends a lease.
_TTL_SHARE: Final = 0.9
_SCHEMES: Final = {"redis", "rediss", "unix"}
#: The options of redis-py that are taken, besides those that begin with `ssl_`.
_OPTIONS: Final = {"db", "username", "password", "client_name"}
_ENCODED: Final = (
    "in user and password '/', '?', '#' and '@' must be written as %2F, %3F, %23 and %40"
)
_HOST: Final = re.compile(r"[^\x00-\x20\x7f/?#@\\]{0,253}")
_DATABASE: Final = re.compile(r"[0-9]{1,9}", re.ASCII)


def url_error(problem: str) -> InvalidInputError:
    """Return the error for a bad URL."""
    return InvalidInputError(f"url of the shared quota: {problem}", field="url")


def checked_url(url: str) -> str:
    """Return a URL that redis-py takes; raise `InvalidInputError`, which does not quote it."""
    problem = _problem_of(url)
    if problem is not None:
        raise url_error(problem)
    return url


def place_of(url: str) -> str:
    """Return scheme, host, port and path of a URL, without user, password and options."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    port = "" if parts.port is None else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}{parts.path}"


def _problem_of(url: object) -> str | None:
    try:
        from redis.asyncio.connection import Connection, parse_url
    except ModuleNotFoundError as error:
        if error.name != "redis":
            raise
        return "it needs redis-py: pip install 'bc_attrvals[redis]'"
    if not isinstance(url, str):
        return f"it must be a string, not {type(url).__name__}"
    try:
        url.encode()
        parts = urlsplit(url)
        # Refuses a bad host or port, which redis-py might accept.
        problem = _problem_in(parts, parts.hostname or "", parts.port)
        if problem is not None:
            return problem
        options = dict(parse_url(url))
        make = options.pop("connection_class", Connection)
        make(**options)
    except Exception:  # noqa: BLE001 - of redis-py, and of several modules below it
        return f"redis-py does not take it; {_ENCODED}"
    return None


def _problem_in(parts: SplitResult, host: str, port: int | None) -> str | None:
    if parts.scheme not in _SCHEMES:
        return "it must begin with redis://, rediss:// or unix://"
    if parts.fragment or "@" in parts.path:
        return _ENCODED
    named = parse_qs(parts.query, keep_blank_values=True)
    is_tls = parts.scheme == "rediss"
    if any(name not in _OPTIONS and not (is_tls and name.startswith("ssl_")) for name in named):
        return "of options it takes db, username, password, client_name, and ssl_… with rediss://"
    databases = list(named.get("db", []))
    if parts.scheme != "unix" and parts.path not in {"", "/"}:
        databases.append(unquote(parts.path).removeprefix("/"))
    if not all(map(_DATABASE.fullmatch, databases)):
        return "its database must be a number"
    return _problem_of_place(parts, unquote(host), port)


def _problem_of_place(parts: SplitResult, host: str, port: int | None) -> str | None:
    if parts.scheme == "unix":
        path = unquote(parts.path)
        return None if path.strip("/") and "\0" not in path else "it must name a socket's path"
    if not _HOST.fullmatch(host) or port == 0:
        return "bad host or port"
    # The resolver encodes it the same way; a host that can't be encoded raises here.
    host.encode("idna")
    return None


def _namespace(instance: object, attribute: attrs.Attribute[str], value: object) -> None:
    del instance
    if not isinstance(value, str) or not _NAMESPACE.fullmatch(value):
        message = "namespace must be 1 to 100 letters, digits, '_', '.', ':' or '-'"
        raise InvalidInputError(message, field=attribute.name)


def _from(low: float, high: float) -> Callable[[object, attrs.Attribute[Any], object], None]:
    def check(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
        del instance
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (is_number and low <= value <= high):  # type: ignore[operator]
            message = f"{attribute.name} must be a number from {low:g} to {high:g}, not {value!r}"
            raise InvalidInputError(message, field=attribute.name)

    return check


@attrs.frozen(kw_only=True)
class QuotaOptions:
    """Times in seconds. Raises `InvalidInputError`, whose `field` names the argument."""

    url: str = attrs.field(converter=checked_url, repr=False)
    namespace: str = attrs.field(validator=_namespace)
    lease_s: float = attrs.field(validator=_from(0.2, 3600))
    fallback_share: float = attrs.field(validator=_from(0.0001, 1))
    timeout_s: float = attrs.field(validator=_from(0.05, 60))

    @property
    def ttl_s(self) -> float:
        """After how long the server ends a lease that nobody renewed."""
        return self.lease_s * _TTL_SHARE
