"""Runs several reads of one job at once, and ends them together."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

__all__ = ["all_at_once"]

T = TypeVar("T")


async def all_at_once(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run all at once and return their results in order.

    The first error in order ends the others, and is raised as it is. Cancelled, all are cancelled
    and waited for.
    """
    tasks = [asyncio.ensure_future(one) for one in coroutines]
    try:
        return [await task for task in tasks]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
