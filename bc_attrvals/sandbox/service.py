"""Handles the requests of a sandbox, from the head's arrival to the answer.

A request passes: address and token, quota unit, concurrency, fault, latency, rows, answer. Whatever
it meets, it is logged, counted, and leaves its place in flight before its answer is written, so no
client can be faster than the count.
"""

from __future__ import annotations

import asyncio
import hmac
import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Final
from urllib.parse import unquote

import attrs
from aiohttp import web
from multidict import CIMultiDict, istr

from bc_attrvals.sandbox.answers import PROBLEM_TYPE, Answer, error_answer, html_answer
from bc_attrvals.sandbox.endpoint import Applied, Endpoint
from bc_attrvals.sandbox.faults import ERROR_ANSWER_KINDS, Fault, FaultKind, Faults
from bc_attrvals.sandbox.limits import InFlight, QuotaWindow
from bc_attrvals.sandbox.operations import OPERATION_OF_METHOD, Operation
from bc_attrvals.sandbox.quirks import Quirks
from bc_attrvals.sandbox.requests_log import LogEntry, RequestLog
from bc_attrvals.sandbox.wire import ConnectionServer, drop, is_connected, send_cut_off
from bc_attrvals.sandbox.worker import Worker

_REQUEST_ID: Final = istr("X-Request-Id")
_CONTENT_TYPE: Final = istr("Content-Type")
_TOKEN: Final = istr("X-Auth-Token")
# A client in this same loop may send before the socket it has just closed is seen closed here: some
# turns of the loop.
_SETTLING_TURNS: Final = 4


@attrs.frozen(kw_only=True)
class ServiceOptions:
    """What does not change while a sandbox lives."""

    store_hash: str
    access_token: str = attrs.field(repr=False)
    quirks: Quirks
    max_concurrent_puts: int | None
    max_url_bytes: int
    clock: Callable[[], float]


