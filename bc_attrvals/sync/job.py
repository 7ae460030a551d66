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
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Final, NoReturn

import attrs
import msgspec

from bc_attrvals.core.models import AttributeValueUpsert
from bc_attrvals.core.named_value import NamedValue
from bc_attrvals.core.outcomes import UpsertReport
from bc_attrvals.core.sync_plan import (
    Reading,
    SyncPlan,
    calls_for,
    estimate_seconds,
)
from bc_attrvals.core.sync_states import Differences, Phase
from bc_attrvals.errors import (
    BCAttrValsError,
    InvalidInputError,
    JournalError,
    UnresolvedError,
)
from bc_attrvals.events import SyncProgressed
from bc_attrvals.naming.resolver import JobNames, Resolver
from bc_attrvals.scheduling.calls import Calls
from bc_attrvals.sync import journal
from bc_attrvals.sync.apply import Apply
from bc_attrvals.sync.call_meter import CallMeter
from bc_attrvals.sync.current_state import CurrentState
from bc_attrvals.sync.db_thread import DatabaseThread
from bc_attrvals.sync.journal import Identity
from bc_attrvals.sync.known_state import KnownState
from bc_attrvals.sync.loading import Loaded, Loader
from bc_attrvals.sync.options import Confirm, JobKind, JournalPath, ShowChanges, SyncOptions
from bc_attrvals.sync.report import SyncReport, dump_report, report_of, upsert_report
from bc_attrvals.sync.scope import Scope
from bc_attrvals.sync.working_set import WorkingSet
from bc_attrvals.writing.batching import KeyRegistry
from bc_attrvals.writing.sources import Items

#: Changes taken from the working set at once.
_CHUNK: Final = 4_096

_encode_lines: Final = msgspec.json.Encoder().encode_lines
_logger = logging.getLogger(__name__)


