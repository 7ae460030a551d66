"""`upsert`: values of a file into the store, each of them accounted for.

Rows are read only as fast as calls are answered, so that few are under way when a job stops.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Final

from bc_attrvals.cli.console import confirm
from bc_attrvals.cli.interrupts import Stopper
from bc_attrvals.cli.job_runner import CommandJob, Result, Work, run_job
from bc_attrvals.cli.journalled_jobs import CircuitBreaker, JournalledJob
from bc_attrvals.cli.options import command
from bc_attrvals.cli.settings import Settings, with_store_settings
from bc_attrvals.cli.value_file import ValueFile, Values, ValuesJob, value_file_options
from bc_attrvals.core.limits import Limits
from bc_attrvals.core.named_value import Item
from bc_attrvals.core.outcomes import OutcomeStatus, UpsertOutcome, UpsertReport
from bc_attrvals.core.sync_plan import calls_for
from bc_attrvals.errors import (
    BCAttrValsError,
    RateLimitError,
    ServerError,
    TransportError,
    UnresolvedError,
)
from bc_attrvals.tables.error_text import counted

#: Values given to the library and not answered yet: enough for three calls of ten and the next.
_MOST_OUTSTANDING: Final = 100
#: The same where more go together: names and addresses, looked up as many as a URL holds at once,
#: and calls of all rows of ten customers.
_MOST_OUTSTANDING_TOGETHER: Final = 1_000
#: The outcomes of the values of a file, and the words for them.
_COUNTS: Final = (
    ("stored", "stored"),
    ("altered", "stored in another form"),
    ("failed", "failed"),
    ("unresolved", "of them unknown or of a wrong type"),
    ("superseded", "superseded by later rows"),
    ("not_sent", "not sent"),
    ("unknown", "under way and not known to be stored"),
)


@command(
    "bc-attrvals upsert values.csv --failures failed.csv",
    "bc-attrvals upsert values.csv --journal values.db",
    "bc-attrvals upsert - --format jsonl < values.jsonl",
    "bc-attrvals upsert crm.csv --column customer_id=CustomerNo",
    "bc-attrvals upsert scores.parquet --failures failed.parquet",
    "bc-attrvals upsert s.csv --wide --customer-column ID --attribute x=1 --attribute zbar=4",
    "bc-attrvals upsert s.csv --wide --customer-column ID --attribute x=1 --empty delete",
    "bc-attrvals upsert crm.csv --wide --email-column E-Mail --attributes-by-header",
)
@value_file_options
@with_store_settings
def upsert(settings: Settings, source: ValueFile) -> None:
    """Store the values of FILE (- is standard input); create them or replace what is there.

    The long form has the columns customer_id or email, attribute_id or attribute (its name), and
    value; with --wide a row holds a customer's values. Other columns are ignored, unless
    --attributes-by-header. CSV is delimited by comma, semicolon, tab or bar, as its header shows,
    or by --delimiter.

    Values are sent as the strings in the file. Numbers, booleans and dates of JSON Lines and
    Parquet become strings without loss. 5.0 is the id 5. Blank rows are skipped.

    In wide form empty cells are left alone. With --empty delete their values are deleted: what is
    stored for the empty cells is looked up first, and deleted after all values are sent. To delete
    more than 100 values, and more than half of FILE's, is refused. Say with --max-delete how many
    it may be. A field that an object of JSON Lines does not have is left alone even then.

    All rows are checked before anything is sent; --dry-run stops there. Of rows with the same
    customer and attribute the last one wins. An upsert may be repeated without harm. After an
    interruption run it again, or give it the --failures file with the same options. With --journal
    the same again sends only what was not confirmed. After --empty delete the failures are in long
    form.
    """
    shape = source.check(settings)
    store = settings.store(source.limits)
    with source.opened(settings, shape) as values:
        values.warn_if_none()
        if source.asks and values.cells is not None and values.cells.count:
            what = f"the stored values of {counted(values.cells.count, 'empty cell')}"
            confirm(f"Delete {what} after the upsert?", "nothing was sent")
        job: CommandJob = _UpsertJob(values, source)
        if source.dry_run:
            job = _DryRunJob(values, source.limits)
        elif source.journal is not None:
            job = _JournalledJob(values, source)
        run_job(settings, store, job)


class _UpsertJob(ValuesJob):
    """One upsert of a file's values. The failures file gets all that were not stored."""

    command = "upsert"
    what = "Storing"
    #: The calls on the wire are answered before the job stops.
    grace_s = 3.0

    def __init__(self, values: Values, source: ValueFile) -> None:
        super().__init__(values)
        self._source = source
        together = not values.shape.by_id or source.batch_by == "customers"
        self._most_outstanding = _MOST_OUTSTANDING_TOGETHER if together else _MOST_OUTSTANDING
        self._counts: Counter[str] = Counter()
        self._first_failure: str | None = None
        # Values given that have no outcome yet. By identity: equal ones may come several times.
        self._outstanding: dict[int, Item] = {}
        self._room = asyncio.Event()
        self._breaker = CircuitBreaker()
        self._last_error: BCAttrValsError | None = None
        self._was_cut_off = False

    async def run(self, work: Work) -> None:
        """Look up what is stored for empty cells, send all, then delete what was found.

        A stop lets the calls under way be answered until the stopper cancels.
        """
        items, cells = self._items(work.stopper), self.values.cells
        try:
            if cells is not None:
                await cells.find_within(self._source.limit, work.store, self.values.good)
            async with aclosing(work.store.attribute_values.upsert_stream(items)) as outcomes:
                async for outcome in outcomes:
                    self._note(outcome)
                    work.progress.advance()
        except asyncio.CancelledError:
            self._was_cut_off = True
            raise
        self._breaker.check(self._last_error)
        if cells is not None and not work.stopper.stopped:
            await cells.delete_stored(work)

    async def _items(self, stopper: Stopper) -> AsyncGenerator[Item]:
        while True:
            while len(self._outstanding) >= self._most_outstanding and not self._breaker.is_open:
                self._room.clear()
                await self._room.wait()
            if self._breaker.is_open or stopper.stopped:
                return
            item = await anext(self.values, None)
            if item is None:
                return
            self._outstanding[id(item)] = item
            yield item

    def _note(self, outcome: UpsertOutcome) -> None:
        counts, error = self._counts, outcome.error
        self._outstanding.pop(id(outcome.item), None)
        self._room.set()
        counts[outcome.status.name.lower()] += 1
        if outcome.ok:
            self._breaker.note(answered=1)
            return
        if outcome.status is OutcomeStatus.SUPERSEDED:
            return
        if outcome.status is OutcomeStatus.FAILED:
            counts["unresolved"] += isinstance(error, UnresolvedError)
            self._first_failure = self._first_failure or str(error)
        self.values.note_failure(outcome.item, str(error))
        if isinstance(error, TransportError | ServerError | RateLimitError):
            self._breaker.note(unanswered=1)
            self._last_error = error

    async def settle(self, reason: str) -> None:
        """Count what has no outcome and what was never read, and write both to the failures."""
        # A job that ended by itself has an outcome for all it took: it did not take these.
        unknown = ("unknown", "interrupted; it may have been stored")
        name, why = unknown if self._was_cut_off else ("not_sent", reason)
        for item in self._outstanding.values():
            self._counts[name] += 1
            self.values.note_failure(item, why)
        async for item in self.values:
            self._counts["not_sent"] += 1
            self.values.note_failure(item, reason)

    def result(self) -> Result:
        return _result(self._counts, self.values, self._first_failure)


