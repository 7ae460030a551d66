"""Fixtures for all tests: an emulated store, a Store on it, and a watch for what stays behind."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Iterator
from inspect import signature
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aioresponses import aioresponses

from bc_attrvals import RetryPolicy, Store
from bc_attrvals.core import rate_limit
from bc_attrvals.sandbox import Sandbox

#: Waits short enough for a test; the policy's arithmetic has tests of its own.
QUICK = RetryPolicy(base_s=0.005, cap_s=0.05)


def make_store(sandbox: Sandbox, **options: object) -> Store:
    """Return a Store for a running sandbox."""
    return Store(
        sandbox.store_hash,
        sandbox.access_token,
        base_url=sandbox.url,
        **{"retry": QUICK, **options},  # type: ignore[arg-type]
    )


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    """Serve an emulated store without a quota."""
    async with Sandbox(quota=None) as running:
        yield running


@pytest.fixture
async def store(sandbox: Sandbox) -> AsyncIterator[Store]:
    """Open a Store on the emulated store."""
    async with make_store(sandbox) as opened:
        yield opened


@pytest.fixture
def quick_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let further first requests go at once while the first of a Store is unanswered."""
    monkeypatch.setattr(rate_limit, "_PROBE_S", 0.02)


@pytest.fixture
async def no_task_left() -> AsyncIterator[None]:
    """Fail when a task outlives the test."""
    before = asyncio.all_tasks()
    yield
    # What closes a generator that was let go of runs in a task of the loop's own: some turns.
    for _ in range(50):
        left = asyncio.all_tasks() - before - {asyncio.current_task()}
        if not left:
            return
        await asyncio.sleep(0)
    raise AssertionError(f"tasks left behind: {left}")


@pytest.fixture(autouse=True)
def no_stray_loop(request: pytest.FixtureRequest) -> None:
    """Leave a test without event loop without one.

    looptime's plugin asks for the loop of every test; asyncio would make one, and warn of that.
    """
    if not inspect.iscoroutinefunction(request.function):
        asyncio.set_event_loop(None)


@pytest.fixture
def mocked(monkeypatch: pytest.MonkeyPatch) -> Iterator[aioresponses]:
    """Fake answers inside of aiohttp; aioresponses 0.7.9 does not know `stream_writer` of 3.14."""

    class Response(aiohttp.ClientResponse):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            if "stream_writer" in signature(aiohttp.ClientResponse).parameters:
                kwargs.setdefault("stream_writer", SimpleNamespace(output_size=0))
            super().__init__(*args, **kwargs)

    monkeypatch.setattr("aioresponses.core.ClientResponse", Response)
    with aioresponses() as mock:
        yield mock
