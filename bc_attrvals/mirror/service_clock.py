"""What is known of the service's clock: a lower bound, learnt from its rows and `Date` headers.

Pure; seconds are those of UNIX time. A row of second `s` that was seen at the loop's time `t`
proves that the service's time is at least `s + d` at `t + d`. A faulty writer may date a row in the
future, so no row is believed beyond the `Date` of the answers, or without it beyond our own clock.
Where no new row shows the time, `Date` does, less `LAG_S`; it is not believed beyond our own clock.
A clock of ours that is behind costs reads, and hides nothing.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

#: A row is visible at most this long after its `date_modified`, in seconds: the clocks of the
#: service's servers, with that of the `Date` header, differ by less, and their replicas are behind
#: by less. It is an assumption; BigCommerce documents no such time.
LAG_S: Final = 60
#: Loop times are floats.
_EPSILON_S: Final = 1e-6


class ServiceClock:
    """A lower bound of the service's time. All `at_s` are local times of one monotonic clock."""

    def __init__(self) -> None:
        self._lead_s = -math.inf
        self._date_lead_s: float | None = None

    def observe_date(self, second: int, at_s: float, *, our_second: int) -> None:
        """Note the `Date` header of an answer that came at `at_s`, second `our_second` here."""
        lead_s = second - at_s
        known_s = self._date_lead_s
        self._date_lead_s = lead_s if known_s is None else max(known_s, lead_s)
        self._lead_s = max(self._lead_s, min(second, our_second) - LAG_S - at_s)

    def observe(self, second: int, at_s: float, *, our_second: int) -> None:
        """Note a date of a row that came at `at_s`, second `our_second` here."""
        latest = our_second if self._date_lead_s is None else self._date(at_s)
        self._lead_s = max(self._lead_s, min(second, latest) - at_s)

    def least(self, at_s: float) -> int | None:
        """Return a second that the service had reached at `at_s`; None if unknown."""
        if self._lead_s == -math.inf:
            return None
        return math.floor(self._lead_s + at_s + _EPSILON_S)

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
