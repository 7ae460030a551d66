"""One sync of a file, from the plan to the summary; `commands/sync.py` is its command.

Between the file formats and the library's `sync`, whose events are the progress.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncGenerator, Iterator
from itertools import islice
from typing import Final

import anyio.to_thread
import click

from bc_attrvals.cli.asking import confirm as confirm_aloud
from bc_attrvals.cli.emptying import EmptyCells, told_of_empty_cells
from bc_attrvals.cli.failures import FailureWriter
from bc_attrvals.cli.interrupts import Stopper
from bc_attrvals.cli.plans import show_plan
from bc_attrvals.cli.progress import Progress
from bc_attrvals.cli.settings import Settings
from bc_attrvals.cli.text import rate, table
from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.core.models import AttributeValueUpsert
from bc_attrvals.core.sync_plan import SyncPlan
from bc_attrvals.core.sync_states import Phase
from bc_attrvals.errors import BCAttrValsError
from bc_attrvals.events import Event, SyncProgressed
from bc_attrvals.store import Store
from bc_attrvals.sync.report import SyncReport
from bc_attrvals.tables.files import STANDARD
from bc_attrvals.tables.rows import BadRow, Entry
from bc_attrvals.tables.text import counted, one_line

__all__ = ["FileSync"]

_CHUNK_ROWS: Final = 2_000
#: So many values in a row that no answer came for, each after all its tries: nobody is there, and
#: going on would take hours to say so.
_MOST_UNANSWERED_IN_A_ROW: Final = 30
#: Failures come out of the journal's database, whose rows bound them.
_ALL_FAILURES: Final = sys.maxsize

_WORDS: Final = {
    Phase.LOADING: "Loading",
    Phase.READING: "Reading the store",
    Phase.WRITING: "Writing",
    Phase.DELETING: "Deleting",
}


class FileSync:
    """One sync of a file, and what it came to."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        entries: Iterator[Entry],
        *,
        total: int,
        scope: AttributeValueFilter | None,
        prune: bool,
        allow_empty: bool,
        journal: str | None,
        dry_run: bool,
        asks: bool,
        failures: FailureWriter | None,
        empty_cells: EmptyCells | None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._entries = entries
        self._total = total
        self._scope = scope
        self._prune = prune
        self._allow_empty = allow_empty
        self._journal = journal
        self._dry_run = dry_run
        self._asks = asks
        self._failures = failures
        self._cells = empty_cells
        self._plan: SyncPlan | None = None
        self._report: SyncReport | None = None
        self._error: str | None = None
        self._signal_number: int | None = None
        self._skipped = 0
        self._calls = self._rate_limited = 0
        self._seconds = 0.0
        # Of the phase under way.
        self._reached: SyncProgressed | None = None
        self._reached_before: dict[Phase, SyncProgressed] = {}
        self._answered_at = 0
        self._nobody_there = False

    async def run(self, stopper: Stopper) -> None:
        """Sync; how it ended is told by `conclude`."""
        began_at = time.monotonic()
        task = asyncio.current_task()
        assert task is not None
        async with self._store as store:
            with Progress(self._settings, store, "Loading", self._total) as progress:

                def hear(event: Event) -> None:
                    if isinstance(event, SyncProgressed):
                        self._hear(event, progress, task)

                store.subscribe(hear)
                try:
                    await self._sync(store, stopper, progress)
                    await self._empty(store, stopper, progress)
                except asyncio.CancelledError:
                    if self._nobody_there:
                        task.uncancel()
                        self._error = (
                            f"no answer for {_MOST_UNANSWERED_IN_A_ROW} values in a row, "
                            "each after all its tries; run the same again later"
                        )
                    elif not stopper.stopped:
                        raise
                except BCAttrValsError as error:
                    if isinstance(error.report, SyncReport):
                        self._report = error.report
                    elif self._report is None:
                        raise
                    self._error = str(error)
            statistics = store.statistics()
            self._calls = statistics.requests
            self._rate_limited = statistics.rate_limited
        self._signal_number = stopper.signal_number
        self._seconds = time.monotonic() - began_at
        if self._report is not None and self._failures is not None:
            await anyio.to_thread.run_sync(self._write_failures, self._report, self._failures)

    async def _sync(self, store: Store, stopper: Stopper, progress: Progress) -> None:
        async def confirm(plan: SyncPlan) -> bool:
            self._plan = plan
            if self._cells is not None:
                # Known before it is asked; what others store there meanwhile stays.
                await self._cells.find(store, stopper)
            if self._dry_run:
                return False
            doomed = plan.delete + (self._doomed_cells or 0)
            progress.pause()
            if plan.calls - plan.read_calls or doomed:
                show_plan(plan, self._settings, empty_cells=self._doomed_cells)
            if self._asks and doomed:
                with stopper.aside():
                    confirm_aloud(f"Delete {counted(doomed, 'value')}?", "nothing was written")
            progress.resume()
            return True

        self._report = await store.attribute_values.sync(
            self._desired(),
            scope=self._scope,
            prune=self._prune,
            allow_empty=self._allow_empty,
            # A dry run is a sync that stops at its plan, and leaves the journal alone.
            journal=None if self._dry_run else self._journal,
            confirm=confirm,
            max_failures=1_000 if self._failures is None else _ALL_FAILURES,
        )

    @property
    def _doomed_cells(self) -> int | None:
        """How many values are stored for empty cells; None where that is not asked for."""
        return None if self._cells is None else self._cells.found

    async def _empty(self, store: Store, stopper: Stopper, progress: Progress) -> None:
        if self._cells is None or self._dry_run or stopper.stopped:
            return
        if self._cells.found is None:
            # A journal that is finished asks nothing, and its deletions may have been cut off.
            found = await self._cells.find(store, stopper)
            if self._asks and found:
                progress.pause()
                with stopper.aside():
                    confirm_aloud(f"Delete {counted(found, 'value')}?", "nothing was deleted")
                progress.resume()
        progress.begin("Deleting", self._cells.found)
        await self._cells.delete(store, stopper, progress)

    async def _desired(self) -> AsyncGenerator[AttributeValueUpsert]:
        def chunk() -> list[Entry]:
            return list(islice(self._entries, _CHUNK_ROWS))

        while entries := await anyio.to_thread.run_sync(chunk):
            for entry in entries:
                if isinstance(entry, BadRow):
                    self._skipped += 1
                    if self._failures is not None:
                        self._failures.bad_row(entry)
                else:
                    yield entry

    def _hear(self, event: SyncProgressed, progress: Progress, task: asyncio.Task[object]) -> None:
        if self._reached is None or self._reached.phase is not event.phase:
            self._reached_before[event.phase] = event
            if event.phase is not Phase.LOADING:
                total = event.total if event.phase in {Phase.WRITING, Phase.DELETING} else None
                progress.begin(_WORDS[event.phase], total, event.done + event.failed)
            self._answered_at = 0
        elif event.done + event.failed - event.unanswered > (
            self._reached.done + self._reached.failed - self._reached.unanswered
        ):
            self._answered_at = event.unanswered
        self._reached = event
        progress.reach(event.done + event.failed)
        if (
            event.unanswered - self._answered_at >= _MOST_UNANSWERED_IN_A_ROW
            and not self._nobody_there
        ):
            self._nobody_there = True
            task.cancel()

    @staticmethod
    def _write_failures(report: SyncReport, failures: FailureWriter) -> None:
        for outcome in report.failures:
            failures.item(outcome.item, str(outcome.error))

    def conclude(self, failures_name: str | None) -> None:
        """Tell what was done, and exit."""
        status = self._status()
        plan, report = self._plan, self._report
        if self._dry_run and plan is not None and status == 0:
            show_plan(
                plan,
                self._settings,
                empty_cells=self._doomed_cells,
                summary=self._summary(status),
            )
        else:
            self._settings.summarize(
                self._told(failures_name), self._summary(status), err=failures_name == STANDARD
            )
        if self._error is not None:
            click.echo(f"Error: {one_line(self._error)}", err=True)
        elif report is not None and report.failures:
            reason = one_line(str(report.failures[0].error))
            click.echo(f"The first failure: {reason}", err=True)
        if self._signal_number is not None:
            click.echo("Interrupted.", err=True)
        click.get_current_context().exit(status)

    def _status(self) -> int:
        if self._signal_number is not None:
            return 128 + self._signal_number
        if self._error is not None:
            return 3
        if self._dry_run:
            return 1 if self._skipped else 0
        complete = self._report is not None and self._report.ok and not self._skipped
        return 0 if complete else 1

    def _summary(self, status: int) -> dict[str, object]:
        report, plan = self._report, self._plan
        counts = ("created", "updated", "written", "deleted", "unchanged", "failed", "not_sent")
        summary: dict[str, object] = {"command": "sync", "exit_status": status}
        summary["dry_run"] = self._dry_run
        summary["already_finished"] = self._was_finished
        for name in (*counts, "superseded", "resent", "resumed", "retries"):
            known = report is not None and not self._dry_run
            summary[name] = getattr(report, name) if known else None
        if self._cells is not None:
            summary["deleted_for_empty_cells"] = self._cells.deleted
            summary["stored_for_empty_cells"] = self._cells.found
        if report is None:
            summary["done"] = {
                event.phase: event.done for event in self._ends() if event.total is not None
            }
        summary |= {
            "skipped": self._skipped,
            "calls": self._calls,
            "rate_limited": self._rate_limited,
            "seconds": round(self._seconds, 3),
            "plan": None
            if plan is None
            else {
                "reading": plan.reading,
                "create": plan.create,
                "update": plan.update,
                "write": plan.write,
                "delete": plan.delete,
                "unchanged": plan.unchanged,
                "calls": plan.calls,
                "seconds": round(plan.seconds, 1),
            },
            "error": self._error,
        }
        return summary

    @property
    def _was_finished(self) -> bool:
        """Whether the journal was of a sync that an earlier run had finished."""
        report = self._report
        return report is not None and report.ok and self._journal is not None and not self._calls

    def _ends(self) -> list[SyncProgressed]:
        """Return how far each phase came."""
        ends = {**self._reached_before}
        if self._reached is not None:
            ends[self._reached.phase] = self._reached
        return list(ends.values())

    def _told(self, failures_name: str | None) -> str:
        report = self._report
        if report is None:
            return self._told_when_stopped()
        if self._was_finished:
            return f"{self._journal} is of this sync, and it is finished: nothing was sent."
        changed = report.created + report.updated + report.written + report.deleted
        values = changed + report.unchanged
        head = f"Synced {counted(values, 'value')}, {changed:,} changed"
        rows = [
            (word, f"{count:,}")
            for word, count in (
                ("created", report.created),
                ("updated", report.updated),
                ("written unread", report.written),
                ("deleted", report.deleted),
                ("unchanged", report.unchanged),
                ("failed", report.failed),
                ("not sent", report.not_sent),
                ("invalid, skipped", self._skipped),
                ("superseded by later rows", report.superseded),
                ("sent again after a stop", report.resent),
            )
            if count
        ]
        if self._cells is not None:
            rows += told_of_empty_cells(self._cells)
        rows += [("calls", f"{self._calls:,}"), ("429s", f"{self._rate_limited:,}")]
        seconds = f"{self._seconds:.1f} s ({rate(values, self._seconds)})"
        text = f"{head}; {seconds}.\n{table(rows)}"
        if self._failures is not None and self._failures.count:
            how = "with the same options" if self._cells is None else "in long form"
            text += f"\n{counted(self._failures.count, 'row')} in {failures_name}, "
            text += f"to be given in again {how}."
        return text

    def _told_when_stopped(self) -> str:
        writing = [event for event in self._ends() if event.total is not None]
        if not writing:
            return "Stopped before anything was written."
        parts = [
            f"{_WORDS[event.phase].lower()}: {event.done:,} of {event.total:,} confirmed"
            for event in writing
        ]
        how = "with the same journal to go on" if self._journal else "to write what is left"
        return (
            f"Stopped while {', '.join(parts)}; calls that were on the wire may be applied, too. "
            f"Run the same again {how}."
        )
