"""Sends requests: admission, wire, retry. Between the session below and the resource above.

Each try takes a slot and a quota unit before it is sent, and gives the slot back before any wait.
A 429 is not counted as a try. If it has rate-limit headers or a time to wait, the request waits at
the front of the queue. If it has neither, the whole operation backs off: the store is under load,
or too many requests were made at once (BigCommerce guide, API rate limits).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Coroutine
from contextvars import Context
from random import Random
from typing import Any, Final, Protocol, TypeVar

import attrs
import msgspec

from bc_attrvals.core.limits import Limits
from bc_attrvals.core.rate_limit import QuotaSnapshot, read_quota_headers, read_retry_after_s
from bc_attrvals.core.requests import Operation, Request
from bc_attrvals.core.responses import SUCCESS, Response, error_from_answer
from bc_attrvals.core.retry import RetryPolicy
from bc_attrvals.errors import (
    APIError,
    BCAttrValsError,
    ConnectionFailedError,
    ConnectionLostError,
    DecodeError,
    StoreStateError,
    TransportError,
)
from bc_attrvals.events import EventBus
from bc_attrvals.scheduling.admission import Admission
from bc_attrvals.scheduling.exchange import Exchange, OutdatedError, Worker
from bc_attrvals.scheduling.leases import Lease
from bc_attrvals.scheduling.quota import Quota
from bc_attrvals.scheduling.request_events import TryReports, is_logged

T = TypeVar("T")

#: This many 429s without a time to wait count as one try of `RetryPolicy.attempts`. A store under
#: load refuses at random, so a few refusals in a row must not fail the request.
_REFUSALS_PER_ATTEMPT: Final = 4
#: After this many 429s of one request the rate-limit headers are ignored.
_MOST_QUOTA_REFUSALS: Final = 5


@attrs.frozen(kw_only=True)
class Statistics:
    """A snapshot of one Store's traffic since it was opened.

    `in_flight` and `queued` count the requests of each operation now. `requests` counts all tries
    sent, `retries` those sent again after a failure, `rate_limited` the 429 answers. `bytes_sent`
    and `bytes_received` count bodies. `slot_wait_s` and `quota_wait_s` are sums over all requests.
    `latency_s` is a moving average for each operation; operations without an answer are missing.
    """

    in_flight: dict[Operation, int]
    queued: dict[Operation, int]
    quota: QuotaSnapshot
    requests: int
    retries: int
    rate_limited: int
    bytes_sent: int
    bytes_received: int
    slot_wait_s: float
    quota_wait_s: float
    latency_s: dict[Operation, float]

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON types."""
        fields: dict[str, object] = msgspec.to_builtins(self)
        return fields


class Transport(Protocol):
    """What the scheduler needs of a session."""

    def send(self, request: Request, timeout_s: float) -> Awaitable[Response]:
        """Send once; return any answer, or raise a `TransportError` or `DecodeError`."""

    def check_trust(self, timeout_s: float) -> Awaitable[None]:
        """Raise `CertificateError` if the first request would end with it."""


