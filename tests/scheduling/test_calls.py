"""The calls of a job: counted once, decoded once more where an answer can't be read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest

from bc_attrvals import (
    AttributeValueUpsert,
    DecodeError,
    Limits,
    Operation,
    Priority,
    RetryPolicy,
)
from bc_attrvals.core.requests import RequestBuilder
from bc_attrvals.core.responses import Response
from bc_attrvals.events import EventBus
from bc_attrvals.scheduling.calls import Calls
from bc_attrvals.scheduling.exchange import CallOptions, Worker
from bc_attrvals.scheduling.learnt_sizes import LearntSizes
from bc_attrvals.scheduling.scheduler import Scheduler
from tests.fake_service import FakeService
from tests.scheduling.test_scheduler import Named

pytestmark = pytest.mark.looptime(noop_cycles=2)

LIMITS = Limits()
OTHERS = [AttributeValueUpsert(2, 1, "b")]
ITEMS = [AttributeValueUpsert(1, 1, "a")]
REQUESTS = RequestBuilder("hash", "https://api.bigcommerce.com")


@asynccontextmanager
async def open_calls(
    service: FakeService,
    attempts: int = 6,
    priority: Priority | None = None,
    limits: Limits = LIMITS,
) -> AsyncIterator[Calls]:
    retry, events = RetryPolicy(attempts=attempts), EventBus()
    scheduler = Scheduler(service, limits=limits, retry=retry, events=events, random=Random(7))
    await scheduler.open("hash")
    try:
        yield Calls(
            scheduler,
            REQUESTS,
            CallOptions(30.0, retry, priority),
            events=events,
            sizes=LearntSizes(limits),
        )
    finally:
        await scheduler.close()


def unreadable(body: bytes) -> bytes:
    raise DecodeError(body.decode())


async def test_an_answer_that_cannot_be_read_is_asked_for_again_and_names_its_request() -> None:
    async with open_calls(Named(), attempts=3) as calls:
        with pytest.raises(DecodeError) as unread:
            await calls.sent(REQUESTS.upsert(ITEMS), unreadable)
    assert (unread.value.status, unread.value.request_id) == (200, "r3")
    assert unread.value.attempts == 3
    assert (calls.calls, calls.retries) == (3, 2)


async def test_an_answer_that_is_read_at_last_is_returned() -> None:
    def decode(body: bytes) -> bytes:
        if len(read) < 2:
            read.append(body)
            raise DecodeError("not yet")
        return b"read"

    read: list[bytes] = []
    async with open_calls(FakeService()) as calls:
        assert await calls.sent(REQUESTS.upsert(ITEMS), decode) == b"read"
    assert (calls.calls, calls.retries) == (3, 2)


async def test_each_job_has_a_tally_of_its_own() -> None:
    faults: list[int | None] = [500, None, None]
    async with open_calls(FakeService(fault=lambda _: faults.pop(0))) as calls:
        first, second = calls.for_job(), calls.for_job()
        await first.put(ITEMS, Worker())
        await second.put(ITEMS, Worker())
    assert (first.calls, first.retries) == (2, 1)
    assert (second.calls, second.retries) == (1, 0)
    assert (calls.calls, calls.retries) == (0, 0)


async def test_a_priority_of_the_options_is_that_of_all_calls() -> None:
    service = FakeService()
    async with open_calls(
        service, priority=Priority.INTERACTIVE, limits=Limits(writes=1)
    ) as urgent:
        bulk = Calls(
            urgent._scheduler,
            REQUESTS,
            CallOptions(),
            events=urgent.events,
            sizes=urgent.sizes,
            priority=Priority.BULK,
        )
        queued = asyncio.gather(*(bulk.put(ITEMS, Worker()) for _ in range(5)))
        await asyncio.sleep(0.01)
        await urgent.for_job().put(OTHERS, Worker())
        await queued
    assert service.order[1] == REQUESTS.upsert(OTHERS)


async def test_a_cancelled_single_write_returns_at_once_and_keeps_its_slot() -> None:
    service = FakeService(latency_s=1.0)
    async with open_calls(service) as calls:

        async def write(worker: Worker) -> Response:
            return await calls.put(ITEMS, worker)

        task = asyncio.create_task(calls.shielded(write))
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        assert service.in_flight[Operation.WRITE] == 1
