"""Bulk deletes, by ids and by filter: what was confirmed, what ends them, what they read."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import pytest

from bc_attrvals import (
    APIError,
    AttributeValueFilter,
    AuthenticationError,
    DeleteReport,
    FilterIgnoredError,
    InvalidInputError,
    Limits,
    ListingDriftError,
    PayloadTooLargeError,
    PermissionDeniedError,
    RetryPolicy,
    ServerError,
    Store,
    UnconfirmedError,
)
from bc_attrvals.sandbox import Fault, Quirks, RecordedRequest, Sandbox
from bc_attrvals.writing.delete_job import DeleteJob
from tests.conftest import make_store
from tests.probes import at_rest, most_at_once, until
from tests.raw_server import Connection, RawRequest, answer, page_body, row, store_on

pytestmark = pytest.mark.usefixtures("no_task_left")


async def seeded(sandbox: Sandbox, count: int) -> list[int]:
    """Put in so many rows; return their ids."""
    await sandbox.seed((customer, 1, "v") for customer in range(1, count + 1))
    return [one.id for one in await sandbox.rows()]


def ids_of(request: RecordedRequest) -> list[int]:
    return [int(text) for text in request.query_string.removeprefix("id:in=").split(",")]


async def one_by_one(ids: Iterable[int]) -> AsyncIterator[int]:
    for number in ids:
        yield number
        await asyncio.sleep(0)


@pytest.mark.parametrize("source", ["list", "set", "generator", "async generator"])
async def test_all_ids_are_deleted_fifty_a_call_and_three_calls_at_once(
    sandbox: Sandbox, store: Store, source: str
) -> None:
    sandbox.latency_ms = 25
    ids = await seeded(sandbox, 1230)
    given: Any = {
        "list": ids,
        "set": set(ids),
        "generator": iter(ids),
        "async generator": one_by_one(ids),
    }[source]
    report = await store.attribute_values.delete(given)
    assert (report.deleted, report.calls, report.retries) == (1230, 25, 0)
    assert await sandbox.count() == 0
    requests = sandbox.requests.of("delete")
    assert sorted(number for one in requests for number in ids_of(one)) == ids
    assert most_at_once(requests) == 3
    assert sandbox.count_429 == 0
    await at_rest(store)


async def test_ids_that_do_not_exist_are_confirmed_too(sandbox: Sandbox, store: Store) -> None:
    ids = await seeded(sandbox, 3)
    report = await store.attribute_values.delete([*ids, 777, 888])
    assert report.deleted == 5
    assert await sandbox.count() == 0


async def test_no_ids_are_refused_without_a_call(sandbox: Sandbox, store: Store) -> None:
    for nothing in ([], iter(()), one_by_one(())):
        with pytest.raises(InvalidInputError) as caught:
            await store.attribute_values.delete(nothing)
        assert caught.value.field == "ids"
    assert len(sandbox.requests) == 0


async def test_urls_of_many_long_ids_stay_below_2000_bytes(sandbox: Sandbox) -> None:
    async with make_store(sandbox, limits=Limits(delete_size=1000)) as store:
        ids = range(2_000_000_000, 2_000_001_000)
        report = await store.attribute_values.delete(ids)
        assert report.deleted == 1000
        requests = sandbox.requests.of("delete")
        assert sorted(number for one in requests for number in ids_of(one)) == list(ids)
        sizes = [len(f"{sandbox.url}{one.path}?{one.query_string}") for one in requests]
        assert max(sizes) < 2000
        assert len(requests) == 6


async def test_a_store_that_takes_fewer_ids_a_call_gets_fewer(sandbox: Sandbox) -> None:
    async with (
        Sandbox(quota=None, quirks=Quirks(max_delete_ids=10)) as sandbox,
        make_store(sandbox) as store,
    ):
        ids = await seeded(sandbox, 500)
        report = await store.attribute_values.delete(ids)
        assert (report.deleted, await sandbox.count()) == (500, 0)
        assert report.calls == sandbox.calls["delete"]
        # It is learned, and not found out again for each call.
        assert sandbox.statuses[413] <= 4 * 3
        await at_rest(store)


async def test_a_store_that_takes_not_even_one_id_ends_the_job(sandbox: Sandbox) -> None:
    async def script(_: RawRequest, connection: Connection) -> None:
        await connection.say(answer(b"", 413))

    async with store_on(script) as (store, _):
        with pytest.raises(PayloadTooLargeError) as caught:
            await store.attribute_values.delete(range(1, 200))
        assert caught.value.report is not None
        await at_rest(store)


@pytest.mark.parametrize("bad", [0, -1, True, 2**63, "7", None, 1.0])
async def test_a_bad_id_is_named_and_in_a_list_found_before_anything_is_sent(
    sandbox: Sandbox, store: Store, bad: Any
) -> None:
    ids = [*range(1, 201), bad]
    with pytest.raises(InvalidInputError) as caught:
        await store.attribute_values.delete(ids)
    assert (caught.value.field, caught.value.place) == ("ids", "ids[200]")
    assert len(sandbox.requests) == 0
    with pytest.raises(InvalidInputError) as late:
        await store.attribute_values.delete(one_by_one(ids))
    assert late.value.place == "ids[200]"
    assert late.value.report is not None
    assert late.value.report.calls == len(sandbox.requests) > 0
    with pytest.raises(InvalidInputError):
        await store.attribute_values.delete_batch([bad])


@pytest.mark.parametrize("ids", ["12", b"12", 7, None])
async def test_what_is_no_iterable_of_ids_is_refused(store: Store, ids: Any) -> None:
    with pytest.raises(InvalidInputError, match="ids must be an iterable, sync or async"):
        await store.attribute_values.delete(ids)


@pytest.mark.parametrize("source", ["generator", "async generator", "pausing"])
@pytest.mark.parametrize(("kind", "error"), [("401", AuthenticationError), ("500", ServerError)])
async def test_the_first_error_ends_the_job_with_a_report_and_reads_no_further(
    sandbox: Sandbox, source: str, kind: str, error: type[Exception]
) -> None:
    ids = await seeded(sandbox, 3000)
    sandbox.faults.add(Fault(kind, after=5))
    sandbox.latency_ms = 1
    read = 0

    def noting() -> Iterator[int]:
        nonlocal read
        for number in ids:
            read += 1
            yield number

    async def pausing() -> AsyncIterator[int]:
        for number in noting():
            yield number
            if read == 300:
                # Nothing more comes, and nothing says that nothing will.
                await asyncio.Event().wait()

    given: Any = {"generator": noting(), "async generator": one_by_one(noting())}.get(
        source, pausing()
    )
    retry = RetryPolicy(attempts=2, base_s=0.001, cap_s=0.002)
    async with asyncio.timeout(10), make_store(sandbox, retry=retry) as store:
        with pytest.raises(error) as caught:
            await store.attribute_values.delete(given)
        report = caught.value.report  # type: ignore[attr-defined]
        assert isinstance(report, DeleteReport)
        assert report.deleted == 250 == 3000 - await sandbox.count()
        assert report.calls == sandbox.calls["delete"]
        assert read <= 600
        await at_rest(store)


async def test_an_input_that_raises_midway_loses_nothing_read_before(
    sandbox: Sandbox, store: Store
) -> None:
    ids = await seeded(sandbox, 120)

    async def breaks() -> AsyncIterator[int]:
        for number in ids[:100]:
            yield number
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone") as caught:
        await store.attribute_values.delete(breaks())
    assert caught.value.__notes__ == ["bc_attrvals: before this, 100 ids deleted"]
    assert await sandbox.count() == 20
    await at_rest(store)


async def test_an_input_cancelled_from_inside_is_no_end_of_the_input(store: Store) -> None:
    async def cancelled() -> AsyncIterator[int]:
        yield 1
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await store.attribute_values.delete(cancelled())
    await at_rest(store)


@pytest.mark.usefixtures("quick_probes")
async def test_a_cancelled_delete_returns_at_once_and_closes_its_input(sandbox: Sandbox) -> None:
    sandbox.faults.add("hang")
    closed = asyncio.Event()
    read = 0

    async def endless() -> AsyncIterator[int]:
        nonlocal read
        try:
            while True:
                read += 1
                yield read
        finally:
            closed.set()

    async with make_store(sandbox) as store:
        job = asyncio.create_task(store.attribute_values.delete(endless()))
        await until(lambda: sandbox.in_flight("delete") == 3)
        for _ in range(100):
            await asyncio.sleep(0)
        assert read == 250
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        assert closed.is_set()
        # On the wire they can't be called back; each keeps its slot.
        assert store.statistics().in_flight["delete"] == 3  # type: ignore[index]
        assert sandbox.calls["delete"] == 3
    await until(lambda: not sandbox.in_flight())


# -- by filter --


async def test_delete_where_deletes_what_matches_and_nothing_else(
    sandbox: Sandbox, store: Store
) -> None:
    await sandbox.seed(
        (customer, attribute, "v") for customer in range(1, 301) for attribute in (1, 2, 3)
    )
    report = await store.attribute_values.delete_where(AttributeValueFilter(attribute_id_in=[2]))
    assert report.deleted == 300
    assert Counter(attribute for _, attribute in await sandbox.values()) == {1: 300, 3: 300}
    report = await store.attribute_values.delete_where(
        AttributeValueFilter(customer_id_in=range(1, 101))
    )
    assert report.deleted == 200
    assert await sandbox.count() == 400
    await at_rest(store)


@pytest.mark.parametrize("nothing", [None, AttributeValueFilter()])
async def test_an_empty_filter_deletes_nothing_unless_everything_is_meant(
    sandbox: Sandbox, store: Store, nothing: AttributeValueFilter | None
) -> None:
    await seeded(sandbox, 20)
    with pytest.raises(InvalidInputError, match="everything=True"):
        await store.attribute_values.delete_where(nothing)
    assert len(sandbox.requests) == 0
    report = await store.attribute_values.delete_where(nothing, everything=True)
    assert (report.deleted, await sandbox.count()) == (20, 0)


async def test_a_filter_that_matches_nothing_is_no_empty_filter(
    sandbox: Sandbox, store: Store
) -> None:
    await seeded(sandbox, 5)
    for everything in (False, True):
        report = await store.attribute_values.delete_where(
            AttributeValueFilter(customer_id_in=[]), everything=everything
        )
        assert report.deleted == 0
    assert await sandbox.count() == 5
    assert len(sandbox.requests) == 0


async def test_a_name_is_checked_by_the_id_of_its_attribute(sandbox: Sandbox, store: Store) -> None:
    made = await store.attributes.ensure({"tier": "string", "size": "string"})
    await sandbox.seed(
        (customer, made[name].id, "v") for customer in range(1, 31) for name in ("tier", "size")
    )
    before = await sandbox.count()
    for name, deleted in (("Tier", 0), ("tier", 30)):
        report = await store.attribute_values.delete_where(AttributeValueFilter(name=name))
        assert report.deleted == deleted
    assert await sandbox.count() == before - 30


@pytest.mark.parametrize("definitions", [[], ["tier"]])
async def test_a_service_that_ignores_names_has_nothing_deleted(definitions: list[str]) -> None:
    """A proxy that drops the query, say: all rows come, whatever was asked for."""

    async def script(request: RawRequest, connection: Connection) -> None:
        if "/customers/attributes" in request.target:
            rows = [
                {"id": 7 + index, "name": name, "type": "string"}
                for index, name in enumerate(definitions)
            ]
            await connection.say(answer(json.dumps({"data": rows, "meta": {}}).encode()))
            return
        rows = [row(number, number, 6 + number % 3) for number in range(1, 31)]
        await connection.say(answer(page_body(rows, total=30, per_page=250, page=1, total_pages=1)))

    async with store_on(script) as (store, server):
        wanted = AttributeValueFilter(name="tier")
        if definitions:
            with pytest.raises(FilterIgnoredError) as caught:
                await store.attribute_values.delete_where(wanted)
            assert isinstance(caught.value.report, DeleteReport)
        else:
            # No attribute has this name, so no row can.
            assert (await store.attribute_values.delete_where(wanted)).deleted == 0
        assert {one.method for one in server.requests} == {"GET"}


async def test_a_row_that_is_listed_after_its_deletion_was_confirmed_counts_once() -> None:
    async def script(request: RawRequest, connection: Connection) -> None:
        if request.method == "DELETE":
            await connection.say(answer(b"", 204))
            return
        rows = [row(number, number) for number in range(1, 8)]
        shown = rows[: int(request.query["limit"])]
        await connection.say(answer(page_body(shown, total=7, per_page=250, page=1, total_pages=1)))

    async with store_on(script) as (store, _):
        with pytest.raises(ListingDriftError) as caught:
            await store.attribute_values.delete_where(AttributeValueFilter(attribute_id_in=[1]))
    assert isinstance(caught.value.report, DeleteReport)
    assert caught.value.report.deleted == 7


@pytest.mark.parametrize("same_key", [True, False])
async def test_both_rows_of_one_customer_and_attribute_are_deleted(same_key: bool) -> None:
    """A look-up shows that both are there."""
    rows = {number: row(number, 5 if same_key else number) for number in (1, 2)}

    async def script(request: RawRequest, connection: Connection) -> None:
        if request.method == "DELETE":
            rows.clear()
            await connection.say(answer(b"", 204))
            return
        shown = list(rows.values())
        await connection.say(
            answer(page_body(shown, total=len(rows), per_page=250, page=1, total_pages=1))
        )

    async with store_on(script) as (store, server):
        report = await store.attribute_values.delete_where(None, everything=True)
        assert report.deleted == 2
        assert len(server.requests) == 3 + same_key


@pytest.mark.parametrize("order", ["id", "id_desc", "shuffled"])
async def test_rows_that_come_meanwhile_are_deleted_too(order: Any) -> None:
    async with Sandbox(quota=None, quirks=Quirks(order=order)) as sandbox:
        async with make_store(sandbox) as store:
            await seeded(sandbox, 700)
            sandbox.latency_ms = 5
            added = 0

            async def add() -> None:
                nonlocal added
                while added < 3:
                    calls = sandbox.calls["delete"]
                    await until(lambda: sandbox.calls["delete"] > calls)  # noqa: B023
                    await sandbox.seed((5000 + 10 * added + one, 1, "v") for one in range(10))
                    added += 1

            adding = asyncio.create_task(add())
            await store.attribute_values.delete_where(None, everything=True)
            await adding
            await at_rest(store)
        assert await sandbox.count() == 0


async def test_rows_that_never_stop_coming_are_given_up_with_a_report() -> None:
    number = 0

    async def script(request: RawRequest, connection: Connection) -> None:
        nonlocal number
        if request.method == "DELETE":
            await connection.say(b"HTTP/1.1 204 No Content\r\n\r\n")
            return
        number += 1
        body = page_body([row(number, number)], total=1, per_page=250, page=1, total_pages=1)
        await connection.say(answer(body))

    async with store_on(script) as (store, _):
        with pytest.raises(ListingDriftError) as caught:
            await store.attribute_values.delete_where(None, everything=True)
    assert caught.value.passes == 5
    assert caught.value.report is not None
    assert caught.value.report.deleted == 5  # type: ignore[union-attr]


@pytest.mark.parametrize("broken", ["list", "delete"])
async def test_an_error_of_a_later_pass_tells_what_was_deleted(
    sandbox: Sandbox, broken: str
) -> None:
    ids = await seeded(sandbox, 100)

    async def more(request_count: int) -> None:
        await until(lambda: sandbox.calls["delete"] >= request_count)
        await sandbox.seed([(9999, 1, "v")])

    sandbox.faults.add(Fault("403", operation=broken, after=1 if broken == "list" else 2))  # type: ignore[arg-type]
    # The row must be there before the second pass.
    sandbox.latency_ms = 20
    async with make_store(sandbox) as store:
        adding = asyncio.create_task(more(1))
        with pytest.raises(PermissionDeniedError) as caught:
            await store.attribute_values.delete_where(None, everything=True)
        await adding
        assert isinstance(caught.value.report, DeleteReport)
        assert caught.value.report.deleted == len(ids)
        await at_rest(store)


# -- one call --


async def test_delete_batch_is_one_call(sandbox: Sandbox, store: Store) -> None:
    ids = await seeded(sandbox, 60)
    await store.attribute_values.delete_batch(ids[:50])
    assert await sandbox.count() == 10
    assert sandbox.calls["delete"] == 1
    for bad in ([], ids):
        with pytest.raises(InvalidInputError, match="a call takes 1 to 50 ids"):
            await store.attribute_values.delete_batch(bad)
    async with make_store(sandbox, limits=Limits(delete_size=1000)) as large:
        with pytest.raises(InvalidInputError, match="fit into a URL"):
            await large.attribute_values.delete_batch(range(2_000_000_000, 2_000_000_500))
    assert sandbox.calls["delete"] == 1


async def test_reports_and_logs_hold_no_values(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "bc_attrvals")
    await sandbox.seed([(1, 1, "a secret of the customer's")])
    async with make_store(sandbox) as store:
        await store.attribute_values.delete_where(None, everything=True)
    assert caplog.records
    assert "secret" not in caplog.text
    assert sandbox.access_token not in caplog.text


# -- what counts, and what is refused --

PROOFS = [(204, b""), (200, b""), (200, b" \n"), (200, b"{}"), (200, b'{"data": [], "meta": {}}')]
NO_PROOFS = [
    (200, b"<html>all is well</html>"),
    (200, b'{"errors": [{"status": 500}]}'),
    (200, b'{"title": "An error occurred", "status": 500}'),
    (200, b"[]"),
    (200, b"null"),
    (200, b"{"),
    (200, b'{"data": [{"id": 1}]}'),
    (201, b""),
    (202, b""),
    (202, b"{}"),
    (207, b"{}"),
    (299, b""),
]


def saying(status: int, body: bytes) -> bytes:
    return answer(body, status) if status != 204 else b"HTTP/1.1 204 No Content\r\n\r\n"


@pytest.mark.parametrize(("status", "body"), PROOFS)
async def test_a_delete_counts_by_its_own_empty_answers(status: int, body: bytes) -> None:
    async def script(request: RawRequest, connection: Connection) -> None:
        await connection.say(saying(status, body))

    async with store_on(script) as (store, server):
        report = await store.attribute_values.delete(range(1, 121))
        await store.attribute_values.delete_batch([1])
        assert (report.deleted, report.retries, len(server.requests)) == (120, 0, 4)


@pytest.mark.parametrize(("status", "body"), NO_PROOFS)
async def test_any_other_success_deletes_nothing_that_is_counted(status: int, body: bytes) -> None:
    async def script(request: RawRequest, connection: Connection) -> None:
        await connection.say(saying(status, body))

    retry = RetryPolicy(attempts=2, base_s=0.001)
    async with store_on(script, retry=retry) as (store, _):
        with pytest.raises(UnconfirmedError, match="confirm the deletion") as caught:
            await store.attribute_values.delete(range(1, 121))
        assert isinstance(caught.value.report, DeleteReport)
        assert caught.value.report.deleted == 0
        with pytest.raises(UnconfirmedError):
            await store.attribute_values.delete_batch([1])
        assert caught.value.attempts == 2
        await at_rest(store)


async def test_an_unconfirmed_delete_is_sent_again_and_counts_when_it_is_confirmed() -> None:
    async def script(request: RawRequest, connection: Connection) -> None:
        first = len(server.requests) == 1
        await connection.say(answer(b"<html>", 200) if first else saying(204, b""))

    async with store_on(script) as (store, server):
        report = await store.attribute_values.delete([1, 2, 3])
    assert (report.deleted, report.calls, report.retries) == (3, 2, 1)


class FewIds:
    """A service that takes so many ids a call, and refuses more in its own way."""

    def __init__(self, most: int, status: int, title: str = "no") -> None:
        self.most = most
        self.refusal = answer(f'{{"title": "{title}", "errors": {{}}}}'.encode(), status)
        self.refused = 0
        self.deleted: list[int] = []

    async def __call__(self, request: RawRequest, connection: Connection) -> None:
        ids = [int(text) for text in request.query["id:in"].split(",")]
        if len(ids) > self.most:
            self.refused += 1
            await connection.say(self.refusal)
        else:
            self.deleted += ids
            await connection.say(saying(204, b""))


@pytest.mark.parametrize("status", [400, 413, 414, 422])
@pytest.mark.parametrize("most", [1, 7, 10, 49])
async def test_a_refusal_of_the_number_of_ids_is_halved_and_learnt_for_the_store(
    status: int, most: int
) -> None:
    service = FewIds(most, status)
    async with store_on(service) as (store, server):
        report = await store.attribute_values.delete(range(1, 501))
        assert (report.deleted, sorted(service.deleted)) == (500, list(range(1, 501)))
        # Halved down to it by the calls under way, no more.
        assert 0 < service.refused <= 4 * 6
        before = len(server.requests)
        service.refused = 0
        await store.attribute_values.delete(range(1, 101))
        assert service.refused == 0
        assert len(server.requests) - before <= 100 / ((most + 1) // 2) + 1


async def test_a_refusal_of_the_number_of_ids_is_learnt_once_by_jobs_that_begin_at_once() -> None:
    service = FewIds(25, 413)
    async with store_on(service) as (store, _):
        jobs = [range(1 + 200 * index, 201 + 200 * index) for index in range(4)]
        await asyncio.gather(*map(store.attribute_values.delete, jobs))
        assert sorted(service.deleted) == list(range(1, 801))
        assert service.refused <= 3


async def test_ids_that_were_sent_before_their_call_was_cut_count_as_unconfirmed() -> None:
    statuses = [500, 413, 204, 401]

    async def script(request: RawRequest, connection: Connection) -> None:
        status = statuses.pop(0)
        if status == 413:
            # The first call waits for its slot meanwhile.
            await asyncio.sleep(0.05)
        await connection.say(saying(status, b""))

    async with store_on(script, limits=Limits(deletes=1)) as (store, server):
        job = DeleteJob(store.attribute_values._calls.for_job())
        with pytest.raises(AuthenticationError):
            await job.run(range(1, 101))
        first, _, deleted, _ = (ids.query["id:in"].split(",") for ids in server.requests)
        assert (len(deleted), job.report().deleted) == (25, 25)
        assert job.unconfirmed == len({*first} - {*deleted}) == 50


async def test_a_refusal_that_names_the_number_is_learnt_at_once() -> None:
    service = FewIds(20, 422, "At most 20 items per request")
    async with store_on(service) as (store, server):
        assert (await store.attribute_values.delete(range(1, 501))).deleted == 500
        assert service.refused <= 4
        assert len(server.requests) <= 25 + 4 + 4


@pytest.mark.parametrize("status", [400, 422])
async def test_one_id_that_is_refused_ends_the_job_and_teaches_no_size(status: int) -> None:
    async def script(request: RawRequest, connection: Connection) -> None:
        ids = request.query["id:in"].split(",")
        await connection.say(answer(b"", status) if "37" in ids else saying(204, b""))

    async with store_on(script) as (store, server):
        with pytest.raises(APIError) as caught:
            await store.attribute_values.delete(range(1, 51))
        assert caught.value.status == status
        assert caught.value.report is not None
        assert caught.value.report.deleted < 50  # type: ignore[union-attr]
        before = len(server.requests)
        await store.attribute_values.delete(range(101, 151))
        assert len(server.requests) - before == 1


async def test_ids_of_rows_are_any_that_the_service_gives() -> None:
    service = FewIds(1_000, 413)
    ids = [1, 2**31, 2**53 + 1, 2**63 - 1]
    async with store_on(service) as (store, _):
        assert (await store.attribute_values.delete(ids)).deleted == 4
    assert service.deleted == ids


async def test_reports_are_plain_json() -> None:
    assert DeleteReport(4, 2, 1, 0.5).to_dict() == {
        "deleted": 4,
        "calls": 2,
        "retries": 1,
        "seconds": 0.5,
    }
