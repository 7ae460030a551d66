"""A journal forgets nothing: what is open when a run ends is open to the next, however it ended."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from random import Random

import pytest

from bc_attrvals import (
    AttributeValueFilter,
    AttributeValueUpsert,
    JournalError,
    PartialFailureError,
    RetryPolicy,
    ServerError,
    Store,
    StoreStateError,
    SyncReport,
    UpsertReport,
)
from bc_attrvals.sandbox import Fault, Sandbox
from tests.conftest import make_store
from tests.probes import until, upserts
from tests.sync.test_journal import content, interrupted, remove, replace

FIRST = AttributeValueFilter(attribute_id_in=[1])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "scores.db"


async def test_unanswered_values_are_sent_though_the_run_ended_in_its_deletes(
    sandbox: Sandbox, path: Path
) -> None:
    await sandbox.seed((customer, 1, "old") for customer in range(1, 101))
    desired = [AttributeValueUpsert(customer, 1, "new") for customer in range(1, 41)]
    async with make_store(sandbox, retry=RetryPolicy(attempts=1)) as store:

        async def sync() -> SyncReport:
            return await store.attribute_values.sync(desired, scope=FIRST, prune=True, journal=path)

        sandbox.faults.script(["503"], "upsert")
        sandbox.faults.add(Fault("500", operation="delete"))
        with pytest.raises(ServerError) as caught:
            await sync()
        report = caught.value.report
        assert isinstance(report, SyncReport)
        assert (report.updated, report.failed) == (30, 10)
        sandbox.faults.clear()
        assert (await sync()).ok
    assert await sandbox.values() == {(customer, 1): "new" for customer in range(1, 41)}


async def test_a_journal_is_not_finished_while_a_value_was_not_answered(
    sandbox: Sandbox, path: Path
) -> None:
    async with make_store(sandbox, retry=RetryPolicy(attempts=1)) as store:
        sandbox.faults.script(["503"], "upsert")
        report = await store.attribute_values.sync(upserts(40), scope=FIRST, journal=path)
        assert (report.failed, report.ok) == (10, False)
        with pytest.raises(JournalError, match="not finished"):
            SyncReport.from_journal(path)
        report = await store.attribute_values.sync(upserts(40), scope=FIRST, journal=path)
    assert (report.failed, report.ok, report.failures) == (0, True, ())
    assert SyncReport.from_journal(path) == report
    assert len(await sandbox.values()) == 40


@pytest.mark.parametrize("count", [5, 30, 31])
@pytest.mark.parametrize("journalled", [False, True])
async def test_a_store_closed_while_the_last_values_are_on_the_wire_ends_the_sync(
    sandbox: Sandbox, path: Path, count: int, journalled: bool
) -> None:
    journal = path if journalled else None
    async with make_store(sandbox) as store:
        await sandbox.seed([(1, 1, "old")])
        sandbox.faults.add(Fault("hang", operation="upsert"))
        job = asyncio.create_task(
            store.attribute_values.sync(upserts(count), scope=FIRST, prune=True, journal=journal)
        )
        await until(lambda: sandbox.in_flight("upsert") == min(3, -(-count // 10)))
        await store.aclose()
        with pytest.raises(StoreStateError) as caught:
            await job
    assert isinstance(caught.value.report, SyncReport)
    report = caught.value.report
    assert (report.failed, report.not_sent) == (min(30, count), max(0, count - 30))
    assert all(getattr(one.error, "may_have_been_applied") for one in report.failures)  # noqa: B009
    sandbox.faults.clear()
    async with make_store(sandbox) as store:
        assert (
            await store.attribute_values.sync(
                upserts(count), scope=FIRST, prune=True, journal=journal
            )
        ).ok
    assert len(await sandbox.values()) == count


async def test_deletes_that_were_in_flight_are_looked_up_before_they_are_sent_again(
    sandbox: Sandbox, path: Path
) -> None:
    await sandbox.seed((customer, 1, "old") for customer in range(1, 401))
    async with make_store(sandbox) as store:
        # Applied, and never answered.
        sandbox.faults.script([None, "drop_after", "hang", "hang"], "delete")
        job = asyncio.create_task(
            store.attribute_values.sync([], scope=FIRST, prune=True, allow_empty=True, journal=path)
        )
        await until(lambda: sandbox.calls["delete"] >= 3)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
    gone = 400 - len(await sandbox.values())
    assert gone >= 50
    sandbox.faults.clear()
    before = sandbox.calls["delete"]
    async with make_store(sandbox) as store:
        report = await store.attribute_values.sync(
            [], scope=FIRST, prune=True, allow_empty=True, journal=path
        )
    assert (report.deleted, report.ok) == (400, True)
    assert sandbox.calls["delete"] - before == -(-(400 - gone) // 50)
    assert report.resent <= 150 - gone
    assert await sandbox.values() == {}


async def test_no_bit_that_tips_on_the_disk_goes_unseen(
    sandbox: Sandbox, store: Store, path: Path
) -> None:
    await interrupted(sandbox, path, upserts(60), after=4)
    good, before = content(path), await sandbox.values()
    random = Random(5)
    # Most of so small a file is empty.
    places = [place for place, byte in enumerate(good) if byte]
    desired = {item.key: item.value for item in upserts(60)}
    refused = 0
    for _ in range(60):
        for one in path.parent.iterdir():
            remove(one)
        bad = bytearray(good)
        bad[random.choice(places)] ^= 1 << random.randrange(8)
        replace(path, bytes(bad))
        await sandbox.reset()
        await sandbox.seed((*key, value) for key, value in before.items())
        try:
            report = await store.attribute_values.sync(
                upserts(60), scope=FIRST, prune=True, journal=path
            )
        except JournalError:
            refused += 1
        else:
            # It tipped where nothing is, or in a number that only the report has.
            assert (report.failed, report.not_sent) == (0, 0)
            assert await sandbox.values() == desired
    assert 10 < refused < 55


@pytest.mark.parametrize("how", ["upsert", "sync"])
@pytest.mark.parametrize("trouble", ["no database", "cut", "other input", "in use", "no folder"])
async def test_an_error_of_the_journal_carries_a_report_whenever_it_comes(
    sandbox: Sandbox, path: Path, trouble: str, how: str
) -> None:
    items = upserts(30)

    async def run(store: Store, items: list[AttributeValueUpsert], path: Path) -> object:
        values = store.attribute_values
        if how == "sync":
            return await values.sync(items, scope=FIRST, prune=True, journal=path)
        return await values.upsert(items, journal=path)

    async with make_store(sandbox, retry=RetryPolicy(attempts=1)) as store:
        sandbox.faults.script(["503"], "upsert")
        with suppress(PartialFailureError):
            await run(store, items, path)
        sandbox.faults.clear()
        before = len(sandbox.requests)
        if trouble == "no database":
            replace(path, b"not a journal" * 500)
        elif trouble == "cut":
            replace(path, content(path)[:6_000])
        elif trouble == "other input":
            items = upserts(31)
        elif trouble == "no folder":
            path = path.parent / "none" / "journal.db"
        with ExitStack() as stack:
            if trouble == "in use":
                other = stack.enter_context(closing(sqlite3.connect(path)))
                other.execute("BEGIN EXCLUSIVE")
            with pytest.raises(JournalError) as caught:
                await run(store, items, path)
        report = caught.value.report
        assert isinstance(report, SyncReport if how == "sync" else UpsertReport)
        assert (report.calls, report.failed, len(sandbox.requests)) == (0, 0, before)
        # Counts of zero, and no success.
        assert (report.ended_early, report.ok) == (True, False)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE desired SET value = 'other' WHERE key = (SELECT max(key) FROM desired)",
        "DELETE FROM upserts WHERE key = (SELECT max(key) FROM upserts)",
        "UPDATE upserts SET state = 77",
    ],
)
async def test_a_journal_whose_rows_were_changed_is_not_gone_on_with(
    sandbox: Sandbox, path: Path, damage: str
) -> None:
    await interrupted(sandbox, path, upserts(300), after=12)
    with closing(sqlite3.connect(path)) as other:
        other.execute(damage)
        other.commit()
    before = len(sandbox.requests)
    async with make_store(sandbox) as store:
        with pytest.raises(JournalError, match="not as they were written"):
            await store.attribute_values.sync(upserts(300), scope=FIRST, prune=True, journal=path)
    assert len(sandbox.requests) == before
