"""Degraded mode: grants in place of the server while it is out of reach.

Under `member.py`, which says when. `fallback.py` says how much, `leases.py` holds the leases.
"""

from __future__ import annotations

import asyncio

from bc_attrvals.shared_quota.fallback import LocalShare
from bc_attrvals.shared_quota.leases import OPERATIONS, PRIORITIES, Leases


class DegradedMode:
    """Grants what this process may send without the others, and looks again when more may go."""

    def __init__(self, local: LocalShare, leases: Leases) -> None:
        self._local = local
        self._leases = leases
        self._granted = 0
        self._timer: asyncio.TimerHandle | None = None

    def grant(self) -> None:
        """Grant all that may go now; interactive requests first."""
        self.stop()
        loop = asyncio.get_running_loop()
        now = loop.time()
        for priority in PRIORITIES:
            for operation in OPERATIONS:
                while self._local.may_send(operation, now, self._leases.in_flight):
                    future = self._leases.next_waiter(operation, priority)
                    if future is None:
                        break
                    self._granted += 1
                    self._local.state.take()
                    lease = self._leases.begin(-self._granted, operation, priority, now)
                    future.set_result(lease)
        if self._leases.waiting:
            self._timer = loop.call_at(self._local.look_again_at(now), self.grant)

    def stop(self) -> None:
        """Stop looking."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
