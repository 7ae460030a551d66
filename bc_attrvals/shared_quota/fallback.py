"""What a process may send while the server of the shared quota is out of reach.

Beside `degraded.py`. A process alone can't see the others, so it keeps to a share:
of each window's units the configured one, or an even one among all processes that `membership.py`
knows of where that is smaller. It leaves one unit to each of the others. It sends one write and one
delete at once, and that share of the reads. More processes than may write at once take turns by the
server's clock, as it was last read. The state of the quota is kept up while the server is there.
"""

from __future__ import annotations

import math
from typing import Final

from bc_attrvals.core.limits import Limits
from bc_attrvals.core.rate_limit import QuotaHeaders, QuotaSnapshot, QuotaState
from bc_attrvals.core.requests import Operation
from bc_attrvals.shared_quota.leases import UNANSWERED, UNSENT
from bc_attrvals.shared_quota.membership import KnownMembers

#: A pause before the first write in degraded mode, in which writes of others can end.
_QUIET_S: Final = 1.0
#: The length of a turn to write, and the end of it in which no write is begun.
_TURN_S: Final = 2.0
_TURN_END_S: Final = 0.5


class LocalShare:
    """Slots and units of one process without the others. Times are the event loop's seconds."""

    def __init__(self, limits: Limits, share: float) -> None:
        self._limits = limits
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

    def start(self, now: float, members: KnownMembers) -> None:
        """Begin degraded mode."""
        self.set_members(members)
        self._writes_from = now + _QUIET_S if members.count > 1 or not members.is_sure else now

    def set_members(self, members: KnownMembers) -> None:
        """Share with these from now on."""
        self._members = members
        # Whoever does not know how many there are takes one unit of each window.
        self.share = min(self._most_share, 1 / members.count) if members.is_sure else 0.0
        self.state.confine(self.share, self._limits.reserve + members.count - 1)

    def ended(
        self,
        sent_at: float,
        now: float,
        kind: int,
        headers: QuotaHeaders | None,
        retry_after_s: float,
    ) -> None:
        """Learn from a request that ended, with the server or without."""
        if kind == UNSENT:
            self.state.unsent()
        elif kind == UNANSWERED:
            self.state.unanswered(now)
        else:
            self.state.answered(sent_at, now, headers)
            if retry_after_s:
                self.state.block(now + retry_after_s)

    def may_send(self, operation: Operation, now: float, in_flight: dict[Operation, int]) -> bool:
        """Return whether a request may go out now, beside those of this process."""
        if in_flight[operation] >= self._most[operation]:
            return False
        if self.state.available(now) == 0:
            return False
        return operation is not Operation.WRITE or self._writes_at(now) <= now

    def look_again_at(self, now: float) -> float:
        """Return when something may go that may not now, if no answer comes before."""
        moments = [self.state.opens_at() or math.inf, self._writes_at(now)]
        return min((one for one in moments if one > now), default=now + _TURN_S)

    def snapshot(self, now: float) -> QuotaSnapshot:
        """Return what this process knows of the quota."""
        return self.state.snapshot(now)

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