def _result(found: Mapping[str, int], values: Values, first_failure: str | None) -> Result:
    counts = {name: found.get(name, 0) for name, _ in _COUNTS}
    counts["superseded"] += values.superseded
    done = counts["stored"] + counts["altered"]
    return Result(
        headline=f"Stored {counted(done, 'value')}",
        fields={
            **counts,
            "skipped": values.skipped,
            "deleted": None if values.cells is None else values.cells.deleted,
        },
        counts=[*((words, counts[name]) for name, words in _COUNTS), *values.counts()],
        values=done,
        complete=not (
            counts["failed"] or counts["not_sent"] or counts["unknown"] or values.skipped
        ),
        first_failure=first_failure,
    )


class _JournalledJob(JournalledJob):
    """An upsert with a journal: the library keeps account of each value, and of what is left."""

    command = "upsert"

    async def carry_out(self, work: Work) -> None:
        """Send all that the journal does not have as confirmed, then delete for empty cells."""
        cells = self.values.cells
        if cells is not None:
            await cells.find_within(self.source.limit, work.store, self.values.good)
        self.report = await work.store.attribute_values.upsert(
            self.values,
            raise_on_failure=False,
            journal=self.source.journal,
            restart=self.source.restart,
            show_failures=self.show_failures,
        )
        if cells is not None:
            await cells.delete_stored(work)

    def result(self) -> Result | None:
        report = self.report
        if isinstance(report, UpsertReport):
            counts = {name: getattr(report, name, 0) for name, _ in _COUNTS}
            counts["unresolved"] = self.unresolved or 0
            return _result(counts, self.values, self.first_failure)
        if not self.was_cut_off:
            return None
        fields = {"done": self.done(), "skipped": self.values.skipped}
        return Result(headline=self.text_when_cut_off(), fields=fields, counts=None)


class _DryRunJob(ValuesJob):
    """What an upsert would send. Only the names of attributes are looked up in the store."""

    command = "upsert"
    what = "Reading"

    def __init__(self, values: Values, limits: Limits) -> None:
        super().__init__(values)
        self._limits = limits
        self._count = 0
        # Runs of values of one customer.
        self._customers = 0

    async def run(self, work: Work) -> None:
        last: object = None
        async for item in self.values:
            self._count += 1
            self._customers += item.key[0] != last
            last = item.key[0]
            work.progress.advance()

    def result(self) -> Result:
        values = self.values
        by_customers = self._limits.batch_by == "customers"
        calls = calls_for(self._customers if by_customers else self._count, self._limits.batch_size)
        text = f"Would store {counted(self._count, 'value')} in at most {counted(calls, 'call')}."
        empty_cells = None if values.cells is None else values.cells.count
        if empty_cells is not None:
            text += f" Would look up {counted(empty_cells, 'empty cell')} first."
        return Result(
            headline=text,
            fields={
                "dry_run": True,
                "values": self._count,
                "planned_calls": calls,
                "empty_cells": empty_cells,
                "skipped": values.skipped,
            },
            counts=None,
            complete=not values.skipped,
        )
