"""Who may send now: slots per operation, quota units, and a fair queue before both.

`Gate` decides synchronously and keeps its state in plain numbers, so that nothing can slip in
between a look and a step; callers that must wait are woken one by one, each with its slot and unit
already taken. It is the in-process implementation of the `Quota` protocol, and the seam where a
quota shared between processes is put in.

Order: interactive requests before bulk ones, though of eight grants that both could have, one goes
to bulk, so that it still moves. While interactive reads are slow, fewer bulk reads are out at once,
for the service has no priorities of its own. Among bulk jobs the one served longest ago is next,
however much each has queued. A request that was refused goes back to the front.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections import deque
from collections.abc import Mapping
from enum import IntEnum
from random import Random
from typing import Final, Protocol

import attrs
import msgspec

from bc_attrvals.core.limits import Limits
from bc_attrvals.core.rate_limit import QuotaSnapshot, QuotaState, read_quota_headers
from bc_attrvals.core.requests import Operation
from bc_attrvals.core.retry import RetryPolicy, backoff_s
from bc_attrvals.errors import StoreStateError
from bc_attrvals.events import EventBus, QuotaExhausted

__all__ = ["Flow", "Gate", "Lease", "Priority", "Quota"]

#: Of so many contested grants in a row, the last one goes to bulk.
_BULK_SHARE: Final = 8
#: An interactive read is slow that takes so many times the quickest; the quickest of long ago
#: counts less with each one.
_SLOW: Final = 2.0
_FORGET_QUICKEST: Final = 1.01
#: So long after the last interactive read bulk reads have all slots again.
_GIVE_WAY_S: Final = 1.0
#: So often the pause of a store under load doubles (0.25, 0.5, 1 s), and so often it then stays.
_SHORT_PAUSES: Final = 3


class Priority(IntEnum):
    """Which requests go first; the lower number does."""

    INTERACTIVE = 0
    BULK = 1


# Asked for each request, and an enum's members take their time.
_READ: Final = Operation.READ
_BULK: Final = Priority.BULK


class Quota(Protocol):
    """Where slots and quota units come from; give an own one as `Store(quota=...)`.

    `open` is called once, before anything else, and `close` once at the end. Each `acquire` waits
    for a slot and a unit and returns a lease, which is given back to `release` exactly once, with
    the headers of the answer, or None when none came (the unit may still be spent).
    A cancelled `acquire` must leave nothing taken.

    A quota may also have `report_to(emit)`, called before `open` with where its events go, and
    `snapshot()`, which returns what it knows as a `QuotaSnapshot`.
    """

    async def open(self, store_hash: str, limits: Limits) -> None:
        """Get ready for one store."""

    async def acquire(self, operation: Operation, priority: Priority) -> object:
        """Wait for a slot and a unit; return their lease."""

    def release(self, lease: object, headers: Mapping[str, str] | None) -> None:
        """Give the slot back, and tell what the answer said of the quota."""

    async def close(self) -> None:
        """Let go of everything."""


class Flow:
    """What shares fairly: the calls of one bulk job, or all single calls together."""

    __slots__ = ("turn",)

    def __init__(self) -> None:
        self.turn = 0


class Lease(msgspec.Struct, eq=False):
    """A slot and a unit, taken at `sent_at` (the event loop's clock, seconds)."""

    operation: Operation
    sent_at: float
    is_bulk: bool


@attrs.define(eq=False)
class _Waiter:
    future: asyncio.Future[Lease]
    is_bulk: bool
    queued_at: float
    blocked_before_s: float


@attrs.define(eq=False)
class _Lane:
    """The slots and the queue of one operation."""

    operation: Operation
    most: int
    # What the store bears at present; a float, for it is won back in fractions.
    bearable: float
    in_flight: int = 0
    bulk_in_flight: int = 0
    queued: int = 0
    # Sent before and refused for quota or load: these go before all others.
    refused: deque[_Waiter] = attrs.field(factory=deque)
    interactive: deque[_Waiter] = attrs.field(factory=deque)
    bulk: dict[Flow, deque[_Waiter]] = attrs.field(factory=dict)
    # Bulk jobs that wait, the one served longest ago first; turns differ, so jobs never compare.
    turns: list[tuple[int, int, Flow]] = attrs.field(factory=list)
    backoffs: int = 0
    backed_off_at: float = -math.inf
    blocked_until: float = -math.inf
    # Whether it bears less than it did at first, or was refused last.
    is_weak: bool = False

    def free(self, now: float, *, overtaking: bool = False) -> bool:
        """Return whether one more may go; `overtaking` leaves those of bulk out of account."""
        taken = self.in_flight - self.bulk_in_flight if overtaking else self.in_flight
        return taken < int(self.bearable) and now >= self.blocked_until

    def leave(self, lease: Lease) -> None:
        self.in_flight -= 1
        self.bulk_in_flight -= lease.is_bulk

    def went_well(self, lease: Lease) -> None:
        """Win the concurrency back, one more at once for each round of answers."""
        if lease.sent_at < self.backed_off_at:
            return
        # Also where there is but one slot, of which none can be won back.
        self.backoffs = 0
        self.bearable = min(float(self.most), self.bearable + 1 / int(self.bearable))
        self.is_weak = self.bearable < self.most

    def next_urgent(self) -> deque[_Waiter] | None:
        """Return the queue whose first waiter goes before all bulk ones, if there is one."""
        for queue in (self.refused, self.interactive):
            while queue and queue[0].future.done():
                queue.popleft()
            if queue:
                return queue
        return None

    def next_flow(self) -> Flow | None:
        while self.turns:
            flow = self.turns[0][2]
            waiters = self.bulk[flow]
            while waiters and waiters[0].future.done():
                waiters.popleft()
            if waiters:
                return flow
            heapq.heappop(self.turns)
            del self.bulk[flow]
        return None


class Gate:
    """Slots and quota of one store, in this process. Bound to the event loop it is opened in."""

    def __init__(
        self,
        *,
        events: EventBus,
        retry: RetryPolicy,
        random: Random,
        count_units: bool = True,
    ) -> None:
        self._events = events
        self._retry = retry
        self._random = random
        self._count_units = count_units
        # A shared quota has the slots: bulk requests that wait there must hold up no others here.
        self._overtakes = not count_units
        self._state = QuotaState()
        self._lanes: dict[Operation, _Lane] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.Handle | None = None
        # Kept here, for uvloop gives a timer that is due at once no `when()`.
        self._timer_at = math.inf
        self._closed = False
        self._waiting = 0
        self._turn = 0
        self._urgent_in_a_row = 0
        # Interactive reads: the quickest, and until when they are looked after.
        self._quickest_s = math.inf
        self._interactive_until = -math.inf
        self._bulk_reads = 1.0
        # The time in which somebody waited for quota, as a clock that runs only then.
        self._blocked_s = 0.0
        self._blocked_since: float | None = None
        self.slot_wait_s = 0.0
        self.quota_wait_s = 0.0

    def __repr__(self) -> str:
        lanes = ", ".join(
            f"{lane.operation}: {lane.in_flight} in flight, {lane.queued} queued"
            for lane in self._lanes.values()
        )
        return f"<Gate {lanes}>"

    async def open(self, store_hash: str, limits: Limits) -> None:
        """Bind to the running loop."""
        del store_hash
        self._loop = asyncio.get_running_loop()
        self._state = QuotaState(limits.reserve)
        most = {
            Operation.READ: limits.reads,
            Operation.WRITE: limits.writes,
            Operation.DELETE: limits.deletes,
        }
        self._bulk_reads = float(limits.reads)
        self._lanes = {
            operation: _Lane(operation, count, float(count)) for operation, count in most.items()
        }

    async def close(self) -> None:
        """Fail all that wait with `StoreStateError`."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for lane in self._lanes.values():
            queues = [lane.refused, lane.interactive, *lane.bulk.values()]
            for waiter in [waiter for queue in queues for waiter in queue]:
                if not waiter.future.done():
                    waiter.future.set_exception(_closed_error())

    def acquire_nowait(
        self, operation: Operation, priority: Priority, flow: Flow | None = None
    ) -> Lease | None:
        """Take a slot and a unit if both are free and nobody waits for them.

        Raises `StoreStateError` when the gate is closed.
        """
        if self._closed or self._loop is None:
            raise _closed_error()
        lane = self._lanes[operation]
        if lane.queued:
            return None
        now = self._loop.time()
        is_bulk = priority is _BULK
        if (
            lane.free(now, overtaking=self._overtakes and not is_bulk)
            and self._state.available(now) != 0
            and not (is_bulk and self._gives_way(lane, now))
        ):
            return self._take(lane, now, flow or _NO_FLOW, is_bulk=is_bulk)
        return None

    async def acquire(
        self,
        operation: Operation,
        priority: Priority,
        flow: Flow | None = None,
        *,
        front: bool = False,
    ) -> Lease:
        """Wait for a slot and a unit. `front` puts a request that was refused before all others.

        Raises `StoreStateError` when the gate is closed. Cancelled, it leaves nothing taken, and
        what it had been granted goes to the next.
        """
        lease = self.acquire_nowait(operation, priority, flow)
        if lease is not None:
            return lease
        assert self._loop is not None
        now = self._loop.time()
        lane = self._lanes[operation]
        flow = flow or _NO_FLOW
        is_bulk = priority is _BULK
        waiter = _Waiter(self._loop.create_future(), is_bulk, now, self._blocked_time_s(now))
        self._enqueue(lane, waiter, priority, flow, front)
        self._pump()
        try:
            lease = await waiter.future
        except asyncio.CancelledError:
            if waiter.future.cancelled():
                self._leave(lane)
                self._pump()
            elif waiter.future.exception() is None:
                # Granted and cancelled in one step of the loop: hand it on.
                self.cancel(waiter.future.result())
            raise
        waited_s = lease.sent_at - waiter.queued_at
        for_quota_s = min(waited_s, self._blocked_time_s(lease.sent_at) - waiter.blocked_before_s)
        self.quota_wait_s += for_quota_s
        self.slot_wait_s += waited_s - for_quota_s
        return lease

    def begin(self, lease: Lease) -> float:
        """Note that a lease was held up by another quota until now; return for how long."""
        assert self._loop is not None
        now = self._loop.time()
        waited_s, lease.sent_at = now - lease.sent_at, now
        self.quota_wait_s += waited_s
        return waited_s

    def release(
        self, lease: Lease, headers: Mapping[str, str] | None, *, status: int | None = None
    ) -> None:
        """Give the slot back and learn from the answer.

        `headers` and `status` are None when there was none.
        """
        assert self._loop is not None
        now = self._loop.time()
        lane = self._lanes[lease.operation]
        lane.leave(lease)
        if not lease.is_bulk and lane.operation is _READ:
            self._watch_interactive(now, now - lease.sent_at, status)
        if headers is None:
            self._state.unanswered(now)
        else:
            quota = read_quota_headers(headers) if self._count_units else None
            self._state.answered(lease.sent_at, now, quota, refused=status == 429)
            # A lane where nothing has gone wrong has nothing to win back.
            if lane.is_weak and status is not None and status < 500 and status != 429:
                lane.went_well(lease)
        self._pump()

    def cancel(self, lease: Lease) -> None:
        """Give slot and unit back unused: nothing was sent."""
        self._lanes[lease.operation].leave(lease)
        self._state.unsent()
        self._pump()

    def wait_for(self, delay_s: float) -> None:
        """Send nothing for `delay_s`: a 429 that told only how long to wait."""
        assert self._loop is not None
        self._state.block(self._loop.time() + delay_s)
        self._pump()

    def back_off(self, lease: Lease) -> None:
        """Step back, for the store is under load: half the concurrency, and a pause for all.

        Answers to requests sent before the last step back tell nothing new and change nothing.
        """
        assert self._loop is not None
        lane = self._lanes[lease.operation]
        if lease.sent_at < lane.backed_off_at:
            return
        now = self._loop.time()
        lane.is_weak = True
        lane.backoffs += 1
        lane.bearable = max(1.0, lane.bearable / 2)
        lane.backed_off_at = now
        # Pauses stay short for a while: after a long one, a store that has recovered in the
        # meantime would wait for us. Only refusals without end make them long.
        count = lane.backoffs
        count = min(count, _SHORT_PAUSES) if count <= 2 * _SHORT_PAUSES else count - _SHORT_PAUSES
        delay_s = backoff_s(count, self._retry.base_s, self._retry.cap_s, self._random)
        lane.blocked_until = now + delay_s
        self._pump()

    def in_flight(self) -> dict[Operation, int]:
        """Return the requests out now, for each operation."""
        return {operation: lane.in_flight for operation, lane in self._lanes.items()}

    def queued(self) -> dict[Operation, int]:
        """Return the requests that wait now, for each operation."""
        return {operation: lane.queued for operation, lane in self._lanes.items()}

    def quota(self) -> QuotaSnapshot:
        """Return what is known of the quota now."""
        if self._loop is None:
            return QuotaSnapshot()
        return self._state.snapshot(self._loop.time())

    def _watch_interactive(self, now: float, took_s: float, status: int | None) -> None:
        """Have bulk reads give way while they make interactive ones slow, and come back after.

        A service has no priorities: pages that are worked on there hold a single call up. So
        fewer are asked for at once as long as interactive reads take more than twice the quickest.
        """
        self._interactive_until = now + _GIVE_WAY_S
        if status != 200:
            return
        most = self._lanes[Operation.READ].most
        self._quickest_s = min(self._quickest_s * _FORGET_QUICKEST, took_s)
        if took_s > _SLOW * self._quickest_s:
            self._bulk_reads = max(min(2.0, most), self._bulk_reads * 0.7)
        else:
            self._bulk_reads = min(float(most), self._bulk_reads + 0.25)

    def _gives_way(self, lane: _Lane, now: float) -> bool:
        if self._overtakes and not lane.free(now):
            return True
        return (
            lane.operation is _READ
            and now < self._interactive_until
            and lane.bulk_in_flight >= int(self._bulk_reads)
        )

    def _take(self, lane: _Lane, now: float, flow: Flow, *, is_bulk: bool) -> Lease:
        lane.in_flight += 1
        lane.bulk_in_flight += is_bulk
        self._turn += 1
        flow.turn = self._turn
        self._state.take()
        return Lease(lane.operation, now, is_bulk)

    def _enqueue(
        self, lane: _Lane, waiter: _Waiter, priority: Priority, flow: Flow, front: bool
    ) -> None:
        lane.queued += 1
        self._waiting += 1
        if front:
            lane.refused.append(waiter)
        elif priority is Priority.INTERACTIVE:
            lane.interactive.append(waiter)
        elif flow in lane.bulk:
            lane.bulk[flow].append(waiter)
        else:
            lane.bulk[flow] = deque([waiter])
            heapq.heappush(lane.turns, (flow.turn, id(flow), flow))

    def _leave(self, lane: _Lane) -> None:
        lane.queued -= 1
        self._waiting -= 1

    def _pump(self) -> None:
        """Grant all that can be granted now, and set the one timer for the rest."""
        loop = self._loop
        if not self._waiting and self._blocked_since is None and self._timer is None:
            return
        if self._closed or loop is None:
            return
        now = loop.time()
        if self._waiting:
            available = self._state.available(now)
            left = math.inf if available is None else available
            while left > 0 and self._grant_one(now):
                left -= 1
        self._note_whether_blocked(now)
        self._set_timer(loop, now)

    def _grant_one(self, now: float) -> bool:
        urgent: tuple[_Lane, deque[_Waiter]] | None = None
        bulk: tuple[_Lane, Flow] | None = None
        for lane in self._lanes.values():
            if not lane.queued or not lane.free(now, overtaking=self._overtakes):
                continue
            queue = lane.next_urgent()
            if queue is not None and (urgent is None or queue is lane.refused):
                urgent = (lane, queue)
            flow = None if self._gives_way(lane, now) else lane.next_flow()
            if flow is not None and (bulk is None or flow.turn < bulk[1].turn):
                bulk = (lane, flow)
        if urgent is not None and bulk is not None:
            self._urgent_in_a_row += 1
            if self._urgent_in_a_row >= _BULK_SHARE:
                self._urgent_in_a_row = 0
                urgent = None
        if urgent is not None:
            lane, queue = urgent
            flow = _NO_FLOW
            waiter = queue.popleft()
        elif bulk is not None:
            lane, flow = bulk
            heapq.heappop(lane.turns)
            waiters = lane.bulk[flow]
            waiter = waiters.popleft()
            if waiters:
                heapq.heappush(lane.turns, (self._turn + 1, id(flow), flow))
            else:
                del lane.bulk[flow]
        else:
            return False
        self._leave(lane)
        waiter.future.set_result(self._take(lane, now, flow, is_bulk=waiter.is_bulk))
        return True

    def _waits_for_quota(self, now: float) -> bool:
        return (
            any(lane.queued and lane.free(now) for lane in self._lanes.values())
            and self._state.available(now) == 0
        )

    def _note_whether_blocked(self, now: float) -> None:
        if self._waits_for_quota(now):
            if self._blocked_since is None:
                self._blocked_since = now
                if self._events:
                    quota = self._state.snapshot(now)
                    self._events.emit(QuotaExhausted(quota.quota, quota.resets_in_s or 0.0))
        elif self._blocked_since is not None:
            self._blocked_s += now - self._blocked_since
            self._blocked_since = None

    def _blocked_time_s(self, now: float) -> float:
        since = self._blocked_since
        return self._blocked_s + (0.0 if since is None else max(0.0, now - since))

    def _set_timer(self, loop: asyncio.AbstractEventLoop, now: float) -> None:
        """Have one timer, at the first moment at which somebody who waits may go."""
        moments = [
            lane.blocked_until
            for lane in self._lanes.values()
            if lane.queued and now < lane.blocked_until
        ]
        if self._blocked_since is not None and (opens_at := self._state.opens_at()) is not None:
            moments.append(opens_at)
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


#: The flow of requests that belong to none.
_NO_FLOW: Final = Flow()


def _closed_error() -> StoreStateError:
    return StoreStateError("the Store is closed")
