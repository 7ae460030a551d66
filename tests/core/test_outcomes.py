"""Outcomes and reports: what they say, and how they go with an error."""

from __future__ import annotations

import json
import pickle
from datetime import UTC, datetime

import attrs
import pytest

from bc_attrvals.core.models import AttributeValue, AttributeValueUpsert
from bc_attrvals.core.outcomes import (
    DeleteReport,
    OutcomeStatus,
    UpsertOutcome,
    UpsertReport,
    attach_report,
)
from bc_attrvals.errors import AuthenticationError, UnprocessableError

ITEM = AttributeValueUpsert(1, 2, "x")


@pytest.mark.parametrize("status", OutcomeStatus)
def test_an_outcome_is_ok_when_it_was_stored_as_it_is_or_altered(status: OutcomeStatus) -> None:
    assert UpsertOutcome(ITEM, status).ok is (status in {"stored", "altered"})


def test_the_words_for_what_became_of_an_item_are_fixed() -> None:
    assert [str(one) for one in OutcomeStatus] == [
        "stored",
        "altered",
        "failed",
        "superseded",
        "not_sent",
    ]


@pytest.mark.parametrize(
    ("report", "ok"),
    [
        (UpsertReport(), True),
        (UpsertReport(stored=5, superseded=2), True),
        (UpsertReport(stored=5, altered=2), True),
        (UpsertReport(stored=5, failed=1), False),
        (UpsertReport(stored=5, not_sent=1), False),
        (UpsertReport(ended_early=True), False),
    ],
)
def test_a_report_is_ok_when_every_item_was_stored_or_gave_way(
    report: UpsertReport, ok: bool
) -> None:
    assert report.ok is ok


@pytest.mark.parametrize("report", [UpsertReport(), DeleteReport()])
def test_a_report_of_nothing_counts_nothing(report: UpsertReport | DeleteReport) -> None:
    assert set(attrs.astuple(report)) <= {0, ()}


@pytest.mark.parametrize("report", [UpsertReport(stored=3), DeleteReport(deleted=4)])
def test_an_error_of_ours_carries_the_report_of_the_job_it_ended(
    report: UpsertReport | DeleteReport,
) -> None:
    error = AuthenticationError(401, "no")
    assert error.report is None
    attach_report(error, report)
    if isinstance(report, UpsertReport):
        report = attrs.evolve(report, ended_early=True)
    assert error.report == report


def test_any_other_error_gets_a_note_with_the_counts() -> None:
    error = ZeroDivisionError("of the input")
    attach_report(error, UpsertReport(stored=3, failed=1, superseded=2, not_sent=9))
    (note,) = error.__notes__
    assert "3 items stored, 1 failed, 2 superseded, 9 not sent" in note
    other = KeyboardInterrupt()
    attach_report(other, DeleteReport(deleted=4))
    assert "4 ids deleted" in other.__notes__[0]


def test_a_report_with_its_failures_is_pickled_whole() -> None:
    refused = UnprocessableError(422, "t", {"0.data": "bad"}, "r-1", "PUT", "/p")
    report = UpsertReport(
        stored=1,
        failed=1,
        failures=(
            UpsertOutcome(ITEM, OutcomeStatus.FAILED, error=refused),
            UpsertOutcome(ITEM, OutcomeStatus.STORED, AttributeValue(1, 1, 2, "x")),
        ),
        calls=2,
        seconds=0.5,
    )
    other = pickle.loads(pickle.dumps(report))
    assert (other.stored, other.failed, other.calls, other.seconds) == (1, 1, 2, 0.5)
    assert [one.status for one in other.failures] == ["failed", "stored"]
    assert other.failures[1] == report.failures[1]
    assert other.failures[0].item == ITEM
    assert str(other.failures[0].error) == str(refused)
    assert other.failures[0].error.errors == {"0.data": "bad"}


def test_outcomes_and_reports_are_plain_json() -> None:
    moment = datetime(2024, 10, 24, 4, 32, 20, tzinfo=UTC)
    row = AttributeValue(7, 1, 2, "x", moment)
    failed = UpsertOutcome(ITEM, OutcomeStatus.FAILED, None, UnprocessableError(422, "no"))
    report = UpsertReport(stored=1, altered=2, failed=1, failures=(failed,), calls=3, seconds=0.5)
    assert row.to_dict() == {
        "id": 7,
        "customer_id": 1,
        "attribute_id": 2,
        "attribute_value": "x",
        "date_created": "2024-10-24T04:32:20Z",
        "date_modified": None,
    }
    assert row.to_upsert() == ITEM
    assert UpsertOutcome(ITEM, OutcomeStatus.ALTERED, row).to_dict() == {
        "item": {"customer_id": 1, "attribute_id": 2, "value": "x"},
        "status": "altered",
        "stored": row.to_dict(),
        "error": None,
    }
    plain = report.to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["failures"] == [failed.to_dict()]
    assert failed.to_dict()["error"] == {"type": "UnprocessableError", "message": "422 no"}
    assert {name: plain[name] for name in ("ok", "stored", "altered", "failed", "calls")} == {
        "ok": False,
        "stored": 1,
        "altered": 2,
        "failed": 1,
        "calls": 3,
    }
