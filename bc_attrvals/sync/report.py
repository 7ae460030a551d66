"""The report of a sync, and how the report and its errors are stored in a journal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, Self

import attrs
import msgspec

from bc_attrvals import errors
from bc_attrvals.core.models import AttributeValueUpsert
from bc_attrvals.core.named_value import Item, NamedValue
from bc_attrvals.core.outcomes import OutcomeStatus, UpsertOutcome, UpsertReport
from bc_attrvals.core.sync_states import FailedRow, Kind, to_key
from bc_attrvals.errors import BCAttrValsError, JournalError
from bc_attrvals.sync.options import JournalPath

if TYPE_CHECKING:
    from bc_attrvals.sync.working_set import WorkingSet


#: The counts of written values, by what the plan did with them.
_COUNTS: Final = {Kind.CREATE: "created", Kind.UPDATE: "updated", Kind.WRITE: "written"}
#: Most failures in the report of a finished journal, which is stored as one text.
_MOST_FAILURES_KEPT: Final = 10_000


@attrs.frozen
class SyncReport:
    """What a sync did, in counts.

    `created`, `updated` and `deleted` count rows that the service confirmed. `unchanged` counts
    values that were right already. `written` counts confirmed values that were sent without
    reading first, so that it is unknown whether they were created, updated or unchanged. `altered`
    counts written values that the store holds in another form than the desired one; the counts
    before do not include them. `failed` counts values that the service did not take; where an
    error ended the job, also values that were sent and not confirmed, which may be stored.
    `unconfirmed_deletes` counts such deletes. `failures` holds the first 1,000 values that failed
    (not compared, because errors are equal to nothing). `not_sent` counts planned changes that
    this run did not send because the job ended early. `superseded` counts items of the input with
    a later one of the same key.

    `calls` counts requests sent, `retries` those of them sent again after a failure, `seconds` the
    time, over all runs of a journalled sync; what was on the wire when a run was killed is
    missing. `resumed` says whether there was more than one run. `resent` counts rows that were in
    flight (sent or about to be) when a run ended, and that were sent again.

    `ended_early` is True in the report of an error that ended the job. All counts but `calls` and
    `retries` are 0 if it ended before the input was read and an unfinished journal taken over.

    After a dry run, the counts say what would be done, and `calls` counts the requests of reading.
    """

    created: int
    updated: int
    deleted: int
    unchanged: int
    written: int
    failed: int
    calls: int
    not_sent: int = 0
    superseded: int = 0
    resent: int = 0
    retries: int = 0
    seconds: float = 0.0
    failures: tuple[UpsertOutcome, ...] = attrs.field(default=(), eq=False)
    resumed: bool = False
    altered: int = 0
    ended_early: bool = False
    unconfirmed_deletes: int = 0

    @property
    def ok(self) -> bool:
        """True when everything is as desired."""
        return not (self.failed or self.not_sent or self.ended_early)

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON types: `ok`, all counts, and the failures as dicts."""
        fields = attrs.asdict(self, recurse=False)
        return {"ok": self.ok, **fields, "failures": [one.to_dict() for one in self.failures]}

    @classmethod
    def from_journal(cls, path: JournalPath) -> Self:
        """Return the report of a journal whose job is finished; the file is only read.

        Of an `upsert`, `written` counts the values stored. `failures` are the first 10,000 at most.
        The report stays in the journal until the next job over it has read its input to the end.

        It blocks: on an event loop, call it in a thread. Raises `JournalError` for a file that is
        missing, damaged, held by a running job or no journal, and for a job that is not finished.
        """
        # Here, so that importing the package does not load SQLite.
        from bc_attrvals.sync.journal import read_report

        counts, failures = _load_report(read_report(path))
        return cls(**counts, failures=failures)


def report_of(working_set: WorkingSet, most_failures: int) -> SyncReport:
    """Return the report of what is noted in the working set so far."""
    tally, spent = working_set.tally(), working_set.spent
    return SyncReport(
        created=tally.created,
        updated=tally.updated,
        deleted=tally.deleted,
        unchanged=int(working_set.number("unchanged")),
        written=tally.written,
        failed=tally.failed + working_set.unresolved()[0],
        calls=int(spent["calls"]),
        not_sent=tally.open,
        superseded=int(working_set.number("superseded")),
        resent=int(working_set.number("resent")),
        retries=int(spent["retries"]),
        seconds=spent["seconds"],
        failures=outcomes_of(row for _, row in working_set.failures((0, 0), most_failures)),
        resumed=working_set.number("resumptions") > 0,
        altered=tally.altered,
    )


