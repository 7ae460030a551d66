"""Handles the requests of the emulated service, from the head's arrival to the answer.

A request passes: address and token, quota unit, concurrency, fault, latency, rows, answer. Every
request is logged and counted. It is counted out of flight before its answer is written, so a client
that reacts to the answer finds the slot free.
"""

from __future__ import annotations

import asyncio
import hmac
import math
import random
import re
import time
from collections import Counter
from collections.abc import Callable
from email.utils import formatdate
from functools import lru_cache, partial
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import unquote

import attrs
from aiohttp import web
from aiohttp.http import SERVER_SOFTWARE

from bc_attrvals.sandbox.answers import Answer, error_answer
from bc_attrvals.sandbox.connections import ConnectionServer, Exchange, Reply, failure
from bc_attrvals.sandbox.database_thread import DatabaseThread, GroupedJob
from bc_attrvals.sandbox.fault_answers import wrong_answer
from bc_attrvals.sandbox.faults import (
    ERROR_ANSWER_KINDS,
    MAX_DELAY_S,
    MISLEADING_KINDS,
    Fault,
    FaultKind,
    Faults,
)
from bc_attrvals.sandbox.heads import Head
from bc_attrvals.sandbox.operations import BOUNDED_WRITES, OPERATIONS, Operation, operation_of
from bc_attrvals.sandbox.quirks import Quirks
from bc_attrvals.sandbox.quota import InFlight, QuotaWindow
from bc_attrvals.sandbox.request_log import LogEntry, RequestLog
from bc_attrvals.sandbox.resources import Applied, Request, Resources

# From the narrowest.
_JSON_RANGES: Final = ("application/json", "application/*", "*/*")
_NO_WEIGHT: Final = re.compile(r"q\s*=\s*0(\.0*)?")
# The database writes that take no longer than a hand-over to the thread.
_SHORT_WRITES: Final = frozenset({Operation.UPSERT, Operation.DELETE})
# A client in the same loop may send before the server sees that it closed another socket. That
# takes some turns of the loop.
_SETTLING_TURNS: Final = 4


def _check_latency(options: object, attribute: object, latency_ms: float) -> None:
    del options, attribute
    longest_ms = MAX_DELAY_S * 1000
    if not (math.isfinite(latency_ms) and 0 <= latency_ms <= longest_ms):
        raise ValueError(f"latency_ms must be from 0 to {longest_ms:,}, not {latency_ms!r}")


def _check_puts(options: object, attribute: object, max_concurrent_puts: int | None) -> None:
    del options, attribute
    if max_concurrent_puts is not None and max_concurrent_puts < 1:
        raise ValueError(f"max_concurrent_puts must be at least 1, got {max_concurrent_puts}")


@attrs.define(kw_only=True)
class ServiceOptions:
    """The options of the service, checked; all but the clock may be changed while it runs."""

    store_hash: str
    access_token: str = attrs.field(repr=False)
    quirks: Quirks
    latency_ms: float = attrs.field(validator=_check_latency)
    max_concurrent_puts: int | None = attrs.field(validator=_check_puts)
    max_url_bytes: int
    clock: Callable[[], float]


@attrs.frozen
class Route:
    """Where a request leads; `resource` is the path below the store's own, "" outside of it."""

    path: str
    raw_query: str
    resource: str
    operation: Operation


@attrs.frozen
class Backend:
    """The parts that exist only while a sandbox runs."""

    thread: DatabaseThread
    resources: Resources
    writes: GroupedJob[Request, Applied]
    server: ConnectionServer


