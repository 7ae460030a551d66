"""Facts are recorded once, in the order of the table, with how they were seen."""

from __future__ import annotations

import pytest

from bc_attrvals.probe.facts import FACTS, Facts, Unsettled
from bc_attrvals.probe.sizes import Largest


def test_all_facts_come_in_the_order_of_the_table() -> None:
    facts = Facts()
    names = list(FACTS)
    for name in reversed(names[:5]):
        facts.settle(name, True, "seen")
    assert list(facts.all()) == names[:5]


@pytest.mark.parametrize("name", ["order", "no such fact"])
def test_a_fact_is_recorded_once_and_has_a_known_name(name: str) -> None:
    facts = Facts()
    facts.settle("order", "id", "seen")
    with pytest.raises(AssertionError):
        facts.leave(name, "why")


def test_a_question_that_ends_gives_its_reason_and_its_calls_to_all_its_facts() -> None:
    facts = Facts()
    facts.settle("max_limit", 250, "seen", largest=250)
    facts.close(["max_limit", "over_limit"], "no larger one", 3)
    assert {name: fact.to_dict() for name, fact in facts.all().items()} == {
        "max_limit": {"settled": True, "value": 250, "how": "seen", "calls": 3, "largest": 250},
        "over_limit": {"settled": False, "value": None, "how": "no larger one", "calls": 3},
    }
    assert (facts.number("max_limit", 9), facts.number("over_limit", 9)) == (250, 9)
    assert (facts.value("order"), "order" in facts) == (None, False)


def test_what_has_no_meaning_is_not_settled() -> None:
    facts = Facts()
    facts.settle_as("answer_order", {(1, 2): "given"}, (1, 2), "seen")
    assert facts.value("answer_order") == "given"
    with pytest.raises(Unsettled, match="neither"):
        facts.settle_as("trim_values", {"x": True}, None, "neither")
    assert "trim_values" not in facts


@pytest.mark.parametrize(
    ("found", "value", "how"),
    [
        (Largest(100), None, "100 times the same id were accepted"),
        (Largest(7, True, 414), 7, "7 times the same id were accepted, more were answered 414"),
    ],
)
def test_a_largest_size_is_settled_where_a_larger_one_was_refused(
    found: Largest, value: int | None, how: str
) -> None:
    facts = Facts()
    assert facts.settle_largest("max_delete_ids", found, "id") == how
    fact = facts.all()["max_delete_ids"]
    assert (fact.value, fact.largest, fact.how) == (value, found.size, how)
