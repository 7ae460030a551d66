"""A service with a shared quota and a greedy client of it, as one discrete-event simulation.

Independent of the code under test: it counts in whole microseconds of the service's clock, and
knows which window each request fell into. Nothing sleeps; a run of some windows takes milliseconds.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from random import Random

import attrs

from bc_attrvals.core.rate_limit import QuotaState, read_quota_headers

MS = 1_000
SECOND = 1_000_000


@attrs.define(eq=False)
class Window:
    """One window of the service; `ours`, `others` and `refused` count requests."""

    start_us: int
    end_us: int
    quota: int
    ours: int = 0
    others: int = 0
    refused: int = 0

    @property
    def left(self) -> int:
        return max(0, self.quota - self.ours - self.others)


class Service:
    """Counts requests in fixed windows, on a grid or begun by the first request after the last."""

    def __init__(self, *, quota: int, window_us: int, tick_us: int, grid_at_us: int | None) -> None:
        self.quota = quota
        self.window_us = window_us
        self.tick_us = tick_us
        self.grid_at_us = grid_at_us
        self.windows: list[Window] = []

    def window(self, now_us: int) -> Window:
        if self.windows and now_us < self.windows[-1].end_us:
            return self.windows[-1]
        start_us = now_us
        if self.grid_at_us is not None:
            start_us -= (now_us - self.grid_at_us) % self.window_us
        self.windows.append(Window(start_us, start_us + self.window_us, self.quota))
        return self.windows[-1]

    def set_quota(self, quota: int, now_us: int) -> None:
        self.quota = quota
        self.window(now_us).quota = quota

    def spend_by_others(self, units: int, now_us: int) -> None:
        window = self.window(now_us)
        window.others += min(units, window.left)

    def request(self, now_us: int) -> tuple[bool, dict[str, str]]:
        """Count one of our requests, if there is room; return that, and the answer's headers."""
        window = self.window(now_us)
        granted = window.left > 0
        if granted:
            window.ours += 1
        else:
            window.refused += 1
        reset_us = (window.end_us - now_us) // self.tick_us * self.tick_us
        return granted, {
            "X-Rate-Limit-Time-Window-Ms": str(self.window_us // MS),
            "X-Rate-Limit-Time-Reset-Ms": str(reset_us // MS),
            "X-Rate-Limit-Requests-Quota": str(window.quota),
            "X-Rate-Limit-Requests-Left": str(window.left),
        }


@attrs.define(eq=False)
class Sent:
    """One request of ours, as the simulation saw it."""

    sent_us: int
    #: Nothing was known of the quota when it was sent.
    blind: bool
    counted_us: int | None = None
    answered_us: int | None = None
    granted: bool = False
    window: Window | None = None


@attrs.frozen
class Client:
    """How the client and the way to the service behave; chances are from 0 to 1."""

    at_once: int = 8
    least_delay_us: int = 1 * MS
    most_delay_us: int = 40 * MS
    reserve: int = 0
    #: The client's clock less the service's.
    clock_ahead_s: float = 0.0
    #: How much faster it runs, in parts of a million.
    clock_drift_ppm: float = 0.0
    #: A request that dies, on its way there or back; the client learns it up to `late_us` later.
    lost: float = 0.0
    #: It may be counted after the client gave it up, for closing a connection recalls nothing.
    counted_late_us: int = 0
    #: A gateway's answer, without the headers.
    bare: float = 0.0
    #: Taken, and never sent.
    unsent: float = 0.0
    #: The client has nothing to send for up to `most_pause_us`.
    pauses: float = 0.0
    most_pause_us: int = 0
    #: Other apps spend up to `others_units` at once, every `others_every_us` on average.
    others_every_us: int = 0
    others_units: int = 0


class Simulation:
    """Runs a client that sends whenever it may against a service, and keeps what happened."""

    def __init__(self, service: Service, client: Client, random: Random) -> None:
        self.service = service
        self.client = client
        self.random = random
        self.state = QuotaState(client.reserve)
        self.sent: list[Sent] = []
        self.now_us = 0
        self.out = 0
        self._rate = 1 + client.clock_drift_ppm / 1_000_000
        self._paused_until_us = 0
        self._stopped = False
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0
        self._wake_at_us: int | None = None

    @property
    def refused(self) -> list[Sent]:
        """What was answered 429, but for what was sent before anything was known."""
        return [
            sent
            for sent in self.sent
            if sent.counted_us is not None and not sent.granted and not sent.blind
        ]

    def local(self, at_us: int | None = None) -> float:
        """The client's clock, seconds."""
        at_us = self.now_us if at_us is None else at_us
        return self.client.clock_ahead_s + at_us / SECOND * self._rate

    def at(self, when_us: int, action: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (when_us, self._count, action))

    def run(self, until_us: int) -> None:
        """Send until `until_us`, then wait for what is out."""
        self.at(self.now_us, self._send)
        self.at(until_us, self._stop)
        if self.client.others_every_us:
            self._others()
        while self._events:
            self.now_us, _, action = heapq.heappop(self._events)
            action()

    def _stop(self) -> None:
        self._stopped = True

    def _delay_us(self) -> int:
        return self.random.randint(self.client.least_delay_us, self.client.most_delay_us)

    def _others(self) -> None:
        if self._stopped:
            return
        self.service.spend_by_others(self.random.randint(1, self.client.others_units), self.now_us)
        pause_us = self.random.randint(1, 2 * self.client.others_every_us)
        self.at(self.now_us + pause_us, self._others)

    def _send(self) -> None:
        """Send all that may be sent now, and see to it that the client looks again."""
        if self._stopped or self.now_us < self._paused_until_us:
            return
        if self.client.pauses and self.random.random() < self.client.pauses:
            self._paused_until_us = self.now_us + self.random.randint(1, self.client.most_pause_us)
            self.at(self._paused_until_us, self._send)
            return
        while self.out < self.client.at_once:
            available = self.state.available(self.local())
            if available == 0:
                self._wait()
                return
            self._take(blind=available is None or self.state.is_finding_out)

    def _wait(self) -> None:
        opens_at = self.state.opens_at()
        assert opens_at is not None
        assert opens_at > self.local(), "a client that waits until then would turn in circles"
        when_us = math.ceil((opens_at - self.client.clock_ahead_s) / self._rate * SECOND)
        if when_us != self._wake_at_us:
            self._wake_at_us = when_us
            self.at(when_us, self._send)

    def _take(self, *, blind: bool) -> None:
        self.state.take()
        self.out += 1
        sent = Sent(self.now_us, blind=blind)
        chance = self.random.random()
        there_us = self.now_us + self._delay_us()
        back_us = there_us + self._delay_us()
        if chance < self.client.unsent:
            self.at(self.now_us + self.random.choice((0, self._delay_us())), self._unsend)
            return
        self.sent.append(sent)
        chance -= self.client.unsent
        if chance < self.client.lost:
            dies_us = max(
                self.now_us, back_us - self.random.randint(0, self.client.counted_late_us)
            )
            if self.random.random() < 0.5:
                self.at(there_us, lambda: self._arrive(sent))
            self.at(dies_us, self._die)
            return
        chance -= self.client.lost
        if chance < self.client.bare:
            if self.random.random() < 0.5:
                self.at(there_us, lambda: self._arrive(sent))
            self.at(back_us, lambda: self._answer(sent, None))
            return
        self.at(there_us, lambda: self._arrive(sent, back_us))

    def _arrive(self, sent: Sent, answer_us: int | None = None) -> None:
        sent.counted_us = self.now_us
        sent.granted, headers = self.service.request(self.now_us)
        sent.window = self.service.windows[-1]
        if answer_us is not None:
            self.at(answer_us, lambda: self._answer(sent, headers))

    def _answer(self, sent: Sent, headers: dict[str, str] | None) -> None:
        self.out -= 1
        sent.answered_us = None if headers is None else self.now_us
        read = None if headers is None else read_quota_headers(headers)
        refused = headers is not None and not sent.granted
        self.state.answered(self.local(sent.sent_us), self.local(), read, refused=refused)
        self._send()

    def _die(self) -> None:
        self.out -= 1
        self.state.unanswered(self.local())
        self._send()

    def _unsend(self) -> None:
        self.out -= 1
        self.state.unsent()
        self._send()
