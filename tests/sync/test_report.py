"""Reports and errors come out of a journal as they went in."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import attrs
import pytest

from bc_attrvals import (
    AttributeValueUpsert,
    JournalError,
    OutcomeStatus,
    Store,
    SyncReport,
    UpsertOutcome,
    UpsertReport,
)
from bc_attrvals.errors import UnprocessableError
from bc_attrvals.sync.report import upsert_report
from tests.probes import upserts

REPORT = SyncReport(
    created=1,
    updated=2,
    deleted=3,
    unchanged=4,
    written=5,
    failed=6,
    calls=7,
    not_sent=8,
    superseded=9,
    resent=10,
    retries=11,
    seconds=12.5,
    failures=(
        UpsertOutcome(
            AttributeValueUpsert(1, 2, "ü"),
            OutcomeStatus.FAILED,
            None,
            UnprocessableError(422, "no", {"0.data": "missing"}),
        ),
    ),
    resumed=True,
    altered=13,
    unconfirmed_deletes=14,
)


def test_no_field_is_left_out_of_the_dict() -> None:
    found = REPORT.to_dict()
    fields = {field.name for field in attrs.fields(SyncReport)}
    assert found.keys() == fields | {"ok"}
    assert {name: found[name] for name in fields - {"failures"}} == attrs.asdict(
        REPORT, filter=lambda field, _: field.name != "failures"
    )


def test_an_upsert_reports_what_was_written_as_stored() -> None:
    report = upsert_report(REPORT)
    assert report == UpsertReport(
        stored=5,
        altered=13,
        failed=6,
        superseded=9,
        not_sent=8,
        failures=REPORT.failures,
        calls=7,
        retries=11,
        seconds=12.5,
    )


@pytest.mark.parametrize("note", ["report", "seal of report"])
async def test_a_report_that_was_changed_is_refused(
    store: Store, tmp_path: Path, note: str
) -> None:
    path = tmp_path / "scores.db"
    await store.attribute_values.sync(upserts(3), journal=path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE meta SET value = value || ' ' WHERE name = ?", (note,))
    with pytest.raises(JournalError, match="not as it was written"):
        SyncReport.from_journal(path)
