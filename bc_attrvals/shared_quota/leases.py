"""What one process holds of a shared quota, waits for, and has to tell the server.

Under `quota.py`, which decides who is granted what and when the server is called; this is the book
that it keeps of it. No clock, no wire.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

import attrs

from bc_attrvals.core.rate_limit import QuotaHeaders
from bc_attrvals.core.requests import Operation
from bc_attrvals.scheduling.quota import Priority

__all__ = [
    "ANSWERED",
    "BARE",
    "OPERATIONS",
    "PRIORITIES",
    "UNANSWERED",
    "UNSENT",
    "Done",
    "Holdings",
    "Lease",
]

# The numbers that `grants.lua` has for them; those of operations and priorities count from 1.
OPERATIONS: Final = (Operation.READ, Operation.WRITE, Operation.DELETE)
PRIORITIES: Final = (Priority.INTERACTIVE, Priority.BULK)
_NUMBER: Final = {operation: index + 1 for index, operation in enumerate(OPERATIONS)}
ANSWERED, BARE, UNANSWERED, UNSENT = range(4)


@attrs.define(eq=False)
class Lease:
    """A slot and a unit; a negative number is of one taken without the server."""

    number: int
    operation: Operation
    priority: Priority
    sent_at: float


@attrs.define(eq=False)
class Done:
    """A lease that ended, with what the answer told."""

    number: int
    kind: int
    sent_at: float
    ended_at: float
    headers: QuotaHeaders | None = None
    retry_after_s: float = 0.0

    def told(self, now: float) -> tuple[float, ...]:
        """Return it as the server takes it: times in milliseconds, of the past as ages."""
        sent_age_ms, age_ms = (now - self.sent_at) * 1000, (now - self.ended_at) * 1000
        headers, numbers = self.headers, (0, 0, 0, 0)
        if headers is not None:
            window_ms, reset_ms = round(headers.window_s * 1000), round(headers.reset_s * 1000)
            numbers = (window_ms, reset_ms, headers.quota, headers.left)
        wait_ms = self.retry_after_s * 1000
        return (self.number, self.kind, sent_age_ms, age_ms, *numbers, wait_ms)


_Waiters = deque[asyncio.Future[Lease]]


class Holdings:
    """Leases under way, those that ended and were not told yet, and who waits in which order."""

    def __init__(self) -> None:
        self._waiters: dict[tuple[Operation, Priority], _Waiters] = {
            (operation, priority): deque() for priority in PRIORITIES for operation in OPERATIONS
        }
        self.held: dict[int, Lease] = {}
        self.in_flight = dict.fromkeys(OPERATIONS, 0)
        self.done: list[Done] = []
        #: The newest that told of the quota.
        self.newest: Done | None = None

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(map(len, self._waiters.values()))

    def wait(self, future: asyncio.Future[Lease], operation: Operation, priority: Priority) -> None:
        """Put somebody at the end of a queue."""
        self._waiters[operation, priority].append(future)

    def give_up(
        self, future: asyncio.Future[Lease], operation: Operation, priority: Priority
    ) -> None:
        """Take somebody out of a queue, if still there."""
        waiters = self._waiters[operation, priority]
        if future in waiters:
            waiters.remove(future)

    def next_waiter(self, operation: Operation, priority: Priority) -> asyncio.Future[Lease] | None:
        """Take the first that still waits out of a queue."""
        waiters = self._waiters[operation, priority]
        for _ in range(len(waiters)):
            future = waiters.popleft()
            if not future.done():
                return future
            # Cancelled: its own `acquire` takes it out.
            waiters.append(future)
        return None

    def turn_away(self, error: Exception) -> None:
        """End all waiting."""
        for waiters in self._waiters.values():
            for future in waiters:
                if not future.done():
                    future.set_exception(error)
            waiters.clear()

    def begin(self, number: int, operation: Operation, priority: Priority, now: float) -> Lease:
        """Take a lease."""
        lease = Lease(number, operation, priority, now)
        self.held[number] = lease
        self.in_flight[operation] += 1
        return lease

    def end(
        self,
        lease: Lease,
        kind: int,
        now: float,
        headers: QuotaHeaders | None,
        retry_after_s: float,
    ) -> bool:
        """End a lease, to be told; return False if it is none of these (any more)."""
        if self.held.get(lease.number) is not lease:
            return False
        del self.held[lease.number]
        self.in_flight[lease.operation] -= 1
        done = Done(lease.number, kind, lease.sent_at, now, headers, retry_after_s)
        self.done.append(done)
        if headers is not None:
            self.newest = done
        return True

    def take_done(self) -> list[Done]:
        """Take what ended, to tell it."""
        done, self.done = self.done, []
        return done

    def not_told(self, done: list[Done]) -> None:
        """Put back what may not have been heard; to tell it again is harmless."""
        self.done = done + self.done

    def told(self, now: float, *, with_newest: bool) -> list[tuple[float, ...]]:
        """Return what ended, and again the newest that told of the quota if it may be unknown."""
        told = [one.told(now) for one in self.done]
        if with_newest and self.newest is not None:
            told.append(attrs.evolve(self.newest, number=0).told(now))
        return told

    def wanted(self) -> list[int]:
        """Return how many wait: interactive reads, writes, deletes, then bulk."""
        return [len(waiters) for waiters in self._waiters.values()]

    def kept(self) -> list[tuple[int, int, int]]:
        """Return number, operation and priority of each lease."""
        return [
            (one.number, _NUMBER[one.operation], one.priority + 1) for one in self.held.values()
        ]
