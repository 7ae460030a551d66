"""What is known of the service's clock: a lower bound, learnt from the dates of its rows.

Pure. No clock of ours is compared with the service's, only durations: a row of second `s` that was
seen at the loop's time `t` says that `t + d` is at least `s + d` there.
"""

from __future__ import annotations

import math
from typing import Final

__all__ = ["ServiceClock"]

#: How long after its end a second is taken for over.
_MARGIN_S: Final = 0.05


class ServiceClock:
    """A lower bound of the service's time. Times of ours are those of one monotonic clock."""

    def __init__(self) -> None:
        self._lead_s = -math.inf
        #: The latest second that was observed.
        self.latest: int | None = None

    def observe(self, second: int, at_s: float) -> None:
        """Note that the service's clock had reached a second at a time of ours."""
        self._lead_s = max(self._lead_s, second - at_s)
        self.latest = second if self.latest is None else max(self.latest, second)

    def least(self, at_s: float) -> int | None:
        """Return a second that the service had reached at a time of ours; None if unknown."""
        if self._lead_s == -math.inf:
            return None
        return math.floor(self._lead_s + at_s + 1e-6)

    def until_over_s(self, second: int, at_s: float) -> float:
        """Return after how long a second is over there for certain; 0 or less if it is."""
        return second + 1 + _MARGIN_S - (self._lead_s + at_s)
