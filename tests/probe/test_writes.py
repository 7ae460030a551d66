"""Questions that write: what is stored and answered, and why they show nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bc_attrvals import UnconfirmedError
from bc_attrvals.probe import writes
from bc_attrvals.probe.facts import Facts, Unsettled
from bc_attrvals.sandbox import Fault, Quirks
from tests.probe.probing import ATTRIBUTES, Question, ground

OLD_S = 1_700_000_000
REFUSED = Fault.parse("409,operation=upsert")


@pytest.mark.parametrize(
    ("question", "quirks", "settled"),
    [
        (writes.first_write, {"value_field": "value"}, {"value_field": "value"}),
        (writes.first_write, {"zoneless_dates": True}, {"zoneless_dates": True}),
        (
            writes.equal_write,
            {"omit_unchanged": True},
            {"omit_unchanged": True, "touch_unchanged": False},
        ),
        (writes.equal_write, {"touch_unchanged": True}, {"touch_unchanged": True}),
        (writes.repeated_keys, {}, {"repeated_keys": "last"}),
        (
            writes.batches,
            {"max_items": 4, "batch_limit_status": 422},
            {"batch_by": "rows", "max_items": 4, "batch_limit_status": 422},
        ),
        (
            writes.batches,
            {"max_items": 2, "batch_by": "customers"},
            {"batch_by": "customers", "max_items": 2},
        ),
        (
            writes.refusals,
            {"error_style": "field", "refusal_status": 409},
            {"error_style": "field", "refusal_status": 409},
        ),
        (
            writes.refusals,
            {"store_good_items_of_refused_batch": True},
            {"store_good_items_of_refused_batch": True, "bad_items_named": "first"},
        ),
        (writes.several_keys, {"answer_order": "reversed"}, {"answer_order": "reversed"}),
        (writes.blanks, {"trim_values": True}, {"trim_values": True}),
        (writes.characters, {}, {"characters": "kept"}),
        (writes.empty_value, {}, {"empty_value": "stored"}),
    ],
)
async def test_a_question_settles_what_is_so(
    question: Question, quirks: dict[str, Any], settled: dict[str, Any], tmp_path: Path
) -> None:
    async with ground(tmp_path, Quirks(**quirks)) as store:
        facts, _ = await store.asked(question, (7, 8, 9))
    assert {name: facts.value(name) for name in settled} == settled


@pytest.mark.parametrize(
    ("question", "why"),
    [
        (writes.repeated_keys, ""),
        (writes.several_keys, "2 items was answered 409"),
        (writes.blanks, "a value was answered 409"),
        (writes.empty_value, ""),
    ],
)
async def test_a_refusal_is_a_fact_or_a_reason(
    question: Question, why: str, tmp_path: Path
) -> None:
    async with ground(tmp_path) as store:
        store.sandbox.faults.add(REFUSED)
        facts, reason = await store.asked(question, (7, 8))
    assert reason == why
    assert set(facts.all()) == (set() if why else {question.__name__})  # type: ignore[attr-defined]


@pytest.mark.parametrize("question", [writes.empty_value, writes.deletions])
async def test_a_value_that_was_there_is_not_deleted(question: Question, tmp_path: Path) -> None:
    async with ground(tmp_path) as store:
        await store.sandbox.seed([(7, 1, "gold", OLD_S)])
        before = await store.sandbox.rows()
        assert "was there before" in (await store.asked(question))[1]
        assert await store.sandbox.rows() == before


async def test_deletions_are_of_the_own_row(tmp_path: Path) -> None:
    async with ground(tmp_path, Quirks(max_delete_ids=3, delete_limit_status=414)) as store:
        before = await store.held()
        facts = Facts()
        assert "filters are ignored" in (await store.asked(writes.deletions, facts=facts))[1]
        facts.settle("ignore_filters", False, "seen")
        await store.asked(writes.deletions, facts=facts)
        left = [row for row in await store.held() if row[1:3] != (7, 1)]
        assert left == before
    found = {name: facts.value(name) for name in facts.all() if "delete" in name}
    assert found == {"delete_status": 204, "max_delete_ids": 3, "delete_limit_status": 414}


@pytest.mark.parametrize(
    ("offsets_s", "lags"),
    [([0.2, -0.5, 0.0, 0.9, -1.0], []), ([0.0, -30.4, 0.5, -29.8, -90.0, 0.1], [0, 30, 90])],
)
async def test_clocks_that_lag_are_told_apart(
    offsets_s: list[float], lags: list[int], tmp_path: Path
) -> None:
    async with ground(tmp_path) as store:
        target, facts = await store.target(), Facts()
        with pytest.raises(Unsettled, match="0 writes are too few"):
            await writes.clocks(target, facts)
        target.offsets_s = offsets_s
        await writes.clocks(target, facts)
    assert facts.value("clock_lags_s") == lags


async def test_a_value_that_is_stored_in_another_form_ends_the_first_write(tmp_path: Path) -> None:
    async with ground(tmp_path, faults=[Fault.parse("200,operation=upsert,applied=no")]) as store:
        with pytest.raises(UnconfirmedError, match="does not hold"):
            await store.asked(writes.first_write)


async def test_a_customer_that_does_not_exist_is_not_taken_for_a_limit(tmp_path: Path) -> None:
    async with ground(tmp_path, Quirks(batch_by="customers")) as store:
        document = await store.probe((7, 8, 77))
    facts = document["facts"]
    assert facts["batch_by"]["value"] == "customers"
    assert "refused, for one of them" in facts["max_items"]["how"]


@pytest.mark.parametrize(
    ("name", "asked", "left"), [("Age", "numbers", "dates"), ("Born", "dates", "numbers")]
)
async def test_values_are_of_the_type_of_the_attribute(
    name: str, asked: str, left: str, tmp_path: Path
) -> None:
    quirks = Quirks(check_value_types=True, trim_values=True)
    attributes = {**ATTRIBUTES, "Born": "date"}
    async with ground(tmp_path, quirks, attributes=attributes) as store:
        document = await store.probe(attributes=(name,))
    facts = document["facts"]
    assert document["attribute_type"] == attributes[name]
    assert all(sent == stored for sent, stored in facts[asked]["value"].items())
    assert not facts[left]["settled"]
    assert Quirks.from_probe(tmp_path / "facts.json") == quirks


async def test_a_call_that_was_sent_again_is_no_clock_that_lags(tmp_path: Path) -> None:
    faults = [Fault.parse("drop_after,operation=upsert,times=3")]
    async with ground(tmp_path, faults=faults) as store:
        document = await store.probe()
    assert document["facts"]["clock_lags_s"]["value"] == []
