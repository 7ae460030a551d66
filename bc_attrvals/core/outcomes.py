"""The outcomes of the items of bulk jobs, and the reports that sum them up."""

from __future__ import annotations

from enum import StrEnum

import attrs
import msgspec

from bc_attrvals.core.models import AttributeValue
from bc_attrvals.core.named_value import Item
from bc_attrvals.errors import BCAttrValsError


class OutcomeStatus(StrEnum):
    """The result of one item."""

    # The `__hash__` of enums is written in Python, and slow.
    __hash__ = str.__hash__

    #: The service confirmed it: the answer echoed it, or it was read back.
    STORED = "stored"
    #: The store keeps another form of the value, for example trimmed; `stored` shows it.
    ALTERED = "altered"
    #: Refused, or unconfirmed after all tries; `error` is the reason.
    FAILED = "failed"
    #: An item with the same key came later in the input and was sent in its place.
    SUPERSEDED = "superseded"
    #: The job ended before the item was sent.
    NOT_SENT = "not_sent"


@attrs.frozen
class UpsertOutcome:
    """The outcome of one item: `stored` is the row as the service holds it, `error` the reason.

    `stored` is set if the status is stored or altered, `error` if it is failed or not sent.
    """

    item: Item
    status: OutcomeStatus
    stored: AttributeValue | None = None
    error: BCAttrValsError | None = None

    @property
    def ok(self) -> bool:
        """True for `stored` and `altered`."""
        return self.status is OutcomeStatus.STORED or self.status is OutcomeStatus.ALTERED

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON types; an error becomes its type's name and its message."""
        return {
            "item": msgspec.to_builtins(self.item),
            "status": self.status.value,
            "stored": None if self.stored is None else self.stored.to_dict(),
            "error": _plain_error(self.error),
        }


@attrs.frozen
class UpsertReport:
    """The sum of a bulk upsert: each item that was read is in one of five counts.

    They are `stored`, `altered`, `failed`, `superseded` and `not_sent`. `failures` holds the first
    outcomes that were failed or not sent, in the order they ended. `calls` counts requests sent,
    retries and confirming reads included, `retries` those sent again. `ended_early` is True in the
    report of an error that ended the job: items may be unread.
    """

    stored: int = 0
    failed: int = 0
    superseded: int = 0
    not_sent: int = 0
    failures: tuple[UpsertOutcome, ...] = ()
    calls: int = 0
    retries: int = 0
    seconds: float = 0.0
    altered: int = 0
    ended_early: bool = False

    @property
    def ok(self) -> bool:
        """True if every item was stored, stored in altered form, or superseded."""
        return not (self.failed or self.not_sent or self.ended_early)

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON types."""
        counts = attrs.asdict(self, recurse=False)
        return {"ok": self.ok, **counts, "failures": [one.to_dict() for one in self.failures]}


class PartialFailureError(BCAttrValsError):
    """Some items of a bulk job were not stored; `report` counts them and holds the first ones."""

    def __init__(self, message: str, report: UpsertReport) -> None:
        super().__init__(message)
        self.report: UpsertReport = report


@attrs.frozen
class DeleteReport:
    """The sum of a bulk delete.

    `deleted` counts the ids whose deletion the service confirmed, by 204 or by its own empty
    answer; it does not say which of them existed.
    """

    deleted: int = 0
    calls: int = 0
    retries: int = 0
    seconds: float = 0.0

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON types."""
        return attrs.asdict(self)


def _plain_error(error: BCAttrValsError | None) -> dict[str, str] | None:
    return None if error is None else {"type": type(error).__name__, "message": str(error)}


def attach_report(error: BaseException, report: UpsertReport | DeleteReport) -> None:
    """Attach the report to the error that ends a job: `.report` of our errors, else a note."""
    if isinstance(error, BCAttrValsError):
        if isinstance(report, UpsertReport):
            report = attrs.evolve(report, ended_early=True)
        error.report = report
        return
    done = (
        f"{report.deleted} ids deleted"
        if isinstance(report, DeleteReport)
        else f"{report.stored + report.altered} items stored, {report.failed} failed, "
        f"{report.superseded} superseded, {report.not_sent} not sent"
    )
    error.add_note(f"bc_attrvals: before this, {done}")


def check_failures(report: UpsertReport) -> UpsertReport:
    """Return the report if it is `ok`; raise `PartialFailureError` otherwise."""
    if report.ok:
        return report
    lost = report.failed + report.not_sent
    message = f"{lost} of {lost + report.stored + report.superseded} items were not stored"
    if report.failures:
        message += f"; the first: {report.failures[0].error}"
    raise PartialFailureError(message, report)