class SyncJob:
    """One sync. Create it, then call `plan` or `run` once.

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
        self._meter = CallMeter(self._calls)
        self._options = options
        self._registry = registry
        self._resolver = resolver
        self._names = JobNames()
        self._is_open = is_open
        self._place = place
        # The mirror, while it is in use.
        self._known: KnownState | None = None
        self._identity = Identity(options.kind, place, self._scope.digest(), options.prune)
        self._input_field = "items" if options.kind is JobKind.UPSERT else "desired"
        self._loop = asyncio.get_running_loop()
        self._noted_at = self._loop.time()

    async def plan(self, desired: Items, show_changes: ShowChanges | None = None) -> SyncPlan:
        """Load, read and compare; write nothing. `show_changes` gets every change."""
        async with self._mirror_in_use(), _open(None) as database:
            await self._load(database, desired)
            plan = await self._make_plan(database)
            if show_changes is not None:
                await _show(database, show_changes, with_deletes=bool(plan.delete))
            return plan

    async def dry_run(self, desired: Items) -> SyncReport:
        """Do as `plan`, and report as if all had been done."""
        async with self._mirror_in_use(), _open(None) as database:
            await self._load(database, desired)
            plan = await self._make_plan(database)
            report = attrs.evolve(
                await database.run(_sum_up, self._lap_s()),
                created=plan.create,
                updated=plan.update,
                deleted=plan.delete,
                written=plan.write,
                not_sent=plan.withheld,
            )
            try:
                await self._check_resolved(database)
            except UnresolvedError as error:
                error.report = report
                raise
            return report

    async def run(
        self,
        desired: Items,
        journal_path: JournalPath | None,
        confirm: Confirm | None = None,
        *,
        restart: bool = False,
    ) -> SyncReport:
        """Do it all, or what a journal has left to do, once `confirm` has agreed to it.

        A finished journal gives way to this job; with `restart` an unfinished one does, too. Every
        error of ours has a report.
        """
        opened = _open(journal_path, restart=restart)
        async with self._reporting(), self._mirror_in_use(), opened as database:
            apply = Apply(
                self._calls,
                self._meter,
                registry=self._registry,
                database=database,
                is_open=self._is_open,
                max_failures=self._options.max_failures,
                known=self._known,
            )
            if await database.run(_phase) in {Phase.LOADING, Phase.FINISHED}:
                await self._load(database, desired)
            else:
                await self._resume(database, desired)
            earlier = await database.run(_noted_calls)
            try:
                return await self._carry_out(database, apply, confirm)
            except BCAttrValsError as error:
                error.report = await self._report_so_far(database, apply, earlier)
                raise

    async def upsert(
        self, items: Items, journal_path: JournalPath, *, restart: bool
    ) -> UpsertReport:
        """Do as `run`, and report as an upsert does; an error has the report of an upsert, too."""
        try:
            return upsert_report(await self.run(items, journal_path, restart=restart))
        except BCAttrValsError as error:
            if isinstance(error.report, SyncReport):
                error.report = upsert_report(error.report)
            raise

    async def _carry_out(
        self, database: DatabaseThread[WorkingSet], apply: Apply, confirm: Confirm | None
    ) -> SyncReport:
        phase = await database.run(_phase)
        plan: SyncPlan | None = None
        if phase is Phase.READING:
            await database.run(WorkingSet.forget_current)
            plan = await self._make_plan(database)
            phase = Phase.WRITING
        if confirm is not None:
            if plan is None:
                reading = Reading(await database.run(WorkingSet.text, "reading") or Reading.LIST)
                left = await database.run(WorkingSet.left)
                plan = await self._costed(database, reading, 0, left)
            if not await confirm(plan):
                return await database.run(_sum_up, self._lap_s())
        if phase is Phase.WRITING:
            await apply.write()
            await database.run(WorkingSet.put, phase=Phase.DELETING)
        await self._check_resolved(database)
        await apply.delete()
        if database.is_file and (await database.run(WorkingSet.tally)).unanswered:
            # The next run over the journal sends unanswered values again.
            return await database.run(_sum_up, self._lap_s())
        return await database.run(_finish, self._lap_s(), is_journal=database.is_file)

    async def _unresolved(self, database: DatabaseThread[WorkingSet]) -> tuple[int, int]:
        """Return how many values can't be resolved, and how many of them keep a prune back."""
        failed, unknown = await database.run(lambda working_set: working_set.names.counts())
        is_free = not self._options.prune or self._options.allow_unresolved
        return failed, 0 if is_free else unknown

    async def _check_resolved(self, database: DatabaseThread[WorkingSet]) -> None:
        """Delete nothing while it is unknown which rows some values are for."""
        _, unknown = await self._unresolved(database)
        if unknown:
            raise _not_pruned(unknown)

    async def _report_so_far(
        self, database: DatabaseThread[WorkingSet], apply: Apply, earlier: tuple[int, int]
    ) -> SyncReport:
        """Return what was done, with calls that an error kept from being noted."""
        with suppress(JournalError):
            report = await database.run(_sum_up, self._lap_s())
            return attrs.evolve(
                report,
                deleted=report.deleted + apply.deleted_unnoted,
                not_sent=report.not_sent - apply.deleted_unnoted,
                calls=earlier[0] + self._meter.total,
                retries=earlier[1] + self._meter.total_retries,
            )
        return apply.report_from_memory()

    async def _make_plan(self, database: DatabaseThread[WorkingSet]) -> SyncPlan:
        prune, seal = self._options.prune, database.is_file
        reading, calls, repeated, saved = Reading.NOTHING, 0, 0, 0
        if self._options.kind is JobKind.SYNC:
            state = CurrentState(self._calls, self._meter, scope=self._scope, database=database)
            if self._known is None:
                reading = await state.read(prune=prune, always=self._options.always_read)
            else:
                listing_calls = await state.read_mirror(self._known, prune=prune)
                saved = max(0, listing_calls - self._meter.total)
                reading = Reading.MIRROR
            calls = self._meter.total
        if reading is Reading.NOTHING:
            differences = await database.run(WorkingSet.plan_all, seal=seal)
        else:
            differences = await database.run(WorkingSet.compare, prune=prune, seal=seal)
            repeated = await database.run(WorkingSet.repeated_keys)
        if repeated:
            _logger.warning(
                "the store holds %d customers' attributes in more than one row", repeated
            )
        await database.run(WorkingSet.put, reading=reading)
        plan = await self._costed(database, reading, calls, differences)
        return attrs.evolve(plan, repeated=repeated, saved_calls=saved)

    async def _costed(
        self,
        database: DatabaseThread[WorkingSet],
        reading: Reading,
        read_calls: int,
        differences: Differences,
    ) -> SyncPlan:
        limits, sizes = self._calls.limits, self._calls.sizes
        customers = await database.run(WorkingSet.pending_customers) if sizes.customers else 0
        write_calls = sizes.write_calls(differences.upserts, customers)
        unresolved, unknown = await self._unresolved(database)
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
                limits=limits,
                latency_s=self._calls.latency_s(),
            ),
        )

    async def _load(self, database: DatabaseThread[WorkingSet], desired: Items) -> None:
        await database.run(journal.begin, self._identity)
        await database.run(WorkingSet.put, most_failures=self._options.max_failures)
        digest = await self._read_input(database, desired, keep=True)
        count = await database.run(WorkingSet.end_loading, seal=database.is_file)
        if self._options.prune and not count and not self._options.allow_empty:
            await self._refuse_to_prune_all(database)
        await database.run(journal.end_loading, digest)

    async def _refuse_to_prune_all(self, database: DatabaseThread[WorkingSet]) -> NoReturn:
        failed, unknown = await self._unresolved(database)
        what = "pruning would delete all; say allow_empty=True"
        if not failed:
            raise InvalidInputError(f"desired is empty, so {what}", field="desired")
        message = f"none of the {failed} desired values can be stored, so {what} if that is meant"
        error = _not_pruned(unknown) if unknown else UnresolvedError(message)
        report = await database.run(_sum_up, self._lap_s())
        calls, retries = self._meter.total, self._meter.total_retries
        error.report = attrs.evolve(report, calls=calls, retries=retries)
        raise error

    async def _resume(self, database: DatabaseThread[WorkingSet], desired: Items) -> None:
        """Refuse a journal of another job; prepare to go on with one of this job."""
        await database.run(self._identity.check, database.name)
        digest = await self._read_input(database, desired, keep=False)
        if digest != await database.run(WorkingSet.text, "digest"):
            raise journal.other_job(database.name, f"is of a job with other {self._input_words}")
        if not await database.run(WorkingSet.is_intact):
            raise JournalError(f"{database.name} is damaged: its rows are not as they were written")
        await database.run(_take_over)

    @property
    def _input_words(self) -> str:
        return "items" if self._options.kind is JobKind.UPSERT else "desired values"

    async def _read_input(
        self, database: DatabaseThread[WorkingSet], desired: Items, *, keep: bool
    ) -> str:
        """Read the input to its end, which may take hours, and return its digest."""
        await self._calls.check_trust()
        digest = hashlib.blake2b(digest_size=16)
        count = 0

        def insert(working_set: WorkingSet, loaded: Loaded) -> None:
            if database.is_file:
                digest.update(_encode_lines(loaded.read))
            if keep:
                working_set.add_desired(loaded.rows, loaded.names, loaded.unresolved)

        loader = Loader(
            scope=self._scope,
            normalise=self._options.normalise,
            field=self._input_field,
            resolve=self._resolve,
        )
        async with aclosing(loader.load(desired, resolve=keep)) as parts:
            async for loaded in parts:
                await database.run(insert, loaded)
                count += len(loaded.read)
                if self._calls.events:
                    self._calls.events.emit(SyncProgressed(Phase.LOADING, count))
        return digest.hexdigest()

    async def _resolve(
        self, named: Sequence[NamedValue]
    ) -> Sequence[AttributeValueUpsert | UnresolvedError]:
        return await self._resolver.resolve(named, self._calls, self._names)

    @asynccontextmanager
    async def _reporting(self) -> AsyncIterator[None]:
        """Give an error that came before anything was written a report, too."""
        try:
            yield
        except BCAttrValsError as error:
            if error.report is None:
                calls, retries = self._meter.total, self._meter.total_retries
                error.report = SyncReport(0, 0, 0, 0, 0, 0, calls, retries=retries)
            raise

    @asynccontextmanager
    async def _mirror_in_use(self) -> AsyncIterator[None]:
        mirror = self._options.mirror
        if mirror is None:
            yield
            return
        async with mirror.use(self._calls, self._scope, self._place) as known:
            self._known = known
            yield

    def _lap_s(self) -> float:
        now = self._loop.time()
        lap_s, self._noted_at = now - self._noted_at, now
        return lap_s