class Scheduler:
    """Sends the requests of one Store. It is bound to the event loop it is opened in."""

    def __init__(
        self,
        transport: Transport,
        *,
        limits: Limits,
        retry: RetryPolicy,
        events: EventBus,
        quota: Quota | None = None,
        random: Random | None = None,
    ) -> None:
        self._transport = transport
        self._limits = limits
        self._events = events
        self._reports = TryReports(events)
        # Jitter needs no cryptographic randomness.
        self._random = Random() if random is None else random  # noqa: S311
        self._admission = Admission(events=events, retry=retry, random=self._random, quota=quota)
        # The task that waits for each request under way; then the tasks that `start` made.
        self._active: dict[Exchange, asyncio.Task[Any] | None] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._requests = 0
        self._jobs = 0
        self._retries = 0
        self._rate_limited = 0
        self._bytes_sent = 0
        self._bytes_received = 0

    def __repr__(self) -> str:
        return f"<Scheduler {self._admission!r}, {self._requests} sent>"

    @property
    def limits(self) -> Limits:
        """The limits of the Store."""
        return self._limits

    async def open(self, store_hash: str) -> None:
        """Bind to the running loop."""
        self._loop = asyncio.get_running_loop()
        await self._admission.open(store_hash, self._limits)

    async def check_trust(self, timeout_s: float) -> None:
        """Raise `CertificateError` if every request would end with it. Sends nothing."""
        await self._transport.check_trust(timeout_s)

    async def close(self) -> None:
        """End every request under way, and wait for the tasks that `start` made.

        A caller that waits gets `ConnectionLostError` if its request was on the wire, else
        `StoreStateError`. If this is cancelled, the quota is still closed.
        """
        for exchange, task in self._active.items():
            if task is not None:
                exchange.was_closed = True
                task.cancel()
        try:
            self._admission.turn_away()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        finally:
            await self._admission.close()

    def statistics(self) -> Statistics:
        """Return a snapshot."""
        return Statistics(
            in_flight=self._admission.in_flight(),
            queued=self._admission.queued(),
            quota=self._admission.quota(),
            requests=self._requests,
            retries=self._retries,
            rate_limited=self._rate_limited,
            bytes_sent=self._bytes_sent,
            bytes_received=self._bytes_received,
            slot_wait_s=self._admission.slot_wait_s,
            quota_wait_s=self._admission.quota_wait_s,
            latency_s=self._admission.latency_s(),
        )

    def next_job(self) -> int:
        """Return the number of a new job."""
        self._jobs += 1
        return self._jobs

    def start(
        self,
        coroutine: Coroutine[Any, Any, T],
        worker: Worker,
        context: Context | None = None,
    ) -> asyncio.Task[T]:
        """Run a write in its own task. After `worker.abandon` it may outlive its caller."""
        task = self._loop.create_task(coroutine, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        worker.task = task
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            # Reading the exception keeps asyncio from logging it as never retrieved.
            task.exception()

    def send_again(
        self, exchange: Exchange, error: BCAttrValsError
    ) -> Coroutine[Any, Any, Response]:
        """Send a request again after a 2xx that can't be used, which counts as a failed try."""
        exchange.fail(error)
        return self.send(exchange)

    async def send(self, exchange: Exchange) -> Response:
        """Send a request as often as the policy allows, and return the first 2xx.

        Raises the error of the last try, with `attempts` and `waited_s` set. Cancellation frees the
        slot at once and closes the connection. A write must keep its slot while it is on the wire,
        so it runs in a task of `start`. A request that has failed before pauses first. Raises
        `OutdatedError` if its worker calls it outdated after the wait for a slot.
        """
        request, worker, admission = exchange.request, exchange.worker, self._admission
        # A write's task is known; asking asyncio for it would cost time.
        task = None if worker is None else worker.task
        self._active[exchange] = task = task or asyncio.current_task(self._loop)
        operation, priority, flow = request.operation, exchange.priority, exchange.flow
        is_refused = False
        try:
            while True:
                if exchange.error is not None and not is_refused:
                    await self._pause_before_retry(exchange)
                lease = admission.acquire_nowait(operation, priority, flow)
                if lease is None:
                    lease = await self._wait_for_lease(exchange, front=is_refused)
                self._begin_try(exchange, lease)
                outcome: Response | TransportError | DecodeError
                try:
                    outcome = await self._transport.send(request, exchange.options.timeout_s)
                except (TransportError, DecodeError) as error:
                    outcome = error
                except BaseException as error:
                    exchange.was_cut_off = isinstance(error, asyncio.CancelledError)
                    self._end_try(exchange, lease, error)
                    raise
                self._end_try(exchange, lease, outcome)
                is_left = worker is not None and worker.is_abandoned
                if isinstance(outcome, Response) and outcome.status in SUCCESS and not is_left:
                    return outcome
                is_refused = self._note_failure(exchange, lease, outcome)
        except BCAttrValsError as error:
            error.attempts, error.waited_s = exchange.sent, exchange.waited_s
            raise
        except asyncio.CancelledError as cancelled:
            if exchange.was_closed and task is not None and task.uncancel() == 0:
                raise _closed_error(exchange) from None
            _show_cause(cancelled, exchange)
            raise
        finally:
            del self._active[exchange]

    async def _wait_for_lease(self, exchange: Exchange, *, front: bool) -> Lease:
        began_at = self._loop.time()
        lease = await self._admission.acquire(
            exchange.request.operation, exchange.priority, exchange.flow, front=front
        )
        exchange.waited_s += lease.sent_at - began_at
        worker = exchange.worker
        if worker is not None and worker.is_outdated is not None and worker.is_outdated():
            self._admission.cancel(lease)
            raise OutdatedError
        return lease

    def _note_failure(
        self, exchange: Exchange, lease: Lease, outcome: Response | BCAttrValsError
    ) -> bool:
        """Note the outcome of a failed try. Return True if the request goes to the queue's front.

        Raises `CancelledError` if the worker was abandoned, and the 429 if this was the last try.
        """
        worker = exchange.worker
        if isinstance(outcome, Response) and outcome.status == 429:
            self._rate_limited += 1
        if worker is not None and worker.is_abandoned:
            raise asyncio.CancelledError
        if not isinstance(outcome, Response):
            exchange.fail(outcome)
            return False
        error = _error_of(exchange.request, outcome)
        exchange.fail(error)
        is_refused = outcome.status in {429, 503} and self._step_back(outcome, lease, exchange)
        if is_refused and exchange.is_last_try:
            raise error
        return is_refused

    async def _pause_before_retry(self, exchange: Exchange) -> None:
        """Wait before the next try; raise the last error if there is no next try."""
        error = exchange.error
        assert error is not None
        exchange.failures += 1
        operation = exchange.request.operation
        delay_s = exchange.options.retry.delay_s(error, exchange.failures, operation, self._random)
        if delay_s is None or exchange.is_last_try:
            raise error
        if (
            isinstance(error, ConnectionLostError)
            and error.was_kept_alive
            and not exchange.has_reconnected
        ):
            # The server closed an idle connection, which is no sign of load.
            exchange.has_reconnected = True
            delay_s = 0.0
        self._retries += 1
        self._reports.retrying(exchange, error, delay_s)
        exchange.waited_s += delay_s
        worker = exchange.worker
        if worker is not None and worker.on_pause is not None:
            worker.on_pause()
        await asyncio.sleep(delay_s)
        if exchange.is_last_try:
            raise error

    def _step_back(self, answer: Response, lease: Lease, exchange: Exchange) -> bool:
        """React to a 429 or 503. Return True if the request goes to the queue's front.

        A 429 sends it there, until there are too many of them. A 503 is a failed try, and also a
        sign of load.
        """
        wait_s = read_retry_after_s(answer.headers, time.time())
        if wait_s is not None:
            self._admission.wait_for(wait_s)
        names_wait = wait_s is not None or (
            answer.status == 429 and read_quota_headers(answer.headers) is not None
        )
        if names_wait and answer.status == 429:
            exchange.quota_refusals += 1
            if exchange.quota_refusals <= _MOST_QUOTA_REFUSALS:
                self._reports.refused(exchange, wait_s)
                return True
            names_wait = False
        if not names_wait:
            self._admission.back_off(lease)
        if answer.status != 429:
            return False
        exchange.refusals += 1
        is_last = exchange.refusals >= _REFUSALS_PER_ATTEMPT * exchange.options.retry.attempts
        if not is_last:
            self._reports.refused(exchange, wait_s)
        return not is_last

    def _begin_try(self, exchange: Exchange, lease: Lease) -> None:
        """Count and report a try that is about to be sent."""
        exchange.sent += 1
        self._requests += 1
        tally, worker, body = exchange.tally, exchange.worker, exchange.request.body
        tally.calls += 1
        if exchange.sent > 1:
            tally.retries += 1
        if worker is not None:
            worker.on_wire = worker.was_sent = True
        if body is not None:
            self._bytes_sent += len(body)
        if self._events.callbacks:
            self._reports.sent(exchange, lease)

    def _end_try(self, exchange: Exchange, lease: Lease, outcome: Response | BaseException) -> None:
        """Give slot and unit back, and report the outcome of the try."""
        worker = exchange.worker
        if worker is not None:
            worker.on_wire = False
        if isinstance(outcome, Response):
            self._bytes_received += len(outcome.body)
            self._admission.release(lease, outcome.headers, outcome.status)
        elif isinstance(outcome, ConnectionFailedError):
            # Nothing left this machine, so no unit was spent.
            self._admission.cancel(lease)
        else:
            self._admission.release(lease, None)
        if self._events.callbacks or is_logged(logging.DEBUG):
            self._reports.ended(exchange, self._loop.time() - lease.sent_at, outcome)


def _error_of(request: Request, answer: Response) -> APIError:
    return error_from_answer(
        answer.status,
        answer.body,
        request_id=answer.request_id,
        method=request.method,
        path=request.resource,
    )


def _show_cause(cancelled: asyncio.CancelledError, exchange: Exchange) -> None:
    """Attach the last error to a cancellation, so that a caller's timeout shows the reason."""
    error = exchange.error
    if error is not None:
        error.attempts, error.waited_s = exchange.sent, exchange.waited_s
        cancelled.__context__ = error


def _closed_error(exchange: Exchange) -> BCAttrValsError:
    request = exchange.request
    error: BCAttrValsError
    if exchange.was_cut_off:
        error = ConnectionLostError(
            "the Store was closed while the request was on its way",
            method=request.method,
            path=request.resource,
            may_have_been_applied=request.operation is not Operation.READ,
        )
    else:
        error = StoreStateError("the Store was closed before the request was answered")
    error.attempts, error.waited_s = exchange.sent, exchange.waited_s
    return error
