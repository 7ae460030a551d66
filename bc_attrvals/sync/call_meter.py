"""Takes the growth of a job's calls, to note it in the working set piece by piece."""

from __future__ import annotations

from bc_attrvals.scheduling.calls import Calls


class CallMeter:
    """Counts from when it is created."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._started_at = (calls.calls, calls.retries)
        self._taken = (calls.calls, calls.retries)

    @property
    def total(self) -> int:
        """Requests sent since it was created."""
        return self._calls.calls - self._started_at[0]

    @property
    def total_retries(self) -> int:
        """Those of them that were sent again."""
        return self._calls.retries - self._started_at[1]

    @property
    def has_news(self) -> bool:
        """Whether requests were sent since the last `take`."""
        return self._calls.calls > self._taken[0]

    def take(self) -> tuple[int, int]:
        """Return the calls and the retries since the last time."""
        now = (self._calls.calls, self._calls.retries)
        calls, retries = now[0] - self._taken[0], now[1] - self._taken[1]
        self._taken = now
        return calls, retries
