"""The log of an upsert job: batches are noted before they are sent, and before the next begins."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from bc_attrvals import AttributeValueUpsert, AuthenticationError, Limits, RetryPolicy, Store
from bc_attrvals.core.outcomes import UpsertOutcome
from bc_attrvals.writing.outcomes import Outcomes
from bc_attrvals.writing.sources import source_of_lists
from bc_attrvals.writing.upsert_job import UpsertJob
from tests.probes import at_rest, until, upserts
from tests.raw_server import Connection, RawRequest, answer, row, rows_body, store_on

pytestmark = pytest.mark.usefixtures("no_task_left")


class Log:
    """Notes as a slow disk does."""

    def __init__(self, ready: deque[UpsertOutcome]) -> None:
        self.ready = ready
        self.begun: set[tuple[int, int]] = set()
        self.most_open = 0
        self.noted: list[UpsertOutcome] = []
        self.cut_off = 0
        self.is_stuck = False
        self.go = asyncio.Event()
        self.error: Exception | None = None

    @property
    def open(self) -> int:
        """How many items are begun, and their outcomes not noted."""
        return len(self.begun) - len(self.noted)

    async def begin(self, items: Sequence[AttributeValueUpsert]) -> None:
        await self.end()
        self.begun |= {item.key for item in items}
        self.most_open = max(self.most_open, self.open)

    async def end(self) -> None:
        outcomes = list(self.ready)
        self.ready.clear()
        try:
            await asyncio.sleep(0.001)
            if self.is_stuck and outcomes:
                await self.go.wait()
        except asyncio.CancelledError:
            self.cut_off += 1
            raise
        if self.error is not None and outcomes:
            raise self.error
        self.noted += outcomes


async def in_lists(items: list[AttributeValueUpsert], size: int) -> AsyncIterator[Any]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def job_on(store: Store, lists: AsyncIterator[Any]) -> tuple[UpsertJob, Log]:
    values = store.attribute_values
    ready: deque[UpsertOutcome] = deque()
    log = Log(ready)
    outcomes = Outcomes(0, ready)
    job = UpsertJob(
        source_of_lists(lists),
        values._calls.for_job(),
        registry=values._shared.registry,
        outcomes=outcomes,
        log=log,
    )
    return job, log


def echo(request: RawRequest) -> bytes:
    rows = [
        row(item["customer_id"], item["customer_id"], 1, item["value"]) for item in request.items
    ]
    return answer(rows_body(rows))


@pytest.mark.parametrize("writes", [1, 3])
@pytest.mark.parametrize("share", [0, 3])
async def test_no_more_batches_are_begun_and_not_noted_than_there_are_writes(
    writes: int, share: int
) -> None:
    async def script(request: RawRequest, connection: Connection) -> None:
        assert {(item["customer_id"], 1) for item in request.items} <= log.begun
        if share and len(server.requests) % share == 0:
            await connection.say(answer(b"", 503))
        else:
            await connection.say(echo(request))

    retry = RetryPolicy(base_s=0.005, cap_s=0.01)
    async with store_on(script, retry=retry, limits=Limits(writes=writes)) as (store, server):
        job, log = job_on(store, in_lists(upserts(200), 200))
        await job.run()
        assert job.error is None
        assert log.most_open == 10 * writes
        assert log.open == 0
        assert len(log.noted) == 200
        await at_rest(store)


async def test_a_batch_that_is_being_noted_is_not_cut_off_by_the_end_of_the_job() -> None:
    refuse = asyncio.Event()

    async def script(request: RawRequest, connection: Connection) -> None:
        if request.items[0]["customer_id"] == 1:
            await connection.say(echo(request))
        else:
            await refuse.wait()
            await connection.say(answer(b"", 401))

    async with store_on(script) as (store, server):
        job, log = job_on(store, in_lists(upserts(30), 7))
        log.is_stuck = True
        running = asyncio.create_task(job.run())
        await until(lambda: len(server.requests) == 3 and log.open == 30)
        await until(lambda: not log.ready and log.begun and store.statistics().requests == 3)
        refuse.set()
        await until(lambda: job.error is not None)
        log.is_stuck = False
        log.go.set()
        await running
        assert isinstance(job.error, AuthenticationError)
        assert log.cut_off == 0
        assert [one.item.customer_id for one in log.noted if one.ok] == list(range(1, 11))
        await at_rest(store)


async def test_an_error_of_the_log_ends_the_job() -> None:
    async def script(request: RawRequest, connection: Connection) -> None:
        await connection.say(echo(request))

    async with store_on(script) as (store, server):
        job, log = job_on(store, in_lists(upserts(1_000), 300))
        log.error = OSError("disk full")
        await job.run()
        assert job.error is log.error
        assert {str(one.error) for one in log.ready} == {"the job was ended by OSError"}
        assert len(server.requests) == 3
        await at_rest(store)


async def test_batches_are_whole_however_slow_the_input_is() -> None:
    async def script(request: RawRequest, connection: Connection) -> None:
        sizes.append(len(request.items))
        await connection.say(echo(request))

    async def slowly() -> Any:
        for item in upserts(25):
            if item.customer_id % 7 == 0:
                await asyncio.sleep(0.07)
            yield [item]

    sizes: list[int] = []
    async with store_on(script) as (store, _):
        job, _ = job_on(store, slowly())
        await job.run()
    assert sizes == [10, 10, 5]
