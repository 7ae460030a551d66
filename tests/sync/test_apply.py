"""Carrying a plan out: what is reported when nothing can be noted, and rows whose fate is open."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from bc_attrvals import (
    AttributeValueFilter,
    AuthenticationError,
    JournalError,
    Store,
    SyncReport,
)
from bc_attrvals.sandbox import Fault, FaultKind, Sandbox
from bc_attrvals.sync import job
from bc_attrvals.sync.working_set import WorkingSet
from tests.probes import until, upserts
from tests.raw_server import Connection, RawRequest, store_on
from tests.sync.lying_store import Lies, LyingStore

FIRST = AttributeValueFilter(attribute_id_in=[1])


def _unreadable(_: WorkingSet) -> Any:
    raise sqlite3.DatabaseError("database disk image is malformed")


async def test_a_journal_that_can_not_be_read_any_more_leaves_the_report_of_the_run(
    sandbox: Sandbox, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sandbox.seed([(900, 1, "old")])
    sandbox.faults.add(Fault(FaultKind.UNAUTHORIZED, operation="upsert", after=5))
    monkeypatch.setattr(job, "report_of", _unreadable)
    with pytest.raises(AuthenticationError) as caught:
        await store.attribute_values.sync(
            upserts(100), scope=FIRST, prune=True, journal=tmp_path / "scores.db"
        )
    report = caught.value.report
    assert isinstance(report, SyncReport)
    # Which of them were creates is in the journal alone.
    assert (report.created, report.written, report.not_sent) == (0, 50, 50)
    assert report.calls == len(sandbox.requests)


async def test_a_disk_too_full_for_one_more_note_leaves_the_report_that_the_journal_holds(
    sandbox: Sandbox, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.faults.add(Fault(FaultKind.UNAUTHORIZED, operation="upsert", after=5))
    add = WorkingSet.add

    def add_to_a_full_disk(working_set: WorkingSet, /, **amounts: float) -> None:
        if "seconds" in amounts:
            raise sqlite3.OperationalError("database or disk is full")
        add(working_set, **amounts)

    monkeypatch.setattr(WorkingSet, "add", add_to_a_full_disk)
    with pytest.raises(AuthenticationError) as caught:
        await store.attribute_values.sync(
            upserts(100), scope=FIRST, prune=True, journal=tmp_path / "scores.db"
        )
    report = caught.value.report
    assert isinstance(report, SyncReport)
    assert (report.created, report.written, report.not_sent) == (50, 0, 50)


async def test_an_error_of_the_journal_itself_has_a_report(
    sandbox: Sandbox, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(WorkingSet, "pending_deletes", broken)
    with pytest.raises(JournalError, match="disk I/O error") as caught:
        await store.attribute_values.sync(
            upserts(20), scope=FIRST, prune=True, journal=tmp_path / "scores.db"
        )
    assert isinstance(caught.value.report, SyncReport)
    assert (caught.value.report.created, caught.value.report.calls) == (20, 3)


async def test_a_row_without_a_readable_value_does_not_stop_the_look_up_of_deletes(
    tmp_path: Path,
) -> None:
    rows = {number: ((number, 1), "old") for number in range(1, 301)}
    lying = LyingStore(rows, Lies(null_value=True))
    path = tmp_path / "scores.db"

    async def sync(store: Store) -> SyncReport:
        return await store.attribute_values.sync(
            [], scope=FIRST, prune=True, allow_empty=True, journal=path
        )

    async with store_on(lying.script) as (store, server):
        go_on = asyncio.Event()

        async def lose(request: RawRequest, connection: Connection) -> None:
            if request.method == "DELETE":
                await go_on.wait()
                connection.reset()
            else:
                await lying.script(request, connection)

        server.script = lose
        task = asyncio.create_task(sync(store))
        await until(lambda: any(one.method == "DELETE" for one in server.requests))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()
        server.script = lying.script
        report = await sync(store)
    assert (report.deleted, report.resent, report.ok) == (300, 150, True)
    assert lying.rows == {}
