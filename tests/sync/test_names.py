"""Syncs of named values: resolved when they are loaded; what is not known prunes nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bc_attrvals import (
    AttributeTypeError,
    AttributeValueFilter,
    AttributeValueUpsert,
    ChangeKind,
    InvalidInputError,
    JournalError,
    NamedValue,
    Store,
    SyncChange,
    SyncReport,
    UnknownCustomerError,
    UnresolvedError,
)
from bc_attrvals.sandbox import Sandbox
from tests.conftest import make_store

PEOPLE = {number: f"person{number}@example.org" for number in range(1, 101)}
TYPES = {"Loyalty tier": "string", "Shoe size": "number"}
EVERYTHING = AttributeValueFilter()


@asynccontextmanager
async def opened() -> AsyncIterator[tuple[Sandbox, Store]]:
    sandbox = Sandbox(quota=None, customers=PEOPLE, attributes=TYPES)
    async with sandbox, make_store(sandbox) as store:
        yield sandbox, store


def tiers(form: str) -> list[NamedValue]:
    return [
        NamedValue(address.upper(), "Loyalty tier", form.format(number))
        for number, address in PEOPLE.items()
    ]


async def test_names_and_ids_are_synced_and_a_second_time_nothing_is_written() -> None:
    desired = [*tiers("tier {}"), AttributeValueUpsert(7, 2, "43")]
    async with opened() as (sandbox, store):
        await sandbox.seed([(5, 1, "old"), (6, 2, "gone")])
        report = await store.attribute_values.sync(desired, scope=EVERYTHING, prune=True)
        assert (report.created, report.updated, report.deleted) == (100, 1, 1)
        again = await store.attribute_values.sync(desired, scope=EVERYTHING, prune=True)
        assert (again.unchanged, again.written, again.failed) == (101, 0, 0)
        assert (await sandbox.values())[5, 1] == "tier 5"


async def test_unknown_addresses_stop_a_prune_unless_that_is_allowed() -> None:
    lost = NamedValue("nobody@example.org", "Loyalty tier", "x")
    async with opened() as (sandbox, store):
        await sandbox.seed([(6, 2, "kept")])
        sync = store.attribute_values.sync
        with pytest.raises(UnresolvedError, match="1 desired values could not be resolved") as stop:
            await sync([*tiers("a"), lost], scope=EVERYTHING, prune=True)
        report = stop.value.report
        assert isinstance(report, SyncReport)
        assert (report.created, report.failed, report.deleted, report.not_sent) == (100, 1, 0, 1)
        assert report.failures[0].item == lost
        assert isinstance(report.failures[0].error, UnknownCustomerError)
        assert (6, 2) in await sandbox.values()
        report = await sync(
            [*tiers("a"), lost], scope=EVERYTHING, prune=True, allow_unresolved=True
        )
        assert (report.unchanged, report.failed, report.deleted) == (100, 1, 1)


async def test_where_nothing_is_resolved_a_prune_says_so_and_not_that_nothing_is_desired() -> None:
    lost = NamedValue("nobody@example.org", "Loyalty tier", "x")
    async with opened() as (sandbox, store):
        await sandbox.seed([(6, 2, "kept")])
        sync = store.attribute_values.sync
        with pytest.raises(UnresolvedError, match="1 desired values could not be resolved") as stop:
            await sync([lost], scope=EVERYTHING, prune=True)
        assert isinstance(stop.value.report, SyncReport)
        assert [one.item for one in stop.value.report.failures] == [lost]
        assert stop.value.report.calls == 2
        wrong = NamedValue(6, "Shoe size", "large")
        for options in ({"allow_unresolved": True}, {"dry_run": True, "allow_unresolved": True}):
            with pytest.raises(UnresolvedError, match="none of the 2 desired values can be stored"):
                await sync([lost, wrong], scope=EVERYTHING, prune=True, **options)
        assert await sandbox.count() == 1


async def test_a_dry_run_refuses_the_prune_that_the_run_would_refuse() -> None:
    lost = NamedValue("nobody@example.org", "Loyalty tier", "x")
    desired = [*tiers("a"), lost]
    async with opened() as (sandbox, store):
        await sandbox.seed([(6, 2, "kept"), (7, 2, "kept")])
        api = store.attribute_values
        changes: list[SyncChange] = []

        async def show(some: list[SyncChange]) -> None:
            changes.extend(some)

        plan = await api.plan_sync(desired, scope=EVERYTHING, prune=True, show_changes=show)
        assert (plan.create, plan.delete, plan.unresolved, plan.withheld) == (100, 0, 1, 2)
        assert plan.delete_calls == 0
        assert {one.kind for one in changes} == {ChangeKind.CREATE}
        words = " ".join(str(plan).split())
        assert "unresolved 1 not pruned 2 delete 0" in words
        with pytest.raises(UnresolvedError, match="nothing was pruned") as stop:
            await api.sync(desired, scope=EVERYTHING, prune=True, dry_run=True)
        report = stop.value.report
        assert isinstance(report, SyncReport)
        assert (report.created, report.failed, report.deleted, report.not_sent) == (100, 1, 0, 2)
        plan = await api.plan_sync(desired, scope=EVERYTHING, prune=True, allow_unresolved=True)
        assert (plan.delete, plan.unresolved, plan.withheld) == (2, 1, 0)


async def test_without_prune_an_unknown_address_fails_alone() -> None:
    lost = NamedValue("nobody@example.org", "Loyalty tier", "x")
    async with opened() as (_, store):
        report = await store.attribute_values.sync([lost, *tiers("a")])
        assert (report.failed, report.written + report.created) == (1, 100)


async def test_the_row_of_a_value_that_its_type_cannot_hold_is_not_pruned() -> None:
    desired = [NamedValue(PEOPLE[6], "Shoe size", "12,5"), *tiers("a")]
    async with opened() as (sandbox, store):
        await sandbox.seed([(6, 2, "42"), (7, 2, "gone")])
        report = await store.attribute_values.sync(desired, scope=EVERYTHING, prune=True)
        assert (report.failed, report.deleted) == (1, 1)
        assert isinstance(report.failures[0].error, AttributeTypeError)
        assert (await sandbox.values())[6, 2] == "42"


async def test_a_resolved_value_outside_of_the_scope_is_named_by_its_place() -> None:
    scope = AttributeValueFilter(attribute_id_in=[2])
    async with opened() as (sandbox, store):
        with pytest.raises(InvalidInputError) as refused:
            await store.attribute_values.sync(
                [NamedValue(5, "Shoe size", 43), NamedValue(5, "Loyalty tier", "x")], scope=scope
            )
        assert refused.value.place == "desired[1]"
        assert await sandbox.count() == 0


async def test_a_journal_is_bound_to_the_names_and_reports_under_them(tmp_path: Path) -> None:
    path = tmp_path / "crm.db"
    desired = tiers("a")
    async with opened() as (sandbox, store):
        sandbox.reject_customers([7])

        async def not_yet(_: object) -> bool:
            return False

        sync = store.attribute_values.sync
        await sync(desired, scope=EVERYTHING, journal=path, confirm=not_yet)
        with pytest.raises(JournalError, match="restart"):
            await sync(tiers("b"), scope=EVERYTHING, journal=path)
        before = len(list(sandbox.requests))
        report = await sync(desired, scope=EVERYTHING, journal=path)
        looked_up = [one for one in list(sandbox.requests)[before:] if one.method == "GET"]
        assert not looked_up
        assert report.failed == 1
        assert report.failures[0].item == desired[6]
        assert SyncReport.from_journal(path).failures[0].item == desired[6]


async def test_a_plan_counts_what_names_come_to() -> None:
    async with opened() as (_, store):
        plan = await store.attribute_values.plan_sync(tiers("a"), scope=EVERYTHING, prune=True)
        assert plan.create == 100
