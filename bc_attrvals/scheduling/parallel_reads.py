"""Runs several reads of one job at once; the first error cancels the others."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from itertools import islice
from typing import Any, TypeVar

S = TypeVar("S")
T = TypeVar("T")


async def all_at_once(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run all at once and return their results in order.

    The first error in order is raised, and the other reads are cancelled. Cancellation cancels all
    of them and waits for their ends.
    """
    tasks = [asyncio.ensure_future(one) for one in coroutines]
    try:
        return [await task for task in tasks]
    finally:
        await _end(tasks)


async def at_once_in_order(
    read: Callable[[S], Coroutine[Any, Any, T]], inputs: Iterable[S], most: int
) -> AsyncGenerator[T]:
    """Yield `read(one)` for each input in order, with at most `most` reads under way.

    The first error in order ends it. Closing or cancelling it cancels the reads under way.
    """
    waiting = iter(inputs)
    tasks = deque(asyncio.ensure_future(read(one)) for one in islice(waiting, most))
    try:
        while tasks:
            answer = await tasks[0]
            tasks.popleft()
            tasks.extend(asyncio.ensure_future(read(one)) for one in islice(waiting, 1))
            yield answer
    finally:
        await _end(tasks)


async def _end(tasks: Iterable[asyncio.Future[T]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
