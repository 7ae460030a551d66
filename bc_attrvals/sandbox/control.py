"""Serves the controls of the sandbox: the page at `/`, JSON under `/sandbox`.

For people, and for test suites in other languages. `GET /sandbox` lists the routes with examples.
None of them takes from the quota or is logged, and none returns the access token. Bad input is
answered 400 with {"error": {"field": …, "message": …}}, too long a body 413.

A foreign page must not reach the routes through a user's browser. So the Host has to be a
loopback name (against DNS rebinding), and a change must come from the sandbox's page or from no
page at all (Origin and Sec-Fetch-Site; curl sends neither). A sandbox that can be reached from
elsewhere needs the access token instead of the loopback name: as X-Auth-Token, or as the password
that a browser asks for.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from contextlib import suppress
from functools import cache
from importlib.resources import files
from typing import Final

import msgspec
from aiohttp import web
from multidict import CIMultiDict

from bc_attrvals.sandbox import openapi
from bc_attrvals.sandbox.control_handlers import PREFIX, ROUTES, Handlers, Route
from bc_attrvals.sandbox.control_input import BadControlError, NoQuery, read_body, read_query
from bc_attrvals.sandbox.emulated_store import EmulatedStore

MAX_BODY_BYTES: Final = 16 * 1024 * 1024
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "[::1]"})
_READING: Final = frozenset({"GET", "HEAD"})
_DESCRIPTIONS: Final = {"": openapi.listed, openapi.PATH: openapi.described}
_HEADERS: Final = (
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
)


def is_control(request: web.BaseRequest) -> bool:
    """Whether a request is for the controls; the store's paths all begin with `/stores`."""
    if request.raw_path.startswith("/stores/"):
        return False
    path, _ = _target_of(request)
    return path in ("/", PREFIX) or path.startswith(PREFIX + "/")


def _target_of(request: web.BaseRequest) -> tuple[str, str]:
    path, _, query = request.raw_path.partition("#")[0].partition("?")
    return path, query


@cache
def _page() -> tuple[bytes, str]:
    """Return the page, and the policy that allows its own style and script and nothing else."""
    text = files("bc_attrvals.sandbox").joinpath("page.html").read_text(encoding="utf-8")

    def hashed(tag: str) -> str:
        inner = re.search(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        content = inner[1] if inner else ""
        return base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()

    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src 'sha256-{hashed('script')}'",
            f"style-src 'sha256-{hashed('style')}'",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        )
    )
    return text.encode(), policy


class Control:
    """The HTTP side of one store's control routes."""

    def __init__(self, store: EmulatedStore, *, needs_token: bool) -> None:
        """Control this store; `needs_token` asks each request for the access token."""
        self._store = store
        self._needs_token = needs_token
        self._handlers = Handlers(store)
        self._routes: dict[str, dict[str, Route]] = {}
        for route in ROUTES:
            self._routes.setdefault(route.path, {})[route.method] = route

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one control request."""
        try:
            self._guard(request)
            path, query = _target_of(request)
            if path == "/" and request.method in _READING:
                return self._answer_page()
            return _answer(200, await self._dispatch(request, path.removeprefix(PREFIX), query))
        except BadControlError as error:
            content = {"error": {"field": error.field, "message": error.message}}
            response = _answer(error.status, content)
            if error.status == 401:
                response.headers["WWW-Authenticate"] = 'Basic realm="access token as password"'
            return response

    def _guard(self, request: web.BaseRequest) -> None:
        host = request.headers.get("Host", "")
        name = re.sub(r":\d+\Z", "", host)
        if self._needs_token:
            self._check_token(request)
        elif name.lower() not in _LOOPBACK:
            raise BadControlError("Host", "the controls answer to loopback names only", 403)
        if request.method in _READING:
            return
        site = request.headers.get("Sec-Fetch-Site", "none")
        own = f"{request.scheme}://{host}".lower()
        origin = request.headers.get("Origin", own).lower()
        if site not in ("none", "same-origin") or origin != own:
            raise BadControlError("Origin", "foreign pages must not change the sandbox", 403)

    def _check_token(self, request: web.BaseRequest) -> None:
        given = request.headers.get("X-Auth-Token", "")
        scheme, _, basic = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "basic":
            with suppress(ValueError):
                given = base64.b64decode(basic).decode().partition(":")[2]
        token = self._store.access_token.encode()
        if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), token):
            raise BadControlError("X-Auth-Token", "the access token is needed", 401)

    def _answer_page(self) -> web.Response:
        body, policy = _page()
        headers = CIMultiDict(_HEADERS)
        headers["Content-Security-Policy"] = policy
        headers["X-Frame-Options"] = "DENY"
        return web.Response(body=body, content_type="text/html", charset="utf-8", headers=headers)

    async def _dispatch(self, request: web.BaseRequest, path: str, raw_query: str) -> object:
        method = "GET" if request.method == "HEAD" else request.method
        if path in _DESCRIPTIONS:
            read_query(raw_query, NoQuery)
            if method != "GET":
                raise BadControlError("method", "one of GET", 405)
            return _DESCRIPTIONS[path](ROUTES)
        from_path = {}
        methods = self._routes.get(path)
        if methods is None:
            parent, _, from_path["number"] = path.rpartition("/")
            methods = self._routes.get(f"{parent}/{{number}}")
        if methods is None:
            raise BadControlError("path", f"no such route; GET {PREFIX} lists them", 404)
        route = methods.get(method)
        if route is None:
            raise BadControlError("method", f"one of {', '.join(methods)}", 405)
        asked = read_query(raw_query, route.query, **from_path)
        if route.body is not None:
            body = read_body(await _body_of(request), route.body)
            return await route.handler(self._handlers, body)
        return await route.handler(self._handlers, *([] if route.query is NoQuery else [asked]))


async def _body_of(request: web.BaseRequest) -> bytes:
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise BadControlError("", f"a body has at most {MAX_BODY_BYTES:,} bytes", 413)
    return bytes(body)


def _answer(status: int, content: object) -> web.Response:
    return web.Response(
        status=status,
        body=msgspec.json.encode(content) + b"\n",
        content_type="application/json",
        headers=CIMultiDict(_HEADERS),
    )
