"""The seam of the quota: a user's own object, with all methods or with four."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from bc_attrvals import Limits, Operation, Priority, Quota, RetryPolicy, Store
from bc_attrvals.core.rate_limit import QuotaSnapshot
from bc_attrvals.events import QuotaExhausted
from bc_attrvals.sandbox import Sandbox
from bc_attrvals.scheduling.quota import whole
from tests.probes import upserts


class FourMethods:
    """No more than the protocol asks for."""

    def __init__(self) -> None:
        self.log: list[object] = []
        self.leases = 0

    async def open(self, store_hash: str, limits: Limits) -> None:
        self.log.append(("open", store_hash, limits.writes))

    async def acquire(self, operation: Operation, priority: Priority) -> object:
        self.leases += 1
        return self.leases

    def release(self, lease: object, headers: Mapping[str, str] | None) -> None:
        self.log.append((lease, headers is not None))

    async def close(self) -> None:
        self.log.append("close")


class All(FourMethods):
    """A quota that has every further method too."""

    def cancel(self, lease: object) -> None:
        self.log.append((lease, "cancelled"))

    def refused(self, lease: object, headers: Mapping[str, str]) -> None:
        self.log.append((lease, "refused"))

    def snapshot(self) -> QuotaSnapshot:
        return QuotaSnapshot(7, 3, 1.0)

    def report_to(self, emit: Any) -> None:
        emit(QuotaExhausted(7, 1.0))


async def test_four_methods_are_enough_and_what_is_missing_has_a_default() -> None:
    quota = FourMethods()
    full = whole(quota)
    full.report_to(print)
    assert full.snapshot() == QuotaSnapshot()
    full.refused(1, {})
    full.cancel(2)
    assert quota.log == [(1, True), (2, False)]


async def test_further_methods_are_used_where_they_are() -> None:
    quota, events = All(), []
    full = whole(quota)
    full.report_to(events.append)
    assert events == [QuotaExhausted(7, 1.0)]
    assert full.snapshot().quota == 7
    full.refused(1, {})
    full.cancel(2)
    full.release(3, None)
    assert quota.log == [(1, "refused"), (2, "cancelled"), (3, False)]


@pytest.mark.parametrize("kind", [FourMethods, All])
async def test_a_store_takes_one_lease_for_each_request_and_gives_each_back_once(
    kind: type[FourMethods],
) -> None:
    quota: Any = kind()
    own: Quota = quota
    async with (
        Sandbox(quota=None) as sandbox,
        Store(sandbox.store_hash, sandbox.access_token, base_url=sandbox.url, quota=own) as store,
    ):
        report = await store.attribute_values.upsert(upserts(95))
        assert report.stored == 95
        assert store.statistics().quota.quota == (7 if kind is All else None)
        assert store.statistics().quota_wait_s >= 0
    assert quota.log[0] == ("open", sandbox.store_hash, 3)
    assert quota.log[-1] == "close"
    released = [entry[0] for entry in quota.log[1:-1]]
    assert sorted(released) == list(range(1, quota.leases + 1))
    assert sum(entry[1] is True for entry in quota.log[1:-1]) == 10


@pytest.mark.parametrize("kind", [FourMethods, All])
async def test_a_request_that_never_left_is_said_so_where_there_is_a_word_for_it(
    kind: type[FourMethods],
) -> None:
    quota: Any = kind()
    retry = RetryPolicy(attempts=2, base_s=0.001, cap_s=0.001)
    async with Store("hash", "token", base_url="http://127.0.0.1:1", quota=quota, retry=retry) as s:
        report = await s.attribute_values.upsert(upserts(1), raise_on_failure=False)
    assert report.failed == 1
    how = "cancelled" if kind is All else False
    assert quota.log[1:-1] == [(1, how), (2, how)]
