"""Serves what is about the sandbox and not the store: the page at `/`, JSON under `/sandbox`.

For people and for the test suites of other languages. None of it counts against the quota or shows
in `Sandbox.requests`, and none of it asks for a token or tells it. Lists of ids in queries have
commas between them; bodies are JSON.

    GET    /                         the page for the browser
    GET    /sandbox                  this list
    GET    /sandbox/state            rows, quota, in flight, latency, faults, counts, quirks
    GET    /sandbox/rows             ?customer_id= &attribute_id= &value= (a part) &page= &limit=
    POST   /sandbox/rows             {"rows": [{"customer_id", "attribute_id", "value",
                                     "date_created"?, "date_modified"?}]}: put in, past all limits
    PUT    /sandbox/rows             the same, and deletes all others
    DELETE /sandbox/rows             ?id=1,2: deletes these
    POST   /sandbox/reset            {"only"?: ["rows", "log", "faults", "quota", "customers"]}
    GET    /sandbox/faults           those in force, with their numbers and hits
    POST   /sandbox/faults           adds one: {"kind": "503", "probability"?, "operation"?,
                                     "times"?, "after"?, "retry_after_s"?, "delay_s"?, "applied"?}
                                     or a line: "503=5%,operation=list"
    PUT    /sandbox/faults           a list of such: these and no others
    DELETE /sandbox/faults           ends all, scripts too
    DELETE /sandbox/faults/NUMBER    ends one
    POST   /sandbox/faults/script    {"faults": ["503", null], "operation"?}: the next requests
    GET    /sandbox/requests         ?after=SEQUENCE &limit= &operation=: the newest, oldest first
    DELETE /sandbox/requests         forgets them
    PUT    /sandbox/latency          {"latency_ms": 80}
    PUT    /sandbox/quota            {"quota"?: 150 or null, "spend"?: units another app takes}
    GET    /sandbox/customers        the rejected ones
    POST   /sandbox/customers        {"customer_ids": [1]}: rejects these, too
    PUT    /sandbox/customers        rejects these and no others

Bad input is answered 400 with {"error": {"field": …, "message": …}}, too long a body 413.

A page from elsewhere must not reach this through somebody's browser: the Host has to be a loopback
name (against DNS rebinding), and what changes something must come from the page itself or from no
page at all (Origin and Sec-Fetch-Site; curl sends neither).
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import attrs
import msgspec
from aiohttp import web
from multidict import CIMultiDict

from bc_attrvals.sandbox import control_bodies as bodies
from bc_attrvals.sandbox.browsing import RowQuery
from bc_attrvals.sandbox.control_bodies import BadControlError
from bc_attrvals.sandbox.operations import Operation

if TYPE_CHECKING:
    from bc_attrvals.sandbox.faults import Fault
    from bc_attrvals.sandbox.requests_log import RecordedRequest
    from bc_attrvals.sandbox.rows import StoredRow
    from bc_attrvals.sandbox.server import Sandbox

PREFIX: Final = "/sandbox"
MAX_BODY_BYTES: Final = 16 * 1024 * 1024
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "[::1]"})
_READING: Final = frozenset({"GET", "HEAD"})
_HEADERS: Final = (
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
)
_LONGEST_SEARCH: Final = 255
_MOST_SEQUENCES: Final = 10**15

Handler = Callable[[web.BaseRequest, str], Awaitable[object]]


def is_control(request: web.BaseRequest) -> bool:
    """Whether a request is about the sandbox; the store's paths all begin with `/stores`."""
    path = _path_of(request)
    return path in ("/", PREFIX) or path.startswith(PREFIX + "/")


def _path_of(request: web.BaseRequest) -> str:
    return request.raw_path.partition("#")[0].partition("?")[0]


def _query_of(request: web.BaseRequest) -> str:
    return request.raw_path.partition("#")[0].partition("?")[2]


