"""Upserts over a journal: nothing is read, and only what was not confirmed is sent again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from bc_attrvals import (
    AttributeValueUpsert,
    AuthenticationError,
    InvalidInputError,
    JournalError,
    PartialFailureError,
    RetryPolicy,
    Store,
    SyncReport,
    UpsertReport,
)
from bc_attrvals.sandbox import Fault, FaultKind, Sandbox
from tests.conftest import make_store
from tests.probes import Key, keys_of, upserts
from tests.sync.killing import UPSERT, kill_three_times


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "scores.db"


def times_sent(sandbox: Sandbox) -> Counter[Key]:
    return Counter(
        key for put in sandbox.requests.of("upsert") if put.item_count for key in keys_of(put)
    )


async def test_nothing_is_read_and_every_item_is_sent_once(
    sandbox: Sandbox, store: Store, path: Path
) -> None:
    items = [*upserts(95), AttributeValueUpsert(3, 1, "later")]
    report = await store.attribute_values.upsert(items, journal=path)
    assert (report.stored, report.superseded, report.calls) == (95, 1, 10)
    assert isinstance(report, UpsertReport)
    assert not sandbox.requests.of("list")
    assert (await sandbox.values())[3, 1] == "later"
    assert SyncReport.from_journal(path).written == 95


async def test_killed_three_times_it_sends_at_most_three_batches_a_kill_again(
    sandbox: Sandbox, path: Path
) -> None:
    await kill_three_times(UPSERT, sandbox, path)
    async with make_store(sandbox) as store:
        report = await store.attribute_values.upsert(upserts(3_000), journal=path)
    assert (report.stored, report.not_sent) == (3_000, 0)
    assert len(await sandbox.values()) == 3_000
    assert sum(times_sent(sandbox).values()) - 3_000 <= 3 * 30
    assert not sandbox.requests.of("list")


async def test_failures_raise_with_the_report_of_all_runs(
    sandbox: Sandbox, store: Store, path: Path
) -> None:
    sandbox.reject_customers([5, 77])
    with pytest.raises(PartialFailureError, match="2 of 100 items were not stored") as caught:
        await store.attribute_values.upsert(upserts(100), journal=path)
    assert (caught.value.report.stored, caught.value.report.failed) == (98, 2)
    # Finished all the same: the same again is a new upsert.
    report = await store.attribute_values.upsert(
        upserts(100), journal=path, raise_on_failure=False, max_failures=1
    )
    assert (report.stored, report.failed, len(report.failures)) == (98, 2, 1)


async def test_unanswered_items_are_sent_by_the_next_run(sandbox: Sandbox, path: Path) -> None:
    async with make_store(sandbox, retry=RetryPolicy(attempts=1)) as store:
        sandbox.faults.script([None, "drop_before"], "upsert")
        first = await store.attribute_values.upsert(
            upserts(40), journal=path, raise_on_failure=False
        )
        assert first.failed > 0
        before = sum(times_sent(sandbox).values())
        report = await store.attribute_values.upsert(upserts(40), journal=path)
    assert (report.stored, report.failed) == (40, 0)
    assert sum(times_sent(sandbox).values()) - before == first.failed


async def test_an_error_that_ends_it_has_the_report_of_an_upsert(
    sandbox: Sandbox, store: Store, path: Path
) -> None:
    sandbox.faults.add(Fault(FaultKind.UNAUTHORIZED, operation="upsert", after=3))
    with pytest.raises(AuthenticationError) as caught:
        await store.attribute_values.upsert(upserts(100), journal=path)
    report = caught.value.report
    assert isinstance(report, UpsertReport)
    refused = 10 * (sandbox.calls["upsert"] - 3)
    assert (report.stored, report.failed, report.not_sent) == (30, refused, 70 - refused)
    sandbox.faults.clear()
    assert (await store.attribute_values.upsert(upserts(100), journal=path)).stored == 100
    assert sum(times_sent(sandbox).values()) <= 100 + 30


async def test_other_items_are_refused_until_it_is_restarted(
    sandbox: Sandbox, store: Store, path: Path
) -> None:
    sandbox.faults.add(Fault(FaultKind.UNAUTHORIZED, operation="upsert", after=3))
    upsert = store.attribute_values.upsert
    with pytest.raises(AuthenticationError):
        await upsert(upserts(100), journal=path)
    sandbox.faults.clear()
    with pytest.raises(JournalError, match=r"other items.*restart=True"):
        await upsert(upserts(50), journal=path)
    with pytest.raises(JournalError, match=r"is of an upsert.*restart=True"):
        await store.attribute_values.sync(upserts(100), journal=path)
    assert (await upsert(upserts(50), journal=path, restart=True)).stored == 50


async def test_a_bad_item_is_named_before_anything_is_sent(
    sandbox: Sandbox, store: Store, path: Path
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        await store.attribute_values.upsert([*upserts(20), None], journal=path)  # type: ignore[list-item]
    assert (caught.value.field, caught.value.place) == ("items", "items[20]")
    assert not sandbox.requests
