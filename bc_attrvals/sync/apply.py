"""Carries the plan of a sync out: upserts and deletes of the working set, noted as they go.

Between `sync.py` and the bulk writes. Over a journal a row is noted as in flight before it is sent
and as done or failed before anything counts it, each time durably; no more batches are under way
and not noted than `Limits.writes`, so a killed job leaves that many unknown and no more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from typing import Final, Self

import attrs

from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.core.models import AttributeValueUpsert
from bc_attrvals.core.outcomes import DeleteReport, OutcomeStatus, UpsertOutcome
from bc_attrvals.core.retry import ends_job, is_retryable
from bc_attrvals.core.sync_states import Phase, State, Tally, from_key, to_key
from bc_attrvals.errors import BCAttrValsError, StoreStateError, TransportError
from bc_attrvals.events import SyncProgressed
from bc_attrvals.reading.pager import pages
from bc_attrvals.scheduling.calls import Calls
from bc_attrvals.sync.database import WorkSet
from bc_attrvals.sync.journal import Desk
from bc_attrvals.sync.report import dump_error
from bc_attrvals.writing.batching import KeyRegistry
from bc_attrvals.writing.delete_job import DeleteJob
from bc_attrvals.writing.upsert_job import Outcomes, UpsertJob

__all__ = ["Delivery"]

#: Upserts taken from the working set at once.
_CHUNK: Final = 4_096
#: Where nothing need survive, outcomes are noted so many at once, and deletes so many calls.
_OUTCOMES_AT_ONCE: Final = 500
_DELETE_CALLS_AT_ONCE: Final = 60


class Delivery:
    """What is left of the plan in one working set."""

    def __init__(
        self,
        calls: Calls,
        *,
        registry: KeyRegistry,
        desk: Desk,
        is_open: Callable[[], bool],
        max_failures: int,
    ) -> None:
        self._calls = calls
        self._registry = registry
        self._desk = desk
        self._is_open = is_open
        self._max_failures = max_failures
        self._progress = SyncProgressed(Phase.WRITING, 0)
        #: Ids confirmed by the service that an error kept from being noted.
        self.deleted_unnoted = 0
        self._unsettled: BCAttrValsError | None = None

    async def write(self) -> None:
        """Send all upserts; raise what ended the job early, after noting what came before.

        Cancelled, it returns at once: what is on the wire may be applied, and is in flight by the
        journal.
        """
        self._begin(Phase.WRITING, await self._desk.run(WorkSet.tally))
        durable = self._desk.is_journal
        feed = _Feed(self._desk)
        ready: deque[UpsertOutcome] = deque()
        job = UpsertJob(
            feed,
            self._calls.for_job(),
            registry=self._registry,
            outcomes=Outcomes(0, ready),
            before_send=self._mark_in_flight if durable else None,
            most_running=self._calls.limits.writes if durable else None,
            in_step_alone=True,
        )
        meter = _Meter()
        at_least = 1 if durable else _OUTCOMES_AT_ONCE
        try:
            more = True
            while more:
                await feed.refill(job.appetite)
                # Right before the step, which begins the next batches.
                while len(ready) >= at_least:
                    await self._note(ready, meter.take(job))
                more = await job.step()
            while ready or job.calls > meter.calls:
                await self._note(ready, meter.take(job))
        except BaseException:
            await job.abandon()
            raise
        if job.error is not None:
            raise job.error
        if self._unsettled is not None:
            raise StoreStateError("the Store was closed during the sync") from self._unsettled

    async def delete(self) -> None:
        """Send all deletes, round by round; raise the first error."""
        await self._look_again()
        self._begin(Phase.DELETING, await self._desk.run(WorkSet.tally))
        limits = self._calls.limits
        calls_at_once = limits.deletes if self._desk.is_journal else _DELETE_CALLS_AT_ONCE
        job = DeleteJob(self._calls.for_job())
        meter = _Meter()
        noted = 0
        while ids := await self._desk.run(_begin_deletes, calls_at_once * limits.delete_size):
            try:
                await job.run(ids)
            except BCAttrValsError:
                # Which of them are deleted is not known: all stay in flight.
                self.deleted_unnoted = job.report().deleted - noted
                await self._desk.run(_end_deletes, [], *meter.take(job.report()))
                raise
            noted = job.report().deleted
            await self._desk.run(_end_deletes, ids, *meter.take(job.report()))
            self._advance(len(ids))

    async def _look_again(self) -> None:
        """Find out which of the rows are still there whose deletes an earlier run had sent."""
        doubtful = await self._desk.run(WorkSet.doubtful_deletes)
        if not doubtful:
            return
        keys = [from_key(key) for _, key in doubtful]
        wanted = AttributeValueFilter(
            customer_id_in={customer for customer, _ in keys},
            attribute_id_in={attribute for _, attribute in keys},
        )
        found: set[int] = set()
        calls = self._calls.for_job()
        try:
            async with aclosing(pages(calls, wanted)) as listing:
                async for page in listing:
                    found.update(row.id for row in page.data)
        finally:
            await self._desk.run(_note_calls, calls.calls, calls.retries)
        ids = [one for one, _ in doubtful]
        await self._desk.run(_settle_deletes, ids, found)

    async def _mark_in_flight(self, items: Sequence[AttributeValueUpsert]) -> None:
        await self._desk.run(WorkSet.mark_upserts, _keys(items), State.IN_FLIGHT)

    async def _note(self, ready: deque[UpsertOutcome], amounts: tuple[int, int]) -> None:
        outcomes = list(ready)
        ready.clear()
        done = _keys(one.item for one in outcomes if one.ok)
        failed = [one for one in outcomes if one.status is OutcomeStatus.FAILED]
        settled = [one for one in failed if self._is_settled(one)]
        if len(settled) < len(failed):
            self._unsettled = next(one.error for one in failed if not self._is_settled(one))
        not_sent = _keys(one.item for one in outcomes if one.status is OutcomeStatus.NOT_SENT)
        await self._desk.run(_note_outcomes, done, settled, not_sent, *amounts, self._max_failures)
        self._advance(len(done), settled)

    def _begin(self, phase: Phase, tally: Tally) -> None:
        """Begin to count: what earlier runs of a journal did is done."""
        deleting = phase is Phase.DELETING
        done = tally.deleted if deleting else tally.created + tally.updated + tally.written
        failed = 0 if deleting else tally.failed
        left = tally.open_deletes if deleting else tally.open - tally.open_deletes
        self._progress = SyncProgressed(phase, done, failed, total=done + failed + left)
        self._advance(0)

    def _advance(self, done: int, failed: Sequence[UpsertOutcome] = ()) -> None:
        before = self._progress
        unanswered = sum(map(_is_unanswered, failed))
        self._progress = attrs.evolve(
            before,
            done=before.done + done,
            failed=before.failed + len(failed),
            unanswered=before.unanswered + unanswered,
        )
        if self._calls.events and before.total:
            self._calls.events.emit(self._progress)

    def _is_settled(self, failed: UpsertOutcome) -> bool:
        """Return whether a failed item is over with; else it stays in flight, and is sent again.

        It is not, when the whole job ended with it or the Store was closed underneath.
        """
        error = failed.error
        if error is None or ends_job(error):
            return False
        return self._is_open() or not isinstance(error, TransportError)


class _Feed:
    """The pending upserts in the order of their keys, a part of them at hand.

    Items at hand and not an asynchronous generator: a batch is never sent half full because the
    disk was slow.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._items: deque[AttributeValueUpsert] = deque()
        self._after = 0
        self._exhausted = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> AttributeValueUpsert:
        if self._items:
            return self._items.popleft()
        assert self._exhausted, "more was read in a step than its appetite"
        raise StopIteration

    async def refill(self, appetite: int) -> None:
        """Have at least that many items at hand, or all there are."""
        while not self._exhausted and len(self._items) < appetite:
            rows = await self._desk.run(WorkSet.pending_upserts, self._after, _CHUNK)
            if len(rows) < _CHUNK:
                self._exhausted = True
            if rows:
                self._after = rows[-1][0]
                self._items.extend(item for _, item in rows)


