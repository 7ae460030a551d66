"""`show_failures`: every failure is handed over, also those that the report has no room for."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn

import pytest

from bc_attrvals import (
    AttributeValueFilter,
    AuthenticationError,
    InvalidInputError,
    JournalError,
    NamedValue,
    RetryPolicy,
    Store,
    SyncReport,
    UnresolvedError,
    UpsertOutcome,
)
from bc_attrvals.core.sync_states import State
from bc_attrvals.sandbox import Fault, FaultKind, Sandbox
from bc_attrvals.sync import job
from bc_attrvals.sync.working_set import WorkingSet
from tests.conftest import make_store
from tests.probes import upserts

FIRST = AttributeValueFilter(attribute_id_in=[1])


class Shown:
    """Takes failures."""

    def __init__(self) -> None:
        self.found: list[UpsertOutcome] = []
        self.sizes: list[int] = []

    async def __call__(self, failures: Sequence[UpsertOutcome]) -> None:
        self.sizes.append(len(failures))
        self.found += failures

    @property
    def customers(self) -> list[int | str]:
        return sorted(one.item.key[0] for one in self.found)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "_FAILURES_CHUNK", 4)


@pytest.mark.parametrize("how", ["sync", "sync, journalled", "upsert, journalled"])
async def test_all_failures_come_though_the_report_holds_few(
    sandbox: Sandbox, store: Store, tmp_path: Path, how: str
) -> None:
    refused = list(range(3, 31, 3))
    sandbox.reject_customers(refused)
    shown = Shown()
    api, path = store.attribute_values, tmp_path / "scores.db"
    if how.startswith("upsert"):
        report = await api.upsert(
            upserts(30),
            journal=path,
            show_failures=shown,
            max_failures=2,
            raise_on_failure=False,
        )
    else:
        report = await api.sync(
            upserts(30),
            journal=path if "journal" in how else None,
            show_failures=shown,
            max_failures=2,
        )
    assert (report.failed, len(report.failures)) == (10, 2)
    assert (shown.customers, shown.sizes) == (refused, [4, 4, 2])


async def test_they_come_when_an_error_ends_the_job_and_again_when_it_is_resumed(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    sandbox.reject_customers([3, 5])
    sandbox.faults.add(Fault(FaultKind.UNAUTHORIZED, operation="upsert", after=9))
    path, shown = tmp_path / "scores.db", Shown()
    async with make_store(sandbox, retry=RetryPolicy(attempts=1)) as store:
        sync = store.attribute_values.sync
        with pytest.raises(AuthenticationError) as caught:
            await sync(upserts(200), scope=FIRST, prune=True, journal=path, show_failures=shown)
        assert len(shown.found) == getattr(caught.value.report, "failed") > 2  # noqa: B009
        sandbox.faults.clear()
        again = Shown()
        await sync(upserts(200), scope=FIRST, prune=True, journal=path, show_failures=again)
    assert again.customers == [3, 5]


async def test_those_that_were_not_noted_come_though_the_journal_can_not_be_read_any_more(
    sandbox: Sandbox, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.reject_customers(range(1, 61))
    mark, shown = WorkingSet.mark_upserts, Shown()

    def fail(*_: object) -> NoReturn:
        raise sqlite3.OperationalError("disk I/O error")

    def mark_few(working_set: WorkingSet, marks: Iterable[tuple[State, int]]) -> None:
        if len(working_set.failures((0, 0), 20)) == 20:
            fail()
        mark(working_set, marks)

    monkeypatch.setattr(WorkingSet, "mark_upserts", mark_few)
    monkeypatch.setattr(WorkingSet, "open_upsert", fail)
    with pytest.raises(JournalError) as caught:
        await store.attribute_values.sync(
            upserts(100), scope=FIRST, prune=True, journal=tmp_path / "x.db", show_failures=shown
        )
    report = caught.value.report
    assert isinstance(report, SyncReport)
    assert len(report.failures) > 0
    assert len({*shown.customers}) == len(shown.found) == report.failed


async def test_values_that_can_not_be_resolved_are_among_them(tmp_path: Path) -> None:
    shown = Shown()
    unknown = [NamedValue("nobody@example.org", "Nothing", str(one)) for one in range(6)]
    async with Sandbox(quota=None) as sandbox, make_store(sandbox) as store:
        with pytest.raises(UnresolvedError):
            await store.attribute_values.sync(
                unknown, scope=AttributeValueFilter(), prune=True, show_failures=shown
            )
    assert [one.item for one in shown.found] == unknown


async def test_a_plan_shows_what_can_not_be_resolved(sandbox: Sandbox, store: Store) -> None:
    shown, unknown = Shown(), NamedValue(1, "Nothing", "x")
    plan = await store.attribute_values.plan_sync(
        [unknown, *upserts(3)], scope=None, show_failures=shown
    )
    assert (plan.unresolved, [one.item for one in shown.found]) == (1, [unknown])


async def test_an_upsert_without_a_journal_refuses_it(store: Store) -> None:
    with pytest.raises(InvalidInputError, match="goes with journal"):
        await store.attribute_values.upsert(upserts(1), show_failures=Shown())
