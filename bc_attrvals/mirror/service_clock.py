"""What is known of the service's clock: a lower bound, learnt from its rows and `Date` headers.

Pure; seconds are those of UNIX time. Local times are never compared with the service's, only
durations are: a row of second `s` that was seen at the loop's time `t` proves that the service's
time is at least `s + d` at `t + d`. A faulty writer may date a row in the future, so no row is
believed beyond the `Date` of the answers. Without such a header all rows are believed.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

#: A second counts as over this long after its end.
_MARGIN_S: Final = 0.05
#: How far the clocks of writers may be ahead of the `Date` header.
_SLACK_S: Final = 60
#: Loop times are floats.
_EPSILON_S: Final = 1e-6


class ServiceClock:
    """A lower bound of the service's time. All `at_s` are local times of one monotonic clock."""

    def __init__(self) -> None:
        self._lead_s = -math.inf
        self._date_lead_s: float | None = None

    def observe_date(self, second: int, at_s: float) -> None:
        """Note the `Date` header of an answer that came at `at_s`."""
        lead_s = second - at_s
        known_s = self._date_lead_s
        self._date_lead_s = lead_s if known_s is None else max(known_s, lead_s)

    def observe(self, second: int, at_s: float) -> int:
        """Note a date of a row that came at `at_s`; return it, cut to the `Date` header."""
        second = second if self._date_lead_s is None else min(second, self._date(at_s))
        self._lead_s = max(self._lead_s, second - at_s)
        return second

    def is_near(self, second: int, at_s: float) -> bool:
        """Return whether a second is not far in the future."""
        return self._date_lead_s is None or second <= self._date(at_s) + _SLACK_S

    def least(self, at_s: float) -> int | None:
        """Return a second that the service had reached at `at_s`; None if unknown."""
        if self._lead_s == -math.inf:
            return None
        return math.floor(self._lead_s + at_s + _EPSILON_S)

    def until_over_s(self, second: int, at_s: float) -> float:
        """Return the time until a second is certainly over at the service; 0 or less if it is."""
        return second + 1 + _MARGIN_S - (self._lead_s + at_s)

    def _date(self, at_s: float) -> int:
        assert self._date_lead_s is not None
        return math.floor(self._date_lead_s + at_s + _EPSILON_S)


def moment_of(second: int) -> datetime:
    """Return a UNIX second as a moment."""
    return _EPOCH + timedelta(seconds=second)


def second_of(moment: datetime | None) -> int:
    """Return the UNIX second of a moment, which is not None."""
    assert moment is not None
    return (moment - _EPOCH) // timedelta(seconds=1)
