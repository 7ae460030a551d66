"""The task that closes: it goes on where whoever waits for it is cancelled."""

from __future__ import annotations

import asyncio

import pytest

from bc_attrvals.scheduling.close_task import CloseTask

pytestmark = pytest.mark.looptime(noop_cycles=2)


async def test_cancelling_who_waits_ends_the_wait_and_not_the_closing() -> None:
    closed: list[float] = []

    async def close() -> None:
        await asyncio.sleep(5)
        closed.append(asyncio.get_running_loop().time())

    closing = CloseTask()
    await closing.finish()
    closing.begin(close())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await closing.finish()
    assert closed == []
    await closing.finish()
    assert len(closed) == 1
    await closing.finish()
    assert len(closed) == 1


async def test_what_the_closing_raises_is_raised_where_it_is_waited_for() -> None:
    async def close() -> None:
        await asyncio.sleep(1)
        raise OSError("full")

    closing = CloseTask()
    closing.begin(close())
    with pytest.raises(OSError, match="full"):
        await closing.finish()
