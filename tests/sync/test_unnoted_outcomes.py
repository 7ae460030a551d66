"""What upserts came to waits in one place, and is taken from it once."""

from __future__ import annotations

import pytest

from bc_attrvals import AttributeValue, OutcomeStatus, UnconfirmedError
from bc_attrvals.sync.unnoted_outcomes import UnnotedOutcomes
from tests.probes import upserts

ANSWER = (
    b'{"data": [{"id": 7, "customer_id": 1, "attribute_id": 1, "attribute_value": "v1", '
    b'"date_created": "2024-05-14T09:34:00Z", "date_modified": "2024-05-14T09:34:00Z"}]}'
)


@pytest.mark.parametrize("keep_rows", [False, True])
def test_rows_are_kept_for_a_mirror_alone(keep_rows: bool) -> None:
    outcomes = UnnotedOutcomes(keep_rows=keep_rows)
    items = upserts(1)
    outcomes.stored(items, outcomes.decode(ANSWER))
    written, rows, others = outcomes.take()
    assert (written, others) == (items, [])
    assert [row.id for row in rows] == [7] * keep_rows
    assert all(isinstance(row, AttributeValue) and row.date_modified for row in rows)


def test_everything_is_counted_and_taken_once() -> None:
    outcomes = UnnotedOutcomes(keep_rows=False)
    first, second, third = upserts(3)
    outcomes.stored([first], outcomes.decode(ANSWER))
    outcomes.altered(second, AttributeValue(8, 2, 1, "other", None, None))
    outcomes.lost([third], OutcomeStatus.FAILED, UnconfirmedError("no echo"))
    assert (outcomes.untaken, outcomes.confirmed) == (3, 2)
    written, _, others = outcomes.take()
    assert written == [first]
    assert [one.item for one in others] == [second, third]
    assert (outcomes.untaken, outcomes.take()) == (0, ([], [], []))
