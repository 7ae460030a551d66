"""Carries out the plan of a sync: sends its upserts and deletes, and notes their outcomes.

Between `job.py` and the bulk writes. Over a journal, each row is noted as in flight before it is
sent, and as done or failed before it is counted. At most `Limits.writes` batches are sent and not
yet noted, so a killed job leaves at most that many unknown.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from typing import Final

import attrs

from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.core.models import AttributeValueUpsert, Row
from bc_attrvals.core.outcomes import OutcomeStatus, UpsertOutcome
from bc_attrvals.core.retry import ends_job, is_retryable
from bc_attrvals.core.sync_states import Phase, State, Tally, from_key, to_key
from bc_attrvals.errors import BCAttrValsError, StoreStateError, TransportError
from bc_attrvals.events import SyncProgressed
from bc_attrvals.reading.unordered import read_filter
from bc_attrvals.scheduling.calls import Calls
from bc_attrvals.sync.database_thread import DatabaseThread
from bc_attrvals.sync.known_state import KnownState
from bc_attrvals.sync.report import SyncReport, dump_error, with_unnoted
from bc_attrvals.sync.unnoted_outcomes import MOST_UNNOTED, UnnotedOutcomes
from bc_attrvals.sync.working_set import WorkingSet
from bc_attrvals.writing.batching import KeyRegistry
from bc_attrvals.writing.delete_job import DeleteJob
from bc_attrvals.writing.sources import source_of_lists
from bc_attrvals.writing.upsert_job import UpsertJob

#: Upserts taken from the working set at once.
_CHUNK: Final = 4_096
#: Over a temporary working set, calls of deletes noted at once.
_DELETE_CALLS_AT_ONCE: Final = 60


class Apply:
    """Sends the changes that are left of the plan in one working set; `calls` are the sync's own.

    Over a journal, a worker notes its next batch as in flight in the same transaction as the
    outcomes of its last one. Everything else that waits to be noted shares the transaction (group
    commit). So every value sent is noted as in flight, and at most `Limits.writes` batches are.
    """

    def __init__(
        self,
        calls: Calls,
        *,
        registry: KeyRegistry,
        database: DatabaseThread[WorkingSet],
        is_open: Callable[[], bool],
        max_failures: int,
        known: KnownState | None = None,
    ) -> None:
        self._known = known
        self._calls = calls
        self._registry = registry
        self._database = database
        self._is_open = is_open
        self._max_failures = max_failures
        self._progress = SyncProgressed(Phase.WRITING, 0)
        self._written = 0
        # Deletes that the service confirmed and that an error kept from being noted, and deletes
        # that were sent and not confirmed when an error ended the job.
        self._deleted_unnoted = 0
        self._unconfirmed_deletes = 0
        # Failed items that are not final: see `_is_settled`.
        self._unsettled: list[UpsertOutcome] = []
        self._outcomes = UnnotedOutcomes(keep_rows=known is not None)
        # Keys of batches that are about to be sent.
        self._begun: list[int] = []
        self._committing = asyncio.Lock()
        self._not_committed: BaseException | None = None

    async def write(self) -> None:
        """Send all upserts; raise what ended the job early, after noting what came before.

        Cancelled, it returns at once. What is on the wire may be applied, and is in flight in the
        journal.
        """
        self._start_phase(Phase.WRITING, await self._database.run(WorkingSet.tally))
        # The source gives lists, so that a slow disk leaves no batch short but the last.
        job = UpsertJob(
            source_of_lists(self._pending()),
            self._calls,
            registry=self._registry,
            outcomes=self._outcomes,
            log=self if self._database.is_file else None,
        )
        await job.run(self._after_step)
        await self.end()
        if job.error is not None:
            raise job.error
        if self._unsettled:
            message = "the Store was closed during the sync"
            raise StoreStateError(message) from self._unsettled[0].error

    async def begin(self, items: Sequence[AttributeValueUpsert]) -> None:
        """Note items as in flight in the journal, and all outcomes that are not noted yet."""
        self._begun += _keys(items)
        await self.end()

    async def end(self) -> None:
        """Commit all that is not noted yet; callers that come meanwhile share the next commit."""
        async with self._committing:
            if self._not_committed is not None:
                # The commit that failed may have held another worker's batch.
                raise self._not_committed
            if self._begun or self._outcomes.untaken:
                try:
                    await self._commit()
                except BaseException as error:
                    self._not_committed = error
                    raise

    async def _after_step(self) -> None:
        if self._database.is_file:
            return
        if self._outcomes.untaken >= MOST_UNNOTED:
            await self.end()
        elif self._calls.events and (confirmed := self._outcomes.confirmed):
            # Confirmed values count as done before they are noted: a wait for quota may come first.
            done = self._progress.done + confirmed
            self._calls.events.emit(attrs.evolve(self._progress, done=done))

    async def _pending(self) -> AsyncGenerator[list[AttributeValueUpsert]]:
        """Yield the pending upserts in the order of their keys."""
        after = 0
        while items := await self._database.run(WorkingSet.pending_upserts, after, _CHUNK):
            after = to_key(*items[-1].key)
            yield items

    async def delete(self) -> None:
        """Send all deletes, round by round; raise the first error."""
        await self._look_up_doubtful()
        self._start_phase(Phase.DELETING, await self._database.run(WorkingSet.tally))
        limits = self._calls.limits
        calls_at_once = limits.deletes if self._database.is_file else _DELETE_CALLS_AT_ONCE
        most = calls_at_once * limits.delete_size
        job = DeleteJob(self._calls)
        ids: list[int] = []
        noted = 0
        try:
            while True:
                done, ids = ids, await self._database.run(_next_deletes, ids, most, self._calls)
                noted = job.report().deleted
                if done:
                    self._advance(len(done))
                if not ids:
                    return
                await job.run(ids)
                if self._known is not None:
                    await self._known.note([], ids)
        except BCAttrValsError:
            # It is unknown which of them are deleted: all stay in flight.
            self._deleted_unnoted = job.report().deleted - noted
            self._unconfirmed_deletes = job.unconfirmed
            raise

    def complete(self, working_set: WorkingSet, report: SyncReport) -> SyncReport:
        """Add what this run knows and the working set does not; called when an error ended it."""
        report = with_unnoted(
            report,
            working_set,
            self._outcomes.written,
            [*self._outcomes.others, *self._unsettled],
        )
        return attrs.evolve(
            report,
            deleted=report.deleted + self._deleted_unnoted,
            unconfirmed_deletes=self._unconfirmed_deletes,
            not_sent=report.not_sent - self._deleted_unnoted - self._unconfirmed_deletes,
        )

    def report_from_memory(self) -> SyncReport:
        """Return what this run did; used when the working set can't be read any more.

        Creates, updates and unread writes are not distinguished: all count as `written`.
        """
        at = self._progress
        written = self._outcomes.confirmed
        others = [*self._outcomes.others, *self._unsettled]
        failures = [one for one in others if one.status is OutcomeStatus.FAILED]
        failed = at.failed + len(failures)
        done = at.done + written + self._deleted_unnoted
        return SyncReport(
            created=0,
            updated=0,
            deleted=done if at.phase is Phase.DELETING else 0,
            unchanged=0,
            written=self._written + written,
            failed=failed,
            calls=self._calls.calls,
            not_sent=max(0, (at.total or 0) - done - failed - self._unconfirmed_deletes),
            retries=self._calls.retries,
            failures=tuple(failures),
            unconfirmed_deletes=self._unconfirmed_deletes,
        )

    async def _look_up_doubtful(self) -> None:
        """Look up the rows whose deletes were in flight when an earlier run ended."""
        doubtful = await self._database.run(WorkingSet.doubtful_deletes)
        if not doubtful:
            return
        keys = [from_key(key) for _, key in doubtful]
        wanted = AttributeValueFilter(
            customer_id_in={customer for customer, _ in keys},
            attribute_id_in={attribute for _, attribute in keys},
        )
        found: set[int] = set()

        async def take(rows: Sequence[Row]) -> None:
            found.update(row.id for row in rows)

        await read_filter(self._calls, wanted, take)
        ids = [one for one, _ in doubtful]
        await self._database.run(_settle_deletes, ids, found)

    async def _commit(self) -> None:
        begun, self._begun = self._begun, []
        written, rows, others = self._outcomes.take()
        altered: list[tuple[str, int]] = []
        failed: list[UpsertOutcome] = []
        unsettled: list[UpsertOutcome] = []
        marks = [(State.DONE, key) for key in _keys(written)]
        for one in others:
            if one.stored is not None:
                # The store holds another form of the value than the one sent.
                altered.append((one.stored.value, to_key(*_sent(one).key)))
                rows.append(one.stored)
            elif one.status is OutcomeStatus.NOT_SENT:
                marks.append((State.PENDING, to_key(*_sent(one).key)))
            elif self._is_settled(one):
                failed.append(one)
            else:
                unsettled.append(one)
        marks += ((State.IN_FLIGHT, key) for key in begun)
        try:
            await self._database.run(
                _note_outcomes, marks, altered, failed, self._calls, self._max_failures
            )
        except BaseException:
            self._outcomes.put_back(written, others)
            raise
        self._unsettled += unsettled
        if self._known is not None:
            await self._known.note(rows, [])
        done = len(written) + len(altered)
        if done or failed:
            self._written += done
            self._advance(done, failed)

    def _start_phase(self, phase: Phase, tally: Tally) -> None:
        """Start the progress of a phase; what earlier runs of a journal did counts as done."""
        deleting = phase is Phase.DELETING
        written = tally.created + tally.updated + tally.written + tally.altered
        done = tally.deleted if deleting else written
        failed = 0 if deleting else tally.failed
        left = tally.open_deletes if deleting else tally.open - tally.open_deletes
        self._written = written
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
        """Return whether a failed item is final; otherwise it stays in flight and is sent again.

        It is not final when the whole job ended with it, or when the Store was closed meanwhile.
        """
        error = failed.error
        if error is None or ends_job(error):
            return False
        return self._is_open() or not isinstance(error, TransportError)


def _keys(items: Iterable[AttributeValueUpsert]) -> list[int]:
    return [to_key(item.customer_id, item.attribute_id) for item in items]


def _is_unanswered(failed: UpsertOutcome) -> bool:
    """Return whether all tries failed with errors that say nothing about the item."""
    error = failed.error
    return error is not None and (isinstance(error, TransportError) or is_retryable(error))


# Jobs of the database's thread.


def _settle_deletes(working_set: WorkingSet, ids: list[int], found: set[int]) -> None:
    with working_set.transaction():
        working_set.mark_deletes((one for one in ids if one not in found), State.DONE)
        again = [one for one in ids if one in found]
        working_set.mark_deletes(again, State.PENDING)
        working_set.add(resent=len(again))


def _note_outcomes(
    working_set: WorkingSet,
    marks: list[tuple[State, int]],
    altered: list[tuple[str, int]],
    failed: list[UpsertOutcome],
    calls: Calls,
    most_failures: int,
) -> None:
    keys = _keys(map(_sent, failed))
    states = (State.UNANSWERED if _is_unanswered(one) else State.FAILED for one in failed)
    marks += zip(states, keys, strict=True)
    with working_set.transaction():
        # First: a temporary database has no rollback, and what is marked is not reported twice.
        working_set.mark_upserts(marks)
        if failed:
            working_set.add_failures(zip(keys, _dumped(failed), strict=True), most_failures)
        working_set.mark_written(altered)
        working_set.spend(calls=calls.calls, retries=calls.retries)


def _sent(outcome: UpsertOutcome) -> AttributeValueUpsert:
    """Return the upsert of an outcome; names were resolved when the values were loaded."""
    assert isinstance(outcome.item, AttributeValueUpsert)
    return outcome.item


def _dumped(failed: Iterable[UpsertOutcome]) -> Iterator[str]:
    return (dump_error(one.error) for one in failed if one.error is not None)


def _next_deletes(working_set: WorkingSet, done: list[int], most: int, calls: Calls) -> list[int]:
    """Note ids as deleted and the next ones as in flight; return the next ones."""
    with working_set.transaction():
        working_set.mark_deletes(done, State.DONE)
        working_set.spend(calls=calls.calls, retries=calls.retries)
        ids = working_set.pending_deletes(most)
        working_set.mark_deletes(ids, State.IN_FLIGHT)
    return ids