def with_unnoted(
    report: SyncReport,
    working_set: WorkingSet,
    written: Iterable[AttributeValueUpsert],
    others: Iterable[UpsertOutcome],
) -> SyncReport:
    """Return a report with the outcomes that an error kept from being noted in the working set."""
    counts: Counter[str] = Counter()
    failures = list(report.failures)
    outcomes = [UpsertOutcome(item, OutcomeStatus.STORED) for item in written]
    for outcome in (*outcomes, *others):
        assert isinstance(outcome.item, AttributeValueUpsert)
        if (found := working_set.open_upsert(to_key(*outcome.item.key))) is None:
            continue
        kind, item, kept = found
        if outcome.status is OutcomeStatus.FAILED:
            counts["failed"] += 1
            failures.append(UpsertOutcome(_item(*item), outcome.status, None, outcome.error))
        elif outcome.stored is not None and outcome.stored.value != kept:
            counts["altered"] += 1
        elif outcome.ok:
            counts[_COUNTS[kind]] += 1
    return attrs.evolve(
        report,
        **{name: getattr(report, name) + count for name, count in counts.items()},
        not_sent=report.not_sent - counts.total(),
        failures=tuple(failures),
    )


def upsert_report(report: SyncReport) -> UpsertReport:
    """Return the report of an upsert that was carried out as a sync which reads nothing."""
    return UpsertReport(
        stored=report.written,
        altered=report.altered,
        failed=report.failed,
        superseded=report.superseded,
        not_sent=report.not_sent,
        failures=report.failures,
        calls=report.calls,
        retries=report.retries,
        seconds=report.seconds,
        ended_early=report.ended_early,
    )


def dump_report(report: SyncReport) -> str:
    """Return a report as JSON, for `SyncReport.from_journal`."""
    counts = attrs.asdict(report, recurse=False, filter=lambda field, _: field.name != "failures")
    failures = [
        (*one.item.key, _text_of(one.item), dump_error(one.error))
        for one in report.failures[:_MOST_FAILURES_KEPT]
        if one.error is not None
    ]
    return msgspec.json.encode(_StoredReport(counts, failures)).decode()


def _load_report(text: str) -> tuple[dict[str, Any], tuple[UpsertOutcome, ...]]:
    try:
        stored = msgspec.json.decode(text, type=_StoredReport)
    except msgspec.MsgspecError as cause:
        raise JournalError("the journal holds a report that can't be read") from cause
    return stored.counts, outcomes_of(stored.failures)


def outcomes_of(failures: Iterable[FailedRow]) -> tuple[UpsertOutcome, ...]:
    """Return the outcomes of values that failed."""
    return tuple(
        UpsertOutcome(
            _item(customer, attribute, value), OutcomeStatus.FAILED, None, load_error(error)
        )
        for customer, attribute, value, error in failures
    )


def _item(customer: int | str, attribute: int | str, value: str) -> Item:
    """Return the item of a failure: a named value where a name or an address is in it."""
    if isinstance(customer, int) and isinstance(attribute, int):
        return AttributeValueUpsert(customer, attribute, value)
    return NamedValue(customer, attribute, value)


def _text_of(item: Item) -> str:
    return item.text if isinstance(item, NamedValue) else item.value


@attrs.frozen
class _StoredReport:
    counts: dict[str, Any]
    failures: list[FailedRow]


@attrs.frozen
class _StoredError:
    type: str
    args: list[Any]
    state: dict[str, Any]


def dump_error(error: BCAttrValsError) -> str:
    """Return an error as JSON: its class and its plain attributes."""
    state = {name: value for name, value in vars(error).items() if name != "report"}
    stored = {"type": type(error).__name__, "args": error.args, "state": state}
    return msgspec.json.encode(stored, enc_hook=str).decode()


def load_error(text: str) -> BCAttrValsError:
    """Return the error again, as a plain `BCAttrValsError` if its class is unknown.

    Raises `JournalError` for a text that `dump_error` did not write.
    """
    try:
        stored = msgspec.json.decode(text, type=_StoredError)
    except msgspec.MsgspecError as cause:
        raise JournalError("the journal holds an error that can't be read") from cause
    kind = getattr(errors, stored.type, None)
    if not (isinstance(kind, type) and issubclass(kind, BCAttrValsError)):
        kind = BCAttrValsError
    # Like unpickling, but for our own classes and plain values only.
    error: BCAttrValsError = kind.__new__(kind, *stored.args)
    error.args = tuple(stored.args)
    error.__dict__.update(stored.state)
    return error
