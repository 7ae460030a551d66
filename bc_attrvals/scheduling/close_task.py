"""Closes a Store, or a part of one, in a task that a cancelled caller does not end.

Used by the Store and the shared quota.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class CloseTask:
    """The task that closes. Cancelling a caller of `finish` does not end it."""

    __slots__ = ("_task",)

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    def begin(self, closing: Coroutine[Any, Any, None]) -> None:
        """Start the task."""
        self._task = asyncio.create_task(closing)

    async def finish(self) -> None:
        """Wait for the task if it is running. If this is cancelled, it returns at once."""
        if self._task is not None and not self._task.done():
            await asyncio.shield(self._task)
