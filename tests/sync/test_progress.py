"""A sync as it goes: the plan put before somebody, how far it is, and what was not answered."""

from __future__ import annotations

from pathlib import Path

import pytest

from bc_attrvals import (
    AttributeValueFilter,
    Reading,
    RetryPolicy,
    Store,
    SyncPlan,
    SyncProgressed,
    SyncReport,
)
from bc_attrvals.core.sync_states import Phase
from bc_attrvals.events import Event
from bc_attrvals.sandbox import FaultKind, Sandbox
from tests.conftest import make_store
from tests.probes import upserts

FIRST = AttributeValueFilter(attribute_id_in=[1])


class Asked:
    """Answers as told, and remembers what was asked."""

    def __init__(self, *answers: bool) -> None:
        self._answers = iter(answers)
        self.plans: list[SyncPlan] = []

    async def __call__(self, plan: SyncPlan) -> bool:
        self.plans.append(plan)
        return next(self._answers)


@pytest.mark.parametrize("journalled", [False, True])
async def test_no_plan_is_carried_out_that_was_not_confirmed(
    sandbox: Sandbox, store: Store, tmp_path: Path, journalled: bool
) -> None:
    journal = tmp_path / "scores.db" if journalled else None
    await sandbox.seed([(900, 1, "old")])
    asked = Asked(False, True)
    for not_sent in (101, 0):
        report = await store.attribute_values.sync(
            upserts(100), scope=FIRST, prune=True, journal=journal, confirm=asked
        )
        assert report.not_sent == not_sent
        assert sandbox.calls["upsert"] == (0 if not_sent else 10)
    assert [(one.reading, one.create, one.delete) for one in asked.plans] == [
        (Reading.LIST, 100, 1)
    ] * 2
    # The journal has what was read the first time.
    assert [one.read_calls for one in asked.plans] == ([1, 0] if journalled else [1, 1])
    assert len(await sandbox.values()) == 100


async def test_what_is_left_is_confirmed_when_a_journal_is_taken_up(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    path = tmp_path / "scores.db"
    async with make_store(sandbox) as store:
        sandbox.faults.script([None] * 4 + [FaultKind.FORBIDDEN] * 10)
        with pytest.raises(Exception, match="403"):
            await store.attribute_values.sync(upserts(200), scope=FIRST, prune=True, journal=path)
        sandbox.faults.clear()
        stored = len(await sandbox.values())
        asked = Asked(True)
        report = await store.attribute_values.sync(
            upserts(200), scope=FIRST, prune=True, journal=path, confirm=asked
        )
    assert 0 < stored < 200
    assert asked.plans[0].create == 200 - stored
    assert report.created == 200
    assert len(await sandbox.values()) == 200


async def test_a_finished_journal_gives_way_to_a_job_that_is_confirmed_anew(
    sandbox: Sandbox, store: Store, tmp_path: Path
) -> None:
    asked = Asked(True, True)
    for unchanged in (0, 20):
        report = await store.attribute_values.sync(
            upserts(20), journal=tmp_path / "scores.db", confirm=asked
        )
        assert (report.created, report.unchanged, report.ok) == (20 - unchanged, unchanged, True)
    assert [plan.create for plan in asked.plans] == [20, 0]


async def test_events_tell_how_far_it_is(sandbox: Sandbox, store: Store, tmp_path: Path) -> None:
    await sandbox.seed([(one, 1, "old") for one in range(900, 1_000)])
    sandbox.reject_customers([7])
    events: list[SyncProgressed] = []

    def hear(event: Event) -> None:
        if isinstance(event, SyncProgressed):
            events.append(event)

    store.subscribe(hear)
    await store.attribute_values.sync(
        upserts(50), scope=FIRST, prune=True, journal=tmp_path / "scores.db"
    )
    last = {event.phase: event for event in events}
    assert list(last) == [Phase.LOADING, Phase.READING, Phase.WRITING, Phase.DELETING]
    assert last[Phase.LOADING].done == 50
    assert last[Phase.READING].done == 100
    writing = last[Phase.WRITING]
    assert (writing.done, writing.failed, writing.total) == (49, 1, 50)
    deleting = last[Phase.DELETING]
    assert (deleting.done, deleting.total) == (100, 100)
    dones = [event.done + event.failed for event in events if event.phase is Phase.WRITING]
    assert dones == sorted(dones)


async def test_what_nobody_answered_is_sent_again_by_the_next_run(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    path = tmp_path / "scores.db"
    sandbox.reject_customers([5])
    async with make_store(sandbox, retry=RetryPolicy(attempts=1)) as store:
        sandbox.faults.script([None, "503", "503", None, "403", "403", "403", "403"])
        with pytest.raises(Exception, match="403"):
            await store.attribute_values.sync(upserts(100), scope=FIRST, prune=True, journal=path)
        sandbox.faults.clear()
        report = await store.attribute_values.sync(
            upserts(100), scope=FIRST, prune=True, journal=path
        )
    assert (report.created, report.failed) == (99, 1)
    assert [one.item.customer_id for one in report.failures] == [5]
    assert SyncReport.from_journal(path) == report
    assert len(await sandbox.values()) == 99


async def test_the_failures_of_a_report_are_bounded(sandbox: Sandbox, store: Store) -> None:
    sandbox.reject_customers(range(1, 41))
    report = await store.attribute_values.sync(upserts(60), max_failures=15)
    assert (report.failed, len(report.failures)) == (40, 15)


async def test_what_is_confirmed_shows_at_once_though_it_is_noted_later(store: Store) -> None:
    shown: list[int] = []
    store.subscribe(
        lambda event: (
            shown.append(event.done)
            if isinstance(event, SyncProgressed) and event.phase is Phase.WRITING
            else None
        )
    )
    await store.attribute_values.sync(upserts(60), scope=FIRST)
    assert shown == sorted(shown)
    assert (shown[0], shown[-1]) == (0, 60)
    assert any(0 < done < 60 for done in shown)
