"""The quota of a store by its rate-limit headers: a state machine that is given `now`.

The service counts calls in windows. Every answer has the calls left and the milliseconds until the
window ends. All apps of a store share the count, so only the newest answer counts, whether it shows
more or less. Our requests that it may not include yet are subtracted.

Times are local monotonic seconds. The server's clock is never compared with ours: each answer
bounds the window's end to [sent + reset, received + reset + granularity], answers of one window
are intersected, and the next window opens at the upper bound. So a request is never early, and late
by no more than the quickest answer takes to arrive.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import deque
from collections.abc import Mapping
from datetime import MAXYEAR, MINYEAR, datetime
from enum import Enum, auto
from typing import Final

import attrs
import msgspec
from multidict import istr

from bc_attrvals.core.models import to_utc

#: The service's window if an answer does not name it (BigCommerce guide, API rate limits).
DEFAULT_WINDOW_S: Final = 30.0
#: The margin between the last possible end of a window and the opening of the next.
_EDGE_S: Final = 0.001
#: Headers with larger numbers are ignored.
_LONGEST_WINDOW_S: Final = 86_400.0
_LARGEST_QUOTA: Final = 10**9
_LEFT: Final = istr("X-Rate-Limit-Requests-Left")
_RESET: Final = istr("X-Rate-Limit-Time-Reset-Ms")
_QUOTA: Final = istr("X-Rate-Limit-Requests-Quota")
_WINDOW: Final = istr("X-Rate-Limit-Time-Window-Ms")
# Ends that differ by less than this share of a window are the same end, because clocks drift.
_DRIFT: Final = 0.05
# Countdowns that differ by less than this come from one tick of the server's clock.
_TIE_S: Final = 1e-6
# The server may count an abandoned request this much later: closing a connection does not stop it.
_ON_ITS_WAY_S: Final = 0.5
#: Before the first answer, one more request may go after each of these.
_PROBE_S: Final = 2.0
#: If a server asks for a longer wait, this is used instead.
_LONGEST_RETRY_AFTER_S: Final = 120.0
# BigCommerce guide, API rate limits (older form); RFC 9110, section 10.2.3.
_RETRY_AFTER: Final = (istr("X-Retry-After"), istr("Retry-After"))
_DATE: Final = istr("Date")


class QuotaHeaders(msgspec.Struct, frozen=True, gc=False):
    """The rate-limit headers of one answer, checked together."""

    window_s: float
    reset_s: float
    quota: int
    left: int


def _number(text: str | None) -> int | None:
    # Only ASCII digits, and few: no sign, no fraction, no exponent.
    if text is None or not 0 < len(text) < 16 or not (text.isascii() and text.isdigit()):
        return None
    return int(text)


def read_quota_headers(headers: Mapping[str, str]) -> QuotaHeaders | None:
    """Return the values of the four headers, or None if they are missing or impossible.

    `headers` must ignore the case of names, as aiohttp's do.
    """
    get = headers.get
    left, quota = _number(get(_LEFT)), _number(get(_QUOTA))
    reset_ms, window_ms = _number(get(_RESET)), _number(get(_WINDOW))
    if left is None or quota is None or reset_ms is None:
        return None
    reset_s = reset_ms / 1000
    window_s = DEFAULT_WINDOW_S if window_ms is None else window_ms / 1000
    if not (0 < quota < _LARGEST_QUOTA and 0 < window_s <= _LONGEST_WINDOW_S):
        return None
    if reset_s > window_s + 1.0:
        return None
    return QuotaHeaders(window_s, reset_s, quota, left if left < quota else quota)


def read_retry_after_s(headers: Mapping[str, str], wall_s: float) -> float | None:
    """Return the seconds that `X-Retry-After` or `Retry-After` asks to wait, at most 120.

    Each holds seconds or an HTTP date. A date is compared with the answer's own `Date`, or with
    `wall_s` (seconds since 1970) if that is missing. The longer of two waits is returned, and None
    if both headers are missing or unreadable.
    """
    waits = [
        wait_s
        for text in map(headers.get, _RETRY_AFTER)
        if text is not None and (wait_s := _wait_s(text, headers, wall_s)) is not None
    ]
    return min(max(waits), _LONGEST_RETRY_AFTER_S) if waits else None


def _wait_s(text: str, headers: Mapping[str, str], wall_s: float) -> float | None:
    if len(text) > 64 or not text.isascii():
        return None
    try:
        wait_s = float(text)
    except ValueError:
        until, since = http_date(text), http_date(headers.get(_DATE))
        if until is None:
            return None
        # A date in the past asks for no wait.
        return max(0.0, until.timestamp() - (wall_s if since is None else since.timestamp()))
    return wait_s if math.isfinite(wait_s) and wait_s >= 0 else None


def http_date(text: str | None) -> datetime | None:
    """Return the moment of an HTTP date, which is in UTC (RFC 9110, 5.6.7); None for others."""
    # Imported when needed, because it loads the e-mail parser, and dates are rarely read.
    from email.utils import parsedate_to_datetime

    try:
        return None if text is None else to_utc(parsedate_to_datetime(text[:64]))
    except (ValueError, OverflowError, IndexError, TypeError):
        return None


def service_time(headers: Mapping[str, str]) -> datetime | None:
    """Return the time of the `Date` header; None without one.

    The calendar's first and last year are no time either: readers count on from it, and back.
    """
    now = http_date(headers.get(_DATE))
    return None if now is None or now.year in {MINYEAR, MAXYEAR} else now


@attrs.frozen
class QuotaSnapshot:
    """What is known of the quota at a moment; all None before the first answer.

    `left` is how many requests this client may still send in the window, `resets_in_s` the seconds
    until the next window, `window_s` the length of a window in seconds.
    """

    quota: int | None = None
    left: int | None = None
    resets_in_s: float | None = None
    window_s: float | None = None


class _Window(Enum):
    """The window of an answer, beside the one that is counted now."""

    LAST = auto()
    PRESENT = auto()
    NEXT = auto()


class QuotaState:
    """How many requests may be sent now.

    Call `take` before each request, and exactly one of `answered`, `unanswered` or `unsent` after
    it. Before the first answer one request goes alone, and one more every 2 s. So a client that
    starts in a spent window gets one 429, not one for each slot. The first answer shows whether a
    store has a quota at all.
    """

    def __init__(self, reserve: int = 0) -> None:
        self._reserve = reserve
        self._share = 1.0
        self._quota: int | None = None
        # The units of a window that are left to others, and the most that are ours.
        self._kept = 0
        self._most = 0
        self._has_answer = False
        # Before the first answer: how many requests may be out, and when one more may be.
        self._probes = 1
        self._next_probe_at = -math.inf
        self._window_s = DEFAULT_WINDOW_S
        self._left = 0
        self._countdown_s = math.inf
        self._believed_at = -math.inf
        self._end_low = -math.inf
        self._end_high = -math.inf
        # When our clock opened the present window; None once an answer has confirmed it.
        self._guessed_since: float | None = None
        # Until a countdown shows otherwise, the server's clock may tick in whole seconds.
        self._granularity_s = 1.0
        self._blocked_until = -math.inf
        self._out = 0
        # Our requests in this window: a bound that holds even where answers overtake each other.
        self._sent = 0
        # When the server has counted our requests whose answers named no count, at the latest.
        self._lost: deque[float] = deque()
        # Answers without headers since the last one with them.
        self._bare = 0

    def confine(self, share: float, reserve: int) -> None:
        """Take at most this share of each window, at least one unit, and leave `reserve` units."""
        self._share = share
        self._reserve = reserve
        if self._quota is not None:
            self._count(self._quota)

    def take(self) -> None:
        """Count one request as out; it is about to be sent."""
        self._out += 1
        self._sent += 1

    def available(self, now: float) -> int | None:
        """Return how many requests may be sent now; None if the store has no known quota."""
        if now < self._blocked_until:
            return 0
        if self._quota is None:
            return None if self._has_answer else self._find_out(now)
        if now > self._end_high + _EDGE_S:
            self._open_window(now)
        # The server's count may not include our requests under way, so they are subtracted.
        left = self._left - self._kept - self._out - len(self._lost)
        unsent = self._most - self._sent
        left = left if left < unsent else unsent
        return left if left > 0 else 0

    def opens_at(self) -> float | None:
        """Return when to check again if nothing is available; None if requests may go."""
        if self._quota is None:
            when = self._blocked_until
            if not self._has_answer and self._next_probe_at > when:
                when = self._next_probe_at
            return None if when == -math.inf else when
        return max(self._end_high + 1.5 * _EDGE_S, self._blocked_until)

    def answered(
        self, sent_at: float, now: float, headers: QuotaHeaders | None, *, refused: bool = False
    ) -> None:
        """Count one request as answered, and use its headers if they are the newest.

        `refused` marks a 429 with the headers: nothing is left in its window, whatever its count.
        """
        self._out -= 1
        self._has_answer = True
        if headers is None:
            self._answered_bare(now)
            return
        self._bare = 0
        reset_s, window_s = headers.reset_s, headers.window_s
        if reset_s % 1:
            self._granularity_s = 0.001
        low = sent_at + reset_s - self._granularity_s
        high = now + reset_s + self._granularity_s
        left = 0 if refused else headers.left
        is_newer = sent_at >= self._believed_at
        if not (
            # Usually the end of the window is known better than by this answer.
            low <= self._end_low
            and self._end_high <= high
            and high - low < window_s
            and self._guessed_since is None
            and headers.quota == self._quota
        ):
            place = self._place(sent_at, low, high, window_s, is_newer=is_newer)
            if place is _Window.LAST:
                # It was under way when this window began, so it was counted in this window.
                self._sent -= 1
                return
            is_newer = is_newer or place is _Window.NEXT
        if not (is_newer or reset_s < self._countdown_s - _TIE_S) and (
            left >= self._left or reset_s > self._countdown_s + _TIE_S
        ):
            return
        self._left = left
        self._countdown_s = reset_s
        self._believed_at = now
        self._window_s = window_s
        if headers.quota != self._quota:
            self._count(headers.quota)
        if self._lost:
            # Requests lost well before this one was sent are included in its answer.
            self._forget_lost(sent_at)

    def _place(
        self, sent_at: float, low: float, high: float, window_s: float, *, is_newer: bool
    ) -> _Window:
        """Return which window an answer belongs to, whose window ends between `low` and `high`.

        Narrows the known end of this window, or begins the next one.
        """
        end_low, end_high = self._end_low, self._end_high
        guessed_since = self._guessed_since
        # How much later its window ends than the present one. Ends are one window apart, so this
        # identifies the window even if an answer was under way for so long that its bounds overlap
        # with those of the next window.
        later_by_s = (low + high - end_low - end_high) / 2
        if guessed_since is None:
            is_new = later_by_s > window_s / 2 or low - end_high > window_s * _DRIFT
        else:
            # Sent after the opening, or in a window that ends after it.
            is_new = sent_at >= guessed_since or low >= guessed_since
        if is_new or self._quota is None:
            self._end_low, self._end_high = low, high
            self._guessed_since = None
            self._sent = self._out + 1
            return _Window.NEXT
        if guessed_since is not None or (not is_newer and later_by_s < -window_s / 2):
            return _Window.LAST
        if end_low - high > window_s * _DRIFT:
            # The server's clock or window was set back.
            self._end_low, self._end_high = low, high
            return _Window.NEXT
        low = low if low > end_low else end_low
        high = high if high < end_high else end_high
        self._end_low, self._end_high = low, high if high > low else low
        return _Window.PRESENT

    def unanswered(self, now: float) -> None:
        """Count one request as ended without an answer; it may have cost its unit."""
        self._out -= 1
        self._lose(now + _ON_ITS_WAY_S, now)

    def unsent(self) -> None:
        """Count one request as never sent: its unit is free again."""
        self._out -= 1
        self._sent -= 1

    def block(self, until: float) -> None:
        """Admit nothing before `until`, after a 429 that gave only the seconds to wait."""
        self._blocked_until = max(self._blocked_until, until)

    @property
    def is_finding_out(self) -> bool:
        """Whether no answer has come yet."""
        return not self._has_answer

    def snapshot(self, now: float) -> QuotaSnapshot:
        """Return what is known now."""
        left = self.available(now)
        if left is None or self._quota is None:
            return QuotaSnapshot()
        resets_in_s = max(0.0, self._end_high + _EDGE_S - now)
        return QuotaSnapshot(self._quota, left, resets_in_s, self._window_s)

    def _count(self, quota: int) -> None:
        """Note the units of a window."""
        self._quota = quota
        # A reserve of the whole quota would stop all work, so one unit is always ours.
        self._kept = self._reserve if self._reserve < quota else quota - 1
        self._most = quota - self._kept
        if self._share < 1:
            self._most = min(self._most, int(quota * self._share) or 1)

    def _find_out(self, now: float) -> int:
        """Return how many more requests may go before the first answer."""
        if self._out == 0:
            self._probes, self._next_probe_at = 1, now + _PROBE_S
        elif now >= self._next_probe_at:
            self._probes, self._next_probe_at = self._probes + 1, now + _PROBE_S
        return self._probes - self._out if self._probes > self._out else 0

    def _answered_bare(self, now: float) -> None:
        self._lose(now, now)
        if self._quota is None:
            return
        # A gateway's 502 has no headers either. Only answers without headers for two whole windows
        # show that the store no longer has a quota.
        self._bare += 1
        if self._bare > 2 * self._quota:
            self._quota = None

    def _lose(self, counted_at: float, now: float) -> None:
        insort(self._lost, counted_at)
        # Older ones were counted in a window that has ended.
        self._forget_lost(now - self._window_s)

    def _forget_lost(self, since: float) -> None:
        """Forget the lost requests that the server had counted by `since` if it counted them."""
        while self._lost and self._lost[0] <= since:
            self._lost.popleft()

    def _open_window(self, now: float) -> None:
        """Begin a window with the whole quota, before an answer has confirmed it."""
        assert self._quota is not None
        self._forget_lost(max(self._end_low, now - self._window_s))
        self._guessed_since = now
        # The end is the latest possible one; the first answer replaces it.
        self._end_low, self._end_high = now, now + self._window_s
        self._left = self._quota
        self._sent = self._out
