"""The log: bounded, as sent, and without the token."""

from __future__ import annotations

import asyncio

import attrs
import pytest

from bc_attrvals.sandbox import Operation
from tests.sandbox.api import item, running, until


async def test_requests_are_logged_as_they_were_sent_and_without_the_token() -> None:
    async with running(access_token="top-secret", latency_ms=1) as (sandbox, api):
        raw = "date_created%3Amin=2024-05-14T09:34:00Z&customer_id:in=1,2&name=a%20b"
        await api.get(raw)
        await api.put(item(1), item(2))
        await api.delete("id:in=1,2,3")
        listed, upserted, deleted = sandbox.requests
        shown = repr(sandbox) + repr(sandbox.requests) + repr(list(sandbox.requests))
    assert listed.query_string == raw
    assert listed.path == "/stores/sandbox/v3/customers/attribute-values"
    assert listed.headers["x-auth-token"] == "***"
    assert (listed.sequence, listed.method, listed.operation) == (1, "GET", "list")
    assert upserted.body.startswith(b"[{")
    assert (upserted.item_count, deleted.item_count) == (2, 3)
    assert [request.status for request in (listed, upserted, deleted)] == [200, 200, 204]
    assert listed.ended_at_s is not None
    assert listed.ended_at_s - listed.started_at_s >= 0.001
    assert "top-secret" not in shown
    assert sandbox.calls == {Operation.LIST: 1, Operation.UPSERT: 1, Operation.DELETE: 1}
    assert sandbox.statuses == {200: 2, 204: 1}
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        listed.status = 500  # type: ignore[misc] # the point of the test


async def test_the_log_is_bounded_and_shows_open_requests() -> None:
    async with running(request_log_size=3) as (sandbox, api):
        for _ in range(5):
            await api.get()
        await api.put(item(1))
        assert [request.sequence for request in sandbox.requests] == [4, 5, 6]
        assert sandbox.requests.seen == 6
        assert [request.sequence for request in sandbox.requests[:2]] == [4, 5]
        assert [request.sequence for request in sandbox.requests.of("upsert")] == [6]
        sandbox.faults.script(["hang"])
        call = asyncio.create_task(api.get())
        await until(lambda: sandbox.requests.seen == 7)
        assert (sandbox.requests[-1].ended_at_s, sandbox.requests[-1].status) == (None, None)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
