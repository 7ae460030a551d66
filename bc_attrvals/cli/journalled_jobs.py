"""What `sync` and `upsert --journal` share: a job of the library that reads all, then writes.

The library's events are the progress and feed the circuit breaker, which ends a job when the
service stops answering. It hands failures over some hundreds at a time, for their file.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from bc_attrvals.cli.job_runner import Work
from bc_attrvals.cli.value_file import ValueFile, Values, ValuesJob
from bc_attrvals.core.outcomes import UpsertOutcome, UpsertReport
from bc_attrvals.core.sync_states import Phase
from bc_attrvals.errors import BCAttrValsError, InvalidInputError, UnresolvedError
from bc_attrvals.events import Event, SyncProgressed
from bc_attrvals.sync.options import ShowFailures
from bc_attrvals.sync.report import SyncReport
from bc_attrvals.tables.files import FileError

_WORDS: Final = {
    Phase.LOADING: "Loading",
    Phase.READING: "Reading the store",
    Phase.WRITING: "Writing",
    Phase.DELETING: "Deleting",
}


#: Values in a row without an answer that end the job. Each used all its tries, so going on would
#: take hours.
_MOST_IN_A_ROW: Final = 30


class NoAnswerError(BCAttrValsError):
    """The service did not answer for many values in a row."""


class CircuitBreaker:
    """Counts the values in a row that no answer came for."""

    def __init__(self) -> None:
        self._in_a_row = 0
        self._answered = 0

    def note(self, *, answered: int = 0, unanswered: int = 0) -> None:
        """Count values whose calls ended."""
        self._answered += answered
        self._in_a_row = unanswered if answered else self._in_a_row + unanswered

    @property
    def is_open(self) -> bool:
        """Whether the job is to end now."""
        return self._in_a_row >= _MOST_IN_A_ROW

    def check(self, reason: BCAttrValsError | None = None) -> None:
        """Raise `NoAnswerError` if missing answers ended the job, or it never got one."""
        if self.is_open or (self._in_a_row and not self._answered):
            because = f": {reason}" if reason is not None else ""
            raise NoAnswerError(
                f"no answer for {self._in_a_row} values in a row, each after all its tries"
                f"{because}; run the same again later"
            ) from reason


class JournalledJob(ValuesJob):
    """A job over `values`; a subclass makes its one call of the library in `carry_out`."""

    def __init__(self, values: Values, source: ValueFile) -> None:
        super().__init__(values)
        self.what = _WORDS[Phase.LOADING] if values.shape.by_id else "Loading and looking up"
        self.source = source
        self.report: SyncReport | UpsertReport | None = None
        self.was_cut_off = False
        self._breaker = CircuitBreaker()
        # How many of the failures that went to the file have an unknown name or address.
        self._unresolved = 0
        #: The latest event of each phase, in their order.
        self._reached: dict[Phase, SyncProgressed] = {}

    async def carry_out(self, work: Work) -> None:
        """Call the library and set `report`."""
        raise NotImplementedError

    @property
    def show_failures(self) -> ShowFailures | None:
        """What writes the failures to their file, if there is one."""
        return None if self.values.failures is None else self._write_failures

    async def _write_failures(self, failures: Sequence[UpsertOutcome]) -> None:
        for one in failures:
            self.values.note_failure(one.item, str(one.error))
            self._unresolved += isinstance(one.error, UnresolvedError)

    async def run(self, work: Work) -> None:
        """Carry out the job; end it when the service stops answering."""
        task = asyncio.current_task()
        assert task is not None

        def hear(event: Event) -> None:
            if isinstance(event, SyncProgressed):
                self._hear(event, work)
                if self._breaker.is_open and not task.cancelling():
                    task.cancel()

        work.store.subscribe(hear)
        try:
            await self.carry_out(work)
        except asyncio.CancelledError:
            self.was_cut_off = True
            # Its failures are not known, and an empty file would look like none.
            self.files = ()
            if not self._breaker.is_open:
                raise
            task.uncancel()
        except BCAttrValsError as error:
            report = error.report
            # A job that ended before its first call has nothing to show.
            if isinstance(report, SyncReport | UpsertReport) and report.calls:
                self.report = report
            if isinstance(error, InvalidInputError) and error.place is not None:
                # The place is in the library's argument, not in the file.
                problem = str(error).removeprefix(f"{error.place}: ")
                raise FileError(f"{self.values.name}: {problem}; nothing was sent") from None
            raise
        self._breaker.check()

    def _hear(self, event: SyncProgressed, work: Work) -> None:
        before = self._reached.get(event.phase)
        self._reached[event.phase] = event
        unanswered, ended = event.unanswered, event.done + event.failed
        if before is None and event.phase is not Phase.LOADING:
            total = event.total if event.phase in {Phase.WRITING, Phase.DELETING} else None
            work.progress.begin(_WORDS[event.phase], total, ended)
        work.progress.reach(ended)
        if before is not None:
            unanswered -= before.unanswered
            ended -= before.done + before.failed
        if event.phase is not Phase.LOADING:
            self._breaker.note(answered=ended - unanswered, unanswered=unanswered)

    @property
    def first_failure(self) -> str | None:
        """The reason of the first failure."""
        failures = () if self.report is None else self.report.failures
        return str(failures[0].error) if failures else None

    @property
    def unresolved(self) -> int | None:
        """How many values failed for their name or address; None if not all failures are kept."""
        report = self.report
        if report is not None and self.values.failures is not None:
            return self._unresolved
        if report is None or len(report.failures) < report.failed:
            return None
        return sum(isinstance(one.error, UnresolvedError) for one in report.failures)

    def done(self) -> dict[str, int]:
        """Return how many values of each phase that changes the store were confirmed."""
        return {phase: event.done for phase, event in self._changes().items()}

    def text_when_cut_off(self) -> str:
        """Return the summary of a job that was cut off, which has no report."""
        parts = [
            f"{_WORDS[phase].lower()}: {event.done:,} of {event.total:,} confirmed"
            for phase, event in self._changes().items()
        ]
        if not parts:
            return "Stopped before anything was written."
        how = "with the same journal to go on" if self.source.journal else "to write what is left"
        unwritten = "" if self.values.failures is None else " --failures was not written."
        return (
            f"Stopped while {', '.join(parts)}; calls that were on the wire may be applied, too. "
            f"Run the same again {how}.{unwritten}"
        )

    def _changes(self) -> dict[Phase, SyncProgressed]:
        return {phase: one for phase, one in self._reached.items() if one.total is not None}
