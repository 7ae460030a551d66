"""One sync, step by step: load, read, compare, write, delete.

Below the resource and above the bulk writes. A `SyncJob` loads the desired values into a working
set, has `current_state.py` read the store and SQLite compare the two, and `apply.py` carry out
the difference. Over a journal each step is committed before the next one, so a killed job resumes
where it was. An upsert over a journal is a sync that reads nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from typing import Final, NoReturn

import attrs
import msgspec

from bc_attrvals.core.models import AttributeValueUpsert
from bc_attrvals.core.named_value import NamedValue
from bc_attrvals.core.outcomes import UpsertReport
from bc_attrvals.core.sync_plan import Reading, SyncPlan, calls_for, estimate_seconds
from bc_attrvals.core.sync_states import Differences, Phase
from bc_attrvals.errors import (
    BCAttrValsError,
    InvalidInputError,
    JournalError,
    UnresolvedError,
)
from bc_attrvals.events import SyncProgressed
from bc_attrvals.naming.resolver import JobNames, Resolver
from bc_attrvals.reading.unordered import check_shared_keys
from bc_attrvals.scheduling.calls import Calls
from bc_attrvals.sync import journal
from bc_attrvals.sync.apply import Apply
from bc_attrvals.sync.current_state import CurrentState
from bc_attrvals.sync.database_thread import DatabaseThread
from bc_attrvals.sync.journal import Identity
from bc_attrvals.sync.known_state import KnownState
from bc_attrvals.sync.loading import Loaded, Loader
from bc_attrvals.sync.options import JobKind, ShowChanges, SyncOptions
from bc_attrvals.sync.report import (
    SyncReport,
    dump_report,
    outcomes_of,
    report_of,
    upsert_report,
)
from bc_attrvals.sync.scope import Scope
from bc_attrvals.sync.working_set import WorkingSet
from bc_attrvals.writing.batching import KeyRegistry
from bc_attrvals.writing.sources import Items

#: Changes taken from the working set at once, and failures, which are larger.
_CHUNK: Final = 4_096
_FAILURES_CHUNK: Final = 512

_encode_lines: Final = msgspec.json.Encoder().encode_lines
_logger = logging.getLogger(__name__)


class SyncJob:
    """One sync. Create it, then call one of `plan`, `dry_run`, `run` and `upsert` once.

    `place`, the base URL and the path of the resource, is what a journal is bound to. Raises
    `InvalidInputError` for a scope of more than ids, and for pruning without a scope.
    """

    def __init__(
        self,
        calls: Calls,
        options: SyncOptions,
        *,
        registry: KeyRegistry,
        resolver: Resolver,
        is_open: Callable[[], bool],
        place: str,
    ) -> None:
        self._scope = Scope.of(options.scope)
        if options.prune and options.scope is None:
            message = (
                "prune deletes what is not desired, and needs a scope that says where; "
                "AttributeValueFilter() is the whole store"
            )
            raise InvalidInputError(message, field="scope")
        # Reading and writing share one flow and one tally.
        self._calls = calls.for_job()
        self._options = options
        self._registry = registry
        self._resolver = resolver
        self._names = JobNames()
        self._is_open = is_open
        self._place = place
        self._database = DatabaseThread(
            journal.JOURNALS, options.journal, field="journal", restart=options.restart
        )
        self._run = self._database.run
        # The mirror, while it is in use.
        self._known: KnownState | None = None
        self._identity = Identity(options.kind, place, self._scope.digest(), options.prune)
        self._loop = asyncio.get_running_loop()
        self._started_at = self._loop.time()
        # The place of the last failure that was shown.
        self._shown = (0, 0)

    async def plan(self, desired: Items) -> SyncPlan:
        """Load, read and compare; write nothing."""
        async with self._opened():
            await self._load(desired)
            plan = await self._make_plan()
            await self._show_failures()
            if self._options.show_changes is not None:
                await self._show(plan, self._options.show_changes)
            return plan

    async def dry_run(self, desired: Items) -> SyncReport:
        """Plan, and report as if the plan had been carried out."""
        async with self._opened():
            await self._load(desired)
            plan = await self._make_plan()
            report = attrs.evolve(
                await self._report(),
                created=plan.create,
                updated=plan.update,
                deleted=plan.delete,
                written=plan.write,
                not_sent=plan.withheld,
            )
            try:
                await self._check_resolved()
            except UnresolvedError as error:
                error.report = report
                raise
            return report

    async def run(self, desired: Items) -> SyncReport:
        """Carry out the sync, or what a journal has left of it, once `confirm` has agreed to it.

        This job replaces a finished journal, and with `restart` an unfinished one. Every
        `BCAttrValsError` has a report.
        """
        try:
            async with self._opened():
                if await self._run(_phase) in {Phase.LOADING, Phase.FINISHED}:
                    await self._load(desired)
                else:
                    await self._resume(desired)
                return await self._carry_out()
        except BCAttrValsError as error:
            if error.report is None:
                calls, retries = self._calls.calls, self._calls.retries
                error.report = SyncReport(0, 0, 0, 0, 0, 0, calls, retries=retries)
            if isinstance(error.report, SyncReport):
                error.report = attrs.evolve(error.report, ended_early=True)
            raise

    async def upsert(self, items: Items) -> UpsertReport:
        """Run, and return the report of an upsert; an error has the report of an upsert, too."""
        try:
            return upsert_report(await self.run(items))
        except BCAttrValsError as error:
            if isinstance(error.report, SyncReport):
                error.report = upsert_report(error.report)
            raise

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[None]:
        """Take the mirror into use, and open the journal or a temporary working set."""
        async with AsyncExitStack() as stack:
            if (mirror := self._options.mirror) is not None:
                use = mirror.use(self._calls, self._scope, self._place)
                self._known = await stack.enter_async_context(use)
            stack.push_async_callback(self._database.aclose)
            await self._database.open()
            yield

    # Loading.

    async def _load(self, desired: Items) -> None:
        await self._run(journal.begin, self._identity)
        digest = await self._read_input(desired, keep=True)
        count = await self._run(WorkingSet.end_loading, seal=self._database.is_file)
        if self._options.prune and not count and not self._options.allow_empty:
            await self._refuse_to_prune_all()
        await self._run(journal.end_loading, digest)

    async def _refuse_to_prune_all(self) -> NoReturn:
        failed, unknown = await self._unresolved()
        what = "pruning would delete all; say allow_empty=True"
        if not failed:
            raise InvalidInputError(f"desired is empty, so {what}", field="desired")
        message = f"none of the {failed} desired values can be stored, so {what} if that is meant"
        error = _not_pruned(unknown) if unknown else UnresolvedError(message)
        error.report = await self._report()
        raise error

    async def _resume(self, desired: Items) -> None:
        """Refuse a journal of another job; prepare to go on with one of this job."""
        name = self._database.name
        await self._run(self._identity.check, name)
        digest = await self._read_input(desired, keep=False)
        if digest != await self._run(WorkingSet.text, "digest"):
            what = "items" if self._options.kind is JobKind.UPSERT else "desired values"
            raise journal.other_job(name, f"is of a job with other {what}")
        if not await self._run(WorkingSet.is_intact):
            raise JournalError(f"{name} is damaged: its rows are not as they were written")
        await self._run(WorkingSet.take_over)

    async def _read_input(self, desired: Items, *, keep: bool) -> str:
        """Read the input to its end, which may take hours, and return its digest."""
        await self._calls.check_trust()
        digest = hashlib.blake2b(digest_size=16)
        count = 0

        def insert(working_set: WorkingSet, loaded: Loaded) -> None:
            if self._database.is_file:
                digest.update(_encode_lines(loaded.read))
            if keep:
                working_set.add_desired(loaded.rows, loaded.names, loaded.unresolved)

        loader = Loader(
            scope=self._scope,
            normalise=self._options.normalise,
            field="items" if self._options.kind is JobKind.UPSERT else "desired",
            resolve=self._resolve,
        )
        async with aclosing(loader.load(desired, resolve=keep)) as parts:
            async for loaded in parts:
                await self._run(insert, loaded)
                count += len(loaded.read)
                if self._calls.events:
                    self._calls.events.emit(SyncProgressed(Phase.LOADING, count))
        return digest.hexdigest()

    async def _resolve(
        self, named: Sequence[NamedValue]
    ) -> Sequence[AttributeValueUpsert | UnresolvedError]:
        return await self._resolver.resolve(named, self._calls, self._names)

    async def _unresolved(self) -> tuple[int, int]:
        """Return how many values can't be resolved, and how many of them forbid a prune."""
        failed, unknown = await self._run(WorkingSet.unresolved)
        is_free = not self._options.prune or self._options.allow_unresolved
        return failed, 0 if is_free else unknown

    async def _check_resolved(self) -> None:
        """Raise `UnresolvedError` if values without a known key forbid a prune."""
        _, unknown = await self._unresolved()
        if unknown:
            raise _not_pruned(unknown)

    # The plan.

    async def _make_plan(self) -> SyncPlan:
        options = self._options
        reading, saved = Reading.NOTHING, 0
        if options.kind is JobKind.SYNC:
            state = CurrentState(
                self._calls, scope=self._scope, database=self._database, prune=options.prune
            )
            if self._known is None:
                reading = await state.read(always=options.always_read)
            else:
                listing_calls = await state.read_mirror(self._known)
                saved = max(0, listing_calls - self._calls.calls)
                reading = Reading.MIRROR
        differences, repeated = await self._run(
            WorkingSet.compare, reading, prune=options.prune, seal=self._database.is_file
        )
        if repeated:
            message = "customers' attributes that the store holds in more than one row: %d"
            _logger.warning(message, repeated)
            if shared := await self._run(WorkingSet.deletes_with_shared_keys):
                await check_shared_keys(self._calls, shared)
        # If the job ends before this, the next run over its journal reads the store anew.
        await self._run(WorkingSet.put, phase=Phase.WRITING)
        plan = await self._costed(reading, self._calls.calls, differences)
        return attrs.evolve(plan, repeated=repeated, saved_calls=saved)

    async def _plan_left(self) -> SyncPlan:
        """Return the plan of what a journal has left to do."""
        reading = Reading(await self._run(WorkingSet.text, "reading") or Reading.LIST)
        return await self._costed(reading, 0, await self._run(WorkingSet.left))

    async def _costed(
        self, reading: Reading, read_calls: int, differences: Differences
    ) -> SyncPlan:
        sizes = self._calls.sizes
        customers = await self._run(WorkingSet.pending_customers) if sizes.customers else 0
        write_calls = sizes.write_calls(differences.upserts, customers)
        unresolved, unknown = await self._unresolved()
        withheld = differences.delete if unknown else 0
        delete = differences.delete - withheld
        delete_calls = calls_for(delete, sizes.delete)
        return SyncPlan(
            reading=reading,
            create=differences.create,
            update=differences.update,
            delete=delete,
            unchanged=differences.unchanged,
            write=differences.write,
            read_calls=read_calls,
            write_calls=write_calls,
            delete_calls=delete_calls,
            unresolved=unresolved,
            withheld=withheld,
            seconds=estimate_seconds(
                read_calls,
                write_calls,
                delete_calls,
                quota=self._calls.quota(),
                limits=self._calls.limits,
                latency_s=self._calls.latency_s(),
            ),
        )

    async def _show(self, plan: SyncPlan, show: ShowChanges) -> None:
        """Give all changes of the plan to a function: upserts, then deletes, in key order."""
        key = 0
        while upserts := await self._run(WorkingSet.planned_upserts, key, _CHUNK):
            key = upserts[-1][0]
            await show([change for _, change in upserts])
        if not plan.delete:
            return
        row = (0, 0)
        while deletes := await self._run(WorkingSet.planned_deletes, row, _CHUNK):
            row = deletes[-1][0]
            await show([change for _, change in deletes])

    # Carrying it out.

    async def _carry_out(self) -> SyncReport:
        apply = Apply(
            self._calls,
            registry=self._registry,
            database=self._database,
            is_open=self._is_open,
            max_failures=(
                self._options.max_failures if self._options.show_failures is None else sys.maxsize
            ),
            known=self._known,
        )
        try:
            phase = await self._run(_phase)
            plan: SyncPlan | None = None
            if phase is Phase.READING:
                await self._run(WorkingSet.forget_current)
                plan = await self._make_plan()
                phase = Phase.WRITING
            confirm = self._options.confirm
            if confirm is not None and not await confirm(plan or await self._plan_left()):
                return await self._report()
            if phase is Phase.WRITING:
                await apply.write()
                await self._run(WorkingSet.put, phase=Phase.DELETING)
            await self._check_resolved()
            await apply.delete()
            return await self._report(finish=self._database.is_file)
        except BCAttrValsError as error:
            error.report = await self._report_so_far(apply)
            raise

    async def _report(self, *, finish: bool = False) -> SyncReport:
        await self._show_failures()
        seconds = self._loop.time() - self._started_at
        most = self._options.max_failures
        return await self._run(_sum_up, self._calls, seconds, most, finish=finish)

    async def _report_so_far(self, apply: Apply) -> SyncReport:
        try:
            noted = await self._report()
            report = await self._run(apply.complete, noted)
            unnoted = report.failures[len(noted.failures) :]
        except JournalError:
            report = apply.report_from_memory()
            unnoted = report.failures
        if unnoted and self._options.show_failures is not None:
            await self._options.show_failures(unnoted)
        return attrs.evolve(report, failures=report.failures[: self._options.max_failures])

    async def _show_failures(self) -> None:
        """Give all failures that are noted to a function, once."""
        show = self._options.show_failures
        if show is None:
            return
        while found := await self._run(WorkingSet.failures, self._shown, _FAILURES_CHUNK):
            self._shown = found[-1][0]
            await show(outcomes_of(row for _, row in found))


def _not_pruned(unknown: int) -> UnresolvedError:
    return UnresolvedError(
        f"{unknown} desired values could not be resolved, so nothing was pruned; fix their names "
        "and addresses, or say allow_unresolved=True (--allow-unresolved on the command line)"
    )


# Jobs of the database's thread.


def _phase(working_set: WorkingSet) -> Phase:
    return working_set.phase


def _sum_up(
    working_set: WorkingSet, calls: Calls, seconds: float, most_failures: int, *, finish: bool
) -> SyncReport:
    # A full disk takes no more notes, but can still be read.
    with suppress(sqlite3.Error), working_set.transaction():
        working_set.spend(calls=calls.calls, retries=calls.retries, seconds=seconds)
    report = report_of(working_set, most_failures)
    # The next run over the journal sends unanswered values again.
    if finish and not working_set.tally().unanswered:
        journal.finish(working_set, dump_report(report))
    return report
