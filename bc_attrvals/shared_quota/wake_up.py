"""When to call the server of the shared quota: at once, soon, or at a time that it named.

Under `member.py`, whose one task waits here. Nobody polls: without a reason there is no call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

#: How long a report waits for others to go with it, if no other process waits for anything.
_LINGER_S: Final = 0.02


class WakeUp:
    """Wakes one task. `is_needed` says after a while whether there is still something to report."""

    def __init__(self, is_needed: Callable[[], object]) -> None:
        self._is_needed = is_needed
        self._woken = asyncio.Event()
        self._due: asyncio.TimerHandle | None = None
        self._linger: asyncio.TimerHandle | None = None

    def wake(self) -> None:
        """Let the task call the server at once."""
        self._woken.set()

    def wake_soon(self) -> None:
        """Let the task call the server after a short while, if it is still needed then."""
        if self._linger is None:
            loop = asyncio.get_running_loop()
            self._linger = loop.call_later(_LINGER_S, self._linger_ended)

    def wake_at(self, when: float | None) -> None:
        """Let the task call the server at this time of the loop, which replaces the last one."""
        if self._due is not None:
            self._due.cancel()
        loop = asyncio.get_running_loop()
        self._due = None if when is None else loop.call_at(when, self.wake)

    async def wait(self) -> None:
        """Wait until the server is to be called."""
        await self._woken.wait()
        # A slot that an answer frees is mostly wanted again within some turns of the loop.
        for _ in range(3):
            await asyncio.sleep(0)
        self._woken.clear()

    def close(self) -> None:
        """Cancel its timers."""
        for handle in (self._due, self._linger):
            if handle is not None:
                handle.cancel()

    def _linger_ended(self) -> None:
        self._linger = None
        if self._is_needed():
            self.wake()