@cache
def _page() -> tuple[bytes, str]:
    """Return the page, and the policy that lets its own style and script run and nothing else."""
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
    """The handler of one sandbox's control routes."""

    def __init__(self, sandbox: Sandbox) -> None:
        """Take the sandbox to control."""
        self._sandbox = sandbox
        self._routes: dict[str, dict[str, Handler]] = {
            "": {"GET": self._list_routes},
            "/state": {"GET": self._state},
            "/rows": {
                "GET": self._rows,
                "POST": self._add_rows,
                "PUT": self._replace_rows,
                "DELETE": self._delete_rows,
            },
            "/reset": {"POST": self._reset},
            "/faults": {
                "GET": self._faults,
                "POST": self._add_fault,
                "PUT": self._set_faults,
                "DELETE": self._clear_faults,
            },
            "/faults/script": {"POST": self._script},
            "/requests": {"GET": self._requests, "DELETE": self._clear_requests},
            "/latency": {"PUT": self._set_latency},
            "/quota": {"PUT": self._set_quota},
            "/customers": {
                "GET": self._customers,
                "POST": self._reject,
                "PUT": self._set_rejected,
            },
        }

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one control request."""
        try:
            self._guard(request)
            path = _path_of(request)
            if path == "/" and request.method in _READING:
                return self._answer_page()
            return _answer(200, await self._dispatch(request, path.removeprefix(PREFIX)))
        except BadControlError as error:
            told = {"error": {"field": error.field, "message": error.message}}
            return _answer(error.status, told)

    def _guard(self, request: web.BaseRequest) -> None:
        host = request.headers.get("Host", "")
        name = re.sub(r":\d+\Z", "", host)
        if name.lower() not in _LOOPBACK:
            raise BadControlError("Host", "the sandbox is reached by a loopback name alone", 403)
        if request.method in _READING:
            return
        site = request.headers.get("Sec-Fetch-Site", "none")
        origin = request.headers.get("Origin", f"http://{host}")
        if site not in ("none", "same-origin") or origin.lower() != f"http://{host}".lower():
            raise BadControlError("Origin", "pages from elsewhere must not change the sandbox", 403)

    def _answer_page(self) -> web.Response:
        body, policy = _page()
        headers = CIMultiDict(_HEADERS)
        headers["Content-Security-Policy"] = policy
        headers["X-Frame-Options"] = "DENY"
        return web.Response(body=body, content_type="text/html", charset="utf-8", headers=headers)

    async def _dispatch(self, request: web.BaseRequest, path: str) -> object:
        if path.startswith("/faults/") and path not in self._routes:
            methods: dict[str, Handler] = {"DELETE": self._end_fault}
        elif path in self._routes:
            methods = self._routes[path]
        else:
            raise BadControlError("path", f"no such route; GET {PREFIX} lists them", 404)
        method = "GET" if request.method == "HEAD" else request.method
        handler = methods.get(method)
        if handler is None:
            raise BadControlError("method", f"one of {', '.join(methods)}", 405)
        return await handler(request, _query_of(request))

    async def _list_routes(self, request: web.BaseRequest, query: str) -> object:
        del request
        bodies.read_query(query, ())
        routes = [
            f"{method} {PREFIX}{path}" for path, found in self._routes.items() for method in found
        ]
        return {"routes": ["GET /", *routes, f"DELETE {PREFIX}/faults/NUMBER"]}

    async def _state(self, request: web.BaseRequest, query: str) -> object:
        del request
        bodies.read_query(query, ())
        sandbox = self._sandbox
        quota = sandbox.quota
        stored = await sandbox.browse(RowQuery(limit=0))
        return {
            "url": sandbox.url,
            "store_hash": sandbox.store_hash,
            "rows": stored.total,
            "rows_version": stored.version,
            "latency_ms": sandbox.latency_ms,
            "quota": {
                "quota": quota,
                "left": sandbox.quota_left,
                "window_ms": round(sandbox.window_s * 1000),
                "reset_ms": None if quota is None else round(sandbox.quota_reset_s * 1000),
            },
            "in_flight": {one.value: sandbox.in_flight(one) for one in Operation},
            "peak_in_flight": {one.value: sandbox.peak_in_flight(one) for one in Operation},
            "max_concurrent_puts": sandbox.max_concurrent_puts,
            "requests": {"seen": sandbox.requests.seen, "kept": len(sandbox.requests)},
            "calls": {one.value: sandbox.calls[one] for one in Operation},
            "statuses": {str(status): count for status, count in sandbox.statuses.items()},
            **self._all_faults(),
            "rejected_customers": len(sandbox.rejected_customers),
            "quirks": attrs.asdict(sandbox.quirks),
        }

    async def _rows(self, request: web.BaseRequest, query: str) -> object:
        del request
        wanted = bodies.read_row_query(query)
        if len(wanted.value) > _LONGEST_SEARCH:
            raise BadControlError("value", f"at most {_LONGEST_SEARCH} characters")
        page = await self._sandbox.browse(wanted)
        return {
            "rows": [_row_json(row) for row in page.rows],
            "total": page.total,
            "page": wanted.page,
            "limit": wanted.limit,
            "pages": -(-page.total // wanted.limit),
        }

    async def _add_rows(self, request: web.BaseRequest, query: str) -> object:
        return await self._put_in(request, query, replace=False)

    async def _replace_rows(self, request: web.BaseRequest, query: str) -> object:
        return await self._put_in(request, query, replace=True)

    async def _put_in(self, request: web.BaseRequest, query: str, *, replace: bool) -> object:
        bodies.read_query(query, ())
        body = bodies.read_body(await _body_of(request), bodies.RowsBody)
        read = await self._sandbox.seed((row.seed_row() for row in body.rows), replace=replace)
        return {"put_in": read, "rows": await self._sandbox.count()}

    async def _delete_rows(self, request: web.BaseRequest, query: str) -> object:
        del request
        ids = bodies.read_ids(bodies.read_query(query, ("id",)), "id")
        if ids is None:
            raise BadControlError("id", f"missing; POST {PREFIX}/reset deletes all rows")
        return {"deleted": await self._sandbox.delete_rows(ids)}

    async def _reset(self, request: web.BaseRequest, query: str) -> object:
        bodies.read_query(query, ())
        body = bodies.read_body(await _body_of(request), bodies.ResetBody)
        try:
            if body.only is None:
                await self._sandbox.reset()
            else:
                await self._sandbox.reset(body.only)
        except ValueError as error:
            raise BadControlError("only", str(error)) from None
        return await self._state(request, "")

    def _all_faults(self) -> dict[str, object]:
        faults = self._sandbox.faults
        return {
            "faults": [
                {
                    "number": active.number,
                    **_fault_json(active.fault),
                    "seen": active.seen,
                    "hits": active.hits,
                }
                for active in faults.active
            ],
            "scripted": faults.scripted,
        }

    async def _faults(self, request: web.BaseRequest, query: str) -> object:
        del request
        bodies.read_query(query, ())
        return self._all_faults()

    async def _add_fault(self, request: web.BaseRequest, query: str) -> object:
        bodies.read_query(query, ())
        given: str | bodies.FaultBody = bodies.read_body(
            await _body_of(request),
            str | bodies.FaultBody,  # type: ignore[arg-type] # a union is no type to mypy
        )
        number = self._sandbox.faults.add(bodies.read_fault(given, ""))
        return {"number": number, **self._all_faults()}

    async def _set_faults(self, request: web.BaseRequest, query: str) -> object:
        bodies.read_query(query, ())
        given = bodies.read_body(await _body_of(request), list[str | bodies.FaultBody])
        checked = [bodies.read_fault(one, f"[{index}]") for index, one in enumerate(given)]
        self._sandbox.faults.clear()
        for fault in checked:
            self._sandbox.faults.add(fault)
        return self._all_faults()

    async def _clear_faults(self, request: web.BaseRequest, query: str) -> object:
        del request
        bodies.read_query(query, ())
        self._sandbox.faults.clear()
        return self._all_faults()

    async def _end_fault(self, request: web.BaseRequest, query: str) -> object:
        bodies.read_query(query, ())
        text = _path_of(request).rpartition("/")[2]
        number = bodies.read_number({"number": text}, "number", 0, least=1, most=_MOST_SEQUENCES)
        if not self._sandbox.faults.remove(number):
            raise BadControlError("number", "no fault in force has it", 404)
        return self._all_faults()

    async def _script(self, request: web.BaseRequest, query: str) -> object:
        bodies.read_query(query, ())
        body = bodies.read_body(await _body_of(request), bodies.ScriptBody)
        operation = bodies.read_operation(body.operation)
        steps = [
            None if one is None else bodies.read_fault(one, f"faults[{index}]")
            for index, one in enumerate(body.faults)
        ]
        self._sandbox.faults.script(steps, operation)
        return self._all_faults()

    async def _requests(self, request: web.BaseRequest, query: str) -> object:
        del request
        asked = bodies.read_query(query, ("after", "limit", "operation"))
        after = bodies.read_number(asked, "after", 0, least=0, most=_MOST_SEQUENCES)
        limit = bodies.read_number(asked, "limit", 100, least=1, most=bodies.MOST_LOGGED)
        operation = bodies.read_operation(asked.get("operation"))
        log = self._sandbox.requests
        found = log.newest(limit, after=after, operation=operation)
        return {
            "requests": [self._request_json(one) for one in found],
            "seen": log.seen,
            "kept": len(log),
        }

    def _request_json(self, record: RecordedRequest) -> dict[str, object]:
        ended_s = record.ended_at_s
        return {
            "sequence": record.sequence,
            "method": record.method,
            "operation": record.operation.value,
            "path": self._without_token(record.path),
            "query": self._without_token(record.query_string),
            "status": record.status,
            "started_at": _iso(self._sandbox.when(record.started_at_s), "milliseconds"),
            "duration_ms": (
                None if ended_s is None else round((ended_s - record.started_at_s) * 1000, 2)
            ),
            "open": ended_s is None,
            "fault": None if record.fault is None else record.fault.value,
            "item_count": record.item_count,
            "in_flight": record.in_flight,
            "request_id": record.request_id,
        }

    def _without_token(self, text: str) -> str:
        token = self._sandbox.access_token
        for shape in (token, quote(token, safe="")):
            if shape:
                text = text.replace(shape, "***")
        return text

    async def _clear_requests(self, request: web.BaseRequest, query: str) -> object:
        del request
        bodies.read_query(query, ())
        self._sandbox.requests.clear()
        return {"requests": [], "seen": self._sandbox.requests.seen, "kept": 0}

    async def _set_latency(self, request: web.BaseRequest, query: str) -> object:
        bodies.read_query(query, ())
        body = bodies.read_body(await _body_of(request), bodies.LatencyBody)
        try:
            self._sandbox.latency_ms = body.latency_ms
        except ValueError as error:
            raise BadControlError("latency_ms", str(error)) from None
        return {"latency_ms": self._sandbox.latency_ms}

    async def _set_quota(self, request: web.BaseRequest, query: str) -> object:
        bodies.read_query(query, ())
        body = bodies.read_body(await _body_of(request), bodies.QuotaBody)
        if not isinstance(body.quota, msgspec.UnsetType):
            self._sandbox.set_quota(body.quota)
        self._sandbox.spend(body.spend)
        return {"quota": self._sandbox.quota, "left": self._sandbox.quota_left}

    async def _customers(self, request: web.BaseRequest, query: str) -> object:
        del request
        bodies.read_query(query, ())
        return {"customer_ids": sorted(self._sandbox.rejected_customers)}

    async def _reject(self, request: web.BaseRequest, query: str) -> object:
        body = bodies.read_body(await _body_of(request), bodies.CustomersBody)
        self._sandbox.reject_customers(body.customer_ids)
        return await self._customers(request, query)

    async def _set_rejected(self, request: web.BaseRequest, query: str) -> object:
        body = bodies.read_body(await _body_of(request), bodies.CustomersBody)
        self._sandbox.accept_customers()
        self._sandbox.reject_customers(body.customer_ids)
        return await self._customers(request, query)


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


def _row_json(row: StoredRow) -> dict[str, object]:
    return {
        "id": row.id,
        "customer_id": row.customer_id,
        "attribute_id": row.attribute_id,
        "value": row.value,
        "date_created": _iso(row.date_created_s),
        "date_modified": _iso(row.date_modified_s),
    }


def _fault_json(fault: Fault) -> dict[str, object]:
    return {
        "kind": fault.kind.value,
        "probability": fault.probability,
        "operation": None if fault.operation is None else fault.operation.value,
        "times": fault.times,
        "after": fault.after,
        "retry_after_s": fault.retry_after_s,
        "delay_s": fault.delay_s,
        "applied": fault.applied,
    }


def _iso(moment_s: float, timespec: str = "seconds") -> str:
    moment = datetime.fromtimestamp(moment_s, UTC)
    return moment.isoformat(timespec=timespec).replace("+00:00", "Z")
