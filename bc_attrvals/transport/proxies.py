"""The proxy of a Store's own session: checked before anything connects, never logged."""

from __future__ import annotations

from typing import Final

from yarl import URL

from bc_attrvals.errors import InvalidInputError

# aiohttp supports no other kind of proxy.
_SCHEMES: Final = {"http", "https"}


def check_proxy(proxy: object, *, field: str = "proxy") -> None:
    """Check the URL of a proxy, `http://[user:password@]host[:port]` or `https://…`.

    Raises `InvalidInputError`, which never quotes the URL, because it may hold a password.
    """
    problem = _problem_of(proxy)
    # Crash reporters show local variables.
    del proxy
    if problem is not None:
        message = f"{field}: {problem}"
        raise InvalidInputError(message, field=field)


def proxy_of_environment(base_url: str) -> str | None:
    """Return the proxy that the environment names for a URL, or None.

    `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, in upper or lower case, are read as
    `urllib.request` reads them. A `.netrc` is not read.
    """
    # Imported when needed, because it loads the clients of several protocols.
    from urllib.request import getproxies, proxy_bypass

    url = URL(base_url)
    proxies = getproxies()
    named = proxies.get(url.scheme) or proxies.get("all")
    if not named or (url.host is not None and proxy_bypass(url.host)):
        return None
    check_proxy(named, field="trust_env")
    return named


def _problem_of(proxy: object) -> str | None:
    if not isinstance(proxy, str | URL):
        return f"the proxy must be a string, not {type(proxy).__name__}"
    try:
        url = URL(str(proxy))
        host = url.host
    except ValueError:
        return "the proxy is no URL; in user and password write '/', '#', '@' as %2F, %23, %40"
    if url.scheme not in _SCHEMES or not host:
        return "the proxy must be an http:// or https:// URL; SOCKS needs a session of your own"
    return None