@asynccontextmanager
async def _open(
    path: JournalPath | None, *, restart: bool = False
) -> AsyncIterator[DatabaseThread[WorkingSet]]:
    database = journal.open_journal(path, restart=restart)
    try:
        await database.open()
        yield database
    finally:
        await database.aclose()


async def _show(
    database: DatabaseThread[WorkingSet], show: ShowChanges, *, with_deletes: bool
) -> None:
    """Give all changes of the plan to a function: upserts, then deletes, in order of their keys."""
    key = 0
    while upserts := await database.run(WorkingSet.planned_upserts, key, _CHUNK):
        key = upserts[-1][0]
        await show([change for _, change in upserts])
    row = (0, 0)
    while with_deletes and (deletes := await database.run(WorkingSet.planned_deletes, row, _CHUNK)):
        row = deletes[-1][0]
        await show([change for _, change in deletes])


def _not_pruned(unknown: int) -> UnresolvedError:
    return UnresolvedError(
        f"{unknown} desired values could not be resolved, so nothing was pruned; fix their names "
        "and addresses, or say allow_unresolved=True (--allow-unresolved on the command line)"
    )


# Jobs of the database's thread.


def _phase(working_set: WorkingSet) -> Phase:
    return working_set.phase


def _noted_calls(working_set: WorkingSet) -> tuple[int, int]:
    return int(working_set.number("calls")), int(working_set.number("retries"))


def _take_over(working_set: WorkingSet) -> None:
    with working_set.transaction():
        working_set.add(resumptions=1, resent=working_set.reclaim())


def _sum_up(working_set: WorkingSet, seconds: float) -> SyncReport:
    # A full disk takes no more seconds, and can be read all the same.
    with suppress(sqlite3.Error), working_set.transaction():
        working_set.add(seconds=seconds)
    return report_of(working_set)


def _finish(working_set: WorkingSet, seconds: float, *, is_journal: bool) -> SyncReport:
    with working_set.transaction():
        working_set.add(seconds=seconds)
        report = report_of(working_set)
        journal.finish(working_set, dump_report(report) if is_journal else "")
    journal.fold_log(working_set)
    return report
