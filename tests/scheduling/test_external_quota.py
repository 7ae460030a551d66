"""A quota that is asked: as many leases as can be used, and none kept that nobody uses."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from bc_attrvals import Limits, Operation, Priority
from bc_attrvals.scheduling.external_quota import ExternalQuota
from bc_attrvals.scheduling.quota import whole

READ = Operation.READ


class Slow:
    """Grants a lease for each permit that is given."""

    def __init__(self) -> None:
        self.permits = asyncio.Semaphore(0)
        self.asked: list[Priority] = []
        self.released: list[object] = []
        self.error: Exception | None = None

    async def open(self, store_hash: str, limits: Limits) -> None: ...

    async def acquire(self, operation: Operation, priority: Priority) -> object:
        self.asked.append(priority)
        await self.permits.acquire()
        if self.error is not None:
            raise self.error
        return priority

    def release(self, lease: object, headers: Mapping[str, str] | None) -> None:
        self.released.append(lease)

    async def close(self) -> None: ...


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_leases_are_asked_for_and_withdrawn_as_the_need_changes() -> None:
    slow, taken = Slow(), list[object]()
    asked = ExternalQuota(
        whole(slow), arrived=lambda: taken.append(asked.take(READ, 0.0)), failed=lambda *_: None
    )
    asked.want(READ, 1, 2, 1)
    await turns()
    assert slow.asked == [Priority.INTERACTIVE, Priority.BULK, Priority.BULK]
    asked.want(READ, 1, 0, 0)
    await turns()
    slow.permits.release()
    await turns()
    assert taken == [Priority.INTERACTIVE]
    assert slow.released == []
    assert asked.available(READ, 0.0) == 0


async def test_a_lease_that_nobody_takes_goes_back_at_once() -> None:
    slow = Slow()
    asked = ExternalQuota(whole(slow), arrived=lambda: None, failed=lambda *_: None)
    asked.want(READ, 0, 1, 1)
    slow.permits.release()
    await turns()
    assert slow.released == [Priority.BULK]
    assert asked.take(READ, 0.0) is None


async def test_an_error_is_reported_and_closing_withdraws_what_is_asked_for() -> None:
    slow, failed = Slow(), list[tuple[Operation, BaseException]]()
    asked = ExternalQuota(
        whole(slow), arrived=lambda: None, failed=lambda *what: failed.append(what)
    )
    slow.error = OSError("gone")
    asked.want(READ, 0, 1, 1)
    slow.permits.release()
    await turns()
    assert failed == [(READ, slow.error)]
    asked.want(READ, 2, 2, 1)
    await turns()
    await asked.close()
    assert len(failed) == 1
    slow.permits.release()
    await turns()
    assert slow.released == []


async def test_the_number_of_waiting_jobs_is_noted_when_it_changes() -> None:
    noted: list[int] = []

    class Sharing(Slow):
        def note_flows(self, operation: Operation, flows: int) -> None:
            noted.append(flows)

    asked = ExternalQuota(whole(Sharing()), arrived=lambda: None, failed=lambda *_: None)
    for flows in (0, 2, 2, 3, 0):
        asked.want(READ, 0, 0, flows)
    assert noted == [2, 3, 0]
