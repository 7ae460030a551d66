"""Carrying a plan out: what is reported when nothing can be noted, and rows whose fate is open."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest

from bc_attrvals import (
    AttributeValueFilter,
    AuthenticationError,
    JournalError,
    RetryPolicy,
    Store,
    SyncReport,
)
from bc_attrvals.core.sync_states import State
from bc_attrvals.sandbox import Fault, FaultKind, Sandbox
from bc_attrvals.sync import job
from bc_attrvals.sync.working_set import WorkingSet
from tests.probes import until, upserts
from tests.raw_server import Connection, RawRequest, answer, store_on
from tests.sync.lying_store import Lies, LyingStore

FIRST = AttributeValueFilter(attribute_id_in=[1])


def _unreadable(*_: object) -> Any:
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
    refused = 10 * (sandbox.calls["upsert"] - 5)
    assert (report.created, report.written, report.failed) == (0, 50, refused)
    assert (len(report.failures), report.not_sent) == (refused, 50 - refused)
    assert report.calls == len(sandbox.requests)


async def test_a_disk_too_full_for_one_more_note_leaves_the_report_that_the_journal_holds(
    sandbox: Sandbox, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.faults.add(Fault(FaultKind.UNAUTHORIZED, operation="upsert", after=5))
    put = WorkingSet.put

    def put_on_a_full_disk(working_set: WorkingSet, /, **values: str | float) -> None:
        if values.get("seconds"):
            raise sqlite3.OperationalError("database or disk is full")
        put(working_set, **values)

    monkeypatch.setattr(WorkingSet, "put", put_on_a_full_disk)
    with pytest.raises(AuthenticationError) as caught:
        await store.attribute_values.sync(
            upserts(100), scope=FIRST, prune=True, journal=tmp_path / "scores.db"
        )
    report = caught.value.report
    assert isinstance(report, SyncReport)
    refused = 10 * (sandbox.calls["upsert"] - 5)
    assert (report.created, report.written, report.failed) == (50, 0, refused)
    assert report.not_sent == 50 - refused


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


async def test_deletes_that_could_not_be_noted_are_reported_as_deleted(
    sandbox: Sandbox, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sandbox.seed([(c, 1, "old") for c in range(1, 301)])
    mark = WorkingSet.mark_deletes

    def mark_on_a_full_disk(working_set: WorkingSet, ids: Iterable[int], state: State) -> None:
        ids = list(ids)
        if ids and state is State.DONE:
            raise sqlite3.OperationalError("database or disk is full")
        mark(working_set, ids, state)

    monkeypatch.setattr(WorkingSet, "mark_deletes", mark_on_a_full_disk)
    with pytest.raises(JournalError) as caught:
        await store.attribute_values.sync(
            [], scope=FIRST, prune=True, allow_empty=True, journal=tmp_path / "scores.db"
        )
    assert isinstance(caught.value.report, SyncReport)
    gone = 300 - await sandbox.count()
    assert 0 < gone < 300
    assert (caught.value.report.deleted, caught.value.report.not_sent) == (gone, 300 - gone)


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


def copied(path: Path, number: int) -> Path:
    """Return a copy of a journal as a kill would leave it now."""
    copy = path.with_name(f"at-{number}.db")
    for suffix in ("", "-wal"):
        if (file := Path(f"{path}{suffix}")).exists():
            shutil.copyfile(file, f"{copy}{suffix}")
    return copy


def states_of(path: Path) -> dict[State, set[int]]:
    """Return the customers of the plan by state; the file may be read only once."""
    states: dict[State, set[int]] = {state: set() for state in State}
    with closing(sqlite3.connect(path)) as connection:
        for key, state in connection.execute("SELECT key >> 31, state FROM upserts"):
            states[State(state)].add(key)
    return states


@pytest.mark.parametrize("seed", range(4))
async def test_killed_at_any_call_the_journal_knows_what_was_sent_and_confirmed(
    tmp_path: Path, seed: int
) -> None:
    random = Random(seed)
    path = tmp_path / "scores.db"
    honest = LyingStore({})
    sent: set[int] = set()
    copies: list[Path] = []

    async def script(request: RawRequest, connection: Connection) -> None:
        if request.method == "PUT":
            customers = {item["customer_id"] for item in request.items}
            sent.update(customers)
            states = states_of(copied(path, -1))
            in_flight = states[State.IN_FLIGHT]
            assert customers <= in_flight
            assert len(in_flight) <= 30
            assert states[State.DONE] <= {customer for customer, _ in honest.written}
            assert sent <= in_flight | states[State.DONE]
            copies.append(copied(path, len(copies)))
            # Answers come in any order, some at once.
            for _ in range(random.randrange(40)):
                await asyncio.sleep(0)
        if request.method == "PUT" and random.random() < 0.2:
            await connection.say(answer(b"", 503))
        else:
            await honest.script(request, connection)

    async def sync(store: Store, journal: Path) -> SyncReport:
        return await store.attribute_values.sync(
            upserts(117), scope=FIRST, prune=True, journal=journal
        )

    retry = RetryPolicy(base_s=0.001, cap_s=0.002)
    async with store_on(script, retry=retry) as (store, server):
        await sync(store, path)
        assert len(copies) >= 12
        server.script = honest.script
        killed = random.choice(copies)
        in_flight = states_of(copied(killed, 1_000))[State.IN_FLIGHT]
        report = await sync(store, killed)
    assert (report.created, report.failed, report.not_sent) == (117, 0, 0)
    assert report.resent == len(in_flight)
