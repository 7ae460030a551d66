"""The job of `sync`: the plan, the question before a deletion, and the summary.

The library's `sync` does the work; its events are the progress.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from typing import Final

import anyio.to_thread
import attrs

from bc_attrvals.cli.breaker import CircuitBreaker
from bc_attrvals.cli.running import Job, Result, Work
from bc_attrvals.cli.value_file import Values
from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.core.models import AttributeValueUpsert
from bc_attrvals.core.sync_plan import SyncPlan
from bc_attrvals.core.sync_states import Phase
from bc_attrvals.errors import BCAttrValsError
from bc_attrvals.events import Event, SyncProgressed
from bc_attrvals.sync.report import SyncReport
from bc_attrvals.tables.text import counted

__all__ = ["SyncJob", "SyncOptions"]

#: Failures come out of the journal's database, whose rows bound them.
_ALL_FAILURES: Final = sys.maxsize

_WORDS: Final = {
    Phase.LOADING: "Loading",
    Phase.READING: "Reading the store",
    Phase.WRITING: "Writing",
    Phase.DELETING: "Deleting",
}
_COUNTS: Final = (
    ("created", "created"),
    ("updated", "updated"),
    ("written", "written unread"),
    ("deleted", "deleted"),
    ("unchanged", "unchanged"),
    ("failed", "failed"),
    ("not_sent", "not sent"),
    ("superseded", "superseded by later rows"),
    ("resent", "sent again after a stop"),
)


@attrs.frozen(kw_only=True)
class SyncOptions:
    """The options of the library's `sync`, and whether to ask before deleting."""

    scope: AttributeValueFilter | None
    prune: bool
    allow_empty: bool
    journal: str | None
    restart: bool
    dry_run: bool
    asks: bool


