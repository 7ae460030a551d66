"""`plan_sync` and `sync` of the resource, which `AttributeValues` inherits."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.errors import StoreStateError
from bc_attrvals.scheduling.calls import Calls
from bc_attrvals.scheduling.job_events import BulkJob
from bc_attrvals.sync.shared_by_jobs import SharedByJobs

# Imported by the first sync: importing the package loads no more than a listing needs.
if TYPE_CHECKING:
    from bc_attrvals.core.sync_plan import SyncPlan
    from bc_attrvals.sync.job import SyncJob
    from bc_attrvals.sync.known_state import SyncMirror
    from bc_attrvals.sync.options import (
        Confirm,
        JournalPath,
        Normalise,
        ShowChanges,
        ShowFailures,
        SyncOptions,
    )
    from bc_attrvals.sync.report import SyncReport
    from bc_attrvals.writing.sources import Items


#: Failures that a report holds by default.
MOST_FAILURES: Final = 1_000


class SyncMethods:
    """The part of the resource that compares before it writes; its fields are the resource's."""

    __slots__ = ()

    _calls: Calls
    _shared: SharedByJobs
    _place: str
    _ensure_open: Callable[[], None]

    async def plan_sync(
        self,
        desired: Items,
        *,
        scope: AttributeValueFilter | None,
        prune: bool = False,
        allow_empty: bool = False,
        allow_unresolved: bool = False,
        normalise: Normalise | None = None,
        always_read: bool = False,
        show_changes: ShowChanges | None = None,
        show_failures: ShowFailures | None = None,
        mirror: SyncMirror | None = None,
    ) -> SyncPlan:
        """Read what a `sync` of the same arguments would, and return what it would do and cost.

        Nothing is written. `show_changes` is awaited with lists of `SyncChange`, some thousands at
        a time, until it has got all of them: creates and updates in the order of customer and
        attribute, then deletes. With `always_read` the store is read even where writing everything
        costs less, so the changes show what is stored. `show_failures` gets the values that can't
        be resolved. Raises what `sync` raises before it writes.
        """
        from bc_attrvals.sync.options import SyncOptions

        options = SyncOptions(
            scope=scope,
            prune=prune,
            allow_empty=allow_empty,
            allow_unresolved=allow_unresolved,
            normalise=normalise,
            always_read=always_read,
            mirror=mirror,
            show_changes=show_changes,
            show_failures=show_failures,
        )
        self._ensure_open()
        with BulkJob(self._calls, "sync") as bulk:
            return await self._sync_job(options, bulk.calls).plan(desired)

    async def sync(
        self,
        desired: Items,
        *,
        scope: AttributeValueFilter | None = None,
        prune: bool = False,
        journal: JournalPath | None = None,
        restart: bool = False,
        dry_run: bool = False,
        allow_empty: bool = False,
        allow_unresolved: bool = False,
        normalise: Normalise | None = None,
        mirror: SyncMirror | None = None,
        confirm: Confirm | None = None,
        show_failures: ShowFailures | None = None,
        max_failures: int = MOST_FAILURES,
    ) -> SyncReport:
        """Make the store hold the desired values, writing only what differs.

        `desired` is an iterable, sync or async. It is read once to its end before anything is
        sent, into a temporary SQLite database or the journal, so memory does not grow with its
        length. Of equal keys the last one wins; an item's `id` is ignored. `scope` is a filter
        of `customer_id_in` and `attribute_id_in` alone in which all desired values must lie; an
        empty filter is the whole store. `prune=True` deletes, after the upserts, the rows in the
        scope that are not desired; it needs a scope, and `allow_empty=True` if nothing is desired.

        The store is read in the fewest calls: by listing the scope (always with prune), by looking
        up the desired customers, or not at all where writing everything costs less than twice as
        much as reading; those values are counted as `written`. A row that others move while it is
        read may be missed: its value is written without need, or it is pruned by the next run.
        Rows are deleted by the ids they were read with, and only if they lie in the scope. A row
        whose value or dates can't be read is pruned like any other, and written anew if it is
        desired.

        Named values are resolved when they are read. One that can't be resolved fails, and is no
        reason to prune its row: with `prune` and customers or attributes that are not known,
        nothing is deleted and `UnresolvedError` is raised after the upserts, unless
        `allow_unresolved=True`. A dry run raises it, too; a plan counts what is not pruned as
        `withheld`.

        With a `mirror` (`Store.mirror`, of the whole scope) the store is not read: the mirror is
        refreshed and compared with, and what is written and deleted is noted in it. A mirror and a
        journal together resume; a row that was written when a run was cut off is missing in the
        mirror until its next refresh.

        `normalise` maps a value to the form in which the store keeps it. Stored values are compared
        with that form. Values that the store then holds in another form are counted as `altered`.

        `journal` is the path of one file that makes the sync resumable. If it was killed, make the
        same call again: it sends what was left, and resends what was in flight (at most
        `Limits.writes` batches; rows whose deletes were in flight are looked up first). Interrupted
        before its first write, it reads the store anew; after that it carries out the plan it had.
        A sync with unanswered values is not finished: the same call sends them again. The next call
        over a finished journal, with this input or another, is a new sync; until then
        `SyncReport.from_journal` reads the report. An unfinished one of another base URL, store,
        scope, prune or input is refused; `restart=True` discards it and begins anew.

        `confirm` is awaited with the plan after reading and before writing, and with what is left
        of it when a journal is resumed. If it returns False the sync ends there with the report so
        far (`not_sent` counts the changes), and its journal can be resumed. `dry_run=True` reads
        and reports what would be done, and leaves the journal alone.

        Values that the service refuses, or does not take after all tries, raise nothing: see
        `SyncReport.failed` and its first `max_failures` `failures`. `show_failures` is awaited with
        all of them, some hundreds at a time, before the sync returns or raises one of our errors; a
        resumed sync shows those of its earlier runs, too. Raises `InvalidInputError`
        before anything is sent for an item of a wrong type or outside of the scope (`place` is
        `desired[i]`); an error of the input itself; `JournalError` for a journal that is damaged,
        full, held by another job or refused; before anything is written `FilterIgnoredError` for
        rows outside of the scope, and `ListingDriftError` for a listing that is not proven
        complete, or that has several rows of one customer and attribute to prune, and a look-up of
        the customer does not find them. Any other error of a read or a delete, and 401, 403, 404, a
        suspended or closed store at any time, end the job. Errors have the `.report` up to there.

        Cancelled, it returns at once; calls on the wire may be applied.
        """
        from bc_attrvals.sync.options import SyncOptions

        options = SyncOptions(
            scope=scope,
            prune=prune,
            allow_empty=allow_empty,
            allow_unresolved=allow_unresolved,
            normalise=normalise,
            mirror=mirror,
            journal=None if dry_run else journal,
            restart=restart,
            confirm=confirm,
            show_failures=show_failures,
            max_failures=max_failures,
        )
        self._ensure_open()
        with BulkJob(self._calls, "sync") as bulk:
            job = self._sync_job(options, bulk.calls)
            report = await (job.dry_run if dry_run else job.run)(desired)
            bulk.sums = lambda: report
        return report

    def _sync_job(self, options: SyncOptions, calls: Calls) -> SyncJob:
        # Here, so that importing the package does not load SQLite.
        from bc_attrvals.sync.job import SyncJob

        return SyncJob(
            calls,
            options,
            registry=self._shared.registry,
            resolver=self._shared.resolver,
            is_open=self._is_open,
            place=self._place,
        )

    def _is_open(self) -> bool:
        try:
            self._ensure_open()
        except StoreStateError:
            return False
        return True
