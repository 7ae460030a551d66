"""Counts what a store limits: the shared quota per window, and the requests in flight."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable
from typing import Final

import attrs

from bc_attrvals.sandbox.operations import Operation

_WINDOWS_KEPT: Final = 10_000
# More than go away while one request waits to be counted.
_ABANDONED_KEPT: Final = 1_000


@attrs.define
class _Counts:
    index: int
    granted: int = 0
    refused: int = 0
    spent_by_others: int = 0

    @property
    def used(self) -> int:
        """The units that are spent."""
        return self.granted + self.spent_by_others


@attrs.frozen
class Window(_Counts):
    """What happened in one quota window; `index` counts from 0, at the sandbox's start."""


class QuotaWindow:
    """Grants units in fixed windows on a grid that begins at the start.

    `quota` None grants everything and shows no headers.
    """

    def __init__(
        self,
        quota: int | None,
        window_s: float,
        clock: Callable[[], float],
        *,
        reset_granularity_ms: int = 1,
    ) -> None:
        """Start the first window now."""
        self.quota = quota
        if not (math.isfinite(window_s) and window_s > 0):
            raise ValueError(f"window_s must be a positive number of seconds, not {window_s!r}")
        #: Seconds a window lasts.
        self.window_s = window_s
        self._clock = clock
        self.reset_granularity_ms = reset_granularity_ms
        self.restart()

    @property
    def quota(self) -> int | None:
        """Units per window, or None without a limit."""
        return self._quota

    @quota.setter
    def quota(self, quota: int | None) -> None:
        if quota is not None and quota < 0:
            raise ValueError(f"quota must not be negative, got {quota}")
        self._quota = quota

    @property
    def left(self) -> int | None:
        """Units left in the current window, or None without a limit."""
        counts = self._current(self._clock())
        return None if self._quota is None else max(0, self._quota - counts.used)

    @property
    def remaining_s(self) -> float:
        """Seconds until the next window."""
        return self._remaining_s(self._clock())

    @property
    def windows(self) -> list[Window]:
        """The windows with requests in them, oldest first; the newest 10,000 are kept."""
        return [Window(*attrs.astuple(counts)) for counts in self._history]

    def restart(self) -> None:
        """Forget all windows and begin a new first one now."""
        self._start_s = self._clock()
        self._history: deque[_Counts] = deque(maxlen=_WINDOWS_KEPT)

    def take(self) -> bool:
        """Take one unit; False if the window has none left."""
        counts = self._current(self._clock())
        if self._quota is not None and counts.used >= self._quota:
            counts.refused += 1
            return False
        counts.granted += 1
        return True

    def spend(self, units: int) -> None:
        """Spend units as another app; what exceeds this window is not taken from the next one."""
        if units < 0:
            raise ValueError(f"units must not be negative, got {units}")
        self._current(self._clock()).spent_by_others += units

    def header_lines(self) -> str:
        """Return the lines of the four headers as of now, none without a quota."""
        if self._quota is None:
            return ""
        now_s = self._clock()
        left = max(0, self._quota - self._current(now_s).used)
        return (
            f"X-Rate-Limit-Time-Window-Ms: {round(self.window_s * 1000)}\r\n"
            f"X-Rate-Limit-Time-Reset-Ms: {self._reset_ms(now_s)}\r\n"
            f"X-Rate-Limit-Requests-Quota: {self._quota}\r\n"
            f"X-Rate-Limit-Requests-Left: {left}\r\n"
        )

    def retry_after_s(self) -> int:
        """Return whole seconds until the next window, rounded up, as `X-Retry-After` gives them."""
        return max(1, math.ceil(self._remaining_s(self._clock())))

    def _current(self, now_s: float) -> _Counts:
        index = math.floor((now_s - self._start_s) / self.window_s)
        if not self._history or self._history[-1].index < index:
            self._history.append(_Counts(index))
        return self._history[-1]

    def _remaining_s(self, now_s: float) -> float:
        return self.window_s - (now_s - self._start_s) % self.window_s

    def _reset_ms(self, now_s: float) -> int:
        # Rounded down to whole milliseconds.
        reset_ms = math.floor(self._remaining_s(now_s) * 1000)
        return reset_ms - reset_ms % self.reset_granularity_ms


class InFlight:
    """Tracks the requests in flight per operation, and their peak."""

    def __init__(self) -> None:
        self._present: dict[Operation, dict[int, None]] = {one: {} for one in Operation}
        #: The largest number in flight so far.
        self.peak: Counter[Operation] = Counter()
        #: The last requests that were counted out because their client went away.
        self.abandoned: deque[int] = deque(maxlen=_ABANDONED_KEPT)

    def enter(self, operation: Operation, sequence: int) -> int:
        """Count a request in; returns how many there are now, itself included."""
        present = self._present[operation]
        present[sequence] = None
        return len(present)

    def present(self, operation: Operation) -> set[int]:
        """Return the requests that are in flight."""
        return set(self._present[operation])

    def leave(self, operation: Operation, sequence: int) -> None:
        """Count a request out; a second time does nothing."""
        self._present[operation].pop(sequence, None)

    def abandon(self, operation: Operation, sequence: int) -> None:
        """Count a request out because its client went away."""
        self.leave(operation, sequence)
        self.abandoned.append(sequence)

    def now(self, operation: Operation | None = None) -> int:
        """Return the number in flight, of one operation or of all."""
        if operation is None:
            return sum(map(len, self._present.values()))
        return len(self._present[operation])

    def forget_peaks(self) -> None:
        """Reset the peaks to what is in flight now."""
        self.peak = Counter({one: len(present) for one, present in self._present.items()})
