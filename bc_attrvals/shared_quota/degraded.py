"""Degraded mode: what a process grants itself while the server of the shared quota is out of reach.

Under `member.py`, which starts and ends it. A process can't see the others without the server, so
it takes a share of each window's units: the configured one, or an even one among the processes that
`membership.py` knows, whichever is smaller. It leaves one unit to each of the others. It sends one
write and one delete at once, and that share of the reads. More processes than may write at once
take turns by the server's clock, as it was last read. The state of the quota is updated while the
server is in reach, too.
"""

from __future__ import annotations

import asyncio
import math
from typing import Final

from bc_attrvals.core.limits import Limits
from bc_attrvals.core.rate_limit import QuotaState
from bc_attrvals.core.requests import Operation
from bc_attrvals.scheduling.quota import Priority
from bc_attrvals.shared_quota.leases import (
    OPERATIONS,
    PRIORITIES,
    UNANSWERED,
    UNSENT,
    Ended,
    Leases,
)
from bc_attrvals.shared_quota.membership import KnownMembers

#: A pause before the first write in degraded mode, in which writes of others can end.
_QUIET_S: Final = 1.0
#: The length of a turn to write, and the end of it in which no write is begun.
_TURN_S: Final = 2.0
_TURN_END_S: Final = 0.5


class DegradedMode:
    """Grants what one process may send without the others. Times are the event loop's seconds."""

    def __init__(self, limits: Limits, share: float, leases: Leases) -> None:
        self._limits = limits
        self._leases = leases
        self._most_share = share
        self.share = share
        self.state = QuotaState(limits.reserve)
        self._most = {
            Operation.READ: max(1, int(limits.reads * share)),
            Operation.WRITE: 1,
            Operation.DELETE: 1,
        }
        self._members = KnownMembers()
        self._writes_from = -math.inf
        self._granted = 0
        self._timer: asyncio.TimerHandle | None = None
        # The one served longest ago first: few units must not all go to reads.
        self._turns = list(OPERATIONS)

    def start(self, now: float, members: KnownMembers) -> None:
        """Begin degraded mode."""
        self.set_members(members)
        self._writes_from = now + _QUIET_S if members.count > 1 or not members.is_sure else now

    def set_members(self, members: KnownMembers) -> None:
        """Share with these from now on."""
        self._members = members
        # A process that does not know how many there are takes one unit of each window.
        self.share = min(self._most_share, 1 / members.count) if members.is_sure else 0.0
        self.state.confine(self.share, self._limits.reserve + members.count - 1)

    def ended(self, one: Ended) -> None:
        """Update the state from a request that ended, in degraded mode or not."""
        if one.kind == UNSENT:
            self.state.unsent()
        elif one.kind == UNANSWERED:
            self.state.unanswered(one.ended_at)
        else:
            self.state.answered(one.sent_at, one.ended_at, one.headers)
            if one.retry_after_s:
                self.state.block(one.ended_at + one.retry_after_s)

    def grant(self) -> None:
        """Grant all that may go now: interactive requests first, operations in turn."""
        self.stop()
        loop = asyncio.get_running_loop()
        now = loop.time()
        for priority in PRIORITIES:
            while any(self._grant_one(operation, priority, now) for operation in self._turns):
                pass
        if self._leases.waiting:
            self._timer = loop.call_at(self._look_again_at(now), self.grant)

    def stop(self) -> None:
        """Cancel the timer of the next grant."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _grant_one(self, operation: Operation, priority: Priority, now: float) -> bool:
        if (
            self._leases.in_flight[operation] >= self._most[operation]
            or self.state.available(now) == 0
            or (operation is Operation.WRITE and self._writes_at(now) > now)
        ):
            return False
        future = self._leases.next_waiter(operation, priority)
        if future is None:
            return False
        self._granted += 1
        self.state.take()
        future.set_result(self._leases.begin(-self._granted, operation, priority, now))
        self._turns.remove(operation)
        self._turns.append(operation)
        return True

    def _look_again_at(self, now: float) -> float:
        """Return when something may go that may not now, if no answer comes before."""
        moments = [self.state.opens_at() or math.inf, self._writes_at(now)]
        return min((one for one in moments if one > now), default=now + _TURN_S)

    def _writes_at(self, now: float) -> float:
        """Return the first moment from now on at which a write may be begun."""
        members = self._members
        at = max(now, self._writes_from)
        groups = math.ceil(members.count / self._limits.writes)
        if groups == 1:
            return at
        clock = at + members.clock_s
        round_s = groups * _TURN_S
        into = (clock - members.rank % groups * _TURN_S) % round_s
        return at if into < _TURN_S - _TURN_END_S else at + round_s - into
