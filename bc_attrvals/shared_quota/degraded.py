"""Degraded mode: grants in place of the server while it is out of reach.

Under `member.py`, which says when. `fallback.py` says how much, `leases.py` holds the leases.
"""

from __future__ import annotations

import asyncio

from bc_attrvals.core.requests import Operation
from bc_attrvals.scheduling.quota import Priority
from bc_attrvals.shared_quota.fallback import LocalShare
from bc_attrvals.shared_quota.leases import OPERATIONS, PRIORITIES, Leases


class DegradedMode:
    """Grants what this process may send without the others, and looks again when more may go."""

    def __init__(self, local: LocalShare, leases: Leases) -> None:
        self._local = local
        self._leases = leases
        self._granted = 0
        self._timer: asyncio.TimerHandle | None = None
        # The one served longest ago first: few units must not all go to reads.
        self._turns = list(OPERATIONS)

    def grant(self) -> None:
        """Grant all that may go now: interactive requests first, operations in turn."""
        self.stop()
        loop = asyncio.get_running_loop()
        now = loop.time()
        for priority in PRIORITIES:
            while any(self._grant_one(operation, priority, now) for operation in self._turns):
                pass
        if self._leases.waiting:
            self._timer = loop.call_at(self._local.look_again_at(now), self.grant)

    def stop(self) -> None:
        """Stop looking."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _grant_one(self, operation: Operation, priority: Priority, now: float) -> bool:
        if not self._local.may_send(operation, now, self._leases.in_flight):
            return False
        future = self._leases.next_waiter(operation, priority)
        if future is None:
            return False
        self._granted += 1
        self._local.state.take()
        future.set_result(self._leases.begin(-self._granted, operation, priority, now))
        self._turns.remove(operation)
        self._turns.append(operation)
        return True
