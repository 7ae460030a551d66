"""What became of the items of a job: counted once, under the item as it was given."""

from __future__ import annotations

from collections import deque

from bc_attrvals import AttributeValue, AttributeValueUpsert, NamedValue, ServerError
from bc_attrvals.core.outcomes import OutcomeStatus, UpsertOutcome
from bc_attrvals.writing.outcomes import Outcomes

ERROR = ServerError(500, "no", {}, None, "PUT", "/values")
ITEMS = [AttributeValueUpsert(number, 1, "v") for number in range(1, 6)]
ROWS = [AttributeValue(number, number, 1, "v", None, None) for number in range(1, 6)]


def test_counts_need_no_queue_and_failures_are_kept_up_to_a_number() -> None:
    outcomes = Outcomes(2)
    outcomes.stored(ITEMS[:1], ROWS[:1])
    outcomes.superseded(ITEMS[1])
    outcomes.lost(ITEMS[2:], OutcomeStatus.FAILED, ERROR)
    report = outcomes.report(3, 1, 0.5)
    assert (report.stored, report.superseded, report.failed, report.calls) == (1, 1, 3, 3)
    assert [failure.item for failure in report.failures] == ITEMS[2:4]
    assert outcomes.untaken == 0


def test_each_item_has_one_outcome_in_the_queue() -> None:
    queue: deque[UpsertOutcome] = deque()
    outcomes = Outcomes(10, queue)
    outcomes.stored(ITEMS[:2], ROWS[:2])
    outcomes.altered(ITEMS[2], ROWS[2])
    outcomes.refused([ITEMS[3]], ERROR)
    outcomes.lost([ITEMS[4]], OutcomeStatus.NOT_SENT, ERROR)
    assert outcomes.untaken == 5
    assert [outcome.item for outcome in queue] == ITEMS
    assert [outcome.status.value for outcome in queue] == [
        "stored",
        "stored",
        "altered",
        "failed",
        "not_sent",
    ]
    assert [outcome.stored for outcome in queue] == [*ROWS[:3], None, None]


def test_an_outcome_is_of_the_named_value_that_the_item_stands_for() -> None:
    queue: deque[UpsertOutcome] = deque()
    outcomes = Outcomes(10, queue)
    named = [NamedValue(f"{number}@example.com", "tier", "v") for number in (1, 2)]
    for item, given in zip(ITEMS[:2], named, strict=True):
        outcomes.originals[id(item)] = (item, given)
    outcomes.reconsider = lambda items, _: list(items[1:])
    outcomes.stored(ITEMS[2:3], ROWS[2:3])
    outcomes.refused(ITEMS[:2], ERROR)
    assert [outcome.item for outcome in queue] == [ITEMS[2], named[1]]
    # The first is resolved anew, and has no outcome yet.
    assert list(outcomes.originals.values()) == [(ITEMS[0], named[0])]


def test_an_answer_that_cannot_be_read_proves_nothing() -> None:
    for outcomes in (Outcomes(0), Outcomes(0, deque())):
        assert list(outcomes.decode(b"<html>")) == []
        proof = b'{"data":[{"id":1,"customer_id":1,"attribute_id":1,"attribute_value":"v",'
        rows = outcomes.decode(proof + b'"date_created":"soon"},{"id":"x"}]}')
        assert [(row.key, row.attribute_value) for row in rows] == [((1, 1), "v")]
