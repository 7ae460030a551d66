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
from collections import Counter
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Final
from urllib.parse import unquote

import attrs
from aiohttp import web
from multidict import CIMultiDict, istr

from bc_attrvals.sandbox.answers import Answer, error_answer
from bc_attrvals.sandbox.connections import ConnectionServer, drop, is_connected, send_cut_off
from bc_attrvals.sandbox.database_thread import DatabaseThread
from bc_attrvals.sandbox.fault_answers import error_of, misleading_answer
from bc_attrvals.sandbox.faults import (
    ERROR_ANSWER_KINDS,
    MAX_DELAY_S,
    MISLEADING_KINDS,
    Fault,
    FaultKind,
    Faults,
)
from bc_attrvals.sandbox.operations import BOUNDED_WRITES, OPERATIONS, Operation, operation_of
from bc_attrvals.sandbox.quirks import Quirks
from bc_attrvals.sandbox.quota import InFlight, QuotaWindow
from bc_attrvals.sandbox.request_log import LogEntry, RequestLog
from bc_attrvals.sandbox.resources import Applied, Request, Resources

_REQUEST_ID: Final = istr("X-Request-Id")
_CONTENT_TYPE: Final = istr("Content-Type")
_TOKEN: Final = istr("X-Auth-Token")
_ACCEPT: Final = istr("Accept")
# From the narrowest.
_JSON_RANGES: Final = ("application/json", "application/*", "*/*")
_NO_WEIGHT: Final = re.compile(r"q\s*=\s*0(\.0*)?")
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
class Backend:
    """The parts that exist only while a sandbox runs."""

    thread: DatabaseThread
    resources: Resources
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
        self._tasks: set[asyncio.Task[object]] = set()
        self._hanging: dict[int, asyncio.Future[None]] = {}

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Handle one request.

        If cancelled, what has reached the database thread is still applied.
        """
        target = request.raw_path
        if not target.startswith("/"):
            # The absolute form, as it is sent to a proxy.
            target = "/" + target.partition("://")[2].partition("/")[2]
        path, _, raw_query = target.partition("#")[0].partition("?")
        resource = _resource_of(path, self.options.store_hash)
        operation = operation_of(resource, request.method)
        clock = self.options.clock
        entry = self.log.begin(request, operation, path, raw_query, clock())
        self.calls[operation] += 1
        backend = self.backend
        task = asyncio.current_task()
        if backend is None or task is None:
            return drop(request, reset=True)
        self._tasks.add(task)
        backend.server.watch(request, partial(self._abandoned, entry))
        try:
            await self._count_in(entry)
            refused = self._refuse_address(request, resource, operation, len(target))
            response = await self._respond(backend, request, entry, refused)
            if response is None:
                return drop(request, reset=entry.fault is FaultKind.DROP_BEFORE)
            if is_connected(request):
                entry.status = response.status
            if entry.fault is FaultKind.CUT_BODY and isinstance(response.body, bytes):
                return await send_cut_off(request, response, response.body)
            return response
        finally:
            backend.server.unwatch(request)
            self.in_flight.leave(operation, entry.sequence)
            self._tasks.discard(task)
            entry.ended_at_s = clock()

    async def stop(self) -> None:
        """Cancel all that is being handled."""
        self.backend = None
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _count_in(self, entry: LogEntry) -> None:
        """Count the request in, and log how many are in flight with it."""
        operation, sequence = entry.operation, entry.sequence
        count = self.in_flight.enter(operation, sequence)
        if self._is_over(entry, count) or count > self.in_flight.peak(operation):
            for _ in range(_SETTLING_TURNS):
                await asyncio.sleep(0)
            count = self.in_flight.rank(operation, sequence)
        self.in_flight.note_peak(operation, count)
        entry.in_flight = count

    def _is_over(self, entry: LogEntry, in_flight: int) -> bool:
        limit = self.options.max_concurrent_puts
        return entry.operation in BOUNDED_WRITES and limit is not None and in_flight > limit

    async def _respond(
        self, backend: Backend, request: web.BaseRequest, entry: LogEntry, refused: Answer | None
    ) -> web.Response | None:
        """Return the response, None for a connection to be dropped without one."""
        try:
            if request.body_exists:
                entry.body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return self._response(error_answer(413, "The body is too large."), entry)
        except (ConnectionError, web.RequestPayloadError):
            return None
        answer = refused or self._refuse_limits(entry)
        if answer is not None:
            return self._response(answer, entry)
        fault = self.faults.next_for(entry.operation, self._rng)
        delay_s = self.options.latency_ms / 1000
        if fault is not None:
            entry.fault = fault.kind
            delay_s += fault.delay_s
        if delay_s:
            await asyncio.sleep(delay_s)
        if fault is not None:
            answer = await self._go_wrong(backend, request, entry, fault)
        else:
            answer = await self._apply(backend, entry)
        return None if answer is None else self._response(answer, entry)

    def _refuse_address(
        self, request: web.BaseRequest, resource: str, operation: Operation, url_bytes: int
    ) -> Answer | None:
        """Check what costs no unit: URL, token, method, media types."""
        if url_bytes > self.options.max_url_bytes:
            return error_answer(414, shows_quota=False)
        methods = OPERATIONS.get(resource)
        if methods is None:
            title = "The requested resource was not found."
            return error_answer(404, title, shows_quota=False)
        given = request.headers.get(_TOKEN, "").encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(given, self.options.access_token.encode()):
            return error_answer(401, "Unauthorized", shows_quota=False)
        if operation is Operation.OTHER:
            allow = (("Allow", ", ".join(methods)),)
            return error_answer(405, shows_quota=False, headers=allow)
        accept = request.headers.get(_ACCEPT, "*/*")
        content_type = request.headers.get(_CONTENT_TYPE, "application/json")
        return _refuse_media_types(request.method, accept, content_type)

    def _refuse_limits(self, entry: LogEntry) -> Answer | None:
        """Take the quota unit, then look at the concurrency."""
        if not self.quota.take():
            headers: tuple[tuple[str, str], ...] = ()
            if self.options.quirks.rate_headers:
                headers = (("X-Retry-After", str(self.quota.retry_after_s())),)
            return error_answer(429, headers=headers)
        if self._is_over(entry, entry.in_flight):
            return error_answer(429, "Too many concurrent requests.", shows_quota=False)
        return None

    async def _apply(self, backend: Backend, entry: LogEntry) -> Answer:
        request = Request(entry.operation, entry.query_string, entry.body, self.rejected_customers)
        applied: Applied = await backend.thread.run(backend.resources.apply, request)
        entry.item_count = applied.item_count
        return applied.answer

    async def _go_wrong(
        self, backend: Backend, request: web.BaseRequest, entry: LogEntry, fault: Fault
    ) -> Answer | None:
        """Carry out a fault; None drops the connection."""
        kind = fault.kind
        if kind is FaultKind.DROP_BEFORE:
            return None
        if kind is FaultKind.HANG:
            await self._hang(request, entry)
            return None
        if kind in ERROR_ANSWER_KINDS or kind in MISLEADING_KINDS:
            right = await self._apply(backend, entry) if fault.is_applied else None
            return (
                error_of(fault) if kind in ERROR_ANSWER_KINDS else misleading_answer(fault, right)
            )
        answer = await self._apply(backend, entry)
        # A 204 has no body to cut; its connection is closed before the answer instead.
        cut_away = kind is FaultKind.CUT_BODY and not answer.body
        if kind is FaultKind.DROP_AFTER or cut_away:
            return None
        return answer

    async def _hang(self, request: web.BaseRequest, entry: LogEntry) -> None:
        if not is_connected(request):
            return
        ended = asyncio.get_running_loop().create_future()
        self._hanging[entry.sequence] = ended
        try:
            await ended
        finally:
            del self._hanging[entry.sequence]

    def _abandoned(self, entry: LogEntry) -> None:
        """Note that the client of an open request went away."""
        if not self.options.quirks.abandoned_keeps_slot:
            self.in_flight.leave(entry.operation, entry.sequence)
        ended = self._hanging.get(entry.sequence)
        if ended is not None and not ended.done():
            ended.set_result(None)

    def _response(self, answer: Answer, entry: LogEntry) -> web.Response:
        self.statuses[answer.status] += 1
        quirks = self.options.quirks
        headers: CIMultiDict[str] = CIMultiDict(answer.headers)
        if answer.body:
            headers[_CONTENT_TYPE] = answer.content_type
        if answer.shows_quota and quirks.rate_headers:
            headers.extend(self.quota.headers())
        if quirks.request_id:
            headers[_REQUEST_ID] = entry.request_id
        return web.Response(status=answer.status, body=answer.body or None, headers=headers)


@lru_cache
def _resource_of(path: str, store_hash: str) -> str:
    """Return the path below the store's own, "" outside of it."""
    decoded, store = unquote(path), f"/stores/{store_hash}/v3"
    return decoded.removeprefix(store) if decoded.startswith(store) else ""


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
