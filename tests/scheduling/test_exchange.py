"""A worker on the wire is never just cancelled; anything else of it ends at once."""

from __future__ import annotations

import asyncio

import pytest

from bc_attrvals import ServerError
from bc_attrvals.core.requests import Operation, Request
from bc_attrvals.scheduling.exchange import CallOptions, Exchange, Tally, Worker
from bc_attrvals.scheduling.quota import Priority

REQUEST = Request(Operation.WRITE, "PUT", "/values", b"[]")


@pytest.mark.parametrize("on_wire", [True, False])
@pytest.mark.parametrize("how", ["abandon", "finish"])
async def test_a_worker_is_cancelled_only_where_nothing_is_on_the_wire(
    how: str, on_wire: bool
) -> None:
    ended = asyncio.Event()
    task = asyncio.ensure_future(ended.wait())
    worker = Worker(task=task, on_wire=on_wire)
    getattr(worker, how)()
    ended.set()
    await asyncio.wait([task])
    assert task.cancelled() is not on_wire
    assert worker.is_abandoned is (how == "abandon")
    assert worker.is_finishing is (how == "finish" and on_wire)


def test_an_exchange_knows_its_job_and_that_its_job_ends() -> None:
    worker = Worker()
    exchange = Exchange(REQUEST, CallOptions(), Priority.BULK, tally=Tally(7), worker=worker)
    single = Exchange(REQUEST, CallOptions(), Priority.INTERACTIVE)
    assert (exchange.job, single.job) == (7, None)
    assert not exchange.is_last_try
    error = ServerError(500, "no", {}, None, "PUT", "/values")
    exchange.fail(error)
    single.fail(error)
    assert exchange.error is single.error is error
    assert worker.has_failed
    worker.is_finishing = True
    assert exchange.is_last_try
    assert not single.is_last_try
