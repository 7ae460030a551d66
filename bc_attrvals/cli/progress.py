"""Shows how far a job is, on stderr and on a terminal only; rich is loaded nowhere else."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from bc_attrvals.cli.settings import Settings
from bc_attrvals.store import StoreView

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

__all__ = ["Progress"]

_INTERVAL_S: Final = 0.1


class Progress:
    """A progress bar around a job: rate, calls left in the quota's window, time to go.

    Nothing where stderr is no terminal, and with `--quiet` or `--json`. NO_COLOR is heeded.
    """

    def __init__(
        self, settings: Settings, store: StoreView, what: str, total: int | None = None
    ) -> None:
        self._store = store
        self._what = what
        self._total = total
        self._done = 0
        self._drawn_at = 0.0
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._began_at = time.monotonic()
        if settings.quiet or settings.json or not sys.stderr.isatty():
            return
        self._bar = _bar()

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task(self._what, total=self._total, rate="", quota="")
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._draw(time.monotonic())
            self._bar.stop()

    def advance(self, count: int = 1) -> None:
        """Count work as done."""
        self._done += count
        if self._bar is None:
            return
        now = time.monotonic()
        if now - self._drawn_at >= _INTERVAL_S:
            self._draw(now)

    def expect(self, total: int) -> None:
        """Set how much there is in all."""
        self._total = total

    def _draw(self, now: float) -> None:
        assert self._bar is not None
        assert self._task is not None
        self._drawn_at = now
        seconds = now - self._began_at
        known = self._store.statistics().quota
        self._bar.update(
            self._task,
            completed=self._done,
            # The listing may be of several parts, whose totals are not known before.
            total=None if self._total is None or self._done > self._total else self._total,
            rate=f"{self._done / seconds:,.0f}/s" if seconds > 0 else "",
            quota="" if known.left is None else f"{known.left:,} calls left",
        )


def _bar() -> Bar:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
        TextColumn("{task.fields[quota]}", markup=False),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
