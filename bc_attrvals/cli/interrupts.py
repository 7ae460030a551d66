"""Runs a command's coroutine, and lets Ctrl-C stop it in order.

The first SIGINT or SIGTERM asks the command to stop; a second one exits at once. The exit status is
128 and the signal's number, as in a shell.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar

from bc_attrvals.cli.console import Interrupted
from bc_attrvals.tables.files import discard_unfinished

T = TypeVar("T")

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
#: Signals closer together are one: `timeout` sends its own to the command, and then to its group.
_ONE_STOP_S: Final = 0.1
_SHOW_CURSOR: Final = "\x1b[?25h"


class Stopper:
    """Handles the signals of one run.

    `grace_s` seconds after the first one the command's task is cancelled: 0 at once, None never.
    """

    def __init__(self, grace_s: float | None) -> None:
        self._grace_s = grace_s
        self._stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._timer: asyncio.TimerHandle | None = None
        self.signal_number: int | None = None
        self._stopped_at_s = 0.0
        #: Returns what the exit of a second signal prints after its message.
        self.exit_hint: Callable[[], str] = str

    @property
    def stopped(self) -> bool:
        """Whether a signal came."""
        return self.signal_number is not None

    async def wait(self) -> None:
        """Wait for a signal."""
        await self._stop.wait()

    def spare(self) -> None:
        """Cancel the task no more: its work has ended, and the account of it is being written."""
        self._task = None
        if self._timer is not None:
            self._timer.cancel()

    def check(self) -> None:
        """Raise `Interrupted` if a signal came."""
        if self.signal_number is not None:
            raise Interrupted(self.signal_number)

    def listen(self) -> None:
        """Install the handlers, as far as the platform and the thread allow."""
        for number in _SIGNALS:
            # Windows has no such handlers, and only the main thread may install them. Ctrl-C raises
            # KeyboardInterrupt then.
            with suppress(NotImplementedError, RuntimeError, ValueError):
                self._loop.add_signal_handler(number, self._handle, number)

    @contextmanager
    def raising_interrupts(self) -> Iterator[None]:
        """Let Ctrl-C raise KeyboardInterrupt meanwhile: a question blocks the loop."""
        for number in _SIGNALS:
            with suppress(NotImplementedError, RuntimeError, ValueError):
                self._loop.remove_signal_handler(number)
        try:
            yield
        finally:
            self.listen()

    def _handle(self, number: int) -> None:
        now = self._loop.time()
        if self.signal_number is not None:
            if now - self._stopped_at_s >= _ONE_STOP_S:
                self._exit(number)
            return
        self.signal_number, self._stopped_at_s = number, now
        self._stop.set()
        if self._grace_s is None or self._task is None:
            return
        if self._grace_s:
            self._timer = self._loop.call_later(self._grace_s, self._task.cancel)
        else:
            self._task.cancel()

    def _exit(self, number: int) -> None:
        discard_unfinished()
        with suppress(OSError, ValueError):
            cursor = _SHOW_CURSOR if sys.stderr.isatty() else ""
            sys.stderr.write(f"{cursor}Interrupted.{self.exit_hint()}\n")
            sys.stderr.flush()
        os._exit(128 + number)


def run(main: Callable[[Stopper], Coroutine[Any, Any, T]], *, grace_s: float | None = 0.0) -> T:
    """Run a command's coroutine; raise `Interrupted` when a signal cancelled it."""
    stopper: Stopper | None = None

    async def supervised() -> T:
        nonlocal stopper
        stopper = Stopper(grace_s)
        stopper.listen()
        # `python -X dev` reports callbacks above 0.1 s; a busy computer always has some.
        asyncio.get_running_loop().slow_callback_duration = 2.0
        return await main(stopper)

    try:
        return asyncio.run(supervised())
    except asyncio.CancelledError:
        if stopper is None:
            raise
        stopper.check()
        raise
