"""Which processes of a store there are, as far as one of them knows without the server.

Under `member.py`, which feeds it. The server reports to all that listen, busy or idle, whenever one
joins or leaves. The shares of all must never add up to more than the whole. So a process believes
the larger of two counts, and takes one unit a window when what it knows is old.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

#: A time of the server this much earlier than the last one shows that its clock was set back.
_SET_BACK_S: Final = 5.0


class KnownMembers(msgspec.Struct, frozen=True):
    """The processes of this store, as last reported.

    `rank` is ours of `count`, from 0; `clock_s` added to the loop's time is the server's clock.
    `is_sure` is False when the report is too old.
    """

    count: int = 1
    rank: int = 0
    clock_s: float = 0.0
    is_sure: bool = True


class Membership:
    """What is known of the others. Times are the event loop's seconds, `server_s` the server's.

    A smaller count is believed `hold_s` after it was reported: those that were left out may be on
    their way back to a server that has forgotten them, and still use their share. A report that
    nobody has confirmed for `fresh_s` is not sure.
    """

    def __init__(self, *, hold_s: float, fresh_s: float) -> None:
        self._hold_s = hold_s
        self._fresh_s = fresh_s
        self._newest = KnownMembers()
        self._reported_at_s = -math.inf
        self._before: KnownMembers | None = None
        self._before_until = -math.inf
        self._confirmed_at = -math.inf

    def update(
        self, count: int, rank: int, server_s: float, now: float, *, is_delayed: bool = False
    ) -> None:
        """Take a report of `server_s`, unless a newer one came before.

        `is_delayed` says that the report may have waited unread, so that its time may be old.
        """
        self.confirmed(now)
        if self._reported_at_s - _SET_BACK_S < server_s < self._reported_at_s:
            return
        clock_s = server_s - now
        if is_delayed and server_s >= self._reported_at_s > -math.inf:
            clock_s = max(clock_s, self._newest.clock_s)
        believed, before = self._believed(now), self._newest
        self._reported_at_s = server_s
        self._newest = KnownMembers(count, rank, clock_s)
        if count >= believed.count:
            self._before = None
        elif count < before.count:
            self._before, self._before_until = believed, now + self._hold_s

    def confirmed(self, now: float) -> None:
        """Note that every report until now has been read."""
        self._confirmed_at = now

    def known(self, now: float) -> KnownMembers:
        """Return the members that a process in degraded mode has to share with from now on."""
        # Without any report the configured share holds, which is chosen for that.
        is_sure = self._reported_at_s == -math.inf or now - self._confirmed_at <= self._fresh_s
        clock_s = self._newest.clock_s
        return msgspec.structs.replace(self._believed(now), clock_s=clock_s, is_sure=is_sure)

    def server_s(self, now: float) -> float:
        """Return the server's clock, no later than it is; 0.0 if it is not known."""
        return 0.0 if self._reported_at_s == -math.inf else now + self._newest.clock_s

    def _believed(self, now: float) -> KnownMembers:
        if self._before is not None and now < self._before_until:
            return self._before
        self._before = None
        return self._newest
