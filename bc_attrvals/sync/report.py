"""What a sync came to: its report, and how the errors in it are kept in a journal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import attrs
import msgspec

from bc_attrvals import errors
from bc_attrvals.core.outcomes import OutcomeStatus, UpsertOutcome
from bc_attrvals.errors import BCAttrValsError, JournalError

if TYPE_CHECKING:
    from bc_attrvals.sync.database import WorkSet
    from bc_attrvals.sync.journal import JournalPath

__all__ = ["SyncReport", "dump_error", "load_error", "report_of"]


@attrs.frozen
class SyncReport:
    """The sum of a sync.

    `created`, `updated` and `deleted` count rows the service confirmed, `unchanged` those that
    were right already; `written` counts rows confirmed that were sent without reading first, where
    the three can't be told apart. `failed` counts values the service did not take, and `failures`
    holds the first 1,000 of them (not compared, for errors are equal to nothing). `not_sent`
    counts changes that are planned and open because the job ended early. `superseded` counts items
    of the input that gave way to a later one of the same key.

    `calls` counts requests sent, `retries` those of them sent again after a failure, `seconds` the
    time, over all runs of a journalled sync; what was on the wire when a run was killed is
    missing. `resumed` says whether there was more than one run, and `resent` how many rows were
    in flight, sent or about to be, when one of them ended, and so were sent again.

    Of a dry run, the counts are what would be done, and `calls` what reading took.
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

    @property
    def ok(self) -> bool:
        """True when everything is as desired."""
        return not (self.failed or self.not_sent)

    @classmethod
    def from_journal(cls, path: JournalPath) -> Self:
        """Return the report of the finished sync that a journal is of; the file is only read.

        It blocks: on an event loop, call it in a thread. Raises `JournalError` for a file that is
        missing, damaged, held by a running sync or no journal, and for a sync that is not finished.
        """
        # Here, so that importing the package does not load SQLite.
        from bc_attrvals.sync.journal import reading_finished

        with reading_finished(path) as workset:
            return cls(**attrs.asdict(report_of(workset), recurse=False))


def report_of(workset: WorkSet) -> SyncReport:
    """Return the sum of what is written down up to now."""
    tally = workset.tally()
    return SyncReport(
        created=tally.created,
        updated=tally.updated,
        deleted=tally.deleted,
        unchanged=int(workset.number("unchanged")),
        written=tally.written,
        failed=tally.failed,
        calls=int(workset.number("calls")),
        not_sent=tally.open,
        superseded=int(workset.number("superseded")),
        resent=int(workset.number("resent")),
        retries=int(workset.number("retries")),
        seconds=workset.number("seconds"),
        failures=tuple(
            UpsertOutcome(item, OutcomeStatus.FAILED, None, load_error(text))
            for item, text in workset.failures()
        ),
        resumed=workset.number("resumptions") > 0,
    )


@attrs.frozen
class _StoredError:
    type: str
    args: list[str | int | float | bool | None]
    state: dict[str, str | int | float | bool | dict[str, str] | None]


def dump_error(error: BCAttrValsError) -> str:
    """Return an error as JSON: its class and its plain attributes."""
    state = {name: value for name, value in vars(error).items() if name != "report"}
    stored = {"type": type(error).__name__, "args": error.args, "state": state}
    return msgspec.json.encode(stored, enc_hook=str).decode()


def load_error(text: str) -> BCAttrValsError:
    """Return the error again; one of a class nobody knows is a plain `BCAttrValsError`.

    Raises `JournalError` for a text that is none of `dump_error`'s.
    """
    try:
        stored = msgspec.json.decode(text, type=_StoredError)
    except msgspec.MsgspecError as cause:
        raise JournalError("the journal holds an error that can't be read") from cause
    kind: type[BCAttrValsError] = BCAttrValsError
    if stored.type in errors.__all__:
        kind = getattr(errors, stored.type)
    # As unpickling does it, but of our own classes and plain values only.
    error: BCAttrValsError = kind.__new__(kind, *stored.args)
    error.args = tuple(stored.args)
    error.__dict__.update(stored.state)
    return error
