"""Grants in place of the server while it is out of reach.

Under `quota.py`, which says when; `fallback.py` says how much, `holdings.py` keeps the book.
"""

from __future__ import annotations

import asyncio

from bc_attrvals.shared_quota.fallback import LocalShare
from bc_attrvals.shared_quota.leases import OPERATIONS, PRIORITIES, Holdings

__all__ = ["Alone"]


class Alone:
    """Grants what this process may send without the others, and looks again in time."""

    def __init__(self, local: LocalShare, holdings: Holdings) -> None:
        self._local = local
        self._holdings = holdings
        self._granted = 0
        self._timer: asyncio.TimerHandle | None = None

    def grant(self) -> None:
        """Grant all that may go now, to those that wait; interactive ones first."""
        self.stop()
        loop = asyncio.get_running_loop()
        now = loop.time()
        for priority in PRIORITIES:
            for operation in OPERATIONS:
                while self._local.may_send(operation, now, self._holdings.in_flight):
                    future = self._holdings.next_waiter(operation, priority)
                    if future is None:
                        break
                    self._granted += 1
                    self._local.state.take()
                    lease = self._holdings.begin(-self._granted, operation, priority, now)
                    future.set_result(lease)
        if self._holdings.waiting:
            self._timer = loop.call_at(self._local.look_again_at(now), self.grant)

    def stop(self) -> None:
        """Look no more by itself."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
