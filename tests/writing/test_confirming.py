"""What no echo confirms is read back: one rule for upsert, upsert_stream and sync."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bc_attrvals import (
    AttributeValueFilter,
    AttributeValueUpsert,
    DecodeError,
    Limits,
    ListingDriftError,
    RequestTimeoutError,
    RetryPolicy,
    Store,
    UnconfirmedError,
)
from bc_attrvals.sandbox import Sandbox
from tests.conftest import make_store
from tests.probes import Key, at_rest, upserts
from tests.raw_server import Connection, RawRequest, answer, page_body, row, rows_body, store_on

pytestmark = pytest.mark.usefixtures("no_task_left")

QUICK = RetryPolicy(attempts=3, base_s=0.001, cap_s=0.001)


def changed(rows: list[dict[str, Any]], **fields: Any) -> bytes:
    """Return an answer whose rows have other fields; None takes one out."""
    for one in rows:
        for name, value in fields.items():
            one.pop(name, None)
            if value is not None:
                one[name] = value
    return answer(rows_body(rows))


#: Answers to a PUT that was applied, none of which is the usual one.
ODD: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {
    "204": lambda _: b"HTTP/1.1 204 No Content\r\n\r\n",
    "200 with nothing": lambda _: answer(b""),
    "202 with nothing": lambda _: answer(b"", 202),
    "HTML": lambda _: answer(b"<html>all is well</html>"),
    "null": lambda _: answer(b"null"),
    "an empty object": lambda _: answer(b"{}"),
    "data null": lambda _: answer(b'{"data": null, "meta": {}}'),
    "data empty": lambda _: answer(rows_body([])),
    "207 with errors": lambda _: answer(b'{"errors": [{"status": 500}]}', 207),
    "half of it": lambda rows: answer(rows_body(rows)[:-20]),
    "half of the rows": lambda rows: answer(rows_body(rows[::2])),
    "rows without ids": lambda rows: changed(rows, id=None),
    "rows with ids as strings": lambda rows: changed(rows, id="7"),
    "rows with empty dates": lambda rows: changed(rows, date_created="", date_modified=""),
    "rows without dates": lambda rows: changed(rows, date_created=None, date_modified=None),
    "rows without values": lambda rows: changed(rows, attribute_value=None),
    "values that are null": lambda rows: answer(
        rows_body([{**one, "attribute_value": None} for one in rows])
    ),
    "one row that is odd": lambda rows: answer(
        rows_body([*rows[1:], {**rows[0], "customer_id": "one"}])
    ),
    "a page of others' rows": lambda _: answer(rows_body([row(9, 999), row(8, 998)])),
}

#: Answers whose echoes prove id, key and value: nothing is read back for their sake.
PROVEN = {"rows with empty dates", "rows without dates"}


class Odd:
    """A service that applies each PUT (or every second one) and answers it oddly."""

    def __init__(self, say: Callable[[list[dict[str, Any]]], bytes], *, applied: bool) -> None:
        self.say = say
        self.applied = applied
        self.held: dict[Key, dict[str, Any]] = {}

    async def __call__(self, request: RawRequest, connection: Connection) -> None:
        if request.method == "GET":
            wanted = set(map(int, request.query.get("customer_id:in", "").split(",")))
            rows = [one for one in self.held.values() if one["customer_id"] in wanted]
            body = page_body(
                rows, total=len(rows), per_page=250, page=1, total_pages=int(bool(rows))
            )
            await connection.say(answer(body))
            return
        stored = {
            (item["customer_id"], item["attribute_id"]): row(
                item["customer_id"], item["customer_id"], item["attribute_id"], item["value"]
            )
            for item in request.items
        }
        if self.applied:
            self.held.update((key, dict(one)) for key, one in stored.items())
            await connection.say(self.say(list(stored.values())))
        else:
            await connection.say(self.say([]))


async def statuses(store: Store, how: str, count: int) -> list[str]:
    """Write so many items in one of the three ways; return what became of each."""
    values = store.attribute_values
    if how == "upsert_stream":
        outcomes = [one async for one in values.upsert_stream(upserts(count))]
        for one in outcomes:
            assert (one.stored is not None) is one.ok
            assert one.stored is None or (one.stored.value, one.stored.id > 0) == (
                one.item.value,
                True,
            )
        return [str(one.status) for one in outcomes]
    if how == "upsert":
        report = await values.upsert(upserts(count), raise_on_failure=False)
        assert {type(one.error) for one in report.failures} <= {UnconfirmedError}
        return ["stored"] * report.stored + ["failed"] * report.failed
    synced = await values.sync(upserts(count))
    assert {type(one.error) for one in synced.failures} <= {UnconfirmedError}
    done = synced.written + synced.created + synced.updated
    return ["stored"] * done + ["failed"] * synced.failed


@pytest.mark.parametrize("how", ["upsert", "upsert_stream", "sync"])
@pytest.mark.parametrize("name", ODD)
async def test_what_was_applied_is_stored_however_it_is_answered(name: str, how: str) -> None:
    async with store_on(Odd(ODD[name], applied=True), retry=QUICK) as (store, server):
        assert await statuses(store, how, 25) == ["stored"] * 25
        puts = sum(one.method == "PUT" for one in server.requests)
        # Sent once, and read back once where the echoes prove nothing: in all three ways. A sync
        # reads before, too.
        assert puts == 3
        assert len(server.requests) == (3 if name in PROVEN else 6) + (how == "sync")
        await at_rest(store)


@pytest.mark.parametrize("how", ["upsert", "upsert_stream", "sync"])
@pytest.mark.parametrize("name", [one for one in ODD if not one.startswith(("rows", "one", "val"))])
async def test_what_was_not_applied_is_sent_twice_and_then_unconfirmed(name: str, how: str) -> None:
    async with store_on(Odd(ODD[name], applied=False), retry=QUICK) as (store, server):
        assert await statuses(store, how, 10) == ["failed"] * 10
        assert sum(one.method == "PUT" for one in server.requests) == 2


@pytest.mark.parametrize("name", ODD)
async def test_a_single_batch_is_read_back_where_its_answer_can_not_be_read(name: str) -> None:
    async with store_on(Odd(ODD[name], applied=True), retry=QUICK) as (store, server):
        rows = await store.attribute_values.put_batch(upserts(10))
        readable = name in {"data empty", "half of the rows", "a page of others' rows"}
        readable = readable or name == "rows without dates"
        assert [one.method for one in server.requests] == (["PUT"] if readable else ["PUT", "GET"])
        if not readable:
            assert [one.customer_id for one in rows] == list(range(1, 11))
        await at_rest(store)


async def test_a_single_batch_that_nothing_confirms_is_sent_twice() -> None:
    async with store_on(Odd(ODD["HTML"], applied=False), retry=QUICK) as (store, server):
        with pytest.raises(DecodeError) as caught:
            await store.attribute_values.put_batch(upserts(10))
        assert [one.method for one in server.requests] == ["PUT", "GET"] * 2
        assert (caught.value.attempts, caught.value.place) == (2, "$")


#: What else of a row that is read back may be odd: only key and value are needed.
ODD_FIELDS: dict[str, dict[str, Any]] = {
    "a date that is none": {"date_created": "never", "date_modified": "never"},
    "no dates": {"date_created": None, "date_modified": None},
    "no id": {"id": None},
    "an id as a string": {"id": "seven"},
    "an id of 70 bits": {"id": 2**69},
}


@pytest.mark.parametrize("how", ["upsert", "upsert_stream", "put_batch"])
@pytest.mark.parametrize("fields", ODD_FIELDS.values(), ids=ODD_FIELDS)
async def test_odd_rows_are_read_back_by_what_can_be_read_of_them(
    fields: dict[str, Any], how: str
) -> None:
    service = Odd(ODD["HTML"], applied=True)

    async def script(request: RawRequest, connection: Connection) -> None:
        for one in service.held.values():
            one.update(fields)
        # Another value of one of the customers, of which nothing can be read but whose it is.
        service.held[(1, 2)] = {"customer_id": 1, "attribute_id": 1, "attribute_value": None}
        await service(request, connection)

    async with store_on(script, retry=QUICK) as (store, server):
        values = store.attribute_values
        if how == "upsert":
            assert (await values.upsert(upserts(2))).stored == 2
        elif how == "put_batch":
            assert len(await values.put_batch(upserts(2))) == 2
        else:
            outcomes = [one async for one in values.upsert_stream(upserts(2))]
            assert [one.stored and one.stored.value for one in outcomes] == ["v1", "v2"]
        assert [one.method for one in server.requests] == ["PUT", "GET"]


#: What a row that proves nothing differs in from the item that was sent.
OTHERS: dict[str, dict[str, Any]] = {
    "another customer": {"customer_id": 77},
    "another attribute": {"attribute_id": 77},
    "another value": {"attribute_value": "other"},
}


@pytest.mark.parametrize("how", ["upsert", "upsert_stream", "sync"])
@pytest.mark.parametrize("fields", OTHERS.values(), ids=OTHERS)
async def test_echoes_of_something_else_prove_nothing(fields: dict[str, Any], how: str) -> None:
    """As many rows as items, all alike but for one field; nothing was applied."""

    async def script(request: RawRequest, connection: Connection) -> None:
        if request.method == "PUT":
            rows = [
                {**row(5, item["customer_id"], 1, item["value"]), **fields}
                for item in request.items
            ]
            await connection.say(answer(rows_body(rows)))
        else:
            await connection.say(
                answer(page_body([], total=0, per_page=250, page=1, total_pages=0))
            )

    items = [AttributeValueUpsert(customer, 1, "same") for customer in (1, 2, 3)]
    async with store_on(script, retry=QUICK) as (store, _):
        values = store.attribute_values
        if how == "upsert":
            report = await values.upsert(items, raise_on_failure=False)
            assert (report.stored, report.failed) == (0, 3)
        elif how == "sync":
            synced = await values.sync(items)
            assert (synced.written + synced.created, synced.failed) == (0, 3)
        else:
            outcomes = [one async for one in values.upsert_stream(items)]
            assert [str(one.status) for one in outcomes] == ["failed"] * 3


@pytest.mark.parametrize("fields", OTHERS.values(), ids=OTHERS)
async def test_rows_of_something_else_that_are_read_back_prove_nothing(
    fields: dict[str, Any],
) -> None:
    service = Odd(ODD["204"], applied=True)

    async def script(request: RawRequest, connection: Connection) -> None:
        for one in service.held.values():
            one.update(fields)
        await service(request, connection)

    async with store_on(script, retry=QUICK) as (store, server):
        report = await store.attribute_values.upsert(upserts(1), raise_on_failure=False)
        assert (report.stored, report.failed) == (0, 1)
        assert len(server.requests) <= 4


async def test_rows_of_a_listing_that_is_not_complete_prove_their_values_all_the_same() -> None:
    service = Odd(ODD["204"], applied=True)

    async def script(request: RawRequest, connection: Connection) -> None:
        if request.method == "PUT":
            await service(request, connection)
            return
        rows = list(service.held.values())[:2]
        await connection.say(answer(page_body(rows, total=3, per_page=250, page=1, total_pages=1)))

    async with store_on(script, retry=QUICK) as (store, _):
        report = await store.attribute_values.upsert(upserts(3), raise_on_failure=False)
    assert (report.stored, report.failed) == (2, 1)
    assert type(report.failures[0].error) is ListingDriftError


async def test_an_answer_too_large_to_be_read_is_read_back() -> None:
    service = Odd(lambda rows: answer(rows_body(rows) + b" " * 70_000), applied=True)
    limits = Limits(max_response_bytes=65_536)
    async with store_on(service, retry=QUICK, limits=limits) as (store, _):
        assert await statuses(store, "upsert", 10) == ["stored"] * 10


async def test_a_write_applied_after_a_newer_one_is_found_by_a_later_sync(
    sandbox: Sandbox,
) -> None:
    """Given up by its timeout, it is still on its way: no answer ever shows it."""
    sandbox.faults.script(["hang"], "upsert")
    once = RetryPolicy(attempts=1)
    async with make_store(sandbox, retry=once, timeout=0.1) as store:
        values = store.attribute_values
        report = await values.upsert([AttributeValueUpsert(1, 1, "older")], raise_on_failure=False)
        (failed,) = report.failures
        assert isinstance(failed.error, RequestTimeoutError)
        assert failed.error.may_have_been_applied
    newer = [AttributeValueUpsert(1, 1, "newer")]
    async with make_store(sandbox) as store:
        values = store.attribute_values
        assert (await values.upsert(newer)).stored == 1
        # The service applies it now.
        await sandbox.seed([(1, 1, "older")])
        scope = AttributeValueFilter(attribute_id_in=[1])
        synced = await values.sync(newer, scope=scope, prune=True)
        assert (synced.updated, synced.ok) == (1, True)
        assert await sandbox.values() == {(1, 1): "newer"}
