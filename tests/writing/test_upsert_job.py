"""Bulk upserts: one outcome an item, equal keys apart, bad items alone lost, input read lazily."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bc_attrvals import (
    APIError,
    AttributeValueUpsert,
    AuthenticationError,
    BCAttrValsError,
    InvalidInputError,
    Limits,
    NotFoundError,
    OutcomeStatus,
    PartialFailureError,
    PayloadTooLargeError,
    PermissionDeniedError,
    RetryPolicy,
    Store,
    StoreSuspendedError,
    UnconfirmedError,
    UnprocessableError,
    UpsertOutcome,
)
from bc_attrvals.sandbox import Fault, Quirks, Sandbox
from tests.conftest import make_store
from tests.probes import Key, at_rest, busy, check_writes, keys_of, until, upserts
from tests.raw_server import Connection, RawRequest, answer, row, rows_body, store_on
from tests.raw_server import page_body as raw_page

pytestmark = pytest.mark.usefixtures("no_task_left")

STORED, FAILED, ALTERED = OutcomeStatus.STORED, OutcomeStatus.FAILED, OutcomeStatus.ALTERED
SUPERSEDED, NOT_SENT = OutcomeStatus.SUPERSEDED, OutcomeStatus.NOT_SENT


class Endless:
    """Items without end, each of a customer of its own; tells how many were read."""

    def __init__(self) -> None:
        self.read = 0

    def __iter__(self) -> Iterator[AttributeValueUpsert]:
        while True:
            self.read += 1
            yield AttributeValueUpsert(self.read, 1, "v")


async def one_by_one(items: Iterable[AttributeValueUpsert]) -> AsyncIterator[AttributeValueUpsert]:
    """Give items as an async generator that lets others run between them."""
    for item in items:
        yield item
        await asyncio.sleep(0)


async def collect(source: AsyncIterator[UpsertOutcome], outcomes: list[UpsertOutcome]) -> None:
    """Take all outcomes, those before an error too."""
    async for outcome in source:
        outcomes.append(outcome)


def check_outcomes(
    given: Iterable[AttributeValueUpsert], outcomes: Iterable[UpsertOutcome]
) -> Counter[OutcomeStatus]:
    """Check that each item has one outcome, and of each key at most the last is stored."""
    outcomes = list(outcomes)
    given = list(given)
    assert Counter(map(id, given)) == Counter(id(outcome.item) for outcome in outcomes)
    for outcome in outcomes:
        assert (outcome.stored is not None) is (outcome.status is STORED) is outcome.ok
        assert (outcome.error is not None) is (outcome.status in {FAILED, NOT_SENT})
    return Counter(outcome.status for outcome in outcomes)


# -- bad items --


def spread(order: str) -> list[Key]:
    keys = [(customer, attribute) for customer in range(1, 201) for attribute in range(1, 6)]
    if order == "attribute-major":
        keys.sort(key=lambda key: key[::-1])
    elif order == "shuffled":
        random.Random(11).shuffle(keys)
    return keys


@pytest.mark.parametrize("keep_good", [False, True], ids=["all or nothing", "good ones stored"])
@pytest.mark.parametrize(
    ("order", "indexed", "unnamed"),
    [("customer-major", 160, 230), ("attribute-major", 160, 230), ("shuffled", 160, 230)],
)
@pytest.mark.parametrize("style", ["indexed", "field", "empty"])
async def test_55_bad_items_of_1000_cost_themselves_and_few_calls(
    style: Any, order: str, indexed: int, unnamed: int, keep_good: bool
) -> None:
    gone = set(random.Random(7).sample(range(1, 201), 11))
    quirks = Quirks(error_style=style, store_good_items_of_refused_batch=keep_good)
    items = [AttributeValueUpsert(*key, "new") for key in spread(order)]
    async with Sandbox(quota=None, quirks=quirks) as sandbox, make_store(sandbox) as store:
        sandbox.reject_customers(gone)
        with pytest.raises(PartialFailureError, match="55 of 1000 items") as caught:
            await store.attribute_values.upsert(items)
        report = caught.value.report
        assert (report.stored, report.failed, report.superseded, report.not_sent) == (945, 55, 0, 0)
        assert Counter(outcome.item.customer_id for outcome in report.failures) == dict.fromkeys(
            gone, 5
        )
        assert all(isinstance(outcome.error, UnprocessableError) for outcome in report.failures)
        assert await sandbox.values() == {
            item.key: item.value for item in items if item.customer_id not in gone
        }
        assert report.calls == sandbox.calls["upsert"] == len(sandbox.requests)
        assert report.calls <= (indexed if style == "indexed" else unnamed)
        check_writes(sandbox)
        await at_rest(store)


async def test_a_batch_of_bad_items_alone_fails_item_by_item() -> None:
    for style in ("indexed", "field"):
        async with (
            Sandbox(quota=None, quirks=Quirks(error_style=style)) as sandbox,  # type: ignore[arg-type]
            make_store(sandbox) as store,
        ):
            sandbox.reject_customers(range(1, 31))
            report = await store.attribute_values.upsert(upserts(30), raise_on_failure=False)
            assert (report.failed, report.stored) == (30, 0)
            assert not report.ok


async def test_several_named_items_are_dropped_at_once_and_a_foreign_index_names_none() -> None:
    async def script(request: RawRequest, connection: Connection) -> None:
        values = {item["value"] for item in request.items}
        if "bad" in values:
            bad = [index for index, item in enumerate(request.items) if item["value"] == "bad"]
            errors = {f"{index}.data": "bad" for index in bad} | {"77.data": "no such item"}
            body = json.dumps({"status": 422, "title": "no", "errors": errors}).encode()
            await connection.say(answer(body, 422))
            return
        await connection.say(answer(echo(request)))

    items = [
        AttributeValueUpsert(customer, 1, "bad" if customer in {2, 5, 9} else "good")
        for customer in range(1, 11)
    ]
    async with store_on(script) as (store, server):
        report = await store.attribute_values.upsert(items, raise_on_failure=False)
    assert (report.stored, report.failed, len(server.requests)) == (7, 3, 2)
    assert [outcome.item.customer_id for outcome in report.failures] == [2, 5, 9]


async def test_a_batch_too_large_for_the_service_is_halved() -> None:
    async def script(request: RawRequest, connection: Connection) -> None:
        if len(request.items) > 3:
            await connection.say(answer(b"", 413))
        else:
            await connection.say(answer(echo(request)))

    async with store_on(script) as (store, _):
        report = await store.attribute_values.upsert(upserts(25))
    assert report.stored == 25


async def test_an_item_too_large_by_itself_fails() -> None:
    async def script(_: RawRequest, connection: Connection) -> None:
        await connection.say(answer(b"", 413))

    async with store_on(script) as (store, _):
        report = await store.attribute_values.upsert(upserts(3), raise_on_failure=False)
    assert {type(outcome.error) for outcome in report.failures} == {PayloadTooLargeError}


# -- what the service answers --


def echo(request: RawRequest) -> bytes:
    return rows_body(
        [
            row(100 + index, item["customer_id"], item["attribute_id"], item["value"])
            for index, item in enumerate(request.items)
        ]
    )


@pytest.mark.parametrize(
    "quirks",
    [
        Quirks(value_field="value"),
        Quirks(zoneless_dates=True),
        Quirks(answer_order="reversed"),
        Quirks(omit_unchanged=True),
        Quirks(omit_unchanged=True, answer_order="reversed", value_field="value"),
        Quirks(omit_unchanged=True, max_limit=50, omit_links=True, order="shuffled"),
        Quirks(request_id=False, rate_headers=False),
    ],
    ids=str,
)
async def test_every_item_ends_as_stored_with_its_own_row_however_it_is_answered(
    quirks: Quirks,
) -> None:
    async with Sandbox(quota=None, quirks=quirks) as sandbox, make_store(sandbox) as store:
        await sandbox.seed((customer, 1, f"v{customer}") for customer in range(1, 101, 2))
        items = upserts(100)
        outcomes = [one async for one in store.attribute_values.upsert_stream(items)]
        assert check_outcomes(items, outcomes) == {STORED: 100}
        ids = {(row.customer_id, row.attribute_id): row.id for row in await sandbox.rows()}
        for outcome in outcomes:
            assert outcome.stored is not None
            assert outcome.stored.id == ids[outcome.item.key]
            assert outcome.stored.value == outcome.item.value
            assert outcome.stored.date_created is not None
            assert outcome.stored.date_created.utcoffset() is not None
        await at_rest(store)


class Altering:
    """A service that keeps another form of each value, and answers in some style."""

    def __init__(self, form: Callable[[str], str], echo: str = "rows") -> None:
        self.form = form
        self.echo = echo
        self.held: dict[Key, dict[str, Any]] = {}
        #: What it says that it holds, where that is not so.
        self.said: str | None = None

    async def __call__(self, request: RawRequest, connection: Connection) -> None:
        if request.method == "GET":
            wanted = set(map(int, request.query["customer_id:in"].split(",")))
            rows = [one for one in self.held.values() if one["customer_id"] in wanted]
            total = len(rows)
            body = raw_page(rows, total=total, per_page=250, page=1, total_pages=int(total > 0))
            await connection.say(answer(body))
            return
        rows = []
        for item in request.items:
            key = (item["customer_id"], item["attribute_id"])
            self.held[key] = row(item["customer_id"], *key, self.form(item["value"]))
            rows.append(self.held[key])
        if self.said is not None:
            rows = [{**one, "attribute_value": self.said} for one in rows]
        await connection.say(answer(rows_body(rows if self.echo == "rows" else [])))


async def test_another_form_that_is_echoed_and_held_is_altered_and_no_failure() -> None:
    service = Altering(str.strip)
    items = [AttributeValueUpsert(1, 1, "v "), AttributeValueUpsert(2, 1, "v2")]
    async with store_on(service) as (store, server):
        outcomes = [one async for one in store.attribute_values.upsert_stream(items)]
        report = await store.attribute_values.upsert(items)
        # Read back once, the altered alone, and sent no second time.
        assert [request.method for request in server.requests] == ["PUT", "GET", "PUT", "GET"]
        assert server.requests[1].query["customer_id:in"] == "1"
    assert [(one.item.customer_id, one.status) for one in outcomes] == [(2, STORED), (1, ALTERED)]
    assert outcomes[1].ok
    assert outcomes[1].stored is not None
    assert outcomes[1].stored.value == "v"
    assert (report.stored, report.altered, report.failed, report.ok) == (1, 1, 0, True)
    assert report.failures == ()


async def test_another_value_than_echoed_and_sent_is_sent_again_and_then_named() -> None:
    service = Altering(lambda value: "a third")
    service.said = "another"
    async with store_on(service) as (store, server):
        report = await store.attribute_values.upsert(upserts(2), raise_on_failure=False)
        assert [request.method for request in server.requests] == ["PUT", "GET", "PUT", "GET"]
    assert (report.failed, report.altered) == (2, 0)
    assert {type(one.error) for one in report.failures} == {UnconfirmedError}
    assert "holds another value, 'a third'" in str(report.failures[0].error)


async def test_a_form_that_no_echo_proves_is_not_believed_to_be_altered() -> None:
    """An answer without rows: the value may be an older one, and the write not applied."""
    async with store_on(Altering(str.upper, echo="none")) as (store, _):
        report = await store.attribute_values.upsert(upserts(1), raise_on_failure=False)
    assert (report.failed, report.altered) == (1, 0)
    assert "holds another value, 'V1'" in str(report.failures[0].error)


async def test_altered_values_cost_a_call_a_batch_and_a_sync_holds_them_for_done() -> None:
    service = Altering(str.upper)
    async with store_on(service) as (store, _):
        values = store.attribute_values
        report = await values.upsert(upserts(100))
        assert (report.altered, report.calls) == (100, 20)
        synced = await values.sync(upserts(100, first=201))
        assert (synced.failed, synced.ok) == (0, True)


@pytest.mark.parametrize("answered", [[], [row(9, 999, 1, "v1"), row(9, 1, 999, "v1")]])
async def test_a_success_that_stored_nothing_is_unconfirmed(answered: list[Any]) -> None:
    async def script(request: RawRequest, connection: Connection) -> None:
        if request.method == "PUT":
            await connection.say(answer(rows_body(answered)))
        else:
            await connection.say(answer(raw_page([], total=0, per_page=250, page=1, total_pages=0)))

    async with store_on(script) as (store, server):
        report = await store.attribute_values.upsert(upserts(12), raise_on_failure=False)
        assert (report.failed, report.stored) == (12, 0)
        assert report.calls == len(server.requests) == 8
    assert {type(outcome.error) for outcome in report.failures} == {UnconfirmedError}
    assert "holds no value" in str(report.failures[0].error)


async def test_a_value_that_takes_hold_the_second_time_is_stored() -> None:
    held: dict[int, str] = {}

    async def script(request: RawRequest, connection: Connection) -> None:
        if request.method == "PUT":
            if len(server.requests) > 1:
                held.update((item["customer_id"], item["value"]) for item in request.items)
            await connection.say(answer(rows_body([])))
            return
        rows = [row(customer, customer, 1, value) for customer, value in held.items()]
        body = raw_page(rows, total=len(rows), per_page=250, page=1, total_pages=min(1, len(rows)))
        await connection.say(answer(body))

    async with store_on(script) as (store, server):
        report = await store.attribute_values.upsert(upserts(10))
    assert (report.stored, report.calls) == (10, 4)


async def test_a_failed_reading_back_fails_the_unconfirmed_items_alone() -> None:
    async def script(request: RawRequest, connection: Connection) -> None:
        if request.method == "GET":
            await connection.say(answer(b"", 500))
        else:
            rows = [row(1, item["customer_id"], 1, item["value"]) for item in request.items[:6]]
            await connection.say(answer(rows_body(rows)))

    async with store_on(script, retry=RetryPolicy(attempts=2, base_s=0.001)) as (store, server):
        report = await store.attribute_values.upsert(upserts(10), raise_on_failure=False)
        assert (report.stored, report.failed) == (6, 4)
        assert (report.calls, report.retries) == (3, 1)
        assert len(server.requests) == 3


# -- equal keys --


async def test_5000_values_over_300_keys_end_as_the_last_of_each_key(sandbox: Sandbox) -> None:
    rng = random.Random(5)
    keys = [(customer, attribute) for customer in range(1, 101) for attribute in (1, 2, 3)]
    items = [AttributeValueUpsert(*rng.choice(keys), f"n{number}") for number in range(5000)]
    async with make_store(sandbox) as store:
        outcomes = [one async for one in store.attribute_values.upsert_stream(iter(items))]
        counts = check_outcomes(items, outcomes)
        assert set(counts) == {STORED, SUPERSEDED}
        assert await sandbox.values() == {item.key: item.value for item in items}
        last = {item.key: item for item in items}
        stored = {id(outcome.item) for outcome in outcomes if outcome.ok}
        assert stored.issuperset(map(id, last.values()))
        check_writes(sandbox)
        # Each key went out in the order it was given.
        sent: dict[Key, int] = {}
        for put in sandbox.requests.of("upsert"):
            for item in json.loads(put.body):
                key, number = (item["customer_id"], item["attribute_id"]), int(item["value"][1:])
                assert sent.get(key, -1) < number
                sent[key] = number
        await at_rest(store)


@pytest.mark.parametrize("hot", [1, 3, 12])
@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_an_endless_stream_of_hot_keys_goes_on_and_hides_no_other_item(
    sandbox: Sandbox, hot: int, kind: str
) -> None:
    read = 0

    def endless() -> Iterator[AttributeValueUpsert]:
        nonlocal read
        while True:
            read += 1
            if read % 500 == 0:
                yield AttributeValueUpsert(1_000_000 + read, 1, "cold")
            yield AttributeValueUpsert(1 + read % hot, 1, f"{read}")

    items: Any = endless() if kind == "sync" else one_by_one(endless())
    cold: list[UpsertOutcome] = []
    counts: Counter[OutcomeStatus] = Counter()
    async with (
        asyncio.timeout(20),
        make_store(sandbox) as store,
        aclosing(store.attribute_values.upsert_stream(items)) as outcomes,
    ):
        async for outcome in outcomes:
            counts[outcome.status] += 1
            # What is read is sent before much more is read.
            assert read - counts.total() <= 6 * 200
            if outcome.item.value == "cold":
                cold.append(outcome)
                if len(cold) == 5:
                    break
        await outcomes.aclose()
        assert [one.status for one in cold] == [STORED] * 5
        assert counts[STORED] > 10
        await at_rest(store)
    check_writes(sandbox)


async def test_two_jobs_on_the_same_keys_take_turns(sandbox: Sandbox) -> None:
    sandbox.latency_ms = 1
    rng = random.Random(8)

    def job(name: str) -> list[AttributeValueUpsert]:
        return [AttributeValueUpsert(rng.randint(1, 15), 1, f"{name}{i}") for i in range(400)]

    first, second, third = job("a"), job("b"), job("c")
    async with asyncio.timeout(20), make_store(sandbox) as store:

        async def run(items: Any, given: list[AttributeValueUpsert]) -> Counter[OutcomeStatus]:
            return check_outcomes(
                given, [one async for one in store.attribute_values.upsert_stream(items)]
            )

        counts = await asyncio.gather(
            run(first, first), run(one_by_one(second), second), run(iter(third), third)
        )
        assert all(set(one) == {STORED, SUPERSEDED} for one in counts)
        held = await sandbox.values()
        for key, value in held.items():
            # Of each job the last value of a key went out last.
            lasts = [{i.key: i.value for i in one}.get(key) for one in (first, second, third)]
            assert value in lasts
        check_writes(sandbox)
        await at_rest(store)


async def test_endless_jobs_on_a_key_do_not_keep_another_job_from_it(sandbox: Sandbox) -> None:
    def endless() -> Iterator[AttributeValueUpsert]:
        number = 0
        while True:
            number += 1
            yield AttributeValueUpsert(1, 1, f"{number}")

    async with asyncio.timeout(20), make_store(sandbox) as store:
        values = store.attribute_values
        hot = [asyncio.create_task(values.upsert(endless())) for _ in range(2)]
        await until(lambda: sandbox.calls["upsert"] > 3)
        for turns in range(12):
            for _ in range(turns):
                await asyncio.sleep(0)
            begun = sandbox.calls["upsert"]
            report = await values.upsert([AttributeValueUpsert(1, 1, "other")])
            assert report.stored == 1
            # It took its turn, or nearly.
            assert sandbox.calls["upsert"] <= begun + 10
        for one in hot:
            assert not one.done()
            one.cancel()
        await asyncio.gather(*hot, return_exceptions=True)
        await at_rest(store)
    check_writes(sandbox)


# -- what ends a job --


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("401", AuthenticationError),
        ("403", PermissionDeniedError),
        ("suspended", StoreSuspendedError),
    ],
)
@pytest.mark.parametrize("source", ["list", "generator", "async generator"])
async def test_a_refusal_of_the_whole_store_ends_the_job_and_reads_no_further(
    sandbox: Sandbox, kind: str, error: type[APIError], source: str
) -> None:
    sandbox.latency_ms = 1
    sandbox.faults.add(Fault(kind, after=7))
    items = upserts(3000)
    read: list[AttributeValueUpsert] = []

    def noting() -> Iterator[AttributeValueUpsert]:
        for item in items:
            read.append(item)
            yield item

    given: Any = items if source == "list" else noting()
    if source == "async generator":
        given = one_by_one(noting())
    outcomes: list[UpsertOutcome] = []
    async with make_store(sandbox) as store:
        with pytest.raises(error) as caught:
            await collect(store.attribute_values.upsert_stream(given), outcomes)
        report = caught.value.report
        assert report is not None
        seen = read if source != "list" else items[: len(outcomes)]
        counts = check_outcomes(seen, outcomes)
        assert counts[STORED] == report.stored == 70 == await sandbox.count()  # type: ignore[union-attr]
        assert counts[FAILED] == report.failed > 0  # type: ignore[union-attr]
        assert counts[NOT_SENT] == report.not_sent  # type: ignore[union-attr]
        assert 70 < len(seen) <= 400
        # At most what was on the wire already came after the refusal.
        assert sandbox.calls["upsert"] <= 7 + 3
        assert report.calls == sandbox.calls["upsert"]
        await at_rest(store)
    for outcome in outcomes:
        if not outcome.ok:
            assert type(outcome.error) is error


async def test_a_wrong_store_hash_ends_the_job(sandbox: Sandbox) -> None:
    async with Store("other", sandbox.access_token, base_url=sandbox.url) as store:
        with pytest.raises(NotFoundError) as caught:
            await store.attribute_values.upsert(upserts(500))
        assert caught.value.report is not None
        assert sandbox.calls["upsert"] <= 3
        assert "store hash" in str(caught.value)


@pytest.mark.parametrize("late", [500, 429])
@pytest.mark.usefixtures("quick_probes")
async def test_a_refusal_is_not_followed_by_tries_of_calls_under_way(late: int) -> None:
    """What was on the wire when the job ended may end, and is not sent again."""
    told = asyncio.Event()

    async def script(request: RawRequest, connection: Connection) -> None:
        first = len(server.requests) == 1
        await until(lambda: len(server.requests) == 3)
        if first:
            await connection.say(answer(b"", 401))
        else:
            await told.wait()
            await connection.say(answer(b"", late))

    async with (
        asyncio.timeout(5),
        store_on(script, retry=RetryPolicy(base_s=30.0)) as (store, server),
    ):
        job = asyncio.ensure_future(store.attribute_values.upsert(upserts(200)))
        await until(lambda: len(server.requests) == 3)
        await until(lambda: busy(store)["in flight"] == 2)
        told.set()
        with pytest.raises(AuthenticationError) as caught:
            await job
        assert len(server.requests) == 3
    report = caught.value.report
    assert report is not None
    assert (report.failed, report.not_sent) == (30, 0)  # type: ignore[union-attr]


async def test_a_refusal_stops_the_reading_while_calls_are_under_way() -> None:
    told, more = asyncio.Event(), asyncio.Event()
    taken: list[AttributeValueUpsert] = []

    async def script(request: RawRequest, connection: Connection) -> None:
        if request.method == "GET":
            await connection.say(answer(b"", 404))
        elif len(server.requests) == 2:
            await connection.say(answer(b"", 403))
        else:
            await told.wait()
            await connection.say(answer(echo(request)))

    async def items() -> AsyncIterator[AttributeValueUpsert]:
        for item in upserts(1000):
            if len(taken) == 20:
                await more.wait()
            taken.append(item)
            yield item

    async with asyncio.timeout(5), store_on(script) as (store, server):
        with pytest.raises(NotFoundError):
            # The first request of a Store goes alone.
            await store.attribute_values.get_page()
        job = asyncio.ensure_future(store.attribute_values.upsert(items()))
        await until(lambda: len(server.requests) == 3 and busy(store)["in flight"] == 1)
        more.set()
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(taken) == 20
        told.set()
        with pytest.raises(PermissionDeniedError) as caught:
            await job
    report = caught.value.report
    assert report is not None
    assert (report.stored, report.failed, report.not_sent) == (10, 10, 0)  # type: ignore[union-attr]


@pytest.mark.usefixtures("quick_probes")
async def test_items_that_went_out_once_and_wait_to_go_again_have_failed() -> None:
    """Sent with success and not held, they wait for the slot when the job ends."""
    nothing = raw_page([], total=0, per_page=250, page=1, total_pages=0)
    ended = asyncio.Event()

    async def script(request: RawRequest, connection: Connection) -> None:
        if request.method == "GET":
            await connection.say(answer(nothing))
        elif (first := request.items[0]["customer_id"]) == 1:
            # The slot that it frees is another job's by then.
            await until(lambda: len(server.requests) == 2 and busy(store).get("queued") == 1)
            await connection.say(answer(rows_body([])))
        elif first == 101:
            await ended.wait()
            await connection.say(answer(echo(request)))
        else:
            await until(lambda: len(server.requests) == 4 and busy(store).get("queued") == 1)
            await connection.say(answer(b"", 401))

    async with asyncio.timeout(5), store_on(script, limits=Limits(writes=2)) as (store, server):
        outcomes: list[UpsertOutcome] = []
        values = store.attribute_values
        job = asyncio.ensure_future(collect(values.upsert_stream(upserts(20)), outcomes))
        await until(lambda: len(server.requests) == 2)
        other = asyncio.ensure_future(values.upsert(upserts(10, first=101)))
        with pytest.raises(AuthenticationError):
            await job
        assert [request.method for request in server.requests].count("PUT") == 3
        ended.set()
        assert (await other).stored == 10
    assert Counter(one.status for one in outcomes) == {FAILED: 20}


async def test_items_that_never_went_out_are_told_from_those_that_did(sandbox: Sandbox) -> None:
    """Bad customers, known from before, are split off, and their parts wait when the job ends."""
    quirks = Quirks(error_style="empty")
    async with (
        Sandbox(quota=None, quirks=quirks) as sandbox,
        make_store(sandbox, limits=Limits(writes=1)) as store,
    ):
        sandbox.reject_customers([1])
        items = [AttributeValueUpsert(1, 1, "bad")]
        items += [AttributeValueUpsert(1, attribute, "v") for attribute in range(2, 8)]
        items += upserts(3, first=50)
        outcomes: list[UpsertOutcome] = []

        async def in_two() -> AsyncIterator[AttributeValueUpsert]:
            yield items[0]
            await until(lambda: outcomes)
            for item in items[1:]:
                yield item

        # The first call finds customer 1 alone; the next batch is split, its rest goes first.
        sandbox.faults.add(Fault("401", operation="upsert", after=2))
        with pytest.raises(AuthenticationError):
            await collect(store.attribute_values.upsert_stream(in_two()), outcomes)
        puts = [keys_of(put) for put in sandbox.requests.of("upsert")]
    sent = {key for put in puts for key in put}
    assert len(puts) == 3
    for outcome in outcomes:
        assert (outcome.status is NOT_SENT) is (outcome.item.key not in sent), outcome
    assert Counter(one.status for one in outcomes) == {STORED: 3, FAILED: 2, NOT_SENT: 5}


# -- input --


class InputBrokeError(Exception):
    """Raised by an input of a test."""


async def broken_async(
    items: list[AttributeValueUpsert], error: BaseException
) -> AsyncIterator[AttributeValueUpsert]:
    for item in items:
        yield item
    raise error


def broken_sync(
    items: list[AttributeValueUpsert], error: BaseException
) -> Iterator[AttributeValueUpsert]:
    yield from items
    raise error


@pytest.mark.parametrize("error", [asyncio.CancelledError, GeneratorExit])
async def test_whatever_an_input_raises_all_read_before_is_sent(
    sandbox: Sandbox, error: type[BaseException]
) -> None:
    async with make_store(sandbox) as store:
        with pytest.raises(error):
            await store.attribute_values.upsert(broken_sync(upserts(47), error()))
        await at_rest(store)
    assert len(await sandbox.rows()) == 47


async def test_what_an_input_sets_in_its_context_it_can_reset(sandbox: Sandbox) -> None:
    number = ContextVar("number", default=0)

    def in_spans() -> Iterator[AttributeValueUpsert]:
        for first in range(1, 100, 15):
            token = number.set(first)
            yield from upserts(15, first=first)
            number.reset(token)

    async with make_store(sandbox) as store:
        assert (await store.attribute_values.upsert(in_spans())).stored == 105


@pytest.mark.usefixtures("quick_probes")
async def test_an_input_is_not_read_on_when_its_job_was_left_and_the_store_is_closed(
    sandbox: Sandbox,
) -> None:
    sandbox.faults.add("hang")
    endless = Endless()
    async with make_store(sandbox) as store:
        job = asyncio.create_task(store.attribute_values.upsert(endless))
        await until(lambda: sandbox.in_flight("upsert") == 3)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        before = endless.read
    assert endless.read == before == 30


async def test_a_task_that_others_cancel_is_told_and_its_items_are_counted(
    sandbox: Sandbox,
) -> None:
    read = 0

    def cancelling() -> Iterator[AttributeValueUpsert]:
        nonlocal read
        for item in upserts(100):
            task = asyncio.current_task()
            # By then it is one of the job's own.
            if item.customer_id == 55 and task is not None:
                task.cancel()
            read += 1
            yield item

    async with make_store(sandbox) as store:
        with pytest.raises(asyncio.CancelledError) as caught:
            await store.attribute_values.upsert(cancelling())
        await at_rest(store)
    (note,) = caught.value.__notes__
    stored, failed, superseded, not_sent = map(int, re.findall(r"\d+", note))
    assert stored + failed + not_sent == read
    assert failed >= 10
    assert superseded == 0
    # What was cut off on the wire may be stored, and counts as failed.
    assert stored <= len(await sandbox.rows()) <= stored + failed


@pytest.mark.parametrize("broken", [broken_sync, broken_async])
async def test_an_input_that_raises_midway_loses_nothing_read_before(
    sandbox: Sandbox, broken: Any
) -> None:
    async with make_store(sandbox) as store:
        values = store.attribute_values
        with pytest.raises(InputBrokeError) as caught:
            await values.upsert(broken(upserts(123), InputBrokeError("disk gone")))
        assert await sandbox.count() == 123
        assert caught.value.__notes__ == [
            "bc_attrvals: before this, 123 items stored, 0 failed, 0 superseded, 0 not sent"
        ]
        outcomes: list[UpsertOutcome] = []
        with_a_bad_one: Any = broken([*upserts(55), "no item"], InputBrokeError("never"))  # type: ignore[list-item]
        with pytest.raises(InvalidInputError) as refused:
            await collect(values.upsert_stream(with_a_bad_one), outcomes)
        assert Counter(one.status for one in outcomes) == {STORED: 55}
        assert refused.value.place == "items[55]"
        assert refused.value.report is not None
        await at_rest(store)


async def test_an_async_input_that_is_cancelled_from_inside_is_no_end_of_the_input(
    sandbox: Sandbox,
) -> None:
    """An input may wait for a task that somebody cancels: its items after that are missing."""
    async with make_store(sandbox) as store:
        with pytest.raises(asyncio.CancelledError):
            await store.attribute_values.upsert(
                broken_async(upserts(15), asyncio.CancelledError("a task of the input's"))
            )
        await at_rest(store)


async def test_an_input_that_can_not_even_begin_raises(sandbox: Sandbox) -> None:
    class Unready:
        def __aiter__(self) -> Any:
            raise InputBrokeError("not open")

    class NoIterator:
        def __aiter__(self) -> Any:
            return 7

    async with asyncio.timeout(5), make_store(sandbox) as store:
        with pytest.raises(InputBrokeError):
            await store.attribute_values.upsert(Unready())
        with pytest.raises(TypeError):
            await store.attribute_values.upsert(NoIterator())


@pytest.mark.parametrize("items", [7, "text", b"bytes", None])
async def test_what_is_no_iterable_of_items_is_refused(store: Store, items: Any) -> None:
    with pytest.raises(InvalidInputError, match="items must be an iterable"):
        await store.attribute_values.upsert(items)


async def test_a_bad_item_in_a_list_is_found_before_anything_is_sent(
    sandbox: Sandbox, store: Store
) -> None:
    items: list[Any] = [*upserts(20), {"customer_id": 1}]
    with pytest.raises(InvalidInputError) as caught:
        await store.attribute_values.upsert(items)
    assert caught.value.place == "items[20]"
    assert len(sandbox.requests) == 0


async def test_no_items_are_no_call(sandbox: Sandbox, store: Store) -> None:
    nothing: list[AttributeValueUpsert] = []
    for items in (nothing, iter(nothing), one_by_one(nothing)):
        report = await store.attribute_values.upsert(items)
        assert report.ok
        assert report.stored == report.calls == 0
    assert len(sandbox.requests) == 0


@pytest.mark.parametrize("consumer", ["upsert", "upsert_stream"])
@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.usefixtures("quick_probes")
async def test_input_is_read_no_further_than_can_be_sent_while_the_server_hangs(
    sandbox: Sandbox, consumer: str, kind: str
) -> None:
    sandbox.faults.add("hang")
    endless = Endless()
    async with make_store(sandbox) as store:
        items: Any = endless if kind == "sync" else one_by_one(endless)
        values = store.attribute_values
        job = (
            asyncio.ensure_future(values.upsert(items))
            if consumer == "upsert"
            else asyncio.ensure_future(anext(values.upsert_stream(items)))
        )
        await until(lambda: sandbox.in_flight("upsert") == 3)
        before = -1
        while before != endless.read:
            before = endless.read
            for _ in range(1000):
                await asyncio.sleep(0)
        # Three on the wire, and the look-ahead of an async input.
        assert 30 <= endless.read <= (30 if kind == "sync" else 30 + 201)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        assert busy(store)["in flight"] == 3


async def test_batches_that_wait_for_their_next_try_leave_no_slot_idle(sandbox: Sandbox) -> None:
    sandbox.latency_ms = 5
    sandbox.faults.script(["500", "500", "500"], "upsert")
    retry = RetryPolicy(attempts=2, base_s=60.0, cap_s=60.0)
    read = 0

    def noting() -> Iterator[AttributeValueUpsert]:
        nonlocal read
        for item in upserts(1000):
            read += 1
            yield item

    async with make_store(sandbox, retry=retry) as store:
        job = asyncio.create_task(store.attribute_values.upsert(noting()))
        await until(lambda: store.statistics().retries == 3)
        await until(lambda: sandbox.in_flight("upsert") == 3)
        # Three on the wire, one behind, and three that wait: not for ever more.
        assert read <= 10 * (3 + 1 + 3) + sandbox.statuses[200] * 10
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        await at_rest(store)


async def test_no_more_batches_are_begun_when_all_wait_for_their_next_try(
    sandbox: Sandbox,
) -> None:
    sandbox.faults.add("500")
    endless = Endless()
    retry = RetryPolicy(attempts=2, base_s=600.0, cap_s=600.0)
    async with make_store(sandbox, retry=retry) as store:
        job = asyncio.create_task(store.attribute_values.upsert(one_by_one(endless)))
        await until(lambda: store.statistics().retries == 6)
        for _ in range(3000):
            await asyncio.sleep(0)
        assert store.statistics().retries == 6
        assert endless.read <= 10 * 6 + 201
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        await at_rest(store)


async def test_a_consumer_that_pauses_pauses_the_input(sandbox: Sandbox) -> None:
    endless = Endless()
    async with make_store(sandbox) as store:
        async with aclosing(store.attribute_values.upsert_stream(endless)) as outcomes:
            for taken in range(1, 200):
                await anext(outcomes)
                if taken % 20 == 0:
                    await until(lambda: not busy(store).get("in flight"))
                    assert endless.read - taken <= 50
                    assert sandbox.calls["upsert"] <= taken / 10 + 5
        await at_rest(store)


async def test_a_slow_input_is_sent_in_part_and_not_kept_waiting(sandbox: Sandbox) -> None:
    """It waits for the outcome of each item before it gives the next."""
    done: dict[int, asyncio.Event] = {number: asyncio.Event() for number in range(1, 8)}

    async def feedback() -> AsyncIterator[AttributeValueUpsert]:
        for number, event in done.items():
            yield AttributeValueUpsert(number, 1, "v")
            await event.wait()

    async with asyncio.timeout(10), make_store(sandbox) as store:
        async for outcome in store.attribute_values.upsert_stream(feedback()):
            assert outcome.ok
            done[outcome.item.customer_id].set()
        assert sandbox.calls["upsert"] == 7
        await at_rest(store)


async def test_an_input_may_use_the_store_it_feeds(sandbox: Sandbox) -> None:
    """A listing as the source of the writes: neither keeps the other from its slots."""
    await sandbox.seed((customer, 1, f"{customer}") for customer in range(1, 1001))
    async with asyncio.timeout(20), make_store(sandbox, limits=Limits(reads=1, writes=1)) as store:
        values = store.attribute_values

        async def copied() -> AsyncIterator[AttributeValueUpsert]:
            async for one in values.stream():
                yield AttributeValueUpsert(one.customer_id, 2, one.value)

        report = await values.upsert(copied())
        assert report.stored >= 1000
        await at_rest(store)


async def test_an_async_input_is_closed_when_the_job_ends(sandbox: Sandbox) -> None:
    closed = 0

    async def careful() -> AsyncIterator[AttributeValueUpsert]:
        nonlocal closed
        try:
            for item in upserts(1000):
                yield item
        finally:
            await asyncio.sleep(0)
            closed += 1

    async with make_store(sandbox) as store:
        values = store.attribute_values
        await values.upsert(careful())
        assert closed == 1
        async with aclosing(values.upsert_stream(careful())) as outcomes:
            async for _ in outcomes:
                break
        assert closed == 2
        sandbox.faults.add("403")
        with pytest.raises(PermissionDeniedError):
            await values.upsert(careful())
        assert closed == 3


async def test_an_input_that_swallows_its_cancellation_holds_nobody_up(sandbox: Sandbox) -> None:
    async def stubborn() -> AsyncIterator[AttributeValueUpsert]:
        for item in upserts(5):
            yield item
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                yield AttributeValueUpsert(99, 1, "still here")

    async with asyncio.timeout(5), make_store(sandbox) as store:
        async with aclosing(store.attribute_values.upsert_stream(stubborn())) as outcomes:
            async for _ in outcomes:
                break
        await at_rest(store)


# -- items in = outcomes out --

FATAL = ("401", "403", "suspended")
PASSING = ("500", "502", "drop_before", "drop_after", "cut_body", "html_body", "429")


@settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    keys=st.lists(st.tuples(st.integers(1, 8), st.integers(1, 5)), max_size=120),
    rejected=st.sets(st.integers(1, 8), max_size=2),
    source=st.sampled_from(["list", "generator", "async", "slow", "breaks", "breaks async"]),
    style=st.sampled_from(["indexed", "field", "empty"]),
    omit=st.booleans(),
    share=st.sampled_from([0.0, 0.2, 0.6]),
    fatal=st.none() | st.tuples(st.sampled_from(FATAL), st.integers(0, 12)),
    attempts=st.integers(1, 3),
    seed=st.integers(0, 100),
)
def test_items_in_are_outcomes_out(
    keys: list[Key],
    rejected: set[int],
    source: str,
    style: Any,
    omit: bool,
    share: float,
    fatal: tuple[str, int] | None,
    attempts: int,
    seed: int,
) -> None:
    """Whatever goes wrong, each item that was read has one outcome, and it is the truth."""
    asyncio.run(
        conserve(keys, rejected, source, style, omit, share, fatal, attempts, seed), debug=True
    )


async def conserve(
    keys: list[Key],
    rejected: set[int],
    source: str,
    style: Any,
    omit: bool,
    share: float,
    fatal: tuple[str, int] | None,
    attempts: int,
    seed: int,
) -> None:
    items = [AttributeValueUpsert(*key, f"n{number}") for number, key in enumerate(keys)]
    read: list[AttributeValueUpsert] = []

    def noting() -> Iterator[AttributeValueUpsert]:
        for item in items:
            read.append(item)
            yield item
        if source.startswith("breaks"):
            raise InputBrokeError

    async def slowly() -> AsyncIterator[AttributeValueUpsert]:
        for number, item in enumerate(noting()):
            yield item
            if source == "slow" and number % 17 == 0:
                await asyncio.sleep(0.002)

    given: Any = {
        "list": items,
        "generator": noting(),
        "breaks": noting(),
    }.get(source, slowly())
    faults = [Fault(kind, probability=share / len(PASSING)) for kind in PASSING]
    if fatal is not None:
        faults.insert(0, Fault(fatal[0], after=fatal[1]))
    outcomes: list[UpsertOutcome] = []
    error: BaseException | None = None
    quirks = Quirks(error_style=style, omit_unchanged=omit)
    async with (
        asyncio.timeout(20),
        Sandbox(quota=None, faults=faults, quirks=quirks, seed=seed) as sandbox,
        make_store(
            sandbox,
            retry=RetryPolicy(attempts=attempts, base_s=0.0005, cap_s=0.001),
            limits=Limits(batch_size=4),
        ) as store,
    ):
        sandbox.reject_customers(rejected)
        try:
            async for outcome in store.attribute_values.upsert_stream(given):
                outcomes.append(outcome)
        except (BCAttrValsError, InputBrokeError) as caught:
            error = caught
        if source == "list":
            read = items[: len(outcomes)] if error is not None else items
        counts = check_outcomes(read, outcomes)
        held = await sandbox.values()
        await at_rest(store)
        if sandbox.requests.of("upsert"):
            puts = [put for put in sandbox.requests.of("upsert") if put.status != 429]
            assert not puts or max(put.in_flight for put in puts) <= 3
    if error is None:
        assert len(read) == len(items)
        assert counts[NOT_SENT] == 0
    elif isinstance(error, InputBrokeError):
        assert source.startswith("breaks")
        assert counts[NOT_SENT] == 0
    else:
        assert fatal is not None
        assert error.report is not None
        assert error.report.stored == counts[STORED]  # type: ignore[union-attr]
        assert error.report.failed == counts[FAILED]  # type: ignore[union-attr]
    # A value that was told as stored is held, unless a later one of its key followed.
    order = {id(item): number for number, item in enumerate(items)}
    for outcome in outcomes:
        if outcome.ok:
            assert outcome.item.customer_id not in rejected
            assert int(held[outcome.item.key][1:]) >= order[id(outcome.item)]
        if outcome.status is SUPERSEDED:
            later = [one for one in outcomes if one.item.key == outcome.item.key]
            assert any(order[id(one.item)] > order[id(outcome.item)] for one in later)
