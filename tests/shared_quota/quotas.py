"""A quota shared through a real Valkey, and what is asked of it.

Whoever imports this is skipped where redis or Valkey is missing.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from multidict import CIMultiDict

from bc_attrvals import Limits, Operation, Priority
from bc_attrvals.events import Event, SharedQuotaLost, SharedQuotaRegained

from bc_attrvals.shared_quota import RedisQuota  # isort: skip - skipped where redis is missing

READ, WRITE, DELETE = Operation
BULK, INTERACTIVE = Priority.BULK, Priority.INTERACTIVE
STORE = "abc"

Make = Callable[..., Any]


@asynccontextmanager
async def opened(*quotas: Any, **limits: int) -> AsyncIterator[list[Any]]:
    async with AsyncExitStack() as stack:
        for one in quotas:
            await one.open(STORE, Limits(**limits))
            stack.push_async_callback(one.close)
        yield list(quotas)


def told(left: int, *, quota: int = 10, reset_ms: int = 60_000, window_ms: int = 60_000) -> Any:
    return CIMultiDict(
        {
            "X-Rate-Limit-Time-Window-Ms": str(window_ms),
            "X-Rate-Limit-Time-Reset-Ms": str(reset_ms),
            "X-Rate-Limit-Requests-Quota": str(quota),
            "X-Rate-Limit-Requests-Left": str(left),
        }
    )


async def settled(seconds: float = 0.08) -> None:
    """Give a server on this machine the time to say no."""
    await asyncio.sleep(seconds)


async def learn(quota: Any, headers: Any) -> None:
    """Have one request answered with these headers (none: a store without a quota)."""
    quota.release(await quota.acquire(READ, INTERACTIVE), headers)
    await settled()


def asking(quota: Any, operation: Operation, priority: Priority, count: int) -> list[Any]:
    return [asyncio.ensure_future(quota.acquire(operation, priority)) for _ in range(count)]


def granted(tasks: list[Any]) -> list[Any]:
    return [task.result() for task in tasks if task.done() and not task.cancelled()]


async def ended(*tasks: Any) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def lost_and_regained(quota: RedisQuota) -> list[Event]:
    events: list[Event] = []
    quota.report_to(events.append)
    return events


class Watched:
    """A quota, with the events it told."""

    def __init__(self, url: str, **options: Any) -> None:
        self.quota = RedisQuota(url, **{"timeout_s": 1.0, **options})
        self.events: list[Event] = []
        self.quota.report_to(self.events.append)

    @property
    def lost(self) -> list[SharedQuotaLost]:
        return [event for event in self.events if isinstance(event, SharedQuotaLost)]

    @property
    def regained(self) -> list[SharedQuotaRegained]:
        return [event for event in self.events if isinstance(event, SharedQuotaRegained)]

    @property
    def members(self) -> int:
        return self.quota._member._membership.known(asyncio.get_running_loop().time()).count


@asynccontextmanager
async def watching(*watched: Watched, **limits: int) -> AsyncIterator[list[Watched]]:
    async with AsyncExitStack() as stack:
        for one in watched:
            await one.quota.open(STORE, Limits(**limits))
            stack.push_async_callback(one.quota.close)
        yield list(watched)


def assert_hidden(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    assert error.__cause__ is None
    assert error.__context__ is None
    told = "".join(traceback.format_exception_only(error))
    assert "hidden" not in told + repr(error) + repr(error.args) + caplog.text
