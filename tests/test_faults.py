"""Work through the faults of a network and of a service: all of it done, none of it twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest

from bc_attrvals import (
    AttributeValueFilter,
    AttributeValueUpsert,
    ConnectionLostError,
    DecodeError,
    Limits,
    OutcomeStatus,
    PartialFailureError,
    RequestRetrying,
    RequestTimeoutError,
    RetryPolicy,
    ServerError,
    StoreSuspendedError,
    TransportError,
)
from bc_attrvals.sandbox import Fault, Quirks, Sandbox
from tests.conftest import QUICK, make_store
from tests.probes import at_rest, check_writes, upserts

pytestmark = pytest.mark.usefixtures("no_task_left")

KINDS = ("500", "502", "drop_before", "drop_after", "cut_body", "html_body")
ONCE = RetryPolicy(attempts=1)


def faults(share: float, kinds: Iterable[str] = KINDS) -> list[Fault]:
    """Return faults that together meet this share of the requests."""
    kinds = list(kinds)
    return [Fault(kind, probability=share / len(kinds)) for kind in kinds]


@pytest.mark.parametrize("seed", [1, 2])
async def test_4000_values_through_12_percent_faults_are_stored_once_each(seed: int) -> None:
    items = [
        AttributeValueUpsert(customer, attribute, f"{customer}/{attribute}")
        for customer in range(1, 1001)
        for attribute in (1, 2, 3, 4)
    ]
    async with (
        Sandbox(quota=None, faults=faults(0.12), seed=seed) as sandbox,
        make_store(sandbox) as store,
    ):
        statuses = Counter[OutcomeStatus]()
        keys = Counter[tuple[int, int]]()
        async for outcome in store.attribute_values.upsert_stream(items):
            statuses[outcome.status] += 1
            keys[outcome.item.key] += 1
            assert outcome.stored is not None
            assert (outcome.stored.key, outcome.stored.value) == (
                outcome.item.key,
                outcome.item.value,
            )
        assert statuses == {OutcomeStatus.STORED: 4000}
        assert set(keys.values()) == {1}
        assert len(keys) == 4000
        assert await sandbox.values() == {item.key: item.value for item in items}
        assert sandbox.count_429 == 0
        assert sandbox.calls["upsert"] > 420
        check_writes(sandbox)
        await at_rest(store)
        assert sandbox.peak_in_flight("upsert") == 3


async def test_a_listing_through_12_percent_faults_brings_each_row_once() -> None:
    rows = [(customer, 1, f"v{customer}") for customer in range(1, 3001)]
    async with (
        Sandbox(quota=None, faults=faults(0.12), seed=3) as sandbox,
        make_store(sandbox, limits=Limits(page_size=20)) as store,
    ):
        await sandbox.seed(rows)
        found = [(row.customer_id, 1, row.value) async for row in store.attribute_values.stream()]
        assert found == rows
        assert sandbox.calls["list"] > 150
        await at_rest(store)


async def test_deletes_through_12_percent_faults_leave_no_row() -> None:
    async with (
        Sandbox(quota=None, faults=faults(0.12), seed=4) as sandbox,
        make_store(sandbox, limits=Limits(delete_size=5)) as store,
    ):
        await sandbox.seed((customer, 1, "v") for customer in range(1, 501))
        report = await store.attribute_values.delete(row.id for row in await sandbox.rows())
        assert (report.deleted, await sandbox.count()) == (500, 0)
        assert report.calls == sandbox.calls["delete"] == 100 + report.retries
        assert report.retries > 3
        assert sandbox.peak_in_flight("delete") == 3
        await at_rest(store)


@pytest.mark.parametrize(
    ("fault", "error", "applied"),
    [
        ("500", ServerError, False),
        ("502", ServerError, False),
        ("503", ServerError, False),
        ("504", ServerError, False),
        (Fault("504", applied=True), ServerError, True),
        ("problem_json", ServerError, False),
        ("drop_before", ConnectionLostError, False),
        ("drop_after", ConnectionLostError, True),
        ("cut_body", ConnectionLostError, True),
        ("html_body", DecodeError, True),
        ("hang", RequestTimeoutError, False),
        ("suspended", StoreSuspendedError, False),
    ],
    ids=str,
)
async def test_each_fault_has_its_error_and_says_whether_it_may_have_been_applied(
    sandbox: Sandbox, fault: str | Fault, error: type[Exception], applied: bool
) -> None:
    async with make_store(sandbox, retry=ONCE, timeout=0.2) as store:
        values = store.attribute_values
        sandbox.faults.script([fault] * 3)
        with pytest.raises(error) as on_write:
            await values.put_batch(upserts(1))
        with pytest.raises(error) as on_read:
            await values.get_page()
        if str(fault) != "html_body":
            # A delete has no body that could be wrong, and a write that can't be read is read back.
            with pytest.raises(error):
                await values.delete_batch([7])
        assert sandbox.calls.total() == 3
        assert (await sandbox.count() == 1) is applied
    assert type(on_write.value) is error
    assert (on_write.value.attempts, on_read.value.attempts) == (1, 1)  # type: ignore[attr-defined]
    if isinstance(on_write.value, TransportError):
        assert isinstance(on_read.value, TransportError)
        assert on_write.value.may_have_been_applied
        assert not on_read.value.may_have_been_applied
        assert (on_write.value.method, on_read.value.method) == ("PUT", "GET")
        assert on_write.value.path == "/stores/sandbox/v3/customers/attribute-values"


@pytest.mark.parametrize("kind", ["503", "drop_after"])
async def test_a_lasting_fault_is_met_as_often_as_the_policy_says(
    sandbox: Sandbox, kind: str
) -> None:
    retry = RetryPolicy(attempts=3, base_s=0.001, cap_s=0.002)
    sandbox.faults.add(kind)
    async with make_store(sandbox, retry=retry) as store:
        with pytest.raises(PartialFailureError) as caught:
            await store.attribute_values.upsert(upserts(25))
        report = caught.value.report
        assert (report.failed, report.stored, report.calls, report.retries) == (25, 0, 9, 6)
        assert {outcome.error.attempts for outcome in report.failures if outcome.error} == {3}
        assert sandbox.calls["upsert"] == 9
        assert store.statistics().retries == 6
        await at_rest(store)


async def test_answers_of_success_that_are_always_cut_are_read_back_before_they_fail(
    sandbox: Sandbox,
) -> None:
    """An answer of 200 says that the values were stored, whatever became of its body."""
    retry = RetryPolicy(attempts=3, base_s=0.001, cap_s=0.002)
    async with make_store(sandbox, retry=retry) as store:
        sandbox.faults.add(Fault("cut_body", operation="upsert"))
        report = await store.attribute_values.upsert(upserts(25))
        assert (report.stored, report.calls, report.retries) == (25, 9 + 3, 6)
        # Where the reading fails too, nothing is known of them.
        sandbox.faults.add(Fault("cut_body", operation="list"))
        report = await store.attribute_values.upsert(upserts(25), raise_on_failure=False)
        assert (report.failed, report.calls, report.retries) == (25, 9 + 9, 12)
        assert {type(one.error) for one in report.failures} == {ConnectionLostError}
        await at_rest(store)


@pytest.mark.parametrize("count", [10, 25, 1000])
@pytest.mark.parametrize("kind", ["500", "502", "504", "problem_json"])
async def test_a_service_that_fails_for_each_part_is_not_searched_for_bad_items(
    sandbox: Sandbox, kind: str, count: int
) -> None:
    retry = RetryPolicy(attempts=3, base_s=0.001, cap_s=0.002)
    sandbox.faults.add(kind)
    async with make_store(sandbox, retry=retry) as store:
        report = await store.attribute_values.upsert(upserts(count), raise_on_failure=False)
        assert (report.failed, report.stored) == (count, 0)
        # Each batch as often as the policy says; sixteen parts, twice each, ended the search.
        assert report.calls == sandbox.calls["upsert"] <= 3 * -(-count // 10) + 2 * 16
        await at_rest(store)


async def test_an_answer_that_never_can_be_read_fails_the_items_that_it_may_have_stored(
    sandbox: Sandbox,
) -> None:
    retry = RetryPolicy(attempts=3, base_s=0.001, cap_s=0.002)
    sandbox.faults.add("html_body")
    async with make_store(sandbox, retry=retry) as store:
        report = await store.attribute_values.upsert(upserts(25), raise_on_failure=False)
        assert (report.failed, report.stored) == (25, 0)
        # One PUT, then three tries to read back.
        assert (sandbox.calls["upsert"], sandbox.calls["list"], report.retries) == (3, 9, 6)
        assert {type(one.error) for one in report.failures} == {DecodeError}
        await at_rest(store)


async def test_a_hanging_call_is_sent_again_after_the_timeout(sandbox: Sandbox) -> None:
    sandbox.faults.script(["hang", "hang"], "upsert")
    async with make_store(sandbox, timeout=0.1) as store:
        report = await store.attribute_values.upsert(upserts(10))
        assert (report.stored, report.calls, report.retries) == (10, 3, 2)
        assert sandbox.count_429 == 0
        await at_rest(store)


async def test_a_store_under_load_is_asked_again_and_nothing_is_lost() -> None:
    async with (
        Sandbox(quota=None, faults=[Fault("429", probability=0.3)], seed=5) as sandbox,
        make_store(sandbox) as store,
    ):
        report = await store.attribute_values.upsert(upserts(600))
        assert (report.stored, await sandbox.count()) == (600, 600)
        assert store.statistics().rate_limited == sandbox.count_429 > 0
        await at_rest(store)


async def test_retries_are_told_as_events_and_counted(sandbox: Sandbox) -> None:
    sandbox.faults.script(["502", "drop_before", "html_body"], "list")
    told: list[RequestRetrying] = []
    async with make_store(sandbox) as store:
        store.subscribe(
            lambda event: told.append(event) if isinstance(event, RequestRetrying) else None
        )
        await store.attribute_values.get_page()
        assert store.statistics().retries == 3
    assert [(one.attempt, one.reason) for one in told] == [
        (1, "ServerError"),
        (2, "ConnectionLostError"),
        (3, "DecodeError"),
    ]
    assert all(one.delay_s <= QUICK.cap_s for one in told)


async def test_calls_of_a_report_are_all_requests_the_service_saw() -> None:
    """Confirming reads and their retries included."""
    quirks = Quirks(omit_unchanged=True)
    async with (
        Sandbox(quota=None, quirks=quirks, faults=faults(0.2), seed=6) as sandbox,
        make_store(sandbox) as store,
    ):
        await sandbox.seed((item.customer_id, 1, item.value) for item in upserts(100))
        report = await store.attribute_values.upsert(upserts(200))
        assert report.stored == 200
        assert report.calls == len(sandbox.requests)
        assert sandbox.calls["list"] >= 10
        # A write whose answer can't be read is read back, and not sent again.
        assert report.retries == sum(
            request.fault is not None
            and not (request.fault == "html_body" and request.operation == "upsert")
            for request in sandbox.requests
        )


async def test_faults_in_a_filtered_listing_never_lose_a_part_of_it(sandbox: Sandbox) -> None:
    await sandbox.seed((customer, 1, "v") for customer in range(1, 2001))
    for fault in faults(0.3):
        sandbox.faults.add(fault)
    wanted = AttributeValueFilter(customer_id_in=range(1, 4001))
    async with make_store(sandbox) as store:
        ids = [row.customer_id async for row in store.attribute_values.stream(wanted)]
        assert sorted(ids) == list(range(1, 2001))
        assert await store.attribute_values.count(wanted) == 2000
        await at_rest(store)
