"""The jobs of `sync` and of its dry run: the plan, the question before a deletion, the summary."""

from __future__ import annotations

from typing import Final

import anyio.to_thread
import attrs

from bc_attrvals.cli.deletion_limit import DeletionLimit
from bc_attrvals.cli.journalled import JournalledJob
from bc_attrvals.cli.mirroring import opened_mirror
from bc_attrvals.cli.output_rows import RowFile
from bc_attrvals.cli.running import Result, Work
from bc_attrvals.cli.settings import warn
from bc_attrvals.cli.value_file import ValueFile, Values
from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.core.sync_plan import SyncChange, SyncPlan
from bc_attrvals.tables.text import counted

DIFF_COLUMNS: Final = ("change", "customer_id", "attribute_id", "old", "new")

_COUNTS: Final = (
    ("created", "created"),
    ("updated", "updated"),
    ("written", "written unread"),
    ("altered", "stored in another form"),
    ("deleted", "deleted"),
    ("unchanged", "unchanged"),
    ("failed", "failed"),
    ("not_sent", "not sent"),
    ("superseded", "superseded by later rows"),
    ("resent", "sent again after a stop"),
)
_PLAN_FIELDS: Final = (
    "reading",
    "create",
    "update",
    "write",
    "delete",
    "unchanged",
    "unresolved",
    "withheld",
    "calls",
    "saved_calls",
)


@attrs.frozen(kw_only=True)
class SyncOptions:
    """The options of the library's `sync`, and the most that it may delete."""

    scope: AttributeValueFilter | None
    prune: bool
    allow_empty: bool
    allow_unresolved: bool
    limit: DeletionLimit
    mirror: str | None = None


class _PlannedJob(JournalledJob):
    """What a sync and its dry run share: a plan, and its text."""

    command = "sync"

    def __init__(self, values: Values, source: ValueFile, options: SyncOptions) -> None:
        super().__init__(values, source)
        self.options = options
        self.plan: SyncPlan | None = None

    @property
    def scope(self) -> AttributeValueFilter | None:
        """The scope of the options; by default the attributes of the wide form."""
        if self.options.scope is None and self.attributes:
            return AttributeValueFilter(attribute_id_in=self.attributes)
        return self.options.scope

    def plan_text(self, plan: SyncPlan) -> str:
        """Return the plan in lines, with the values of empty cells that are to be deleted."""
        cells = self.values.cells
        if cells is None or cells.found is None:
            return str(plan)
        return f"{plan}\n{'besides, for empty cells, delete':<10}{cells.found:>11,}"

    def fields(self) -> dict[str, object]:
        """Return the plan and the counts of the file for `--json`."""
        plan, cells = self.plan, self.values.cells
        fields: dict[str, object] = {"skipped": self.values.skipped, "plan": None}
        if plan is not None:
            shown = {name: getattr(plan, name) for name in _PLAN_FIELDS}
            fields["plan"] = {**shown, "seconds": round(plan.seconds, 1)}
        if cells is not None:
            fields["deleted_for_empty_cells"] = cells.deleted
            fields["stored_for_empty_cells"] = cells.found
        return fields


class SyncJob(_PlannedJob):
    """One sync of a file's values, then the deletion of what is stored for its empty cells."""

    async def carry_out(self, work: Work) -> None:
        """Sync and delete."""
        options, cells = self.options, self.values.cells

        async def confirm(plan: SyncPlan) -> bool:
            self.plan = plan
            options.limit.check(plan)
            # Looked up before the question; what others store there later stays.
            found = 0 if cells is None else await cells.find(work.store)
            if plan.write_calls or plan.delete or found:
                work.show(self.plan_text(plan))
            if self.source.asks and plan.delete + found:
                question = f"Delete {counted(plan.delete + found, 'value')}?"
                work.ask(question, "nothing was written")
            return True

        async with opened_mirror(work.store, options.mirror, self.scope) as mirror:
            self.report = await work.store.attribute_values.sync(
                self.items(),
                scope=self.scope,
                prune=options.prune,
                allow_empty=options.allow_empty,
                allow_unresolved=options.allow_unresolved,
                journal=self.source.journal,
                restart=self.source.restart,
                confirm=confirm,
                max_failures=self.max_failures,
                mirror=mirror,
            )
        if cells is not None:
            await cells.delete_stored(work)

    def result(self) -> Result | None:
        """Return the counts of the report."""
        report, values = self.report, self.values
        if report is None and not self.was_cut_off:
            return None
        fields: dict[str, object] = {
            "dry_run": False,
            **{name: getattr(report, name, None) for name, _ in _COUNTS},
            "unresolved": self.unresolved,
            "resumed": getattr(report, "resumed", None),
            **self.fields(),
        }
        if report is None:
            fields["done"] = self.done()
            return Result(headline=self.text_when_cut_off(), fields=fields, counts=None)
        counts = {name: getattr(report, name) for name, _ in _COUNTS}
        written = ("created", "updated", "written", "altered", "deleted")
        changed = sum(counts[name] for name in written)
        synced = changed + counts["unchanged"]
        return Result(
            headline=f"Synced {counted(synced, 'value')}, {changed:,} changed",
            fields=fields,
            counts=[
                *((words, counts[name]) for name, words in _COUNTS),
                ("failed with an unknown name or address", self.unresolved or 0),
                *values.counts(),
            ],
            values=synced,
            complete=report.ok and not values.skipped,
            first_failure=self.first_failure,
        )


class DryRunJob(_PlannedJob):
    """The plan of a sync, and its changes in a `--diff` file. The journal is left alone."""

    def __init__(
        self, values: Values, source: ValueFile, options: SyncOptions, diff: RowFile | None
    ) -> None:
        super().__init__(values, source, options)
        self._diff = diff
        if diff is not None:
            self.files = (*values.files, diff)

    async def carry_out(self, work: Work) -> None:
        """Plan."""
        options = self.options
        async with opened_mirror(work.store, options.mirror, self.scope) as mirror:
            self.plan = await work.store.attribute_values.plan_sync(
                self.items(),
                scope=self.scope,
                prune=options.prune,
                allow_empty=options.allow_empty,
                allow_unresolved=options.allow_unresolved,
                # A diff shows what is stored, also where writing unread costs less.
                always_read=self._diff is not None,
                show_changes=None if self._diff is None else self._show,
                mirror=mirror,
            )
        problem = options.limit.problem(self.plan)
        if problem is not None:
            warn(problem)
        if self.values.cells is not None:
            await self.values.cells.find(work.store)

    async def _show(self, changes: list[SyncChange]) -> None:
        await anyio.to_thread.run_sync(self._write, changes)

    def _write(self, changes: list[SyncChange]) -> None:
        assert self._diff is not None
        for one in changes:
            self._diff.write((str(one.kind), one.customer_id, one.attribute_id, one.old, one.new))

    def result(self) -> Result | None:
        """Return the plan."""
        if self.plan is None:
            return None
        fields: dict[str, object] = {
            "dry_run": True,
            **dict.fromkeys(name for name, _ in _COUNTS),
            "unresolved": self.plan.unresolved,
            "resumed": None,
            **self.fields(),
        }
        return Result(
            headline=self.plan_text(self.plan),
            fields=fields,
            counts=None,
            complete=not (self.values.skipped or self.plan.unresolved),
        )
