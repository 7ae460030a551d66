"""The leases of one process: those held, those waited for, those ended and not yet reported.

Under `member.py`, which decides who is granted what and when the server is called. No clock, no
wire.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

import msgspec

from bc_attrvals.core.rate_limit import QuotaHeaders
from bc_attrvals.core.requests import Operation
from bc_attrvals.scheduling.quota import Priority

# The numbers that `grants.lua` has for them; those of operations and priorities count from 1.
OPERATIONS: Final = (Operation.READ, Operation.WRITE, Operation.DELETE)
PRIORITIES: Final = (Priority.INTERACTIVE, Priority.BULK)
_NUMBER: Final = {operation: index + 1 for index, operation in enumerate(OPERATIONS)}
ANSWERED, NO_HEADERS, UNANSWERED, UNSENT = range(4)


class Lease(msgspec.Struct, eq=False):
    """A slot and a unit; the number is negative if it was taken without the server."""

    number: int
    operation: Operation
    priority: Priority
    sent_at: float


class Ended(msgspec.Struct, eq=False):
    """A lease that ended, with what its answer said of the quota."""

    number: int
    kind: int
    sent_at: float
    ended_at: float
    headers: QuotaHeaders | None = None
    retry_after_s: float = 0.0

    def entry(self, now: float) -> tuple[float, ...]:
        """Return it as the script reads it: times in milliseconds, of the past as ages."""
        sent_age_ms, age_ms = (now - self.sent_at) * 1000, (now - self.ended_at) * 1000
        headers, numbers = self.headers, (0, 0, 0, 0)
        if headers is not None:
            window_ms, reset_ms = round(headers.window_s * 1000), round(headers.reset_s * 1000)
            numbers = (window_ms, reset_ms, headers.quota, headers.left)
        wait_ms = self.retry_after_s * 1000
        return (self.number, self.kind, sent_age_ms, age_ms, *numbers, wait_ms)


_Waiters = deque[asyncio.Future[Lease]]


class Leases:
    """Leases under way, leases that ended and are not reported yet, and requests that wait."""

    def __init__(self) -> None:
        self._waiters: dict[tuple[Operation, Priority], _Waiters] = {
            (operation, priority): deque() for priority in PRIORITIES for operation in OPERATIONS
        }
        self.held: dict[int, Lease] = {}
        self.in_flight = dict.fromkeys(OPERATIONS, 0)
        #: The bulk jobs that wait for leases of each operation.
        self.flows = dict.fromkeys(OPERATIONS, 0)
        self.ended: list[Ended] = []
        #: The newest ended lease whose answer had rate-limit headers.
        self.newest: Ended | None = None

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return sum(map(len, self._waiters.values()))

    def wait(self, future: asyncio.Future[Lease], operation: Operation, priority: Priority) -> None:
        """Add a request to the end of its queue."""
        self._waiters[operation, priority].append(future)

    def remove(
        self, future: asyncio.Future[Lease], operation: Operation, priority: Priority
    ) -> None:
        """Take a request out of its queue, if it is still there."""
        waiters = self._waiters[operation, priority]
        if future in waiters:
            waiters.remove(future)

    def next_waiter(self, operation: Operation, priority: Priority) -> asyncio.Future[Lease] | None:
        """Take out the first request of a queue that still waits."""
        waiters = self._waiters[operation, priority]
        while waiters:
            future = waiters.popleft()
            if not future.done():
                return future
        return None

    def fail_all(self, error: Exception) -> None:
        """Raise an error for all that wait."""
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
    ) -> Ended | None:
        """Close a lease and queue its report, which is returned; None if it is not held."""
        if self.held.get(lease.number) is not lease:
            return None
        del self.held[lease.number]
        self.in_flight[lease.operation] -= 1
        ended = Ended(lease.number, kind, lease.sent_at, now, headers, retry_after_s)
        self.ended.append(ended)
        if headers is not None:
            self.newest = ended
        return ended

    def entries(self, now: float, *, with_newest: bool) -> list[tuple[float, ...]]:
        """Return what ended as the script reads it.

        `with_newest` adds the newest that had headers, because the server may not know of it.
        """
        entries = [one.entry(now) for one in self.ended]
        if with_newest and self.newest is not None:
            entries.append(msgspec.structs.replace(self.newest, number=0).entry(now))
        return entries

    def wanted(self) -> list[int]:
        """Return how many wait: interactive reads, writes, deletes, then bulk."""
        return [len(waiters) for waiters in self._waiters.values()]

    def as_held(self) -> list[tuple[int, int, int]]:
        """Return number, operation and priority of each lease."""
        return [
            (one.number, _NUMBER[one.operation], one.priority + 1) for one in self.held.values()
        ]
