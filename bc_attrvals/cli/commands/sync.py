"""`sync`: make the store hold what a file says, and write only what differs.

The plan is shown, and a deletion asked for, before anything is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any, Final

import anyio.to_thread
import attrs

from bc_attrvals.cli.console import Failure, refuse, warn
from bc_attrvals.cli.filter_options import scope_options
from bc_attrvals.cli.job_runner import CommandJob, Result, Work, run_job
from bc_attrvals.cli.journalled_jobs import JournalledJob
from bc_attrvals.cli.mirror_option import opened_mirror
from bc_attrvals.cli.options import bundled, command, file_option, flag
from bc_attrvals.cli.output_rows import RowFile
from bc_attrvals.cli.settings import Settings, with_store_settings
from bc_attrvals.cli.value_file import ValueFile, Values, value_file_options
from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.core.sync_plan import SyncChange, SyncPlan
from bc_attrvals.tables.error_text import counted
from bc_attrvals.tables.files import FileError

_DIFF_COLUMNS: Final = ("change", "customer_id", "attribute_id", "old", "new")

_COUNTS: Final = (
    ("created", "created"),
    ("updated", "updated"),
    ("written", "written unread"),
    ("altered", "stored in another form"),
    ("deleted", "deleted"),
    ("unchanged", "unchanged"),
    ("failed", "failed"),
    ("unconfirmed_deletes", "deletes sent and not confirmed"),
    ("not_sent", "not sent"),
    ("superseded", "superseded by later rows"),
    ("resent", "sent again after a stop"),
)


@attrs.frozen(kw_only=True)
class _Options:
    """The options of a sync beside those of its file."""

    scope: AttributeValueFilter | None
    prune: bool
    allow_empty: bool
    allow_unresolved: bool
    diff: str | None
    mirror: str | None


_OPTIONS: Final = (
    flag("--prune", "Delete what is stored in the scope and not in FILE."),
    flag("--allow-empty", "With --prune: a FILE without values may delete all."),
    flag(
        "--allow-unresolved", "With --prune: delete though names or addresses in FILE are unknown."
    ),
    file_option(
        "--diff",
        takes_dash=True,
        text="With --dry-run: gets each change, with the old and the new value.",
    ),
    file_option(
        "--mirror", text="Refresh this mirror and compare with it; it is made if it is missing."
    ),
)


@command(
    "bc-attrvals sync scores.csv --dry-run --diff changes.csv",
    "bc-attrvals sync scores.csv --journal scores.db --failures failed.csv",
    "bc-attrvals sync scores.csv --attribute-id 1,2 --prune",
    "bc-attrvals sync scores.csv --whole-store --prune --mirror store.db",
    "bc-attrvals sync s.csv --wide --customer-column ID --attribute x=1 --prune --yes",
)
@value_file_options
@scope_options
@partial(bundled, make=_Options, name="options", options=_OPTIONS)
@with_store_settings
def sync(settings: Settings, source: ValueFile, options: _Options) -> None:
    """Make the store hold the values of FILE (- is standard input), writing only what differs.

    The plan is shown first, with its calls and its time. --dry-run stops there; --diff gets each
    change. With --prune the values in the scope that FILE does not have are deleted. With
    --empty delete those stored for empty cells are. Both ask first, unless --yes. The scope is what
    the options say; with --wide, by default the attributes named.

    With unknown names or addresses in FILE nothing is pruned, unless --allow-unresolved. To delete
    more than 100 values, and more than half of those in the scope (with --empty delete, of those
    stored of FILE's), is refused. Say with --max-delete how many it may be.

    All rows are checked before anything is sent. Of rows with the same customer and attribute the
    last one wins. Without a journal an interrupted sync is simply run again: values that are right
    already are not written twice. The journal of a finished sync gives way to the next sync. An
    unfinished one of another FILE or scope is refused; --restart discards it.
    """
    prune, diff = options.prune, options.diff
    refuse(diff is not None and not source.dry_run, "--diff goes with --dry-run")
    shape = source.check(
        settings, prune=prune, outputs=[("--diff", diff)], databases=[("--mirror", options.mirror)]
    )
    refuse(
        prune and options.scope is None and not shape.wide,
        "--prune needs a scope: --attribute-id, --customer-id or --whole-store",
    )
    # An unreadable row is not a missing row.
    refuse(
        prune and source.skip_invalid,
        "--skip-invalid with --prune would delete the values of bad rows",
    )
    refuse(prune and source.deletes_empty, "--prune already deletes the values of empty cells")
    refuse(options.allow_empty and not prune, "--allow-empty goes with --prune")
    refuse(options.allow_unresolved and not prune, "--allow-unresolved goes with --prune")
    store = settings.store(source.limits)
    with ExitStack() as stack:
        values = stack.enter_context(source.opened(settings, shape))
        if prune and not values.good and not options.allow_empty:
            message = f"{values.name}: no values, so --prune would delete all; say --allow-empty"
            raise FileError(message)
        values.warn_if_none()
        job: CommandJob = _SyncJob(values, source, options)
        if source.dry_run:
            rows = None
            if diff is not None:
                rows = RowFile(stack, diff, _DIFF_COLUMNS, like=shape, ids=_DIFF_COLUMNS[1:3])
            job = _DryRunJob(values, source, options, rows)
        run_job(settings, store, job)


class _PlannedJob(JournalledJob):
    """What a sync and its dry run share: a plan, and its text."""

    command = "sync"

    def __init__(self, values: Values, source: ValueFile, options: _Options) -> None:
        super().__init__(values, source)
        self.options = options
        self.plan: SyncPlan | None = None

    @property
    def scope(self) -> AttributeValueFilter | None:
        """The scope of the options; by default the attributes of the wide form."""
        if self.options.scope is None and self.attributes:
            return AttributeValueFilter(attribute_id_in=self.attributes)
        return self.options.scope

    @property
    def arguments(self) -> dict[str, Any]:
        """What a sync and its plan are called with."""
        names = ("prune", "allow_empty", "allow_unresolved")
        return {"scope": self.scope, **{name: getattr(self.options, name) for name in names}}

    async def take(self, plan: SyncPlan, work: Work) -> tuple[int, str | None]:
        """Keep the plan; return how many values would be deleted, and why that is refused, if so.

        What is stored for empty cells is looked up here. What others store there later stays.
        """
        self.plan = plan
        cells = self.values.cells
        delete = plan.delete + (0 if cells is None else await cells.find(work.store))
        return delete, self.source.limit.problem(delete, delete + plan.update + plan.unchanged)

    def plan_text(self, plan: SyncPlan) -> str:
        """Return the plan in lines, with the values of empty cells that are to be deleted."""
        cells = self.values.cells
        if cells is None or cells.found is None:
            return str(plan)
        return f"{plan}\n{'besides, for empty cells, delete':<10}{cells.found:>11,}"

    def fields(self, counts: Mapping[str, int] | None, unresolved: int | None) -> dict[str, object]:
        """Return the job's part of the `--json` object; None for counts that there are none of."""
        plan, cells = self.plan, self.values.cells
        fields: dict[str, object] = {
            "dry_run": self.source.dry_run,
            **(counts or dict.fromkeys(name for name, _ in _COUNTS)),
            "unresolved": unresolved,
            "resumed": getattr(self.report, "resumed", None),
            "skipped": self.values.skipped,
            "plan": plan and {**plan.to_dict(), "seconds": round(plan.seconds, 1)},
        }
        if cells is not None:
            fields["deleted_for_empty_cells"] = cells.deleted
            fields["stored_for_empty_cells"] = cells.found
        return fields


class _SyncJob(_PlannedJob):
    """One sync of a file's values, then the deletion of what is stored for its empty cells."""

    async def carry_out(self, work: Work) -> None:
        async def confirm(plan: SyncPlan) -> bool:
            delete, problem = await self.take(plan, work)
            if problem is not None:
                raise Failure(f"{problem}; nothing was written")
            if plan.write_calls or delete:
                work.show(self.plan_text(plan))
            if self.source.asks and delete:
                work.ask(f"Delete {counted(delete, 'value')}?", "nothing was written")
            return True

        async with opened_mirror(work.store, self.options.mirror, self.scope) as mirror:
            self.report = await work.store.attribute_values.sync(
                self.values,
                **self.arguments,
                mirror=mirror,
                journal=self.source.journal,
                restart=self.source.restart,
                confirm=confirm,
                show_failures=self.show_failures,
            )
        if self.values.cells is not None:
            await self.values.cells.delete_stored(work)

    def result(self) -> Result | None:
        report, values = self.report, self.values
        if report is None and not self.was_cut_off:
            return None
        if report is None:
            fields = {**self.fields(None, None), "done": self.done()}
            return Result(headline=self.text_when_cut_off(), fields=fields, counts=None)
        counts = {name: getattr(report, name) for name, _ in _COUNTS}
        counts["superseded"] += values.superseded
        written = ("created", "updated", "written", "altered", "deleted")
        changed = sum(counts[name] for name in written)
        synced = changed + counts["unchanged"]
        return Result(
            headline=f"Synced {counted(synced, 'value')}, {changed:,} changed",
            fields=self.fields(counts, self.unresolved),
            counts=[
                *((words, counts[name]) for name, words in _COUNTS),
                ("failed with an unknown name or address", self.unresolved or 0),
                *values.counts(),
            ],
            values=synced,
            complete=report.ok and not values.skipped,
            first_failure=self.first_failure,
        )


class _DryRunJob(_PlannedJob):
    """The plan of a sync, and its changes in a `--diff` file. The journal is left alone."""

    def __init__(
        self, values: Values, source: ValueFile, options: _Options, diff: RowFile | None
    ) -> None:
        super().__init__(values, source, options)
        self._diff = diff
        if diff is not None:
            self.files = (*self.files, diff)

    async def carry_out(self, work: Work) -> None:
        async with opened_mirror(work.store, self.options.mirror, self.scope) as mirror:
            plan = await work.store.attribute_values.plan_sync(
                self.values,
                **self.arguments,
                mirror=mirror,
                # A diff shows what is stored, also where writing unread costs less.
                always_read=self._diff is not None,
                show_changes=None if self._diff is None else self._show,
                show_failures=self.show_failures,
            )
        _, problem = await self.take(plan, work)
        if problem is not None:
            warn(problem)

    async def _show(self, changes: list[SyncChange]) -> None:
        await anyio.to_thread.run_sync(self._write, changes)

    def _write(self, changes: list[SyncChange]) -> None:
        assert self._diff is not None
        for one in changes:
            self._diff.write((str(one.kind), one.customer_id, one.attribute_id, one.old, one.new))

    def result(self) -> Result | None:
        if self.plan is None:
            return None
        return Result(
            headline=self.plan_text(self.plan),
            fields=self.fields(None, self.plan.unresolved),
            counts=None,
            complete=not (self.values.skipped or self.plan.unresolved),
        )
