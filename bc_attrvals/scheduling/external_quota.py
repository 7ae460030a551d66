"""An external quota: its leases are requested while requests wait.

Between `admission.py` and a `Quota` that answers later, such as one shared between processes. A
lease is asked for on behalf of all waiting requests. Which of them gets it is decided when it has
arrived, so an urgent request that came later may still go first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial

from bc_attrvals.core.limits import Limits
from bc_attrvals.core.rate_limit import QuotaSnapshot
from bc_attrvals.core.requests import Operation
from bc_attrvals.scheduling.quota import Priority, WholeQuota


class ExternalQuota:
    """Asks a quota for as many leases as can be used. Bound to the event loop it is opened in."""

    must_be_asked = True

    def __init__(
        self,
        quota: WholeQuota,
        *,
        arrived: Callable[[], None],
        failed: Callable[[Operation, BaseException], None],
    ) -> None:
        self._quota = quota
        # Called when a lease has arrived, and when `acquire` of the quota has failed.
        self._arrived = arrived
        self._failed = failed
        self._asked: dict[tuple[Operation, Priority], list[asyncio.Future[object]]] = {}
        self._leases: dict[Operation, list[object]] = {}
        self._flows: dict[Operation, int] = {}
        self._is_closed = False

    async def open(self, store_hash: str, limits: Limits) -> None:
        """Open the quota."""
        self._is_closed = False
        await self._quota.open(store_hash, limits)

    async def close(self) -> None:
        """Cancel the open requests for leases, and close the quota."""
        self._is_closed = True
        tasks = [task for asked in self._asked.values() for task in asked]
        for task in tasks:
            task.cancel()
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            await self._quota.close()

    def want(self, operation: Operation, urgent: int, bulk: int, flows: int) -> None:
        """Keep `urgent` and `bulk` requests for leases open; start or cancel the difference.

        `flows` bulk jobs wait.
        """
        if self._flows.get(operation, 0) != flows:
            self._flows[operation] = flows
            self._quota.note_flows(operation, flows)
        for priority, count in ((Priority.INTERACTIVE, urgent), (Priority.BULK, bulk)):
            asked = self._asked.setdefault((operation, priority), [])
            while len(asked) > count:
                asked.pop().cancel()
            while len(asked) < count:
                task = asyncio.ensure_future(self._quota.acquire(operation, priority))
                asked.append(task)
                task.add_done_callback(partial(self._answered, operation, priority))

    def available(self, operation: Operation, now: float) -> float:
        """Return how many leases have arrived and are not taken."""
        del now
        return len(self._leases.get(operation, ()))

    def take(self, operation: Operation, now: float) -> object | None:
        """Take a lease that has arrived; None if there is none."""
        del now
        leases = self._leases.get(operation)
        return leases.pop() if leases else None

    def opens_at(self, now: float) -> float | None:
        """Return None: the arrival of a lease wakes those that wait."""
        del now
        return None

    def is_spent(self, now: float) -> bool:
        """Return True: each wait for a lease is a wait for quota."""
        del now
        return True

    def note_waiting(self, now: float, wait_s: float | None) -> None:
        """Do nothing: a quota reports its own events."""

    def end(
        self, lease: object, now: float, headers: Mapping[str, str] | None, *, is_refused: bool
    ) -> None:
        """End a lease, with the headers of its answer; None if no answer came."""
        del now
        if headers is not None and is_refused:
            self._quota.refused(lease, headers)
        else:
            self._quota.release(lease, headers)

    def cancel(self, lease: object) -> None:
        """End a lease whose request was never sent."""
        self._quota.cancel(lease)

    def snapshot(self) -> QuotaSnapshot:
        """Return what the quota knows now."""
        return self._quota.snapshot()

    def _answered(
        self, operation: Operation, priority: Priority, task: asyncio.Future[object]
    ) -> None:
        asked = self._asked[operation, priority]
        if task in asked:
            asked.remove(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            if not self._is_closed:
                self._failed(operation, error)
            return
        self._leases.setdefault(operation, []).append(task.result())
        if not self._is_closed:
            self._arrived()
        # A lease that no request took goes back at once.
        for lease in self._leases.pop(operation, []):
            self._quota.cancel(lease)
