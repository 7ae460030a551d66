"""The quota of one store as this process knows it: the default kind of `Quota`."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping

from bc_attrvals.core.limits import Limits
from bc_attrvals.core.rate_limit import QuotaSnapshot, QuotaState, read_quota_headers
from bc_attrvals.core.requests import Operation
from bc_attrvals.errors import StoreStateError
from bc_attrvals.events import Event, QuotaExhausted
from bc_attrvals.scheduling.quota import Priority


class LocalQuota:
    """Counts the units of the quota by the answers that this process got.

    It decides at once, so admission uses `take`. It is bound to the event loop it is opened in.
    """

    must_be_asked = False

    def __init__(self) -> None:
        self._state = QuotaState()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._emit: Callable[[Event], object] | None = None
        self._waiting: set[asyncio.Future[None]] = set()
        self._is_closed = False

    async def open(self, store_hash: str, limits: Limits) -> None:
        """Bind to the running loop."""
        del store_hash
        self._loop = asyncio.get_running_loop()
        self._state = QuotaState(limits.reserve)
        self._is_closed = False

    async def close(self) -> None:
        """Fail all waiting callers of `acquire` with `StoreStateError`."""
        self._is_closed = True
        self._wake()

    def report_to(self, emit: Callable[[Event], object]) -> None:
        """Deliver its events to `emit`."""
        self._emit = emit

    def want(self, operation: Operation, urgent: int, bulk: int, flows: int) -> None:
        """Do nothing: units are taken without a request for them."""

    def take(self, operation: Operation, now: float) -> object | None:
        """Take a unit for any operation; None if none is available."""
        del operation
        if self._state.available(now) == 0:
            return None
        self._state.take()
        # The lease is the time it was taken at, on the event loop's clock.
        return now

    async def acquire(self, operation: Operation, priority: Priority) -> object:
        """Wait for a unit for any operation and return its lease."""
        del priority
        while True:
            if self._loop is None or self._is_closed:
                raise StoreStateError("the Store is closed")
            now = self._loop.time()
            lease = self.take(operation, now)
            if lease is not None:
                return lease
            changed = self._loop.create_future()
            self._waiting.add(changed)
            opens_at = self.opens_at(now)
            delay_s = None if opens_at is None else opens_at - now
            try:
                await asyncio.wait([changed], timeout=delay_s)
            finally:
                self._waiting.discard(changed)

    def available(self, operation: Operation, now: float) -> float:
        """Return how many units may be taken now; infinity if no quota is known."""
        del operation
        available = self._state.available(now)
        return math.inf if available is None else available

    def opens_at(self, now: float) -> float | None:
        """Return when to check again if nothing is available; None if there is no such time."""
        del now
        return self._state.opens_at()

    def is_spent(self, now: float) -> bool:
        """Return whether nothing is available because the quota is spent."""
        return self._state.available(now) == 0 and not self._state.is_finding_out

    def note_waiting(self, now: float, wait_s: float | None) -> None:
        """Report that requests wait for `wait_s`, or until the quota resets if that is None."""
        if self._emit is not None:
            quota = self._state.snapshot(now)
            resets_in_s = quota.resets_in_s or 0.0
            self._emit(QuotaExhausted(quota.quota, resets_in_s if wait_s is None else wait_s))

    def end(
        self, lease: object, now: float, headers: Mapping[str, str] | None, *, is_refused: bool
    ) -> None:
        """End a lease and learn from the headers of its answer; None if no answer came.

        After a 429, nothing is left of the window.
        """
        if headers is None:
            self._state.unanswered(now)
        else:
            assert isinstance(lease, float)
            self._state.answered(lease, now, read_quota_headers(headers), refused=is_refused)
        if self._waiting:
            self._wake()

    def release(self, lease: object, headers: Mapping[str, str] | None) -> None:
        """End a lease now."""
        assert self._loop is not None
        self.end(lease, self._loop.time(), headers, is_refused=False)

    def refused(self, lease: object, headers: Mapping[str, str]) -> None:
        """End a lease now whose request was answered 429."""
        assert self._loop is not None
        self.end(lease, self._loop.time(), headers, is_refused=True)

    def cancel(self, lease: object) -> None:
        """End a lease whose request was never sent: its unit is free."""
        del lease
        self._state.unsent()
        if self._waiting:
            self._wake()

    def snapshot(self) -> QuotaSnapshot:
        """Return what is known of the quota now."""
        return QuotaSnapshot() if self._loop is None else self._state.snapshot(self._loop.time())

    def _wake(self) -> None:
        for changed in self._waiting:
            if not changed.done():
                changed.set_result(None)
