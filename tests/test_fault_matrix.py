# ruff: noqa: PT017, ASYNC240
"""Every fault against every operation: the right error, tried again or not, nothing lost.

The rows are those of `fault_table.TABLE`, the columns the operations of `OPERATIONS`. In short
(there is every row; two tries in all, so "2" is: sent again):

| fault, at every request | read | write | delete | sent | applied | job |
| --- | --- | --- | --- | --- | --- | --- |
| refused, no host | ConnectionFailed | same | same | 2 | no | goes on |
| certificate | Certificate | same | same | 1 | no | ends |
| reset, closed: in headers, in body | ConnectionLost | same | same | 2 | maybe | on |
| wrong lengths, chunks, gzip | ConnectionLost | same | same | 2 | maybe | goes on |
| no HTTP, noise, endless header | ConnectionLost | same | same | 2 | maybe | goes on |
| nothing, headers or body that stop or drip | RequestTimeout | same | same | 2 | maybe | goes on |
| body without end, gzip bomb | Decode | same | same | 2 | (2xx) | goes on |
| 200 cut, HTML, deep, wrong types; 202, 207 | Decode | same | Unconfirmed | 2 | (2xx) | goes on |
| 200 empty or `{}`, 204 | Decode | same | ok | 2 | (2xx) | goes on |
| 101, 400, 405, 414 | API | same, after smaller calls | same | 1 | no | goes on |
| 409, 423 | API | same, after smaller calls | same | 2 | no | goes on |
| 302, 307 | API | same | same | 1 | no | ends |
| 401, 403, 404, suspended store | its own | same | same | 1 | no | ends |
| 408, 500, 502, 503, 504, 520 | API or Server | same | same | 2 | maybe | goes on |
| 501, 505 | Server | same | same | 1 | no | goes on |
| 413, 422 | its own, after smaller calls | same | same | 1 | no | goes on |
| 429 bare / with headers | RateLimit | same | same | 8 / 13 | no | goes on |
| 100, 103, HTTP/1.0, chunks, odd or absurd headers | ok | ok | ok | 1 | - | - |

A write that no answer confirms is `DecodeError` for `put_batch`. Bulk writes read it back: it is
stored, or `UnconfirmedError` after two sendings.

"Maybe" is `may_have_been_applied` of a write or delete. Bulk jobs that go on report each item as
failed with that error; those that end raise it with the report; a sync goes on from its journal.
After each, the same Store has nothing left of it and works again.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import pytest

from bc_attrvals import (
    APIError,
    AttributeValueFilter,
    BCAttrValsError,
    Limits,
    PartialFailureError,
    RetryPolicy,
    Store,
    SyncReport,
    TransportError,
)
from bc_attrvals.attribute_values import AttributeValues
from tests.fault_table import HARMLESS, OK, TABLE, TRIES, Row
from tests.probes import at_rest, upserts
from tests.raw_server import (
    TOKEN,
    Connection,
    RawRequest,
    answer,
    page_body,
    row,
    rows_body,
    serving,
)
from tests.tls import serving_tls
from tests.transport.test_session import check_no_token

pytestmark = pytest.mark.usefixtures("no_task_left")

COUNT = 12
FIRST = AttributeValueFilter(attribute_id_in=[1])
RETRY = RetryPolicy(attempts=TRIES, base_s=0.001, cap_s=0.001)
LIMITS = Limits(max_response_bytes=65_536)
KIND = {"GET": "read", "PUT": "write", "DELETE": "delete"}


class Model:
    """One store of the service, as far as the operations need it; healthy."""

    def __init__(self) -> None:
        self.rows = {(customer, 1): row(customer, customer, 1, "old") for customer in (1, 2, 3)}
        self.rows[99, 1] = row(99, 99, 1, "to be pruned")

    def answer(self, request: RawRequest) -> bytes:
        if request.method == "PUT":
            stored = []
            for item in request.items:
                key = (item["customer_id"], item["attribute_id"])
                self.rows[key] = row(item["customer_id"], *key, item["value"])
                stored.append(self.rows[key])
            return answer(rows_body(stored))
        if request.method == "DELETE":
            ids = set(map(int, request.query["id:in"].split(",")))
            self.rows = {key: one for key, one in self.rows.items() if one["id"] not in ids}
            return b"HTTP/1.1 204 No Content\r\n\r\n"
        matching = [one for one in self.rows.values() if self._matches(one, request.query)]
        rows = matching if request.page == 1 else []
        total = len(matching)
        return answer(
            page_body(
                rows, total=total, per_page=250, page=request.page, total_pages=int(total > 0)
            )
        )

    @staticmethod
    def _matches(one: dict[str, Any], query: dict[str, str]) -> bool:
        return all(
            f"{field}:in" not in query or str(one[field]) in query[f"{field}:in"].split(",")
            for field in ("customer_id", "attribute_id")
        )


async def listed(items: AsyncGenerator[Any]) -> int:
    return len([item async for item in items])


async def streamed(values: AttributeValues, _: Path) -> Any:
    """Fail as `upsert` does, with what the outcomes say."""
    outcomes = []
    try:
        async for outcome in values.upsert_stream(upserts(COUNT)):
            outcomes.append(outcome)
    except BCAttrValsError as error:
        assert [one.ok for one in outcomes] == [False] * COUNT
        assert error.report.failed + error.report.not_sent == COUNT  # type: ignore[union-attr]
        raise
    assert len(outcomes) == COUNT
    return outcomes


async def synced(values: AttributeValues, folder: Path) -> SyncReport:
    journal = folder / f"{len(list(folder.iterdir()))}.db"
    return await values.sync(upserts(COUNT), scope=FIRST, prune=True, journal=journal)


@attrs.frozen
class Operation:
    """One way to use the resource, and the method of the request in it that goes wrong."""

    name: str
    at: str
    run: Callable[[AttributeValues, Path], Awaitable[Any]]
    #: What a healthy store gives, of the result.
    good: Callable[[Any], bool]
    # Requests of other methods come first.
    is_later: bool = False


def done(report: Any) -> bool:
    """Whether a sync did all there was to do."""
    return (report.created, report.updated, report.deleted) == (9, 3, 1) and report.ok


OPERATIONS = [
    Operation("get_page", "GET", lambda v, _: v.get_page(), lambda page: len(page.data) == 4),
    Operation("get", "GET", lambda v, _: v.get(1, 1), lambda one: one.value == "old"),
    Operation("count", "GET", lambda v, _: v.count(), lambda count: count == 4),
    Operation("put_batch", "PUT", lambda v, _: v.put_batch(upserts(9)), lambda r: len(r) == 9),
    Operation("delete_batch", "DELETE", lambda v, _: v.delete_batch([1, 2]), lambda r: r is None),
    Operation("pages", "GET", lambda v, _: listed(v.pages()), lambda count: count == 1),
    Operation("stream", "GET", lambda v, _: listed(v.stream()), lambda count: count == 4),
    Operation(
        "stream exactly_once",
        "GET",
        lambda v, _: listed(v.stream(exactly_once=True)),
        lambda count: count == 4,
    ),
    Operation("upsert", "PUT", lambda v, _: v.upsert(upserts(COUNT)), lambda r: r.stored == COUNT),
    Operation("upsert_stream", "PUT", streamed, lambda r: all(one.ok for one in r)),
    Operation("delete", "DELETE", lambda v, _: v.delete([1, 2, 99]), lambda r: r.deleted == 3),
    Operation("delete_where", "GET", lambda v, _: v.delete_where(FIRST), lambda r: r.deleted == 4),
    Operation(
        "delete_where: deletes",
        "DELETE",
        lambda v, _: v.delete_where(FIRST),
        lambda r: r.deleted == 4,
        is_later=True,
    ),
    Operation(
        "plan_sync",
        "GET",
        lambda v, _: v.plan_sync(upserts(COUNT), scope=FIRST, prune=True),
        lambda plan: (plan.create, plan.update, plan.delete) == (9, 3, 1),
    ),
    Operation("sync", "GET", synced, done),
    Operation("sync: writes", "PUT", synced, done, is_later=True),
    Operation("sync: deletes", "DELETE", synced, done, is_later=True),
]
ONE_OF_EACH = [
    one for one in OPERATIONS if one.name in {"get", "put_batch", "stream", "upsert", "delete"}
]
#: Readers that need parts of rows.
OF_PARTS = {"count", "delete_where", "plan_sync", "sync"}
BULK = {"upsert", "upsert_stream", "sync: writes"}
WITH_REPORT = {one.name for one in OPERATIONS if one.name.startswith(("delete_w", "sync"))}
WITH_REPORT |= {"delete"}


@attrs.frozen
class Seen:
    """What came of one operation: the one error, how often it was sent, and whether applied."""

    error: str
    attempts: int | None = None
    may_have_been_applied: bool | None = None


def expected(fault: Row, operation: Operation) -> Seen:
    """Return what the table says."""
    kind = KIND[operation.at]
    if fault.bulk is not None and operation.name in BULK:
        return Seen(fault.bulk, 0)
    error = getattr(fault, kind)
    if error == OK:
        return Seen(OK)
    on_wire = error in {"ConnectionLostError", "RequestTimeoutError"}
    is_transport = on_wire or error == "ConnectionFailedError"
    applied = (on_wire and kind != "read") if is_transport else None
    return Seen(error, fault.sent, applied)


def told(error: BCAttrValsError) -> Seen:
    applied = error.may_have_been_applied if isinstance(error, TransportError) else None
    return Seen(type(error).__name__, error.attempts, applied)


async def observe(
    operation: Operation, values: AttributeValues, folder: Path, *, ends: bool
) -> Seen:
    """Run it, and check that what went wrong is told of every item, and once."""
    try:
        result = await operation.run(values, folder)
    except PartialFailureError as error:
        assert operation.name == "upsert"
        assert not ends
        assert (error.report.failed, error.report.stored, error.report.not_sent) == (COUNT, 0, 0)
        outcomes = error.report.failures
    except BCAttrValsError as error:
        if operation.name in {"get_page", "upsert"}:
            check_no_token(error, [])
        if operation.name in WITH_REPORT | BULK:
            assert error.report is not None
        if operation.name in BULK:
            assert ends
            report: Any = error.report
            # A sync has the delete to come, too.
            rest = report.failed + report.not_sent
            assert rest == COUNT + isinstance(report, SyncReport)
        return told(error)
    else:
        if operation.good(result):
            return Seen(OK)
        assert operation.name in BULK
        assert not ends
        if isinstance(result, SyncReport):
            assert (result.failed, result.created, result.updated) == (COUNT, 0, 0)
            outcomes = result.failures
        else:
            outcomes = tuple(result)
    assert len({one.item.key for one in outcomes}) == len(outcomes) == COUNT
    (seen,) = {told(one.error) for one in outcomes if one.error is not None}
    return seen


class Matrix:
    """A server with a store for each operation, told apart by the store hash."""

    def __init__(self, fault: Row | None) -> None:
        self.fault = fault
        self.models = {self.hash_of(one): Model() for one in OPERATIONS}
        self.at = {self.hash_of(one): one.at for one in OPERATIONS}
        self.faults_left: dict[str, float] = dict.fromkeys(self.models, float("inf"))
        self.faulty = Counter[str]()

    @staticmethod
    def hash_of(operation: Operation) -> str:
        return operation.name.replace(" ", "_").replace(":", "")

    async def __call__(self, request: RawRequest, connection: Connection) -> None:
        store = request.target.split("/")[2]
        fault = self.fault
        if fault is None or request.method != self.at[store] or not self.faults_left[store]:
            await connection.say(self.models[store].answer(request))
            return
        self.faults_left[store] -= 1
        self.faulty[store] += 1
        if getattr(fault, KIND[request.method]) == OK:
            # Done, however that is said.
            self.models[store].answer(request)
        await fault.script(request, connection)


async def each(
    url: str,
    one_of: Callable[[Operation, Store], Awaitable[Any]],
    operations: list[Operation] = OPERATIONS,
    **options: Any,
) -> dict[str, Any]:
    """Run all operations at once, each on a Store of its own."""

    async def run(operation: Operation) -> Any:
        options_ = {"retry": RETRY, "limits": LIMITS, **options}
        async with Store(Matrix.hash_of(operation), TOKEN, base_url=url, **options_) as store:
            found = await one_of(operation, store)
            await at_rest(store)
            return found

    found = await asyncio.gather(*map(run, operations))
    return {one.name: seen for one, seen in zip(operations, found, strict=True)}


@pytest.mark.parametrize("fault", TABLE, ids=lambda one: one.name)
async def test_a_lasting_fault_gives_what_the_table_says_and_leaves_the_store_in_order(
    fault: Row, tmp_path: Path
) -> None:
    matrix = Matrix(fault)
    async with serving(matrix) as server:

        async def check(operation: Operation, store: Store) -> Seen:
            folder = tmp_path / matrix.hash_of(operation)
            folder.mkdir()
            values = store.attribute_values
            seen = await observe(operation, values, folder, ends=fault.ends)
            # Nothing of it stays: the same Store works when the trouble is over,
            matrix.faults_left[matrix.hash_of(operation)] = 0
            await at_rest(store)
            unfinished = list(folder.glob("0.db"))
            if unfinished and seen.error != OK and (fault.ends or operation.at != "PUT"):
                # and a sync goes on from its journal.
                result = await values.sync(
                    upserts(COUNT), scope=FIRST, prune=True, journal=unfinished[0]
                )
                assert result.resumed
                assert operation.good(result)
            else:
                assert len((await values.get_page()).data) == len(
                    matrix.models[matrix.hash_of(operation)].rows
                )
            return seen

        needing_whole_rows = [
            one for one in OPERATIONS if not (fault.is_odd_row and one.name in OF_PARTS)
        ]
        found = await each(server.url, check, needing_whole_rows, timeout=fault.timeout)
    assert found == {one.name: expected(fault, one) for one in needing_whole_rows}


@pytest.mark.parametrize("fault", [one for one in TABLE if one.sent > 1], ids=lambda one: one.name)
async def test_a_passing_fault_costs_one_more_request(fault: Row, tmp_path: Path) -> None:
    matrix = Matrix(fault)
    matrix.faults_left = dict.fromkeys(matrix.models, 1)

    async def check(operation: Operation, store: Store) -> bool:
        folder = tmp_path / matrix.hash_of(operation)
        folder.mkdir()
        result = await operation.run(store.attribute_values, folder)
        again = expected(fault, operation).error != OK
        if operation.at == "PUT" and fault.bulk is not None:
            # The answer came, and was read back. One that was never whole is a failed try.
            again = fault.delete == "DecodeError"
        assert store.statistics().retries + store.statistics().rate_limited == again
        return operation.good(result)

    async with serving(matrix) as server:
        # The good answer may take longer than it takes to see that the bad one does not come.
        timeout = max(fault.timeout, 0.5)
        found = await each(server.url, check, ONE_OF_EACH, timeout=timeout)
        assert set(matrix.faulty.values()) == {1}
    assert all(found.values())


@pytest.mark.parametrize("change", HARMLESS.values(), ids=HARMLESS)
async def test_what_is_only_put_strangely_is_taken_as_it_is_meant(
    change: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    async def script(request: RawRequest, connection: Connection) -> None:
        model = matrix.models[request.target.split("/")[2]]
        raw = change(model.answer(request))
        await connection.say(raw)
        if raw.startswith(b"HTTP/1.0") or b"Connection: close" in raw:
            connection.close()

    async def check(operation: Operation, store: Store) -> Seen:
        folder = tmp_path / matrix.hash_of(operation)
        folder.mkdir()
        seen = await observe(operation, store.attribute_values, folder, ends=False)
        assert store.statistics().retries == 0
        return seen

    matrix = Matrix(None)
    async with serving(script) as server, asyncio.timeout(20):
        found = await each(server.url, check)
    assert found == dict.fromkeys(found, Seen(OK))


class NoHost(aiohttp.abc.AbstractResolver):
    """Knows no name, and says so at once."""

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> Any:
        raise OSError(socket.EAI_NONAME, "Name or service not known")

    async def close(self) -> None:
        pass


NOT_LATER = [one for one in OPERATIONS if not one.is_later]


def never_sent(error: str, sent: int) -> dict[str, Seen]:
    return {one.name: Seen(error, sent, False) for one in NOT_LATER}


@pytest.mark.parametrize("where", ["refused", "no such host", "a bad certificate"])
async def test_where_no_connection_is_made_nothing_is_sent(where: str, tmp_path: Path) -> None:
    async def check(operation: Operation, store: Store) -> Seen:
        folder = tmp_path / Matrix.hash_of(operation)
        folder.mkdir()
        ends = where == "a bad certificate"
        return await observe(operation, store.attribute_values, folder, ends=ends)

    if where == "refused":
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            found = await each(f"http://127.0.0.1:{taken.getsockname()[1]}", check, NOT_LATER)
    elif where == "no such host":
        connector = aiohttp.TCPConnector(resolver=NoHost(), limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            found = await each("https://nobody.invalid", check, NOT_LATER, session=session)
    else:
        async with serving_tls(b"") as (port, received):
            found = await each(f"https://localhost:{port}", check, NOT_LATER)
            assert received == []
    if where == "a bad certificate":
        # A sync asks before it reads its input: no request has been made by then.
        asked = {name: 0 if name in ("sync", "plan_sync") else 1 for name in found}
        assert found == {
            name: attrs.evolve(seen, attempts=asked[name])
            for name, seen in never_sent("CertificateError", 1).items()
        }
    else:
        assert found == never_sent("ConnectionFailedError", TRIES)


async def test_an_answer_hidden_behind_another_is_nobodys(tmp_path: Path) -> None:
    """What follows an answer's length is no answer to the next request."""
    forged = answer(page_body([row(666, 666)], total=1, per_page=250, page=1, total_pages=1))

    async def script(request: RawRequest, connection: Connection) -> None:
        await connection.say(model.answer(request) + forged)

    model = Model()
    async with serving(script) as server, Store("hash", TOKEN, base_url=server.url) as store:
        for _ in range(5):
            page = await store.attribute_values.get_page()
            assert [one.id for one in page.data] == [1, 2, 3, 99]
        assert server.connections == 5


