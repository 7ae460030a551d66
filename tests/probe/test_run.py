"""A probe finds out how a store behaves, and leaves it as it was."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bc_attrvals import (
    BCAttrValsError,
    Limits,
)
from bc_attrvals.probe import wire
from bc_attrvals.probe.facts import FACTS
from bc_attrvals.probe.wire import MOST_CALLS
from bc_attrvals.sandbox import Quirks
from tests.probe.probing import ground

#: Each group is one store.
STORES: list[dict[str, Any]] = [
    {},
    {"order": "id_desc", "omit_links": True, "clamp_pages": True},
    {"order": "shuffled", "current_page": "always_1"},
    {"order": "shifting", "current_page": "from_0"},
    {"max_limit": 10, "over_limit": "clamp"},
    {"max_limit": 11, "over_limit": "clamp", "total_pages": "of_asked_limit"},
    {"max_limit": 100, "total_pages": "of_whole_store"},
    {"date_bounds": "exclusive", "zoneless_dates": True, "value_field": "value"},
    {"encoded_dates": False, "request_id": False, "omit_unchanged": True},
    {"compact_offsets": False, "rate_headers": False},
    {"ignore_filters": True},
    {"drop_query": True},
    {"max_items": 4, "batch_limit_status": 422, "answer_order": "reversed"},
    {"max_items": 2, "batch_by": "customers"},
    {"max_items": 1, "batch_limit_status": 422},
    {"max_items": 50},
    {"refusal_status": 500, "error_style": "empty"},
    {
        "refusal_status": 409,
        "error_style": "field",
        "store_good_items_of_refused_batch": True,
    },
    {"trim_values": True, "check_value_types": True, "touch_unchanged": True},
    {"clock_lags_s": (0, 30, 90)},
    {"max_delete_ids": 3, "delete_limit_status": 414},
    {
        "case_sensitive_emails": True,
        "max_emails": 7,
        "attributes_pagination": False,
        "reset_granularity_ms": 1000,
    },
]


@pytest.mark.parametrize("chosen", STORES, ids=lambda one: "+".join(one) or "none")
async def test_every_quirk_is_found_and_no_other(chosen: dict[str, Any], tmp_path: Path) -> None:
    quirks = Quirks(**chosen)
    async with ground(tmp_path, quirks) as store:
        before = await store.sandbox.rows()
        document = await store.probe((7, 8, 9), ("Tier", "Age"))
        assert await store.sandbox.rows() == before
        assert document["calls"] == store.sandbox.requests.seen <= MOST_CALLS
    found = document["facts"]
    for name, value in chosen.items():
        assert found[name]["settled"], found[name]
        assert found[name]["value"] == (list(value) if isinstance(value, tuple) else value)
    assert Quirks.from_probe(tmp_path / "facts.json") == quirks
    assert list(found) == list(FACTS)
    assert not store.state.exists()


def _quirks() -> st.SearchStrategy[dict[str, Any]]:
    """Return settings that a probe can distinguish, whatever they are combined with."""
    choices = {
        "order": st.sampled_from(["id", "id_desc", "shuffled"]),
        "max_limit": st.integers(1, 900),
        "clamp_pages": st.booleans(),
        "date_bounds": st.sampled_from(["inclusive", "exclusive"]),
        "value_field": st.sampled_from(["attribute_value", "value"]),
        "max_items": st.integers(1, 49),
        "batch_limit_status": st.sampled_from([413, 422]),
        "refusal_status": st.sampled_from([422, 400, 409, 423, 500]),
        "error_style": st.sampled_from(["indexed", "field", "empty"]),
        "store_good_items_of_refused_batch": st.booleans(),
        "trim_values": st.booleans(),
        "max_delete_ids": st.none() | st.integers(1, 249),
        "max_emails": st.none() | st.integers(1, 99),
    }
    return st.fixed_dictionaries({}, optional=choices)


@settings(max_examples=10, derandomize=True, deadline=None, database=None)
@given(_quirks())
def test_what_is_settled_is_what_was_set(chosen: dict[str, Any]) -> None:
    quirks = Quirks(**chosen)

    async def probed(folder: Path) -> dict[str, Any]:
        async with ground(folder, quirks) as store:
            before = await store.sandbox.rows()
            document = await store.probe((7, 8))
            assert await store.sandbox.rows() == before
            return document

    with TemporaryDirectory() as folder:
        document = asyncio.run(probed(Path(folder)))
    assert document["calls"] <= MOST_CALLS
    facts = document["facts"]
    found = {name: one["value"] for name, one in facts.items() if one["settled"]}
    assert {name: found[name] for name in chosen if name in found} == {
        name: value for name, value in chosen.items() if name in found
    }
    assert len(found) > 35


async def test_limits_are_those_of_the_store(tmp_path: Path) -> None:
    quirks = Quirks(max_limit=40, max_items=4, max_delete_ids=7)
    async with ground(tmp_path, quirks) as store:
        await store.probe()
    limits = Limits.from_probe(tmp_path / "facts.json")
    assert limits == Limits(page_size=40, batch_size=4, delete_size=7)


async def test_limits_are_no_larger_than_ours(tmp_path: Path) -> None:
    quirks = Quirks(max_limit=2000, batch_by="customers")
    async with ground(tmp_path, quirks) as store:
        document = await store.probe()
    assert document["facts"]["max_limit"]["value"] == 1000
    limits = Limits.from_probe(tmp_path / "facts.json")
    assert limits == Limits(batch_by="customers", delete_size=250)


async def test_only_the_named_value_is_written_and_only_its_own_id_is_deleted(
    tmp_path: Path,
) -> None:
    async with ground(tmp_path) as store:
        others = {row.id for row in await store.sandbox.rows()}
        await store.probe()
        for request in store.sandbox.requests:
            if request.method == "PUT":
                items = json.loads(request.body)
                assert {(one["customer_id"], one["attribute_id"]) for one in items} == {(7, 1)}
            if request.method == "DELETE":
                ids = set(map(int, request.query_string.removeprefix("id:in=").split(",")))
                assert len(ids) == 1
                assert not ids & others
        paths = {request.path.rpartition("/")[2] for request in store.sandbox.requests}
        assert paths == {"attribute-values", "attributes", "customers"}


async def test_a_value_that_was_there_is_put_back_and_never_deleted(tmp_path: Path) -> None:
    async with ground(tmp_path) as store:
        await store.sandbox.seed([(7, 1, "gold", 1_700_000_000)])
        before = await store.held()
        document = await store.probe()
        assert await store.held() == before
        assert store.sandbox.calls["delete"] == 0
    for name in ("delete_status", "max_delete_ids", "empty_value"):
        assert "was there before" in document["facts"][name]["how"]


async def test_a_value_of_another_customer_is_written_first_where_it_was_not_there(
    tmp_path: Path,
) -> None:
    async with ground(tmp_path) as store:
        await store.sandbox.seed([(7, 1, "gold", 1_700_000_000)])
        before = await store.held()
        document = await store.probe((7, 8))
        assert await store.held() == before
    assert document["facts"]["delete_status"]["value"] == 204


async def test_a_store_without_definitions_is_probed_by_ids(tmp_path: Path) -> None:
    async with ground(tmp_path, customers=None, attributes=None) as store:
        document = await store.probe((7,), (1,))
        assert (await store.sandbox.values()).get((7, 1)) is None
    facts = document["facts"]
    assert document["attribute_type"] is None
    assert "not listed" in facts["case_sensitive_emails"]["how"]
    assert facts["max_items"]["value"] == 10


async def test_what_the_bound_leaves_no_calls_for_is_not_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "_MOST_ASKING", 30)
    async with ground(tmp_path) as store:
        before = await store.sandbox.rows()
        document = await store.probe()
        assert await store.sandbox.rows() == before
    assert document["calls"] < 40
    assert "bound of 30 calls" in document["facts"]["max_delete_ids"]["how"]
    assert document["facts"]["date_bounds"]["settled"]


@pytest.mark.parametrize("most", [0, 2, 4, 5])
async def test_a_bound_before_the_first_value_is_an_error(
    most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "_MOST_ASKING", most)
    async with ground(tmp_path) as store:
        before = await store.sandbox.rows()
        with pytest.raises(BCAttrValsError, match=f"bound of {most} calls"):
            await store.probe()
        assert await store.sandbox.rows() == before
        assert not store.state.exists()


async def test_the_document_holds_no_id_no_value_and_no_address(tmp_path: Path) -> None:
    async with ground(tmp_path, customers={70123: "Ann@example.org"}) as store:
        await store.sandbox.seed([(70123, 1, "secret gold", 1_700_000_000)])
        await store.probe((70123,))
    text = (tmp_path / "facts.json").read_text().lower()
    for one in ("70123", "secret gold", "example.org", "sandbox-token", "other 3"):
        assert one not in text
