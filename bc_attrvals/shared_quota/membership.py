"""Which processes of a store there are, as far as one of them can know when the server goes away.

Under `quota.py`, which feeds it: the server tells all that listen, busy or idle, whenever one comes
or goes. What counts is that the shares of all never add up to more than the whole, so a process
takes the larger of what it could believe, and next to nothing when what it knows is old.
"""

from __future__ import annotations

import math
from typing import Final

import attrs

__all__ = ["Fleetmates", "Roster"]

#: The server's clock was set back if it tells of a time so much earlier than before.
_SET_BACK_S: Final = 5.0


@attrs.frozen
class Fleetmates:
    """What was last heard of the processes of this store.

    `rank` is ours of `count`, from 0; `clock_s` added to the loop's time is the server's clock.
    `is_sure` is False when it was heard too long ago.
    """

    count: int = 1
    rank: int = 0
    clock_s: float = 0.0
    is_sure: bool = True


class Roster:
    """What is heard of the others. Times are the event loop's seconds, `server_s` the server's.

    A smaller number is believed `hold_s` after it was heard: those that were left out may be on
    their way back to a server that has forgotten them, with the share of before. What nobody has
    confirmed for `fresh_s` is not sure.
    """

    def __init__(self, *, hold_s: float, fresh_s: float) -> None:
        self._hold_s = hold_s
        self._fresh_s = fresh_s
        self._newest = Fleetmates()
        self._told_at_s = -math.inf
        self._before: Fleetmates | None = None
        self._before_until = -math.inf
        self._confirmed_at = -math.inf

    def heard(
        self, count: int, rank: int, server_s: float, now: float, *, lay: bool = False
    ) -> None:
        """Take what the server told at `server_s`, unless something newer was heard before.

        `lay` says that nobody knows how long it lay unread, so that it tells the time badly.
        """
        self.confirmed(now)
        if self._told_at_s - _SET_BACK_S < server_s < self._told_at_s:
            return
        clock_s = server_s - now
        if lay and server_s >= self._told_at_s > -math.inf:
            clock_s = max(clock_s, self._newest.clock_s)
        believed, before = self._believed(now), self._newest
        self._told_at_s = server_s
        self._newest = Fleetmates(count, rank, clock_s)
        if count >= believed.count:
            self._before = None
        elif count < before.count:
            self._before, self._before_until = believed, now + self._hold_s

    def confirmed(self, now: float) -> None:
        """Note that whatever was told until now has been heard."""
        self._confirmed_at = now

    def known(self, now: float) -> Fleetmates:
        """Return what a process that is on its own from now on has to reckon with."""
        # Who never heard of others keeps to its own share, which is chosen for that.
        is_sure = self._told_at_s == -math.inf or now - self._confirmed_at <= self._fresh_s
        clock_s = self._newest.clock_s
        return attrs.evolve(self._believed(now), clock_s=clock_s, is_sure=is_sure)

    def server_s(self, now: float) -> float:
        """Return the server's clock, no later than it is; 0.0 if it was never heard."""
        return 0.0 if self._told_at_s == -math.inf else now + self._newest.clock_s

    def _believed(self, now: float) -> Fleetmates:
        if self._before is not None and now < self._before_until:
            return self._before
        self._before = None
        return self._newest
