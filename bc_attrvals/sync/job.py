"""Diff-based sync: desired values in, and only what differs goes out.

Below the resource, above the bulk writes. A `SyncJob` loads the desired values into a working set,
has `survey.py` read what the store holds and SQLite compare the two, and `delivery.py` carry the
difference out. Over a journal each step is committed before the next is taken, so that a killed job
goes on where it was.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Sequence,
)
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Final

import attrs
import msgspec

from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.core.models import AttributeValueUpsert
from bc_attrvals.core.sync_plan import Reading, SyncPlan, calls_for, estimate_seconds
from bc_attrvals.core.sync_states import DesiredRow, Differences, Phase, to_key
from bc_attrvals.errors import BCAttrValsError, InvalidInputError, JournalError
from bc_attrvals.events import SyncProgressed
from bc_attrvals.scheduling.calls import Calls
from bc_attrvals.sync.apply import Delivery
from bc_attrvals.sync.current_state import Survey
from bc_attrvals.sync.database import WorkSet
from bc_attrvals.sync.journal import Desk, Identity, JournalPath, finish
from bc_attrvals.sync.report import SyncReport, report_of
from bc_attrvals.sync.scope import Scope
from bc_attrvals.writing.batching import KeyRegistry
from bc_attrvals.writing.sources import Items

__all__ = ["SyncJob"]

#: Items that are read before they go to the working set together.
_CHUNK: Final = 4_096

_encode_lines: Final = msgspec.json.Encoder().encode_lines


class SyncJob:
    """One sync. Make it, then call `plan` or `run` once.

    Raises `InvalidInputError` for a scope that
    desired values can't be held against, and for pruning without a scope.
    """

    def __init__(
        self,
        calls: Calls,
        *,
        registry: KeyRegistry,
        is_open: Callable[[], bool],
        scope: AttributeValueFilter | None,
        prune: bool,
        allow_empty: bool,
        max_failures: int,
    ) -> None:
        self._scope = Scope.of(scope)
        if prune and scope is None:
            message = (
                "prune deletes what is not desired, and needs a scope that says where; "
                "AttributeValueFilter() is the whole store"
            )
            raise InvalidInputError(message, field="scope")
        self._calls = calls
        self._registry = registry
        self._is_open = is_open
        self._prune = prune
        self._allow_empty = allow_empty
        self._max_failures = max_failures
        # The path names the store and holds no secret.
        self._identity = Identity(calls.resource, self._scope.digest(), prune)
        self._loop = asyncio.get_running_loop()
        self._noted_at = self._loop.time()

    async def plan(self, desired: Items) -> SyncPlan:
        """Load, read and compare, and write nothing."""
        async with _open(None) as desk:
            await self._load(desk, desired)
            return await self._make_plan(desk)

    async def dry_run(self, desired: Items) -> SyncReport:
        """Do as `plan`, and report as if all had been done."""
        async with _open(None) as desk:
            await self._load(desk, desired)
            plan = await self._make_plan(desk)
            return attrs.evolve(
                await desk.run(_sum_up, self._lap_s()),
                created=plan.create,
                updated=plan.update,
                deleted=plan.delete,
                written=plan.write,
                not_sent=0,
            )

    async def run(
        self,
        desired: Items,
        journal: JournalPath | None,
        confirm: Callable[[SyncPlan], Awaitable[bool]] | None = None,
    ) -> SyncReport:
        """Do it all, or what a journal has left to do, once `confirm` has said yes to it."""
        async with _open(journal) as desk:
            if await desk.run(_phase) is Phase.LOADING:
                await self._load(desk, desired)
            else:
                await self._take_up(desk, desired)
            delivery = Delivery(
                self._calls,
                registry=self._registry,
                desk=desk,
                is_open=self._is_open,
                max_failures=self._max_failures,
            )
            try:
                await self._carry_out(desk, delivery, confirm)
            except BCAttrValsError as error:
                with suppress(JournalError):
                    report = await desk.run(_sum_up, self._lap_s())
                    unnoted = delivery.deleted_unnoted
                    error.report = attrs.evolve(
                        report,
                        deleted=report.deleted + unnoted,
                        not_sent=report.not_sent - unnoted,
                    )
                raise
            if await desk.run(_phase) is Phase.FINISHED:
                return await desk.run(report_of)
            return await desk.run(_sum_up, self._lap_s())

    async def _carry_out(
        self,
        desk: Desk,
        delivery: Delivery,
        confirm: Callable[[SyncPlan], Awaitable[bool]] | None,
    ) -> None:
        phase = await desk.run(_phase)
        if phase is Phase.FINISHED:
            return
        plan: SyncPlan | None = None
        if phase is Phase.READING:
            await desk.run(WorkSet.forget_current)
            plan = await self._make_plan(desk)
            phase = Phase.WRITING
        if confirm is not None:
            if plan is None:
                reading = Reading(await desk.run(WorkSet.text, "reading") or Reading.LIST)
                plan = self._costed(reading, 0, await desk.run(WorkSet.left))
            if not await confirm(plan):
                return
        if phase is Phase.WRITING:
            await delivery.write()
            await desk.run(WorkSet.put, phase=Phase.DELETING)
            phase = Phase.DELETING
        if phase is Phase.DELETING:
            await delivery.delete()
            # What nobody answered is no outcome to end with: the same again sends it again.
            if not (desk.is_journal and (await desk.run(WorkSet.tally)).unanswered):
                await desk.run(finish, self._lap_s())

    async def _make_plan(self, desk: Desk) -> SyncPlan:
        survey = Survey(self._calls.for_job(), self._scope, desk)
        reading = await survey.read(prune=self._prune)
        seal = desk.is_journal
        if reading is Reading.NOTHING:
            differences = await desk.run(WorkSet.plan_all, seal=seal)
        else:
            differences = await desk.run(WorkSet.compare, prune=self._prune, seal=seal)
        await desk.run(WorkSet.put, reading=reading)
        return self._costed(reading, survey.calls, differences)

    def _costed(self, reading: Reading, read_calls: int, differences: Differences) -> SyncPlan:
        limits = self._calls.limits
        write_calls = calls_for(differences.upserts, limits.batch_size)
        delete_calls = calls_for(differences.delete, limits.delete_size)
        return SyncPlan(
            reading=reading,
            create=differences.create,
            update=differences.update,
            delete=differences.delete,
            unchanged=differences.unchanged,
            write=differences.write,
            read_calls=read_calls,
            write_calls=write_calls,
            delete_calls=delete_calls,
            seconds=estimate_seconds(
                read_calls,
                write_calls,
                delete_calls,
                quota=self._calls.quota(),
                limits=limits,
            ),
        )

    async def _load(self, desk: Desk, desired: Items) -> None:
        await desk.run(_begin, self._identity)
        digest = await self._read_input(desk, desired, keep=True)
        count = await desk.run(WorkSet.end_loading, seal=desk.is_journal)
        if self._prune and not count and not self._allow_empty:
            message = "desired is empty, so pruning would delete all; say allow_empty=True"
            raise InvalidInputError(message, field="desired")
        await desk.run(WorkSet.put, phase=Phase.READING, digest=digest)

    async def _take_up(self, desk: Desk, desired: Items) -> None:
        """Refuse a journal of another job, or go on with it."""
        await desk.run(_check_identity, self._identity, desk.name)
        digest = await self._read_input(desk, desired, keep=False)
        if digest != await desk.run(WorkSet.text, "digest"):
            raise JournalError(f"{desk.name} is of a sync with other desired values")
        if not await desk.run(WorkSet.is_intact):
            raise JournalError(f"{desk.name} is damaged: its rows are not as they were written")
        await desk.run(_resume)

    async def _read_input(self, desk: Desk, desired: Items, *, keep: bool) -> str:
        """Read the input to its end and return its digest."""
        digest = hashlib.blake2b(digest_size=16)
        count = 0

        def take(workset: WorkSet, rows: Sequence[DesiredRow]) -> None:
            if desk.is_journal:
                digest.update(_encode_lines(rows))
            if keep:
                workset.add_desired(rows)

        async with aclosing(_chunks(desired, self._scope)) as chunks:
            async for rows in chunks:
                await desk.run(take, rows)
                count += len(rows)
                if self._calls.events:
                    self._calls.events.emit(SyncProgressed(Phase.LOADING, count))
        return digest.hexdigest()

    def _lap_s(self) -> float:
        now = self._loop.time()
        lap_s, self._noted_at = now - self._noted_at, now
        return lap_s


@asynccontextmanager
async def _open(journal: JournalPath | None) -> AsyncIterator[Desk]:
    desk = Desk(journal)
    try:
        await desk.open()
        yield desk
    finally:
        await desk.aclose()


async def _chunks(desired: Items, scope: Scope) -> AsyncGenerator[list[DesiredRow]]:
    """Yield checked rows, some thousands at once, so that the loop turns in between."""
    rows: list[DesiredRow] = []
    count = 0
    if isinstance(desired, AsyncIterable):
        iterator = aiter(desired)
        try:
            async for item in iterator:
                rows.append(_checked(item, count, scope))
                count += 1
                if len(rows) == _CHUNK:
                    yield rows
                    rows = []
        finally:
            close = getattr(iterator, "aclose", None)
            if close is not None:
                await close()
    elif isinstance(desired, Iterable) and not isinstance(desired, str | bytes):
        for item in desired:
            rows.append(_checked(item, count, scope))
            count += 1
            if len(rows) == _CHUNK:
                yield rows
                rows = []
    else:
        message = f"desired must be an iterable, sync or async, not {type(desired).__name__}"
        raise InvalidInputError(message, field="desired")
    if rows:
        yield rows


def _checked(item: object, index: int, scope: Scope) -> DesiredRow:
    if not isinstance(item, AttributeValueUpsert):
        message = f"expected AttributeValueUpsert, got {type(item).__name__}"
        raise InvalidInputError(message, field="desired", place=f"desired[{index}]")
    if not scope.holds(item.customer_id, item.attribute_id):
        message = (
            f"customer {item.customer_id}, attribute {item.attribute_id} is outside of the scope"
        )
        raise InvalidInputError(message, field="desired", place=f"desired[{index}]")
    return to_key(item.customer_id, item.attribute_id), item.value


# Jobs of the desk's thread.


def _phase(workset: WorkSet) -> Phase:
    return workset.phase


def _begin(workset: WorkSet, identity: Identity) -> None:
    with workset.transaction():
        workset.create()
        identity.note(workset)


def _check_identity(workset: WorkSet, identity: Identity, name: str) -> None:
    identity.check(workset, name)


def _resume(workset: WorkSet) -> None:
    if workset.phase is Phase.FINISHED:
        return
    with workset.transaction():
        workset.add(resumptions=1, resent=workset.reclaim())


def _sum_up(workset: WorkSet, seconds: float) -> SyncReport:
    with workset.transaction():
        workset.add(seconds=seconds)
    return report_of(workset)