class _Meter:
    """How much of growing sums was taken already."""

    def __init__(self) -> None:
        self.calls = 0
        self._retries = 0

    def take(self, sums: UpsertJob | DeleteReport) -> tuple[int, int]:
        """Return calls and retries that came since the last time."""
        fresh = (sums.calls - self.calls, sums.retries - self._retries)
        self.calls, self._retries = sums.calls, sums.retries
        return fresh


def _keys(items: Iterable[AttributeValueUpsert]) -> list[int]:
    return [to_key(item.customer_id, item.attribute_id) for item in items]


def _is_unanswered(failed: UpsertOutcome) -> bool:
    """Return whether an error says nothing of the item, and came after all tries."""
    error = failed.error
    return error is not None and (isinstance(error, TransportError) or is_retryable(error))


def _note_calls(workset: WorkSet, calls: int, retries: int) -> None:
    with workset.transaction():
        workset.add(calls=calls, retries=retries)


def _settle_deletes(workset: WorkSet, ids: list[int], found: set[int]) -> None:
    with workset.transaction():
        workset.mark_deletes((one for one in ids if one not in found), State.DONE)
        again = [one for one in ids if one in found]
        workset.mark_deletes(again, State.PENDING)
        workset.add(resent=len(again))


def _note_outcomes(
    workset: WorkSet,
    done: list[int],
    failed: list[UpsertOutcome],
    not_sent: list[int],
    calls: int,
    retries: int,
    most_failures: int,
) -> None:
    with workset.transaction():
        workset.mark_upserts(done, State.DONE)
        workset.mark_upserts(not_sent, State.PENDING)
        if failed:
            keys = _keys(one.item for one in failed)
            workset.mark_upserts(keys, State.FAILED)
            unanswered = _keys(one.item for one in failed if _is_unanswered(one))
            workset.mark_upserts(unanswered, State.UNANSWERED)
            workset.add_failures(zip(keys, _dumped(failed), strict=True), most_failures)
        workset.add(calls=calls, retries=retries)


def _dumped(failed: Iterable[UpsertOutcome]) -> Iterator[str]:
    return (dump_error(one.error) for one in failed if one.error is not None)


def _begin_deletes(workset: WorkSet, most: int) -> list[int]:
    with workset.transaction():
        ids = workset.pending_deletes(most)
        workset.mark_deletes(ids, State.IN_FLIGHT)
    return ids


def _end_deletes(workset: WorkSet, ids: list[int], calls: int, retries: int) -> None:
    with workset.transaction():
        workset.mark_deletes(ids, State.DONE)
        workset.add(calls=calls, retries=retries)
