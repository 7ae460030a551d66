"""Rows of the store: which are compared, which are pruned, and which end the sync."""

from __future__ import annotations

import logging

import pytest

from bc_attrvals import (
    AttributeValueFilter,
    AttributeValueUpsert,
    DecodeError,
    ListingDriftError,
    Reading,
    Store,
    SyncPlan,
    SyncReport,
)
from bc_attrvals.sandbox import Sandbox
from tests.probes import upserts
from tests.raw_server import row, store_on
from tests.sync.lying_store import Lies, LyingStore

FIRST = AttributeValueFilter(attribute_id_in=[1])
EVERYTHING = AttributeValueFilter()


async def synced(lying: LyingStore, desired: list[AttributeValueUpsert]) -> SyncReport:
    async with store_on(lying.script) as (store, _):
        return await store.attribute_values.sync(
            desired, scope=EVERYTHING, prune=True, allow_empty=True
        )


@pytest.mark.parametrize("row_id", [2**31, 2**31 + 5, 2**40, 2**53 + 1, 2**63 - 1])
async def test_row_ids_of_64_bits_are_compared_and_pruned(row_id: int) -> None:
    lying = LyingStore({row_id - 1: ((1, 1), "v1"), row_id: ((2, 1), "v2")})
    report = await synced(lying, upserts(1))
    assert (report.unchanged, report.deleted, report.written) == (1, 1, 0)
    assert lying.deleted == {row_id}
    assert (await synced(lying, upserts(1))).calls == 1


async def test_a_row_whose_value_is_missing_is_there_and_is_written() -> None:
    lying = LyingStore({1: ((1, 1), "v1"), 2: ((2, 1), "v2")}, Lies(null_value=True))
    report = await synced(lying, upserts(2))
    assert (report.unchanged, report.updated, report.deleted) == (1, 1, 0)
    assert lying.written == {(2, 1)}


async def test_half_a_surrogate_pair_is_no_value_and_is_written() -> None:
    lying = LyingStore({1: ((1, 1), "v1"), 2: ((2, 1), "\ud83d")})
    report = await synced(lying, upserts(2))
    assert (report.unchanged, report.updated) == (1, 1)


async def test_two_rows_of_one_key_are_both_pruned_and_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows = {1: ((1, 1), "v1"), 2: ((9, 1), "a"), 3: ((9, 1), "b"), 4: ((8, 1), "c")}
    lying = LyingStore(rows)
    async with store_on(lying.script) as (store, _):
        plan = await store.attribute_values.plan_sync(upserts(1), scope=EVERYTHING, prune=True)
    assert (plan.repeated, plan.delete, plan.unchanged) == (1, 3, 1)
    with caplog.at_level(logging.WARNING, "bc_attrvals"):
        report = await synced(lying, upserts(1))
    assert "more than one row" in caplog.text
    assert report.deleted == 3
    assert lying.rows == {1: ((1, 1), "v1")}


@pytest.mark.parametrize("values", [("v1", "other"), ("other", "v1"), ("x", "y")])
async def test_a_desired_key_in_two_rows_is_written_once_unless_both_are_right(
    values: tuple[str, str],
) -> None:
    lying = LyingStore({1: ((1, 1), values[0]), 2: ((1, 1), values[1])})
    report = await synced(lying, upserts(1))
    assert (report.updated, report.deleted) == (1, 0)
    same = LyingStore({1: ((1, 1), "v1"), 2: ((1, 1), "v1")})
    assert (await synced(same, upserts(1))).unchanged == 1


@pytest.mark.parametrize("odd", [(2**31, 1), (1, 2**31), (0, 1), (1, -1)])
async def test_a_row_of_ids_out_of_range_ends_a_prune_before_it_changes_anything(
    odd: tuple[int, int],
) -> None:
    lying = LyingStore({1: ((1, 1), "old"), 2: (odd, "x"), 3: ((5, 1), "y")})
    with pytest.raises(DecodeError, match="row 2") as caught:
        await synced(lying, upserts(1))
    assert isinstance(caught.value.report, SyncReport)
    assert (lying.deleted, lying.written) == (set(), set())


async def test_a_row_of_ids_out_of_range_stops_no_sync_that_does_not_prune(
    caplog: pytest.LogCaptureFixture,
) -> None:
    lying = LyingStore({1: ((1, 1), "v1"), 2: ((2**31, 1), "x"), 3: ((2, 1), "y")})
    async with store_on(lying.script) as (store, _):
        with caplog.at_level(logging.WARNING, "bc_attrvals"):
            report = await store.attribute_values.sync(upserts(600))
    assert (report.unchanged, report.updated, report.created) == (1, 1, 598)
    assert "ids that can't be read: 1" in caplog.text


async def test_a_row_of_an_id_beyond_64_bits_is_compared_and_never_deleted() -> None:
    rows = [row(2**63, 1, 1, "v1"), row(7, 2, 1, "v2")]
    lying = LyingStore({})
    lying.odd_rows = rows
    async with store_on(lying.script) as (store, _):
        report = await store.attribute_values.sync(upserts(90))
        assert (report.unchanged, report.created) == (2, 88)
        with pytest.raises(DecodeError, match="customer 1, attribute 1: an id can't be read"):
            await store.attribute_values.sync(upserts(1), scope=FIRST, prune=True)
    assert not lying.deleted


async def test_always_reading_reads_for_few_values_as_well(sandbox: Sandbox, store: Store) -> None:
    await sandbox.seed((customer, 1, "old") for customer in range(1, 4_001))
    values = store.attribute_values
    blind = await values.plan_sync([AttributeValueUpsert(17, 1, "new")], scope=None)
    assert (blind.reading, blind.write) == (Reading.NOTHING, 1)
    for desired, counts in (
        ([AttributeValueUpsert(17, 1, "new")], (0, 1, 0)),
        ([AttributeValueUpsert(17, 1, "old"), AttributeValueUpsert(9_000, 1, "x")], (1, 0, 1)),
    ):
        plan: SyncPlan = await values.plan_sync(desired, scope=None, always_read=True)
        assert (plan.create, plan.update, plan.unchanged) == counts
        assert plan.read_calls == 1


async def test_a_first_page_without_its_rows_is_no_empty_store() -> None:
    """The listing of the scope is then over with its first page, which was read to weigh it."""
    rows = {number: ((number, 1), "old") for number in range(1, 9)}
    lying = LyingStore(rows, Lies(hidden=frozenset(range(8))))
    async with store_on(lying.script) as (store, _):
        with pytest.raises(ListingDriftError):
            await store.attribute_values.sync(upserts(600), scope=FIRST)
    assert not lying.written
