"""Sends reads side by side, a bounded number of them, and yields the answers in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import TypeVar

__all__ = ["gather"]

S = TypeVar("S")
T = TypeVar("T")


async def gather(
    read: Callable[[S], Awaitable[T]], inputs: Iterable[S], most: int
) -> AsyncGenerator[T]:
    """Yield `read(one)` for each input in order, at most `most` of them under way.

    The first error in order ends it. Leaving early, or cancelling, cancels what is under way.
    """
    waiting = iter(inputs)
    tasks: deque[asyncio.Future[T]] = deque()

    def begin() -> None:
        for one in waiting:
            tasks.append(asyncio.ensure_future(read(one)))
            return

    for _ in range(most):
        begin()
    try:
        while tasks:
            answer = await tasks[0]
            tasks.popleft()
            begin()
            yield answer
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
