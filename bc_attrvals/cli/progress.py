"""Shows how far a job is, on stderr: a bar on a terminal, else a plain line now and then.

rich is loaded only for the bar.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self

import attrs
import click

from bc_attrvals.cli.console import duration
from bc_attrvals.cli.settings import Settings
from bc_attrvals.core.rate_limit import DEFAULT_WINDOW_S, QuotaSnapshot
from bc_attrvals.core.requests import Resource
from bc_attrvals.events import Event, QuotaExhausted, RequestAnswered, RequestRetrying, RequestSent
from bc_attrvals.scheduling.scheduler import Statistics
from bc_attrvals.store import StoreView
from bc_attrvals.tables.error_text import counted

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID


_INTERVAL_S: Final = 0.1
#: Between lines without a terminal: the log of a night's job stays readable.
_LINE_INTERVAL_S: Final = 10.0
#: The bar is drawn this often while nothing moves, so that a wait is visible.
_TICK_S: Final = 0.25
#: The first answers of a burst say nothing about the time to go.
_FIRST_ESTIMATE_S: Final = 1.0
#: A wait for an answer is named when it lasts longer than answers usually take.
_SLOW_ANSWER_S: Final = 2.0
#: What the bar shows beside itself.
_FIELDS: Final = ("count", "rate", "quota", "to_go")
#: What names and addresses are looked up in.
_LOOKED_UP_IN: Final = frozenset({Resource.ATTRIBUTES, Resource.CUSTOMERS})


def seconds_to_go(
    *, done: int, total: int, elapsed_s: float, calls: int, quota: QuotaSnapshot, in_flight: int = 0
) -> float | None:
    """Return about how long the rest takes, by the rate up to now and by the quota.

    `calls` were sent, of which those `in_flight` have taken their unit and done nothing yet. None
    while nothing is done.
    """
    if not done or elapsed_s <= 0:
        return None
    rest = max(0, total - done)
    by_rate_s = elapsed_s * rest / done
    if not quota.quota or quota.left is None:
        return by_rate_s
    beyond = (calls - in_flight) * rest / done - in_flight - quota.left
    # A call of which some items are counted already is no whole call.
    if beyond < 1:
        return by_rate_s
    # The next window opens first; the calls beyond it wait for whole windows.
    windows = max(0.0, beyond / quota.quota - 1)
    window_s = quota.window_s or DEFAULT_WINDOW_S
    by_quota_s = (quota.resets_in_s or 0.0) + windows * window_s
    # The rate of a burst says nothing about the waits to come. A rate over several windows does.
    return by_quota_s if elapsed_s < window_s else max(by_rate_s, by_quota_s)


@attrs.define
class _Waiting:
    """What requests wait for, and how many look-ups were answered, by the events of a Store."""

    opens_at: float = 0.0
    retry_at: float = 0.0
    reason: str = ""
    moved_at: float = attrs.field(factory=time.monotonic)
    look_ups: int = 0

    def hear(self, event: Event) -> None:
        now = time.monotonic()
        if isinstance(event, QuotaExhausted):
            self.opens_at = now + event.resets_in_s
        elif isinstance(event, RequestRetrying):
            self.retry_at, self.reason = now + event.delay_s, event.reason
        elif isinstance(event, RequestSent | RequestAnswered):
            self.moved_at = now
            if isinstance(event, RequestAnswered) and event.resource in _LOOKED_UP_IN:
                self.look_ups += 1

    def words(self, statistics: Statistics, now: float) -> str:
        """Return what is waited for and for how long, in few words; empty while requests move.

        A narrow terminal cuts what is longer.
        """
        if sum(statistics.in_flight.values()):
            waited_s = now - self.moved_at
            return f"no answer for {duration(waited_s)}" if waited_s > _SLOW_ANSWER_S else ""
        quota = statistics.quota
        opens_in_s = (quota.resets_in_s or 0.0) if quota.left == 0 else self.opens_at - now
        if opens_in_s > 0 and any(statistics.queued.values()):
            return f"waiting {duration(opens_in_s)} for quota"
        if self.retry_at > now:
            return f"next try in {duration(self.retry_at - now)} ({self.reason})"
        return ""


class Progress:
    """How far a job is: done of total, rate, calls left in the quota's window, time to go.

    While nothing moves it names what is waited for, and for how long. Nothing is shown with
    `--quiet` or `--json`. NO_COLOR is respected.
    """

    def __init__(
        self, settings: Settings, store: StoreView, what: str, total: int | None = None
    ) -> None:
        self._store = store
        self._is_shown = not (settings.quiet or settings.json)
        self._bar: Bar | None = _bar() if self._is_shown and sys.stderr.isatty() else None
        self._task: TaskID | None = None
        self._is_paused = False
        self._waiting = _Waiting()
        self._restart(what, total, 0)

    def _restart(self, what: str, total: int | None, done: int) -> None:
        self._what = what
        self._total = total
        self._done = self._done_before = done
        self._calls_before = 0
        self._began_at = self._drawn_at = time.monotonic()

    def __enter__(self) -> Self:
        if self._is_shown:
            self._store.subscribe(self._waiting.hear)
        if self._bar is not None:
            self._bar.start()
            fields: dict[str, Any] = dict.fromkeys(_FIELDS, "")
            self._task = self._bar.add_task(self._what, total=self._total, **fields)
        return self

    def __exit__(self, *exc_info: object) -> None:
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

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Take the bar away while something else is shown."""
        self._is_paused = True
        if self._bar is not None:
            self._bar.stop()
        try:
            yield
        finally:
            self._is_paused = False
            if self._bar is not None:
                self._bar.start()

    def advance(self, count: int = 1) -> None:
        """Count work as done."""
        self.reach(self._done + count)

    def reach(self, done: int) -> None:
        """Set how much is done."""
        self._done = done
        self._redraw(_INTERVAL_S)

    def expect(self, total: int) -> None:
        """Set how much there is in all."""
        self._total = total

    async def tick(self) -> NoReturn:
        """Redraw until cancelled, so that a wait is visible."""
        while True:
            await asyncio.sleep(_TICK_S)
            self._redraw(_TICK_S)

    def _redraw(self, interval_s: float) -> None:
        if not self._is_shown or self._is_paused:
            return
        now = time.monotonic()
        if self._bar is not None and now - self._drawn_at >= interval_s:
            self._draw(now)
        elif self._bar is None and now - self._drawn_at >= _LINE_INTERVAL_S:
            self._drawn_at = now
            words = ", ".join(filter(None, self._words(now)))
            click.echo(f"{self._what} {words}", err=True)

    @property
    def _known_total(self) -> int | None:
        # A listing may have several parts, whose totals are not known before.
        return None if self._total is None or self._done > self._total else self._total

    def _draw(self, now: float) -> None:
        assert self._bar is not None
        assert self._task is not None
        self._drawn_at = now
        fields: dict[str, Any] = dict(zip(_FIELDS, self._words(now), strict=True))
        self._bar.update(self._task, completed=self._done, total=self._known_total, **fields)

    def _words(self, now: float) -> tuple[str, str, str, str]:
        """Return the fields of the bar; `quota` is what is waited for, if anything is."""
        total = self._known_total
        count = f"{self._done:,}" if total is None else f"{self._done:,} of {total:,}"
        if self._waiting.look_ups:
            count += f", {counted(self._waiting.look_ups, 'look-up')}"
        elapsed_s = now - self._began_at
        done = self._done - self._done_before
        statistics = self._store.statistics()
        known = statistics.quota
        rate = f"{done / elapsed_s:,.0f}/s" if done and elapsed_s > 0 else ""
        quota = self._waiting.words(statistics, now)
        if not quota and known.left is not None:
            quota = f"{known.left:,} calls left"
        to_go = None
        if total is not None and elapsed_s >= _FIRST_ESTIMATE_S:
            to_go = seconds_to_go(
                done=done,
                total=total - self._done_before,
                elapsed_s=elapsed_s,
                calls=statistics.requests - self._calls_before,
                quota=known,
                in_flight=sum(statistics.in_flight.values()),
            )
        return count, rate, quota, "" if to_go is None else f"{duration(to_go)} to go"


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