class SyncJob(Job):
    """One sync of a file's values."""

    command = "sync"
    what = _WORDS[Phase.LOADING]

    def __init__(self, values: Values, options: SyncOptions) -> None:
        self.total = values.good
        self.files = values.files
        self.summary_to_stderr = values.failures_to_stdout
        self._values = values
        self._options = options
        self._plan: SyncPlan | None = None
        self._report: SyncReport | None = None
        self._was_cut_off = False
        self._breaker = CircuitBreaker()
        #: The latest event of each phase, in their order.
        self._reached: dict[Phase, SyncProgressed] = {}

    async def run(self, work: Work) -> None:
        """Sync, then delete the values of empty cells."""
        task = asyncio.current_task()
        assert task is not None

        def hear(event: Event) -> None:
            if isinstance(event, SyncProgressed):
                self._hear(event, work, task)

        work.store.subscribe(hear)
        try:
            await self._sync(work)
            if self._values.cells is not None and not self._options.dry_run:
                await self._delete_empty(work)
        except asyncio.CancelledError:
            self._was_cut_off = True
            if not self._breaker.is_open:
                raise
            task.uncancel()
        except BCAttrValsError as error:
            if isinstance(error.report, SyncReport):
                self._report = error.report
            raise
        self._breaker.check()

    async def _sync(self, work: Work) -> None:
        options, cells = self._options, self._values.cells

        async def confirm(plan: SyncPlan) -> bool:
            self._plan = plan
            if cells is not None:
                # Looked up before the question; what others store there later stays.
                await cells.find(work.store)
            if options.dry_run:
                return False
            deletions = plan.delete + (cells.found or 0 if cells is not None else 0)
            if plan.write_calls or deletions:
                work.show(self._plan_text(plan))
            self._ask(work, deletions, "nothing was written")
            return True

        self._report = await work.store.attribute_values.sync(
            self._desired(),
            scope=options.scope,
            prune=options.prune,
            allow_empty=options.allow_empty,
            # A dry run is a sync that stops at its plan, and leaves the journal alone.
            journal=None if options.dry_run else options.journal,
            restart=options.restart,
            confirm=confirm,
            max_failures=_ALL_FAILURES if self.files else 1_000,
        )

    async def _delete_empty(self, work: Work) -> None:
        cells = self._values.cells
        assert cells is not None
        if cells.found is None:
            # The sync ended before it asked.
            self._ask(work, await cells.find(work.store), "nothing was deleted")
        await cells.delete_stored(work)

    def _ask(self, work: Work, deletions: int, otherwise: str) -> None:
        if self._options.asks and deletions:
            work.ask(f"Delete {counted(deletions, 'value')}?", otherwise)

    async def _desired(self) -> AsyncGenerator[AttributeValueUpsert]:
        while (chunk := await self._values.next_chunk()) is not None:
            for value in chunk:
                yield value

    def _hear(self, event: SyncProgressed, work: Work, task: asyncio.Task[object]) -> None:
        before = self._reached.get(event.phase)
        self._reached[event.phase] = event
        if before is None and event.phase is not Phase.LOADING:
            total = event.total if event.phase in {Phase.WRITING, Phase.DELETING} else None
            work.progress.begin(_WORDS[event.phase], total, event.done + event.failed)
        work.progress.reach(event.done + event.failed)
        unanswered = event.unanswered
        ended = event.done + event.failed
        if before is not None:
            unanswered -= before.unanswered
            ended -= before.done + before.failed
        if event.phase is not Phase.LOADING:
            self._breaker.note(answered=ended - unanswered, unanswered=unanswered)
        if self._breaker.is_open and not task.cancelling():
            task.cancel()

    async def settle(self, reason: str) -> None:
        """Write the failures of the report."""
        del reason
        if self._report is not None:
            await anyio.to_thread.run_sync(self._write_failures, self._report)

    def _write_failures(self, report: SyncReport) -> None:
        for outcome in report.failures:
            self._values.note_failure(outcome.item, str(outcome.error))

    def result(self) -> Result | None:
        """Return the counts of the report; of a dry run the plan."""
        report, values, options = self._report, self._values, self._options
        if report is None and not self._was_cut_off:
            return None
        known = report is not None and not options.dry_run
        fields: dict[str, object] = {
            "dry_run": options.dry_run,
            **{name: getattr(report, name) if known else None for name, _ in _COUNTS},
            "resumed": report.resumed if report is not None and known else None,
            "skipped": values.skipped,
            "plan": None if self._plan is None else _plan_fields(self._plan),
        }
        if values.cells is not None:
            fields["deleted_for_empty_cells"] = values.cells.deleted
            fields["stored_for_empty_cells"] = values.cells.found
        if report is None:
            fields["done"] = {phase: event.done for phase, event in self._changes()}
            return Result(headline=self._text_when_cut_off(), fields=fields, counts=None)
        failure = report.failures[0].error if report.failures else None
        result = Result(
            headline="",
            fields=fields,
            counts=None,
            complete=(report.ok or options.dry_run) and not values.skipped,
            first_failure=None if failure is None else str(failure),
        )
        if options.dry_run and self._plan is not None:
            return attrs.evolve(result, headline=self._plan_text(self._plan))
        changed = report.created + report.updated + report.written + report.deleted
        synced = changed + report.unchanged
        counts = [(words, getattr(report, name)) for name, words in _COUNTS]
        return attrs.evolve(
            result,
            headline=f"Synced {counted(synced, 'value')}, {changed:,} changed",
            counts=[*counts, *values.counts()],
            values=synced,
        )

    def _changes(self) -> list[tuple[Phase, SyncProgressed]]:
        """Return how far each phase came that changes the store."""
        return [(phase, event) for phase, event in self._reached.items() if event.total is not None]

    def _text_when_cut_off(self) -> str:
        parts = [
            f"{_WORDS[phase].lower()}: {event.done:,} of {event.total:,} confirmed"
            for phase, event in self._changes()
        ]
        if not parts:
            return "Stopped before anything was written."
        how = "with the same journal to go on" if self._options.journal else "to write what is left"
        return (
            f"Stopped while {', '.join(parts)}; calls that were on the wire may be applied, too. "
            f"Run the same again {how}."
        )

    def _plan_text(self, plan: SyncPlan) -> str:
        cells = self._values.cells
        if cells is None or cells.found is None:
            return str(plan)
        return f"{plan}\n{'besides, for empty cells, delete':<10}{cells.found:>11,}"


def _plan_fields(plan: SyncPlan) -> dict[str, object]:
    names = ("reading", "create", "update", "write", "delete", "unchanged", "calls")
    return {**{name: getattr(plan, name) for name in names}, "seconds": round(plan.seconds, 1)}
