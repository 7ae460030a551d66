"""What each operation gets of a quota that reads and writes want at once. Pure: times are given.

Reads have more slots than writes, so whoever takes units as slots come free takes most of a window
for reads. Here the units of a window are shared by max-min fairness: each bulk flow has an equal
share, and what a flow can't use before the window ends goes to the others. How many calls a job has
left is not known, because its input is read lazily. So its need is what it can use now: units are
held back for an operation only while its requests wait or are out, and no more than its slots and
its latency allow until the window ends. Where a call takes a good part of a window, a few units may
be left over. Interactive requests are not held back.

A quota that has to be asked grants in its own order; `shared_quota/grants.lua` shares likewise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import msgspec

from bc_attrvals.core.rate_limit import QuotaSnapshot
from bc_attrvals.core.requests import Operation
from bc_attrvals.scheduling.congestion import Concurrency

#: Seconds after which what is held back is looked at again.
LOOK_AGAIN_S: Final = 0.02
#: Bulk requests of two operations share for so long after the last change from one to the other.
_SHARED_S: Final = 2.0
#: A job that has just been answered makes its next request within this time.
_BETWEEN_S: Final = 0.01
#: A quick answer or two must not find the units gone: what can be used is taken for more by this.
_MARGIN: Final = 1.25


class _Part(msgspec.Struct, frozen=True):
    """An operation that wants units: the flows it is for, what it had, and what it can use."""

    operation: Operation
    flows: int
    had: int
    most: float


class Shares:
    """Decides how many units an operation's bulk requests must leave to those of others."""

    def __init__(self) -> None:
        #: The operation of the last bulk request that was granted.
        self.last: Operation | None = None
        #: Nothing is shared from this time on, unless `changed` moves it.
        self.until = -math.inf
        self._window_ends_at = -math.inf
        # What each operation had been granted when the sharing of this window began.
        self._had_before: dict[Operation, int] = {}

    def changed(self, operation: Operation, now: float) -> None:
        """Note a grant to a bulk request of another operation than the last one's."""
        if self.last is not None:
            self.until = now + _SHARED_S
        self.last = operation

    def left_for(
        self,
        operation: Operation,
        now: float,
        quota: QuotaSnapshot,
        concurrency: Mapping[Operation, Concurrency],
        waiting: Mapping[Operation, tuple[int, int]],
    ) -> float:
        """Return how many units the bulk requests of an operation may take now.

        `waiting` has for each operation its bulk requests and flows that wait.
        """
        if quota.left is None or quota.resets_in_s is None:
            return math.inf
        if now >= self._window_ends_at:
            self._had_before = {one: state.bulk_granted for one, state in concurrency.items()}
        self._window_ends_at = now + quota.resets_in_s
        parts = [
            part
            for one, state in concurrency.items()
            if (part := self._part(one, state, *waiting[one], now)) is not None
        ]
        rest = float(quota.left) + sum(part.had for part in parts)
        flows = sum(part.flows for part in parts)
        left, own = float(quota.left), 0
        # The one that can use least for each flow first: what it leaves is there for the others.
        for part in sorted(parts, key=lambda one: one.most / one.flows):
            share = min(part.most, rest * part.flows / flows)
            rest -= share
            flows -= part.flows
            to_come = max(0, math.floor(share) - part.had)
            if part.operation is operation:
                own = to_come
            else:
                left -= to_come
        # Units that are owed to several operations are never held back from all of them.
        return max(left, min(own, quota.left))

    def _part(
        self, operation: Operation, state: Concurrency, waiting: int, flows: int, now: float
    ) -> _Part | None:
        wanted = min(state.bulk_in_flight + waiting, int(state.bearable))
        if not wanted and now - state.left_at > _BETWEEN_S:
            return None
        had = state.bulk_granted - self._had_before[operation]
        latency_s = state.latency_s
        if not latency_s:
            return _Part(operation, max(flows, 1), had, math.inf)
        if state.in_flight >= int(state.bearable):
            # Requests that hang use no units.
            latency_s = max(latency_s, now - state.left_at)
        rest_s = max(0.0, self._window_ends_at - max(now, state.blocked_until))
        can_use = _MARGIN * max(wanted, 1) * rest_s / latency_s
        return _Part(operation, max(flows, 1), had, had + can_use)
