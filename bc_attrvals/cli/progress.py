"""Shows how far a job is, on stderr: a bar on a terminal, else a plain line now and then.

rich is loaded for the bar alone.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import click

from bc_attrvals.cli.settings import Settings
from bc_attrvals.cli.text import duration
from bc_attrvals.core.rate_limit import DEFAULT_WINDOW_S, QuotaSnapshot
from bc_attrvals.store import StoreView

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

__all__ = ["Progress", "seconds_to_go"]

_INTERVAL_S: Final = 0.1
#: Off a terminal, so seldom that a log of a night's job stays readable.
_LINE_INTERVAL_S: Final = 10.0


def seconds_to_go(
    *, done: int, total: int, elapsed_s: float, calls: int, quota: QuotaSnapshot
) -> float | None:
    """Return about how long the rest takes: by the rate up to now, and by the quota.

    `calls` are those that `done` took. None while nothing is done.
    """
    if not done or elapsed_s <= 0:
        return None
    rest = max(0, total - done)
    by_rate_s = elapsed_s * rest / done
    if not quota.quota or quota.left is None:
        return by_rate_s
    beyond = calls * rest / done - quota.left
    if beyond <= 0:
        return by_rate_s
    # The window that comes next, and as many whole ones as it takes besides.
    windows = max(0.0, beyond / quota.quota - 1)
    by_quota_s = (quota.resets_in_s or 0.0) + windows * DEFAULT_WINDOW_S
    # The rate of a burst says nothing of the waits to come, a rate over several windows does.
    return by_quota_s if elapsed_s < DEFAULT_WINDOW_S else max(by_rate_s, by_quota_s)


class Progress:
    """How far a job is: done of total, rate, calls left in the quota's window, time to go.

    Nothing with `--quiet` or `--json`. NO_COLOR is heeded.
    """

    def __init__(
        self, settings: Settings, store: StoreView, what: str, total: int | None = None
    ) -> None:
        self._store = store
        self._is_shown = not (settings.quiet or settings.json)
        self._bar: Bar | None = _bar() if self._is_shown and sys.stderr.isatty() else None
        self._task: TaskID | None = None
        self._restart(what, total, 0)

    def _restart(self, what: str, total: int | None, done: int) -> None:
        self._what = what
        self._total = total
        self._done = self._done_before = done
        self._calls_before = 0
        self._began_at = self._drawn_at = time.monotonic()

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task(
                self._what, total=self._total, count="", rate="", quota="", to_go=""
            )
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

    def begin(self, what: str, total: int | None = None, done: int = 0) -> None:
        """Begin another part of the job, of which `done` was done by an earlier run."""
        self._restart(what, total, done)
        self._calls_before = self._store.statistics().requests
        if self._bar is not None and self._task is not None:
            self._bar.reset(self._task, description=what, total=total)
            self._draw(self._began_at)

    def pause(self) -> None:
        """Take the bar away, for something else to be shown."""
        if self._bar is not None:
            self._bar.stop()

    def resume(self) -> None:
        """Show the bar again."""
        if self._bar is not None:
            self._bar.start()

    def advance(self, count: int = 1) -> None:
        """Count work as done."""
        self.reach(self._done + count)

    def reach(self, done: int) -> None:
        """Set how much is done."""
        self._done = done
        if not self._is_shown:
            return
        now = time.monotonic()
        if now - self._drawn_at < (_LINE_INTERVAL_S if self._bar is None else _INTERVAL_S):
            return
        if self._bar is None:
            self._drawn_at = now
            click.echo(self._line(now), err=True)
        else:
            self._draw(now)

    def expect(self, total: int) -> None:
        """Set how much there is in all."""
        self._total = total

    @property
    def _known_total(self) -> int | None:
        # A listing may be of several parts, whose totals are not known before.
        return None if self._total is None or self._done > self._total else self._total

    def _draw(self, now: float) -> None:
        assert self._bar is not None
        assert self._task is not None
        self._drawn_at = now
        rate, quota, to_go = self._words(now)
        self._bar.update(
            self._task,
            completed=self._done,
            total=self._known_total,
            count=self._count(),
            rate=rate,
            quota=quota,
            to_go=to_go,
        )

    def _line(self, now: float) -> str:
        words = [word for word in self._words(now) if word]
        return ", ".join([f"{self._what} {self._count()}", *words])

    def _count(self) -> str:
        total = self._known_total
        return f"{self._done:,}" if total is None else f"{self._done:,} of {total:,}"

    def _words(self, now: float) -> tuple[str, str, str]:
        """Return rate, quota and time to go, each empty when it is not known."""
        elapsed_s = now - self._began_at
        done = self._done - self._done_before
        statistics = self._store.statistics()
        known = statistics.quota
        rate = f"{done / elapsed_s:,.0f}/s" if done and elapsed_s > 0 else ""
        quota = "" if known.left is None else f"{known.left:,} calls left"
        if known.left == 0 and known.resets_in_s:
            quota = f"next calls in {duration(known.resets_in_s)}"
        total = self._known_total
        to_go = None
        if total is not None:
            to_go = seconds_to_go(
                done=done,
                total=total - self._done_before,
                elapsed_s=elapsed_s,
                calls=statistics.requests - self._calls_before,
                quota=known,
            )
        return rate, quota, "" if to_go is None else f"{duration(to_go)} to go"


def _bar() -> Bar:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[count]}", markup=False),
        TextColumn("{task.fields[rate]}", markup=False, style="cyan"),
        TextColumn("{task.fields[quota]}", markup=False, style="yellow"),
        TextColumn("{task.fields[to_go]}", markup=False),
        console=Console(stderr=True),
        transient=True,
    )
