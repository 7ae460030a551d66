"""Congestion control: back-off and recovery of concurrency, and bulk reads that give way.

Pure: times are given. The service answers 429 without rate-limit headers when a store is under load
or too many requests are made at once (BigCommerce guide, API rate limits).
"""

from __future__ import annotations

import math
from random import Random
from typing import Final

import msgspec

from bc_attrvals.core.retry import RetryPolicy, backoff_s

#: Back-offs that double the pause, then back-offs that hold it.
_SHORT_PAUSES: Final = 3
#: The weight of the newest request in the average latency (TCP's round-trip estimate, RFC 6298).
_LATENCY_WEIGHT: Final = 1 / 8
#: An interactive read is slow if it takes this many times the quickest one. The quickest time grows
#: by `_FORGET_QUICKEST` with each read, so that an old one is forgotten.
_SLOW: Final = 2.0
_FORGET_QUICKEST: Final = 1.01
#: Bulk reads get all slots again this long after the last interactive read.
_GIVE_WAY_S: Final = 1.0


class Concurrency(msgspec.Struct, eq=False):
    """The slots of one operation: `most` at first, fewer after refusals."""

    most: int
    # The present number of slots. A float, because it recovers in fractions.
    allowed: float = 0.0
    in_flight: int = 0
    bulk_in_flight: int = 0
    # All bulk requests granted so far.
    bulk_granted: int = 0
    # The recent latency in seconds, as a moving average.
    latency_s: float | None = None
    # When the last request ended.
    left_at: float = -math.inf
    backoffs: int = 0
    backed_off_at: float = -math.inf
    blocked_until: float = -math.inf
    # Whether there are fewer slots than `most`, or the last outcome was a refusal.
    is_weak: bool = False

    def __post_init__(self) -> None:
        self.allowed = float(self.most)

    def room(self, now: float) -> int:
        """Return how many more requests may go now."""
        return 0 if now < self.blocked_until else int(self.allowed) - self.in_flight

    def enter(self, is_bulk: bool) -> None:
        """Take a slot."""
        self.in_flight += 1
        if is_bulk:
            self.bulk_in_flight += 1
            self.bulk_granted += 1

    def leave(self, now: float, is_bulk: bool, took_s: float | None = None) -> None:
        """Give a slot back. `took_s` is the latency of the answer, None if none came."""
        self.left_at = now
        self.in_flight -= 1
        if is_bulk:
            self.bulk_in_flight -= 1
        if took_s is not None:
            average_s = self.latency_s
            if average_s is not None:
                took_s = average_s + (took_s - average_s) * _LATENCY_WEIGHT
            self.latency_s = took_s

    def went_well(self, sent_at: float) -> None:
        """Recover concurrency: one more slot for each round of good answers."""
        if sent_at < self.backed_off_at:
            return
        # Also with a single slot, of which nothing can recover.
        self.backoffs = 0
        self.allowed = min(float(self.most), self.allowed + 1 / int(self.allowed))
        self.is_weak = self.allowed < self.most

    def back_off(self, sent_at: float, now: float, retry: RetryPolicy, random: Random) -> bool:
        """Halve the concurrency and pause; return whether this refusal counted.

        Refusals of requests sent before the last back-off are ignored: they are not news.
        """
        if sent_at < self.backed_off_at:
            return False
        self.is_weak = True
        self.backoffs += 1
        self.allowed = max(1.0, self.allowed / 2)
        self.backed_off_at = now
        # Pauses stay short for some back-offs, because a long pause wastes the time after a store
        # has recovered. They grow long only if the refusals go on.
        count = self.backoffs
        count = min(count, _SHORT_PAUSES) if count <= 2 * _SHORT_PAUSES else count - _SHORT_PAUSES
        self.blocked_until = now + backoff_s(count, retry.base_s, retry.cap_s, random)
        return True


class BulkPace:
    """Limits the bulk reads at once while there are interactive ones.

    The service has no priorities: pages it works on delay a single call. So fewer pages are asked
    for at once as long as interactive reads take more than twice the quickest one.
    """

    __slots__ = ("_interactive_until", "_most", "_quickest_s", "_reads")

    def __init__(self, most: int) -> None:
        self._most = most
        self._reads = float(most)
        self._quickest_s = math.inf
        self._interactive_until = -math.inf

    def answered(self, now: float, took_s: float, status: int | None) -> None:
        """Learn from an interactive read that ended; `status` is None if no answer came."""
        self._interactive_until = now + _GIVE_WAY_S
        if status != 200:
            return
        self._quickest_s = min(self._quickest_s * _FORGET_QUICKEST, took_s)
        if took_s > _SLOW * self._quickest_s:
            self._reads = max(min(2.0, self._most), self._reads * 0.7)
        else:
            self._reads = min(float(self._most), self._reads + 0.25)

    def room(self, now: float, bulk_in_flight: int) -> int:
        """Return how many more bulk reads may go now."""
        most = self._most if now >= self._interactive_until else int(self._reads)
        return most - bulk_in_flight