@pytest.mark.parametrize("jump_s", [3_600.0, 0.5, 86_400.0 * 365])
async def test_a_clock_that_jumps_while_a_machine_slept_loses_nothing(
    jump_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    clock, wall = loop.time, time.time
    jumped_s = 0.0
    # A wall clock may be set back, too; the loop's never is.
    monkeypatch.setattr(loop, "time", lambda: clock() + jumped_s)
    monkeypatch.setattr(time, "time", lambda: wall() - jumped_s)
    model = Model()

    async def script(request: RawRequest, connection: Connection) -> None:
        nonlocal jumped_s
        if len(server.requests) in {2, 5}:
            jumped_s += jump_s
        raw = model.answer(request)
        headers = (
            "X-Rate-Limit-Time-Window-Ms: 30000\r\nX-Rate-Limit-Requests-Quota: 9000\r\n"
            f"X-Rate-Limit-Requests-Left: {9000 - len(server.requests)}\r\n"
            f"X-Rate-Limit-Time-Reset-Ms: {30000 - 7 * len(server.requests)}\r\n\r\n"
        )
        await connection.say(raw.replace(b"\r\n\r\n", b"\r\n" + headers.encode(), 1))

    retry = RetryPolicy(base_s=0.001, cap_s=0.001)
    async with (
        asyncio.timeout(None),
        serving(script) as server,
        Store("hash", TOKEN, base_url=server.url, retry=retry) as store,
    ):
        report = await store.attribute_values.upsert(upserts(300))
        assert report.stored == 300
        assert await store.attribute_values.count() == 300
        assert len(model.rows) == 300
        await at_rest(store)


def test_the_table_has_all_there_is_and_each_once() -> None:
    names = [fault.name for fault in TABLE]
    assert len(set(names)) == len(names)
    errors = {one for fault in TABLE for one in (fault.read, fault.write, fault.delete)}
    assert errors - {OK} == {
        "APIError",
        "AuthenticationError",
        "ConnectionLostError",
        "DecodeError",
        "NotFoundError",
        "PayloadTooLargeError",
        "PermissionDeniedError",
        "RateLimitError",
        "RequestTimeoutError",
        "ServerError",
        "StoreSuspendedError",
        "UnconfirmedError",
        "UnprocessableError",
    }
    assert APIError.__name__ in errors