@attrs.frozen
class Backend:
    """What exists only while a sandbox runs."""

    worker: Worker
    endpoint: Endpoint
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
        latency_ms: float,
    ) -> None:
        """Prepare; `backend` is set when the sandbox starts."""
        self.options = options
        self.faults = faults
        self.quota = quota
        self.log = log
        self.latency_ms = latency_ms
        self.in_flight = InFlight()
        self.calls: Counter[Operation] = Counter()
        self.statuses: Counter[int] = Counter()
        self.unknown_customers: frozenset[int] = frozenset()
        self.backend: Backend | None = None
        self._rng = rng
        self._path = f"/stores/{options.store_hash}/v3/customers/attribute-values"
        self._token = options.access_token.encode()
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
        operation = OPERATION_OF_METHOD.get(request.method, Operation.OTHER)
        entry = self.log.begin(
            method=request.method,
            operation=operation,
            path=path,
            query_string=raw_query,
            raw_headers=request.raw_headers,
            now_s=self.options.clock(),
        )
        self.calls[operation] += 1
        backend = self.backend
        task = asyncio.current_task()
        if backend is None or task is None:
            return drop(request, reset=True)
        self._tasks.add(task)
        backend.server.watch(request, partial(self._abandoned, entry))
        try:
            await self._settle(entry)
            response = await self._respond(backend, request, entry, len(target))
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
            entry.ended_at_s = self.options.clock()

    async def stop(self) -> None:
        """Cancel all that is being handled."""
        self.backend = None
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _settle(self, entry: LogEntry) -> None:
        """Count the request in, and how many it finds."""
        operation, sequence = entry.operation, entry.sequence
        count = self.in_flight.enter(operation, sequence)
        limit = self.options.max_concurrent_puts
        over_limit = operation is Operation.UPSERT and limit is not None and count > limit
        if over_limit or count > self.in_flight.peak(operation):
            for _ in range(_SETTLING_TURNS):
                await asyncio.sleep(0)
            count = self.in_flight.rank(operation, sequence)
        self.in_flight.note_peak(operation, count)
        entry.in_flight = count

    async def _respond(
        self, backend: Backend, request: web.BaseRequest, entry: LogEntry, url_bytes: int
    ) -> web.Response | None:
        """Return the response, None for a connection to be dropped without one."""
        try:
            if request.body_exists:
                entry.body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return self._response(error_answer(413, "The body is too large."), entry)
        except (ConnectionError, web.RequestPayloadError):
            return None
        answer = self._refuse_address(request, entry, url_bytes) or self._refuse_limits(entry)
        if answer is not None:
            return self._response(answer, entry)
        fault = self.faults.next_for(entry.operation, self._rng)
        delay_s = self.latency_ms / 1000
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
        self, request: web.BaseRequest, entry: LogEntry, url_bytes: int
    ) -> Answer | None:
        """Check what costs no unit: URL, token, method."""
        if url_bytes > self.options.max_url_bytes:
            return error_answer(414, shows_quota=False)
        if unquote(entry.path) != self._path:
            title = "The requested resource was not found."
            return error_answer(404, title, shows_quota=False)
        given = request.headers.get(_TOKEN, "").encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(given, self._token):
            return error_answer(401, "Unauthorized", shows_quota=False)
        if entry.operation is Operation.OTHER:
            allow = (("Allow", ", ".join(OPERATION_OF_METHOD)),)
            return error_answer(405, shows_quota=False, headers=allow)
        return None

    def _refuse_limits(self, entry: LogEntry) -> Answer | None:
        """Take the quota unit, then look at the concurrency."""
        if not self.quota.take():
            headers: tuple[tuple[str, str], ...] = ()
            if self.options.quirks.rate_headers:
                headers = (("X-Retry-After", str(self.quota.retry_after_s())),)
            return error_answer(429, headers=headers)
        limit = self.options.max_concurrent_puts
        if entry.operation is Operation.UPSERT and limit is not None and entry.in_flight > limit:
            return error_answer(429, "Too many concurrent requests.", shows_quota=False)
        return None

    async def _apply(self, backend: Backend, entry: LogEntry) -> Answer:
        applied: Applied = await backend.worker.run(
            backend.endpoint.apply,
            entry.operation,
            entry.query_string,
            entry.body,
            self.unknown_customers,
        )
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
        if kind in ERROR_ANSWER_KINDS:
            if fault.applied:
                await self._apply(backend, entry)
            return _error_of(fault)
        answer = await self._apply(backend, entry)
        # A 204 has no body that could be cut; its connection ends before the answer instead.
        cut_away = kind is FaultKind.CUT_BODY and not answer.body
        if kind is FaultKind.DROP_AFTER or cut_away:
            return None
        return html_answer(200) if kind is FaultKind.HTML_BODY else answer

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
        headers: CIMultiDict[str] = CIMultiDict(answer.headers)
        if answer.body:
            headers[_CONTENT_TYPE] = answer.content_type
        quirks = self.options.quirks
        if answer.shows_quota and quirks.rate_headers:
            headers.extend(self.quota.headers())
        if quirks.request_id:
            headers[_REQUEST_ID] = entry.request_id
        return web.Response(status=answer.status, body=answer.body or None, headers=headers)


def _error_of(fault: Fault) -> Answer:
    headers: tuple[tuple[str, str], ...] = ()
    if fault.retry_after_s is not None:
        text = str(fault.retry_after_s)
        headers = (("Retry-After", text), ("X-Retry-After", text))
    match fault.kind:
        case FaultKind.BAD_GATEWAY:
            return html_answer(502, headers)
        case FaultKind.PROBLEM_JSON:
            return error_answer(500, content_type=PROBLEM_TYPE, headers=headers)
        case FaultKind.STORE_SUSPENDED:
            return error_answer(503, "The store is suspended.", headers=headers)
        case FaultKind.STORE_UNDER_LOAD:
            # Without the rate headers: documented as the sign of load, in contrast to a spent
            # quota.
            return error_answer(429, shows_quota=False, headers=headers)
        case FaultKind.FORBIDDEN:
            title = "You don't have a required scope to access the endpoint"
            return error_answer(403, title, headers=headers)
        case _:
            return error_answer(int(fault.kind.value), headers=headers)
