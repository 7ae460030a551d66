"""The deadlines of requests under way: one timer for all of them, and none a request.

Below the session. A timer made and cancelled for each request is what asyncio does best and still
costs more than all the rest of a deadline.
"""

from __future__ import annotations

import asyncio

import msgspec

__all__ = ["Deadline", "Deadlines"]


class Deadline(msgspec.Struct, eq=False):
    """When a task is cancelled, on the event loop's clock."""

    task: asyncio.Task[object]
    when: float
    # Of the task, before: what a cancellation by somebody else is told by.
    cancelling: int
    has_passed: bool = False

    def was_missed(self) -> bool:
        """Return whether a cancellation was this deadline's alone, and take it back if so.

        To be asked once, where `CancelledError` arrives; as `asyncio.timeout` does.
        """
        if not self.has_passed:
            return False
        self.has_passed = False
        return self.task.uncancel() <= self.cancelling


class Deadlines:
    """Cancels tasks whose deadlines pass. Bound to the running event loop."""

    __slots__ = ("_loop", "_open", "_sweep_at", "_timer")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._open: set[Deadline] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._sweep_at = 0.0

    def begin(self, timeout_s: float) -> Deadline:
        """Cancel the current task after so many seconds, unless `end` is called before."""
        task = asyncio.current_task(self._loop)
        assert task is not None
        deadline = Deadline(task, self._loop.time() + timeout_s, task.cancelling())
        self._open.add(deadline)
        if self._timer is None or deadline.when < self._sweep_at:
            self._sweep_by(deadline.when)
        return deadline

    def end(self, deadline: Deadline) -> None:
        """Forget a deadline; the timer is left to find that out."""
        self._open.discard(deadline)
        if deadline.has_passed:
            # The task ended by something else in the same moment.
            deadline.was_missed()

    def close(self) -> None:
        """Forget all."""
        self._open.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _sweep_by(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._sweep_at = when
        self._timer = self._loop.call_at(when, self._sweep)

    def _sweep(self) -> None:
        self._timer = None
        now = self._loop.time()
        # A timer may come a tick of the clock early.
        passed = [one for one in self._open if one.when <= now]
        for one in passed:
            self._open.discard(one)
            one.has_passed = True
            one.task.cancel()
        if self._open:
            self._sweep_by(min(one.when for one in self._open))
