"""Shares a quota between reads and writes that compete for it. Pure: times are given.

Reads have more slots than writes. If units went out as slots come free, reads would take most of a
window. Here the units of a window are shared by max-min fairness: each bulk flow has an equal
share, and what a flow can't use before the window ends goes to the others. A job's input is read
lazily, so the number of its remaining calls is unknown. Its need is therefore what it can use now.
Units are held back for an operation only while its requests wait or are out, and no more than its
slots and its latency allow until the window ends. If a call takes much of a window, a few units may
be left over. Interactive requests are not held back.

An external quota decides by itself; `shared_quota/grants.lua` shares in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import msgspec

from bc_attrvals.core.rate_limit import QuotaSnapshot
from bc_attrvals.core.requests import Operation
from bc_attrvals.scheduling.congestion import Concurrency

#: Seconds after which a request that is held back is checked again.
LOOK_AGAIN_S: Final = 0.02
#: Units are shared for this long after the latest grant to another bulk operation.
_SHARED_S: Final = 2.0
#: After an answer, a job makes its next request within this time.
_BETWEEN_S: Final = 0.01
#: The usable units are overestimated by this factor, so that quick answers still find some.
_MARGIN: Final = 1.25


class _Part(msgspec.Struct, frozen=True):
    """An operation that needs units: its flows, the units it had, and the most it can use."""

    operation: Operation
    flows: int
    had: int
    most: float


class Shares:
    """Decides how many units the bulk requests of each operation may take."""

    def __init__(self) -> None:
        #: The operation of the last bulk request that was granted.
        self.last: Operation | None = None
        #: Units are shared until this time; `changed` moves it.
        self.until = -math.inf
        self._window_ends_at = -math.inf
        # The units granted to each operation before the sharing of this window began.
        self._had_before: dict[Operation, int] = {}

    def changed(self, operation: Operation, now: float) -> None:
        """Note a bulk grant to an operation other than `last`."""
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

        `waiting` has the number of waiting bulk requests and flows of each operation.
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
        # In ascending order of need per flow: what one leaves goes to the others.
        for part in sorted(parts, key=lambda one: one.most / one.flows):
            share = min(part.most, rest * part.flows / flows)
            rest -= share
            flows -= part.flows
            to_come = max(0, math.floor(share) - part.had)
            if part.operation is operation:
                own = to_come
            else:
                left -= to_come
        # An operation may always take its own share, so units are not held back from all of them.
        return max(left, min(own, quota.left))

    def _part(
        self, operation: Operation, state: Concurrency, waiting: int, flows: int, now: float
    ) -> _Part | None:
        wanted = min(state.bulk_in_flight + waiting, int(state.allowed))
        if not wanted and now - state.left_at > _BETWEEN_S:
            return None
        had = state.bulk_granted - self._had_before[operation]
        latency_s = state.latency_s
        if not latency_s:
            return _Part(operation, max(flows, 1), had, math.inf)
        if state.in_flight >= int(state.allowed):
            # Requests that hang take no further units.
            latency_s = max(latency_s, now - state.left_at)
        rest_s = max(0.0, self._window_ends_at - max(now, state.blocked_until))
        can_use = _MARGIN * max(wanted, 1) * rest_s / latency_s
        return _Part(operation, max(flows, 1), had, had + can_use)
