"""Sync against the emulated store: what it reads, what it writes, and what it refuses."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from blockbuster import BlockingError, blockbuster_ctx

from bc_attrvals import (
    AttributeValueFilter,
    AttributeValueUpsert,
    AuthenticationError,
    FilterIgnoredError,
    InvalidInputError,
    Limits,
    OutcomeStatus,
    Reading,
    RetryPolicy,
    ServerError,
    Store,
    StoreStateError,
    StoreSuspendedError,
    SyncReport,
    UnprocessableError,
)
from bc_attrvals.sandbox import Fault, FaultKind, Quirks, Sandbox
from bc_attrvals.sync.scope import Scope
from tests.conftest import make_store
from tests.probes import at_rest, check_writes, until, upserts

FIRST = AttributeValueFilter(attribute_id_in=[1])
EVERYTHING = AttributeValueFilter()


def seeds(count: int, *, first: int = 1, attribute_id: int = 1) -> list[tuple[int, int, str]]:
    return [(one, attribute_id, f"v{one}") for one in range(first, first + count)]


def values_of(items: Iterable[AttributeValueUpsert]) -> dict[tuple[int, int], str]:
    return {item.key: item.value for item in items}


def changed(items: Iterable[AttributeValueUpsert], every: int) -> list[AttributeValueUpsert]:
    return [
        AttributeValueUpsert(item.customer_id, item.attribute_id, f"new {item.customer_id}")
        if item.customer_id % every == 0
        else item
        for item in items
    ]


class TestCalls:
    async def test_three_thousand_cost_what_they_must(self, sandbox: Sandbox, store: Store) -> None:
        await sandbox.seed(seeds(2_800))
        await sandbox.seed(seeds(40, attribute_id=2))
        desired = changed(upserts(3_000, first=151), 3)
        stored = {row.key: row.value for row in map(_upsert_of, seeds(2_800))}
        differing = sum(stored.get(item.key) != item.value for item in desired)
        pruned = len(stored.keys() - values_of(desired).keys())
        ideal = math.ceil(2_800 / 250) + math.ceil(differing / 10) + math.ceil(pruned / 50)
        values = store.attribute_values

        plan = await values.plan_sync(desired, scope=FIRST, prune=True)
        assert (plan.create + plan.update, plan.delete) == (differing, pruned)
        assert plan.calls <= ideal * 1.05 + 3
        sandbox.requests.clear()
        would = await values.sync(desired, scope=FIRST, prune=True, dry_run=True)
        assert not sandbox.requests.of("upsert") + sandbox.requests.of("delete")
        assert (would.created, would.updated, would.deleted) == (plan.create, plan.update, pruned)
        assert would.ok

        sandbox.requests.clear()
        report = await values.sync(desired, scope=FIRST, prune=True)
        assert report.calls == len(sandbox.requests) <= ideal * 1.05 + 3
        assert report == SyncReport(
            created=plan.create,
            updated=plan.update,
            deleted=pruned,
            unchanged=len(desired) - differing,
            written=0,
            failed=0,
            calls=plan.calls,
            seconds=report.seconds,
        )
        rest = {(one, 2): f"v{one}" for one in range(1, 41)}
        assert await sandbox.values() == values_of(desired) | rest
        check_writes(sandbox)

        sandbox.requests.clear()
        again = await values.sync(desired, scope=FIRST, prune=True)
        assert (again.unchanged, again.calls) == (3_000, 12)
        assert {request.method for request in sandbox.requests} == {"GET"}
        await at_rest(store)

    async def test_one_value_into_thousands_costs_at_most_two_calls(
        self, sandbox: Sandbox, store: Store
    ) -> None:
        await sandbox.seed(seeds(3_000))
        report = await store.attribute_values.sync([AttributeValueUpsert(17, 1, "new")])
        assert len(sandbox.requests) == report.calls <= 2
        assert report.written == 1
        assert (await sandbox.values())[17, 1] == "new"

    async def test_nothing_desired_costs_nothing(self, sandbox: Sandbox, store: Store) -> None:
        report = await store.attribute_values.sync([], scope=FIRST)
        assert report.ok
        assert not sandbox.requests

    async def test_a_plan_counts_the_quota_that_is_left(self) -> None:
        async with Sandbox(quota=20) as sandbox, make_store(sandbox) as store:
            await sandbox.seed(seeds(300))
            plan = await store.attribute_values.plan_sync(
                changed(upserts(300), 1), scope=FIRST, prune=True
            )
            # 18 of the window are left, and 32 calls to make.
            assert plan.seconds > 20

    async def test_a_plan_takes_calls_to_last_as_long_as_those_before(
        self, sandbox: Sandbox, store: Store
    ) -> None:
        await sandbox.seed(seeds(300))
        sandbox.latency_ms = 100
        for _ in range(2):
            plan = await store.attribute_values.plan_sync(
                changed(upserts(300), 1), scope=FIRST, prune=True
            )
        # Two reads at once, and ten rounds of three writes.
        assert 1.1 <= plan.seconds < 2.0


class TestReading:
    async def test_a_small_store_is_listed(self, sandbox: Sandbox, store: Store) -> None:
        await sandbox.seed(seeds(300))
        # Thirty attributes each: looking them up would be bounded by 38 pages.
        desired = [AttributeValueUpsert(c, a, "x") for c in range(1, 301) for a in range(1, 31)]
        plan = await store.attribute_values.plan_sync(desired, scope=None)
        assert (plan.reading, plan.read_calls) == (Reading.LIST, 2)
        assert plan.create + plan.update == len(desired)

    async def test_some_of_a_large_store_are_looked_up(
        self, sandbox: Sandbox, store: Store
    ) -> None:
        await sandbox.seed(seeds(8_000))
        desired = changed(upserts(1_000, first=3_000), 10)
        report = await store.attribute_values.sync(desired)
        lists = sandbox.requests.of("list")
        # One to learn how long the listing is, four of 250 customers each.
        assert len(lists) == 5
        assert sum("customer_id:in=" in request.query_string for request in lists) == 4
        assert (report.updated, report.unchanged, report.calls) == (100, 900, 15)

    async def test_a_single_look_up_needs_no_probe(self, sandbox: Sandbox, store: Store) -> None:
        await sandbox.seed(seeds(1_000))
        plan = await store.attribute_values.plan_sync(upserts(200), scope=None)
        assert (plan.reading, plan.read_calls, plan.unchanged) == (Reading.LOOK_UP, 1, 200)

    async def test_few_values_of_many_customers_are_written_blindly(
        self, sandbox: Sandbox, store: Store
    ) -> None:
        await sandbox.seed(seeds(3_000))
        plan = await store.attribute_values.plan_sync(upserts(10), scope=None)
        assert (plan.reading, plan.read_calls, plan.write) == (Reading.NOTHING, 0, 10)

    async def test_pages_in_any_order_and_short_ones_are_read_whole(self) -> None:
        quirks = Quirks(order="shuffled", clamp_pages=True, max_limit=50)
        async with Sandbox(quota=None, quirks=quirks) as sandbox, make_store(sandbox) as store:
            await sandbox.seed(seeds(1_234))
            plan = await store.attribute_values.plan_sync(upserts(1_234), scope=FIRST, prune=True)
            assert (plan.unchanged, plan.delete) == (1_234, 0)
            # One is refused for its size.
            assert plan.read_calls == 26

    async def test_a_scope_of_more_customers_than_a_url_takes_is_pruned(
        self, sandbox: Sandbox, store: Store
    ) -> None:
        await sandbox.seed(seeds(1_500))
        scope = AttributeValueFilter(customer_id_in=range(1, 1_401))
        report = await store.attribute_values.sync(upserts(1_300), scope=scope, prune=True)
        assert (report.unchanged, report.deleted) == (1_300, 100)
        assert await sandbox.count() == 1_400

    async def test_many_attributes_are_looked_up_without_naming_them(
        self, sandbox: Sandbox, store: Store
    ) -> None:
        desired = [AttributeValueUpsert(c, 10 * c + a, "x") for c in range(1, 11) for a in range(9)]
        await sandbox.seed([(*item.key, "x") for item in desired])
        await sandbox.seed(seeds(2_000, first=100))
        plan = await store.attribute_values.plan_sync(desired, scope=None)
        assert (plan.reading, plan.unchanged) == (Reading.LOOK_UP, 90)
        assert "attribute_id" not in sandbox.requests[-1].query_string


class TestInput:
    async def test_of_equal_keys_the_last_one_wins(self, sandbox: Sandbox, store: Store) -> None:
        desired = [AttributeValueUpsert(one % 7 + 1, 1, str(one)) for one in range(100)]
        report = await store.attribute_values.sync(desired)
        assert report.superseded == 93
        assert await sandbox.values() == values_of(desired)

    async def test_an_asynchronous_input_is_read_and_closed(
        self, sandbox: Sandbox, store: Store
    ) -> None:
        closed = False

        async def items() -> AsyncIterator[AttributeValueUpsert]:
            nonlocal closed
            try:
                for item in upserts(25):
                    yield item
            finally:
                closed = True

        report = await store.attribute_values.sync(items())
        assert report.created + report.written == 25
        assert closed

    async def test_an_error_of_the_input_comes_before_anything_is_sent(
        self, sandbox: Sandbox, store: Store
    ) -> None:
        def items() -> Iterator[AttributeValueUpsert]:
            yield from upserts(10_000)
            raise LookupError("out of scores")

        with pytest.raises(LookupError):
            await store.attribute_values.sync(items())
        assert not sandbox.requests

    @pytest.mark.parametrize("desired", ["scores", b"scores", 7, None])
    async def test_what_can_not_be_iterated_is_refused(self, store: Store, desired: Any) -> None:
        with pytest.raises(InvalidInputError) as caught:
            await store.attribute_values.sync(desired)
        assert caught.value.field == "desired"

    @pytest.mark.parametrize("bad", [(1, 1, "x"), None, AttributeValueUpsert(1, 2, "outside")])
    async def test_a_bad_item_is_named_before_anything_is_sent(
        self, sandbox: Sandbox, store: Store, bad: Any
    ) -> None:
        desired = [*upserts(6_000), bad]
        with pytest.raises(InvalidInputError) as caught:
            await store.attribute_values.sync(desired, scope=FIRST)
        assert (caught.value.field, caught.value.place) == ("desired", "desired[6000]")
        assert not sandbox.requests

    async def test_a_value_of_any_characters_compares_equal(
        self, sandbox: Sandbox, store: Store
    ) -> None:
        texts = [
            "",
            "\0",
            "a\0b",
            "ü" * 255,
            "'; DROP TABLE desired",
            "\ud7ff\U0010ffff",
            "1",
            "1.0",
        ]
        desired = [AttributeValueUpsert(1, one, text) for one, text in enumerate(texts, 1)]
        await store.attribute_values.sync(desired, scope=EVERYTHING, prune=True)
        assert await sandbox.values() == values_of(desired)
        again = await store.attribute_values.sync(desired, scope=EVERYTHING, prune=True)
        assert again.unchanged == len(desired)


class TestPruning:
    async def test_without_a_scope_it_is_refused(self, sandbox: Sandbox, store: Store) -> None:
        for call in (store.attribute_values.sync, store.attribute_values.plan_sync):
            with pytest.raises(InvalidInputError) as caught:
                await call(upserts(3), scope=None, prune=True)
            assert caught.value.field == "scope"
        assert not sandbox.requests

    async def test_with_nothing_desired_it_is_refused_unless_said(
        self, sandbox: Sandbox, store: Store
    ) -> None:
        await sandbox.seed(seeds(120))
        await sandbox.seed(seeds(3, attribute_id=2))
        values = store.attribute_values
        with pytest.raises(InvalidInputError) as caught:
            await values.sync([], scope=FIRST, prune=True)
        assert caught.value.field == "desired"
        assert not sandbox.requests
        report = await values.sync([], scope=FIRST, prune=True, allow_empty=True)
        assert (report.deleted, report.calls) == (120, 1 + 3)
        assert await sandbox.values() == {(one, 2): f"v{one}" for one in (1, 2, 3)}

    async def test_a_scope_that_matches_nothing_sends_nothing(
        self, sandbox: Sandbox, store: Store
    ) -> None:
        nothing = AttributeValueFilter(customer_id_in=[])
        with pytest.raises(InvalidInputError) as caught:
            await store.attribute_values.sync(upserts(1), scope=nothing)
        assert caught.value.place == "desired[0]"
        report = await store.attribute_values.sync([], scope=nothing, prune=True, allow_empty=True)
        assert report.calls == 0
        assert not sandbox.requests

    @pytest.mark.parametrize("prune", [True, False])
    async def test_a_service_that_ignores_the_filter_ends_the_sync_before_it_writes(
        self, prune: bool
    ) -> None:
        quirks = Quirks(ignore_filters=True)
        async with Sandbox(quota=None, quirks=quirks) as sandbox, make_store(sandbox) as store:
            await sandbox.seed(seeds(30))
            await sandbox.seed(seeds(10, attribute_id=2))
            before = await sandbox.values()
            with pytest.raises(FilterIgnoredError, match="outside of the filter") as caught:
                await store.attribute_values.sync(changed(upserts(40), 1), scope=FIRST, prune=prune)
            assert isinstance(caught.value.report, SyncReport)
            assert (caught.value.report.deleted, caught.value.report.calls) == (0, 1)
            assert await sandbox.values() == before
            assert not sandbox.requests.of("upsert") + sandbox.requests.of("delete")

    @pytest.mark.parametrize("prune", [True, False])
    async def test_rows_outside_of_the_scope_end_it_though_they_were_asked_for(
        self, sandbox: Sandbox, store: Store, monkeypatch: pytest.MonkeyPatch, prune: bool
    ) -> None:
        await sandbox.seed(seeds(300))
        await sandbox.seed(seeds(10, attribute_id=2))
        monkeypatch.setattr(Scope, "narrowed", lambda *_: EVERYTHING)
        with pytest.raises(FilterIgnoredError, match="outside of the scope"):
            await store.attribute_values.sync(changed(upserts(600), 1), scope=FIRST, prune=prune)
        assert not sandbox.requests.of("upsert") + sandbox.requests.of("delete")


class TestFailures:
    async def test_refused_values_are_counted_and_the_rest_is_stored(
        self, sandbox: Sandbox, store: Store
    ) -> None:
        sandbox.reject_customers([5, 77])
        desired = upserts(100)
        report = await store.attribute_values.sync(desired, scope=FIRST, prune=True)
        assert (report.created, report.failed, report.not_sent, report.ok) == (98, 2, 0, False)
        assert sorted(one.item.customer_id for one in report.failures) == [5, 77]
        assert all(one.status is OutcomeStatus.FAILED for one in report.failures)
        assert all(isinstance(one.error, UnprocessableError) for one in report.failures)
        assert report.calls == len(sandbox.requests)

    async def test_a_wrong_token_ends_it_while_reading(self, sandbox: Sandbox) -> None:
        async with Store(sandbox.store_hash, "wrong", base_url=sandbox.url) as store:
            with pytest.raises(AuthenticationError) as caught:
                await store.attribute_values.sync(upserts(30), scope=FIRST, prune=True)
        report = caught.value.report
        assert isinstance(report, SyncReport)
        assert (report.calls, report.failed, report.not_sent, report.ok) == (1, 0, 0, False)

    async def test_a_suspended_store_ends_it_while_writing(
        self, sandbox: Sandbox, store: Store
    ) -> None:
        sandbox.faults.add(Fault(FaultKind.STORE_SUSPENDED, operation="upsert", after=20))
        with pytest.raises(StoreSuspendedError) as caught:
            await store.attribute_values.sync(upserts(500), scope=FIRST, prune=True)
        report = caught.value.report
        assert isinstance(report, SyncReport)
        assert report.created == await sandbox.count() == 200
        assert report.failed == 10 * (sandbox.calls["upsert"] - 20)
        assert report.created + report.failed + report.not_sent == 500
        assert report.calls == len(sandbox.requests)

    async def test_a_delete_that_fails_ends_it_with_what_was_deleted(
        self, sandbox: Sandbox
    ) -> None:
        await sandbox.seed(seeds(500))
        sandbox.faults.add(Fault(FaultKind.INTERNAL_ERROR, operation="delete", after=4))
        retry = RetryPolicy(attempts=1)
        async with make_store(sandbox, retry=retry) as store:
            with pytest.raises(ServerError) as caught:
                await store.attribute_values.sync(upserts(10), scope=FIRST, prune=True)
        report = caught.value.report
        assert isinstance(report, SyncReport)
        assert report.deleted == 500 - await sandbox.count() == 200
        assert report.unconfirmed_deletes == 50 * (sandbox.calls["delete"] - 4)
        assert report.deleted + report.unconfirmed_deletes + report.not_sent == 490

    async def test_lost_answers_are_sent_again_and_counted(self, sandbox: Sandbox) -> None:
        sandbox.faults.add(Fault(FaultKind.DROP_AFTER, probability=0.2))
        async with make_store(sandbox) as store:
            report = await store.attribute_values.sync(upserts(300), scope=FIRST, prune=True)
        assert report.created == 300
        assert report.retries > 0
        assert report.calls == len(sandbox.requests) == 1 + 30 + report.retries

    async def test_a_closed_store_is_not_synced(self, sandbox: Sandbox) -> None:
        async with make_store(sandbox) as store:
            values = store.attribute_values
        with pytest.raises(StoreStateError):
            await values.sync(upserts(1))


class TestConcurrency:
    @pytest.mark.parametrize("phase", ["list", "upsert", "delete"])
    @pytest.mark.usefixtures("no_task_left")
    async def test_cancelled_it_leaves_nothing_behind(
        self, sandbox: Sandbox, phase: str, tmp_path: Path
    ) -> None:
        await sandbox.seed(seeds(500))
        sandbox.latency_ms = 5
        for journal in (None, tmp_path / "sync.db"):
            async with make_store(sandbox) as store:
                before = sandbox.calls[phase]
                job = asyncio.create_task(
                    store.attribute_values.sync(
                        changed(upserts(200, first=400), 1),
                        scope=FIRST,
                        prune=True,
                        journal=journal,
                    )
                )
                await until(lambda: sandbox.calls[phase] > before)  # noqa: B023
                job.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await job
                await at_rest(store)
            await sandbox.reset()
            await sandbox.seed(seeds(500))

    async def test_two_at_once_over_the_same_keys_end_with_one_of_both(
        self, sandbox: Sandbox, store: Store
    ) -> None:
        values = store.attribute_values
        ones = [AttributeValueUpsert(c, 1, "one") for c in range(1, 201)]
        twos = [AttributeValueUpsert(c, 1, "two") for c in range(1, 201)]
        await asyncio.gather(values.sync(ones), values.sync(twos))
        assert set((await sandbox.values()).values()) <= {"one", "two"}
        check_writes(sandbox)

    @pytest.mark.parametrize("with_journal", [False, True])
    async def test_nothing_blocks_the_loop(
        self, sandbox: Sandbox, tmp_path: Path, with_journal: bool
    ) -> None:
        await sandbox.seed(seeds(800))
        sandbox.reject_customers([334])
        journal = tmp_path / "sync.db" if with_journal else None
        desired = changed(upserts(900, first=100), 2)
        async with make_store(sandbox) as store:
            values = store.attribute_values
            with blockbuster_ctx("bc_attrvals", excluded_modules=["bc_attrvals.sandbox"]):
                await values.plan_sync(desired, scope=FIRST, prune=True)
                report = await values.sync(desired, scope=FIRST, prune=True, journal=journal)
                again = await values.sync(desired, scope=FIRST, prune=True, journal=journal)
                if journal is not None:
                    # The watch is awake: on the loop, reading a journal is blocking.
                    with pytest.raises(BlockingError):
                        SyncReport.from_journal(journal)
        assert (report.deleted, report.failed, again.failed) == (99, 1, 1)

    async def test_limits_of_the_store_are_kept(self, sandbox: Sandbox) -> None:
        limits = Limits(writes=2, batch_size=7, page_size=100, delete_size=20)
        await sandbox.seed(seeds(300))
        async with make_store(sandbox, limits=limits) as store:
            await store.attribute_values.sync(changed(upserts(200), 1), scope=FIRST, prune=True)
        assert sandbox.peak_in_flight("upsert") <= 2
        assert max(request.item_count for request in sandbox.requests.of("upsert")) == 7
        assert [request.item_count for request in sandbox.requests.of("delete")] == [20] * 5


def _upsert_of(row: tuple[int, int, str]) -> AttributeValueUpsert:
    return AttributeValueUpsert(*row)
