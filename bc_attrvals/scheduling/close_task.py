"""Closes a Store, or a part of one, in a task that outlives a caller who is cancelled.

Below the store and the shared quota.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class CloseTask:
    """The task that closes: cancelling who waits for it does not end it."""

    __slots__ = ("_task",)

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    def begin(self, closing: Coroutine[Any, Any, None]) -> None:
        """Begin it; `finish` waits for it."""
        self._task = asyncio.create_task(closing)

    async def finish(self) -> None:
        """Wait until it is over; if none goes on, do nothing. Cancelled, it returns at once."""
        if self._task is not None and not self._task.done():
            await asyncio.shield(self._task)
