"""Admission of requests: one decision over slots, congestion, fairness and quota.

Between the scheduler above and a `Quota` below. `Admission` decides synchronously, so its state
can't change between the check and the grant. A request gets its slot and its unit in one step. A
request that must wait is woken with both already taken. A refused request goes back to the front.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping
from random import Random
from typing import Final

from bc_attrvals.core.limits import Limits
from bc_attrvals.core.rate_limit import QuotaSnapshot
from bc_attrvals.core.requests import Operation
from bc_attrvals.core.retry import RetryPolicy
from bc_attrvals.errors import StoreStateError
from bc_attrvals.events import Event, EventBus, QuotaExhausted
from bc_attrvals.scheduling.external_quota import ExternalQuota
from bc_attrvals.scheduling.fair_queue import FairQueue, Waiting
from bc_attrvals.scheduling.leases import Lease, Leases, Units
from bc_attrvals.scheduling.local_quota import LocalQuota
from bc_attrvals.scheduling.quota import Flow, Priority, Quota, whole
from bc_attrvals.scheduling.quota_shares import LOOK_AGAIN_S, Shares

_logger = logging.getLogger(__name__)

# Read for each request; access to an enum member is slow.
_BULK: Final = Priority.BULK


class _Waiter(Waiting, eq=False, kw_only=True):
    future: asyncio.Future[Lease]
    queued_at: float
    blocked_before_s: float


class Admission:
    """Admits the requests of one Store. It is bound to the event loop it is opened in."""

    def __init__(
        self, *, events: EventBus, retry: RetryPolicy, random: Random, quota: Quota | None = None
    ) -> None:
        self._retry = retry
        self._random = random
        self._events = events
        self._queue = FairQueue(Operation)
        if quota is None or isinstance(quota, LocalQuota):
            local = LocalQuota() if quota is None else quota
            local.report_to(self._report)
            self._units: Units = local
        else:
            asked = whole(quota)
            asked.report_to(self._report)
            self._units = ExternalQuota(asked, arrived=self._pump, failed=self._fail_one)
        self._leases = Leases(self._units)
        self._shares = Shares()
        # Set by `open`.
        self._loop: asyncio.AbstractEventLoop
        self._timer: asyncio.Handle | None = None
        # Kept here, because a uvloop timer that is due at once has no `when()`.
        self._timer_at = math.inf
        self._is_open = False
        # The service asked for no request before this time.
        self._blocked_until = -math.inf
        # The total time in which some request waited for quota, and when the present wait began.
        self._blocked_s = 0.0
        self._blocked_since: float | None = None
        self.slot_wait_s = 0.0
        self.quota_wait_s = 0.0

    def __repr__(self) -> str:
        counts = ", ".join(
            f"{operation}: {one.in_flight} in flight, {self._queue.count_of(operation)} queued"
            for operation, one in self._leases.slots.items()
        )
        return f"<Admission {counts}>"

    async def open(self, store_hash: str, limits: Limits) -> None:
        """Bind to the running loop, and open the quota."""
        self._loop = asyncio.get_running_loop()
        self._is_open = True
        await self._leases.open(store_hash, limits)

    def turn_away(self) -> None:
        """Fail all waiting and all later requests with `StoreStateError`."""
        self._is_open = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for waiter in self._queue.all():
            assert isinstance(waiter, _Waiter)
            if not waiter.future.done():
                waiter.future.set_exception(_closed_error())

    async def close(self) -> None:
        """Turn all requests away and close the quota. Leases may be released before that."""
        self.turn_away()
        await self._units.close()

    def acquire_nowait(
        self, operation: Operation, priority: Priority, flow: Flow | None = None
    ) -> Lease | None:
        """Take a slot and a unit if both are free and no request waits for them.

        Raises `StoreStateError` if the Store is closed.
        """
        if not self._is_open:
            raise _closed_error()
        if self._queue.count and self._queue.count_of(operation):
            return None
        now = self._loop.time()
        is_bulk = priority is _BULK
        if self._room(operation, now, is_bulk) <= 0:
            return None
        if is_bulk and now < self._shares.until and self._left_for(operation, now) < 1:
            return None
        return self._take(operation, flow or _NO_FLOW, now, is_bulk)

    async def acquire(
        self,
        operation: Operation,
        priority: Priority,
        flow: Flow | None = None,
        *,
        front: bool = False,
    ) -> Lease:
        """Wait for a slot and a unit. `front` puts a refused request before all others.

        Raises `StoreStateError` if the Store is closed. If it is cancelled, nothing stays taken:
        a lease granted in the same moment goes to the next request.
        """
        lease = self.acquire_nowait(operation, priority, flow)
        if lease is not None:
            return lease
        now = self._loop.time()
        waiter = _Waiter(
            operation,
            flow or _NO_FLOW,
            priority is _BULK,
            future=self._loop.create_future(),
            queued_at=now,
            blocked_before_s=self._blocked_time_s(now),
        )
        self._queue.add(waiter, was_refused=front)
        self._pump()
        try:
            lease = await waiter.future
        except asyncio.CancelledError:
            if waiter.future.cancelled():
                self._queue.leave(waiter)
                self._pump()
            elif waiter.future.exception() is None:
                # Granted and cancelled in one step of the loop: pass the lease on.
                self.cancel(waiter.future.result())
            raise
        waited_s = lease.sent_at - waiter.queued_at
        for_quota_s = min(waited_s, self._blocked_time_s(lease.sent_at) - waiter.blocked_before_s)
        lease.quota_wait_s, lease.slot_wait_s = for_quota_s, waited_s - for_quota_s
        self.quota_wait_s += for_quota_s
        self.slot_wait_s += lease.slot_wait_s
        return lease

    def release(
        self, lease: Lease, headers: Mapping[str, str] | None, status: int | None = None
    ) -> None:
        """Give slot and unit back and learn from the answer.

        `headers` and `status` are None if no answer came.
        """
        self._leases.end(lease, self._loop.time(), headers, status)
        self._pump()

    def cancel(self, lease: Lease) -> None:
        """Give slot and unit back unused: nothing was sent."""
        self._leases.cancel(lease, self._loop.time())
        self._pump()

    def wait_for(self, delay_s: float) -> None:
        """Send nothing for `delay_s`, because the service asked for that."""
        self._blocked_until = max(self._blocked_until, self._loop.time() + delay_s)
        self._pump()

    def back_off(self, lease: Lease) -> None:
        """Halve the concurrency of an operation and pause it: the store is under load."""
        slots, now = lease.slots, self._loop.time()
        if slots.back_off(lease.sent_at, now, self._retry, self._random):
            pause_s = max(0.0, slots.blocked_until - now)
            _logger.info("the store is under load: each %s pauses %.3f s", lease.operation, pause_s)
            self._pump()

    def in_flight(self) -> dict[Operation, int]:
        """Return how many requests of each operation are under way."""
        return {operation: one.in_flight for operation, one in self._leases.slots.items()}

    def queued(self) -> dict[Operation, int]:
        """Return how many requests of each operation wait."""
        return {operation: self._queue.count_of(operation) for operation in self._leases.slots}

    def latency_s(self) -> dict[Operation, float]:
        """Return the recent latency of each operation that was answered."""
        return {
            operation: one.latency_s
            for operation, one in self._leases.slots.items()
            if one.latency_s is not None
        }

    def quota(self) -> QuotaSnapshot:
        """Return what is known of the quota now."""
        return self._units.snapshot()

    def _report(self, event: Event) -> None:
        """Log the wait of a quota's event, and pass the event on."""
        if isinstance(event, QuotaExhausted):
            _logger.info(
                "the quota is spent for %.3f s; requests queued: %d",
                event.resets_in_s,
                self._queue.count,
            )
        self._events.emit(event)

    def _room(self, operation: Operation, now: float, is_bulk: bool) -> int:
        """Return how many requests the slots and pauses admit now; the quota is not counted."""
        if now < self._blocked_until:
            return 0
        return self._leases.room(operation, now, is_bulk)

    def _left_for(self, operation: Operation, now: float) -> float:
        """Return how many units the bulk requests of an operation may take; see `Shares`."""
        if now >= self._shares.until:
            return math.inf
        waiting = {
            one: (self._queue.bulk_count_of(one), self._queue.flow_count_of(one))
            for one in self._leases.slots
        }
        quota = self._units.snapshot()
        return self._shares.left_for(operation, now, quota, self._leases.slots, waiting)

    def _take(self, operation: Operation, flow: Flow, now: float, is_bulk: bool) -> Lease | None:
        lease = self._leases.take(operation, now, is_bulk)
        if lease is not None:
            if is_bulk and operation is not self._shares.last and not self._units.must_be_asked:
                self._shares.changed(operation, now)
            self._queue.served(flow)
        return lease

    def _pump(self) -> None:
        """Grant what can be granted now, and set the one timer for the rest."""
        if self._queue.count or self._blocked_since is not None or self._timer is not None:
            if self._is_open:
                self._grant()
        elif self._units.must_be_asked:
            self._ask(0.0)

    def _grant(self) -> None:
        loop = self._loop
        now = loop.time()
        is_held_back = False

        def may_go(operation: Operation, is_bulk: bool) -> bool:
            nonlocal is_held_back
            if (
                self._units.available(operation, now) <= 0
                or self._room(operation, now, is_bulk) <= 0
            ):
                return False
            if is_bulk and self._left_for(operation, now) < 1:
                is_held_back = True
                return False
            return True

        while self._queue.count and (waiting := self._queue.next(may_go)) is not None:
            assert isinstance(waiting, _Waiter)
            if waiting.future.done():
                # Cancelled, and its task has not run since.
                continue
            lease = self._take(waiting.operation, waiting.flow, now, waiting.is_bulk)
            assert lease is not None
            waiting.future.set_result(lease)
        if self._units.must_be_asked:
            self._ask(now)
        is_starved = self._is_starved(now)
        self._note_whether_blocked(now, is_starved=is_starved)
        look_again_at = now + LOOK_AGAIN_S if is_held_back else math.inf
        self._set_timer(loop, now, look_again_at, is_starved=is_starved)

    def _ask(self, now: float) -> None:
        """Ask the quota for as many leases as the waiting requests could use."""
        for operation in self._leases.slots:
            count = self._queue.count_of(operation)
            if not count:
                self._units.want(operation, 0, 0, 0)
                continue
            room = self._room(operation, now, False)
            bulk = self._queue.bulk_count_of(operation)
            urgent = max(0, min(count - bulk, room))
            bulk_room = min(room - urgent, self._room(operation, now, True))
            flows = self._queue.flow_count_of(operation)
            self._units.want(operation, urgent, max(0, min(bulk, bulk_room)), flows)

    def _fail_one(self, operation: Operation, error: BaseException) -> None:
        """Fail the next request of an operation with an error that the quota raised."""
        waiting = self._queue.next(lambda one, _: one is operation)
        if waiting is not None:
            assert isinstance(waiting, _Waiter)
            if not waiting.future.done():
                waiting.future.set_exception(error)
        self._pump()

    def _is_starved(self, now: float) -> bool:
        """Return whether a request waits only for a unit, or for a time the service named."""
        if now < self._blocked_until:
            return self._queue.count > 0
        return any(
            self._queue.count_of(operation)
            and one.room(now) > 0
            and self._units.available(operation, now) == 0
            for operation, one in self._leases.slots.items()
        )

    def _note_whether_blocked(self, now: float, *, is_starved: bool) -> None:
        if is_starved and (now < self._blocked_until or self._units.is_spent(now)):
            if self._blocked_since is None:
                self._blocked_since = now
                named_s = self._blocked_until - now
                self._units.note_waiting(now, named_s if named_s > 0 else None)
        elif self._blocked_since is not None:
            self._blocked_s += now - self._blocked_since
            self._blocked_since = None

    def _blocked_time_s(self, now: float) -> float:
        since = self._blocked_since
        return self._blocked_s + (0.0 if since is None else max(0.0, now - since))

    def _set_timer(
        self,
        loop: asyncio.AbstractEventLoop,
        now: float,
        look_again_at: float,
        *,
        is_starved: bool,
    ) -> None:
        """Set the timer to the first moment at which a waiting request may go."""
        moments = [
            one.blocked_until
            for operation, one in self._leases.slots.items()
            if self._queue.count_of(operation) and now < one.blocked_until
        ]
        if is_starved:
            opens_at = (
                self._blocked_until if now < self._blocked_until else self._units.opens_at(now)
            )
            if opens_at is not None:
                moments.append(opens_at)
        if look_again_at < math.inf:
            moments.append(look_again_at)
        when = min(moments, default=None)
        if self._timer is not None:
            if when == self._timer_at:
                return
            self._timer.cancel()
            self._timer = None
        if when is not None:
            self._timer, self._timer_at = loop.call_at(when, self._wake), when

    def _wake(self) -> None:
        self._timer = None
        self._pump()


#: The flow of requests that were given none.
_NO_FLOW: Final = Flow()


def _closed_error() -> StoreStateError:
    return StoreStateError("the Store is closed")
