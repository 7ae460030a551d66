"""The sum of a refresh, its faults, and changes, in plain types."""

from __future__ import annotations

import json

from bc_attrvals.core.models import AttributeValue
from bc_attrvals.mirror.report import Change, Fault, FaultKind, Faults, RefreshReport

from .fake_store import moment

ROW = AttributeValue(7, 1, 2, "old", moment(0), moment(1))
OTHER = AttributeValue(7, 1, 2, "new", moment(0), moment(1))


def report(**counts: int) -> RefreshReport:
    plain = dict.fromkeys(("rows", "added", "changed", "removed", "retries", "listed"), 0)
    return RefreshReport(**{**plain, "calls": 0, "seconds": 0.5, **counts})


def test_a_fault_is_named_after_who_holds_the_row() -> None:
    faults = Faults()
    faults.add(None, OTHER)
    faults.add(ROW, None)
    for _ in range(200):
        faults.add(ROW, OTHER)
    assert faults.counts == {FaultKind.MISSING: 1, FaultKind.SURPLUS: 1, FaultKind.STALE: 200}
    assert len(faults.named) == 100
    assert faults.named[:2] == [
        Fault(FaultKind.MISSING, None, OTHER),
        Fault(FaultKind.SURPLUS, ROW, None),
    ]


def test_a_report_is_ok_when_nothing_was_wrong() -> None:
    assert report(added=3, removed=2).ok
    for kind in ("stale", "missing", "surplus", "uncounted"):
        assert not report(**{kind: 1}).ok


def test_calls_saved_are_those_of_listing_anew_less_those_made() -> None:
    assert report(calls=4, anew_calls=120).saved_calls == 116
    assert report(calls=147, anew_calls=120).saved_calls == 0


def test_results_are_plain_json() -> None:
    whole = RefreshReport(1, 0, 0, 0, 2, 0, 0.5, 9, faults=(Fault(FaultKind.STALE, ROW, OTHER),))
    document = json.loads(json.dumps(whole.to_dict()))
    assert document["listed"] == 9
    (fault,) = document["faults"]
    assert fault["kind"] == "stale"
    assert fault["held"]["attribute_value"] == "old"
    assert fault["stored"]["attribute_value"] == "new"
    change = json.loads(json.dumps(Change(5, "delete", ROW).to_dict()))
    assert (change["sequence"], change["kind"], change["id"]) == (5, "delete", 7)
