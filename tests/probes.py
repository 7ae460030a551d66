"""What tests look at from outside: what is left behind, and what overlapped on the wire."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from typing import Any

from bc_attrvals import AttributeValueUpsert, Store
from bc_attrvals.sandbox import RecordedRequest, Sandbox

Key = tuple[int, int]


def upserts(count: int, *, first: int = 1, attribute_id: int = 1) -> list[AttributeValueUpsert]:
    """Return items of so many customers, each with a value of its own."""
    return [
        AttributeValueUpsert(customer_id, attribute_id, f"v{customer_id}")
        for customer_id in range(first, first + count)
    ]


async def until(condition: Callable[[], object], timeout_s: float = 5.0) -> None:
    """Let the loop turn until the condition holds; TimeoutError if it never does."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - nobody tells when it does
            await asyncio.sleep(0.001)


def busy(store: Store) -> dict[str, Any]:
    """Return what a Store has under way: empty when it is at rest."""
    runtime = store._state.runtime
    assert runtime is not None
    statistics = store.statistics()
    connector = runtime.session._session.connector
    found: dict[str, Any] = {
        "in flight": sum(statistics.in_flight.values()),
        "queued": sum(statistics.queued.values()),
        "keys": len(runtime.shared.registry),
        "keys waited for": len(runtime.shared.registry._waiting),
        "connections": 0 if connector is None else len(connector._acquired),
        "tasks of writes": len(runtime.scheduler._tasks),
        "calls": len(runtime.scheduler._active),
    }
    return {name: count for name, count in found.items() if count}


async def at_rest(store: Store, timeout_s: float = 5.0) -> None:
    """Wait until nothing of a Store is under way; fail with what still is."""
    try:
        await until(lambda: not busy(store), timeout_s)
    except TimeoutError:
        raise AssertionError(f"left behind: {busy(store)}") from None


def keys_of(request: RecordedRequest) -> list[Key]:
    """Return the keys a recorded PUT names."""
    return [(item["customer_id"], item["attribute_id"]) for item in json.loads(request.body)]


def most_at_once(requests: Iterable[RecordedRequest]) -> int:
    """Return how many of these requests were open at once."""
    moments: list[tuple[float, int]] = []
    for request in requests:
        assert request.ended_at_s is not None
        # An end and a beginning at the same tick of the clock do not overlap.
        moments += [(request.started_at_s, 1), (request.ended_at_s, -1)]
    now = most = 0
    for _, step in sorted(moments):
        now += step
        most = max(most, now)
    return most


def check_writes(sandbox: Sandbox) -> None:
    """Check what the service asks of all PUTs: three at once, ten items, no key twice in flight."""
    puts = sandbox.requests.of("upsert")
    assert puts
    assert most_at_once(puts) <= 3
    ended: dict[Key, float] = {}
    for put in sorted(puts, key=lambda one: one.started_at_s):
        keys = keys_of(put)
        assert 0 < len(keys) <= 10
        assert len(set(keys)) == len(keys), "a key twice in one call"
        assert put.ended_at_s is not None
        for key in keys:
            assert ended.get(key, 0.0) <= put.started_at_s, f"{key} twice in flight"
            ended[key] = put.ended_at_s