class Service:
    """The emulated service's state and its one request handler, `serve`."""

    def __init__(
        self,
        options: ServiceOptions,
        *,
        faults: Faults,
        quota: QuotaWindow,
        log: RequestLog,
        rng: random.Random,
    ) -> None:
        """Prepare; `backend` is set when the sandbox starts."""
        self.options = options
        self.faults = faults
        self.quota = quota
        self.log = log
        self.in_flight = InFlight()
        self.calls: Counter[Operation] = Counter()
        self.statuses: Counter[int] = Counter()
        self.rejected_customers: frozenset[int] = frozenset()
        self.backend: Backend | None = None
        self._rng = rng
        self._tasks: set[asyncio.Task[Any]] = set()
        # The requests that are being handled, by their connection.
        self._open: dict[object, LogEntry] = {}
        self._hanging: dict[int, asyncio.Future[None]] = {}

    def serve_at_once(self, exchange: Exchange, send: Callable[[Reply], None]) -> bool:
        """Serve a short write that waits for nothing but its turn; False for another request."""
        head, options, backend = exchange.head, self.options, self.backend
        route = _route_of(head.method, head.raw_path, options.store_hash)
        if (
            backend is None
            or route.operation not in _SHORT_WRITES
            or options.latency_ms
            or not self.faults.are_over
            or self._is_unusual(route.operation, self.in_flight.now(route.operation) + 1)
        ):
            return False
        entry = self._begin(exchange, route)
        entry.body = exchange.body
        answer = self._refuse_address(head, route) or self._refuse_limits(entry)
        if answer is not None:
            self._end(exchange, entry)
            send(self._reply(exchange, answer, entry))
        else:
            backend.writes.add(self._request(entry), partial(self._written, exchange, entry, send))
        return True

    def _written(
        self,
        exchange: Exchange,
        entry: LogEntry,
        send: Callable[[Reply], None],
        applied: Applied | None,
        error: Exception | None,
    ) -> None:
        self._end(exchange, entry)
        if applied is not None:
            entry.item_count = applied.item_count
            send(self._reply(exchange, applied.answer, entry))
        elif error is not None:
            send(failure(error))

    async def serve(self, exchange: Exchange) -> Reply | None:
        """Serve a request; returns None if its connection was dropped.

        If cancelled, what has reached the database is still applied.
        """
        head, backend, task = exchange.head, self.backend, asyncio.current_task()
        route = _route_of(head.method, head.raw_path, self.options.store_hash)
        entry = self._begin(exchange, route)
        if task is not None:
            self._tasks.add(task)
        try:
            if backend is None:
                exchange.drop(reset=True)
                return None
            if self._is_unusual(route.operation, entry.in_flight):
                entry.in_flight = await self._count_again(route.operation)
            answer = await self._answer(backend, exchange, entry, route)
            if answer is None:
                exchange.drop(reset=entry.fault is FaultKind.DROP_BEFORE)
                return None
            return self._reply(exchange, answer, entry)
        finally:
            self._end(exchange, entry)
            self._tasks.discard(task)

    def _begin(self, exchange: Exchange, route: Route) -> LogEntry:
        """Log a request, and count it in."""
        operation, now_s = route.operation, self.options.clock()
        entry = self.log.begin(exchange.head, operation, route.path, route.raw_query, now_s)
        self.calls[operation] += 1
        self._open[exchange.connection] = entry
        entry.in_flight = self.in_flight.enter(operation, entry.sequence)
        return entry

    def _end(self, exchange: Exchange, entry: LogEntry) -> None:
        """Count a request out."""
        self._open.pop(exchange.connection, None)
        self.in_flight.leave(entry.operation, entry.sequence)
        entry.ended_at_s = self.options.clock()

    def expects_others(self) -> bool:
        """Whether a client could send another request over an open connection."""
        return self.backend is not None and len(self._open) < len(self.backend.server)

    async def stop(self) -> None:
        """Cancel what is handled in tasks; writes that wait for others are done next."""
        self.backend = None
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _count_again(self, operation: Operation) -> int:
        """Return how many were in flight at arrival, without those whose client had gone away."""
        at_arrival = self.in_flight.present(operation)
        for _ in range(_SETTLING_TURNS):
            await asyncio.sleep(0)
        count = len(at_arrival.difference(self.in_flight.abandoned))
        self.in_flight.peak[operation] = max(count, self.in_flight.peak[operation])
        return count

    def _is_unusual(self, operation: Operation, in_flight: int) -> bool:
        """Whether this many in flight are more than before or than allowed."""
        return in_flight > self.in_flight.peak[operation] or self._is_over(operation, in_flight)

    def _is_over(self, operation: Operation, in_flight: int) -> bool:
        limit = self.options.max_concurrent_puts
        return limit is not None and in_flight > limit and operation in BOUNDED_WRITES

    async def _answer(
        self, backend: Backend, exchange: Exchange, entry: LogEntry, route: Route
    ) -> Answer | None:
        """Return the answer, None for a connection to be dropped without one."""
        refused = self._refuse_address(exchange.head, route)
        try:
            entry.body = await exchange.read_body()
        except web.HTTPRequestEntityTooLarge:
            return error_answer(413, "The body is too large.")
        except (ConnectionError, web.RequestPayloadError):
            return None
        answer = refused or self._refuse_limits(entry)
        if answer is not None:
            return answer
        fault = self.faults.next_for(entry.operation, self._rng)
        delay_s = self.options.latency_ms / 1000
        if fault is not None:
            entry.fault = fault.kind
            delay_s += fault.delay_s
        if delay_s:
            await asyncio.sleep(delay_s)
        if fault is not None:
            return await self._go_wrong(backend, exchange, entry, fault)
        return await self._apply(backend, entry)

    def _refuse_address(self, head: Head, route: Route) -> Answer | None:
        """Check what costs no unit: URL, token, method, media types."""
        if len(head.raw_path) > self.options.max_url_bytes:
            return error_answer(414, shows_quota=False)
        methods = OPERATIONS.get(route.resource)
        if methods is None:
            title = "The requested resource was not found."
            return error_answer(404, title, shows_quota=False)
        if not hmac.compare_digest(head.token, self.options.access_token.encode()):
            return error_answer(401, "Unauthorized", shows_quota=False)
        if route.operation is Operation.OTHER:
            allow = (("Allow", ", ".join(methods)),)
            return error_answer(405, shows_quota=False, headers=allow)
        return _refuse_media_types(head.method, head.accept, head.content_type)

    def _refuse_limits(self, entry: LogEntry) -> Answer | None:
        """Take the quota unit, then look at the concurrency."""
        if not self.quota.take():
            headers: tuple[tuple[str, str], ...] = ()
            if self.options.quirks.rate_headers:
                headers = (("X-Retry-After", str(self.quota.retry_after_s())),)
            return error_answer(429, headers=headers)
        if self._is_over(entry.operation, entry.in_flight):
            return error_answer(429, "Too many concurrent requests.", shows_quota=False)
        return None

    def _request(self, entry: LogEntry) -> Request:
        return Request(entry.operation, entry.query_string, entry.body, self.rejected_customers)

    async def _apply(self, backend: Backend, entry: LogEntry) -> Answer:
        request = self._request(entry)
        if entry.operation in _SHORT_WRITES:
            applied = await backend.writes.run(request)
        else:
            applied = await backend.thread.run(backend.resources.apply, request)
        entry.item_count = applied.item_count
        return applied.answer

    async def _go_wrong(
        self, backend: Backend, exchange: Exchange, entry: LogEntry, fault: Fault
    ) -> Answer | None:
        """Carry out a fault; None drops the connection."""
        kind = fault.kind
        if kind is FaultKind.HANG:
            await self._hang(exchange, entry)
        if kind in (FaultKind.HANG, FaultKind.DROP_BEFORE):
            return None
        if kind in ERROR_ANSWER_KINDS or kind in MISLEADING_KINDS:
            right = await self._apply(backend, entry) if fault.is_applied else None
            return wrong_answer(fault, right)
        answer = await self._apply(backend, entry)
        # A 204 has no body to cut; its connection is closed before the answer instead.
        cut_away = kind is FaultKind.CUT_BODY and not answer.body
        if kind is FaultKind.DROP_AFTER or cut_away:
            return None
        return answer

    async def _hang(self, exchange: Exchange, entry: LogEntry) -> None:
        if not exchange.is_connected():
            return
        ended = asyncio.get_running_loop().create_future()
        self._hanging[entry.sequence] = ended
        try:
            await ended
        finally:
            del self._hanging[entry.sequence]

    def abandoned(self, connection: object) -> None:
        """Note that the client of a request in flight went away."""
        entry = self._open.pop(connection, None)
        if entry is None:
            return
        if not self.options.quirks.abandoned_keeps_slot:
            self.in_flight.abandon(entry.operation, entry.sequence)
        ended = self._hanging.get(entry.sequence)
        if ended is not None and not ended.done():
            ended.set_result(None)

    def _reply(self, exchange: Exchange, answer: Answer, entry: LogEntry) -> Reply:
        self.statuses[answer.status] += 1
        if exchange.is_connected():
            entry.status = answer.status
        head = exchange.head
        quirks, body, keep_alive = self.options.quirks, answer.body, head.keep_alive
        kind = answer.content_type if body else ""
        lines = _first_lines(answer.status, kind, keep_alive, head.is_http_11)
        for name, value in answer.headers:
            lines += f"{name}: {value}\r\n"
        if answer.status != 204:
            lines += f"Content-Length: {len(body)}\r\n"
        if answer.shows_quota and quirks.rate_headers:
            lines += self.quota.header_lines()
        if quirks.request_id:
            lines += f"X-Request-Id: {entry.request_id}\r\n"
        lines += _date_and_server(int(time.time()))
        if entry.fault is FaultKind.CUT_BODY:
            body, keep_alive = body[: len(body) // 2], False
        elif head.method == "HEAD":
            body = b""
        return Reply(answer.status, lines.encode() + body, keep_alive)


@lru_cache
def _first_lines(status: int, content_type: str, keep_alive: bool, is_http_11: bool) -> str:
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    if content_type:
        lines.append(f"Content-Type: {content_type}")
    if not keep_alive:
        # Also for HTTP/1.0: this is a head of HTTP/1.1, where connections persist by default.
        lines.append("Connection: close")
    elif not is_http_11:
        lines.append("Connection: keep-alive")
    return "\r\n".join([*lines, ""])


@lru_cache(maxsize=1)
def _date_and_server(now_s: int) -> str:
    return f"Date: {formatdate(now_s, usegmt=True)}\r\nServer: {SERVER_SOFTWARE}\r\n\r\n"


@lru_cache
def _route_of(method: str, raw_path: str, store_hash: str) -> Route:
    if not raw_path.startswith("/"):
        # The absolute form, as it is sent to a proxy.
        raw_path = "/" + raw_path.partition("://")[2].partition("/")[2]
    path, _, raw_query = raw_path.partition("#")[0].partition("?")
    decoded, store = unquote(path), f"/stores/{store_hash}/v3"
    resource = decoded.removeprefix(store) if decoded.startswith(store) else ""
    return Route(path, raw_query, resource, operation_of(resource, method))


@lru_cache
def _refuse_media_types(method: str, accept: str, content_type: str) -> Answer | None:
    """Refuse other media types than JSON (BigCommerce guide, API status codes)."""
    if not _accepts_json(accept):
        return error_answer(406, shows_quota=False)
    kind = content_type.partition(";")[0].strip().lower()
    is_json = kind == "application/json" or kind.endswith("+json")
    if method in ("PUT", "POST") and not is_json:
        return error_answer(415, shows_quota=False)
    return None


def _accepts_json(accept: str) -> bool:
    """Whether the narrowest media range that holds JSON has a weight (RFC 9110, section 12.5.1)."""
    is_wanted: dict[str, bool] = {}
    for media_range in accept.lower().split(","):
        kind, *parameters = (part.strip() for part in media_range.split(";"))
        is_wanted[kind] = not any(map(_NO_WEIGHT.fullmatch, parameters))
    return next((is_wanted[kind] for kind in _JSON_RANGES if kind in is_wanted), False)
