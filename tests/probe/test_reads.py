"""Questions that only read: what answers show, and why they do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bc_attrvals.probe import reads
from bc_attrvals.probe.facts import Facts
from bc_attrvals.sandbox import Fault, Quirks, Sandbox
from tests.probe.probing import Question, ground

OLD_S = 1_700_000_000


async def without_rows(sandbox: Sandbox, *, but: int = 0) -> None:
    await sandbox.delete_rows(row.id for row in (await sandbox.rows())[but:])


@pytest.mark.parametrize(
    ("question", "quirks", "settled"),
    [
        (reads.query, {}, {"drop_query": False, "ignore_filters": False}),
        (reads.query, {"drop_query": True}, {"drop_query": True}),
        (reads.query, {"ignore_filters": True}, {"drop_query": False, "ignore_filters": True}),
        (reads.page_size, {"max_limit": 60}, {"max_limit": 60, "over_limit": "refuse"}),
        (
            reads.page_size,
            {"max_limit": 60, "over_limit": "clamp"},
            {"max_limit": 60, "over_limit": "clamp"},
        ),
        (reads.page_size, {"max_limit": 2_000}, {"max_limit": 1_000}),
        (
            reads.pages,
            {"omit_links": True, "clamp_pages": True},
            {"omit_links": True, "clamp_pages": True, "current_page": "right"},
        ),
        (reads.pages, {"current_page": "from_0"}, {"current_page": "from_0"}),
        (reads.pages, {"total_pages": "of_whole_store"}, {"total_pages": "of_whole_store"}),
        (reads.order, {"order": "id_desc"}, {"order": "id_desc"}),
        (reads.order, {"order": "shifting"}, {"order": "shifting"}),
        (
            reads.dates,
            {"date_bounds": "exclusive", "encoded_dates": False},
            {"date_bounds": "exclusive", "encoded_dates": False, "compact_offsets": True},
        ),
        (
            reads.addresses,
            {"case_sensitive_emails": True, "max_emails": 7},
            {"case_sensitive_emails": True, "max_emails": 7},
        ),
    ],
)
async def test_a_question_settles_what_is_so(
    question: Question, quirks: dict[str, Any], settled: dict[str, Any], tmp_path: Path
) -> None:
    async with ground(tmp_path, Quirks(**quirks)) as store:
        facts, _ = await store.asked(question, read=False)
    assert {name: facts.value(name) for name in settled} == settled


@pytest.mark.parametrize(
    ("question", "rows", "why"),
    [
        (reads.pages, 0, "the store has no values"),
        (reads.pages, 1, "the store has one value only"),
        (reads.order, 5, "4 values on a page are too few"),
    ],
)
async def test_too_few_rows_show_nothing(
    question: Question, rows: int, why: str, tmp_path: Path
) -> None:
    async with ground(tmp_path) as store:
        await without_rows(store.sandbox, but=rows)
        assert (await store.asked(question))[1] == why


async def test_a_filter_is_asked_once_and_only_where_there_are_rows(tmp_path: Path) -> None:
    async with ground(tmp_path) as store:
        await without_rows(store.sandbox)
        facts, _ = await store.asked(reads.query)
        assert "ignore_filters" not in facts
        await store.asked(reads.filters, facts=facts)
        assert facts.value("ignore_filters") is False
        calls = store.sandbox.requests.seen
        await store.asked(reads.filters, facts=facts)
        # The named value and the attributes.
        assert store.sandbox.requests.seen - calls == 2


async def test_a_cut_limit_is_told_from_total_pages_of_it(tmp_path: Path) -> None:
    quirks = Quirks(max_limit=10, over_limit="clamp", total_pages="of_asked_limit")
    async with ground(tmp_path, quirks) as store:
        await store.sandbox.seed([(7, 1, "own", OLD_S)])
        facts = Facts()
        for question in (reads.page_size, reads.pages):
            await store.asked(question, facts=facts)
    assert facts.value("total_pages") == "of_asked_limit"


@pytest.mark.parametrize(
    ("customers", "faults", "why"),
    [
        ({7: "Ann@example.org"}, ["403,operation=list_customers"], "may not read customers"),
        ({8: "Bob@example.org"}, [], "the customer or its address is not listed"),
    ],
)
async def test_addresses_that_can_not_be_asked_for(
    customers: dict[int, str], faults: list[str], why: str, tmp_path: Path
) -> None:
    given = [Fault.parse(one) for one in faults]
    async with ground(tmp_path, customers=customers, faults=given) as store:
        assert why in (await store.asked(reads.addresses))[1]


async def test_headers_of_all_answers_are_looked_at(tmp_path: Path) -> None:
    faults = [Fault.parse("429,times=1,retry_after_s=9")]
    async with ground(tmp_path, quota=50, faults=faults) as store:
        target, facts = await store.target(), Facts()
        for _ in range(20):
            await target.wire.get("limit=1")
        await reads.headers(target, facts)
    assert facts.value("request_id") is True
    assert facts.value("quota") == {"calls": 50, "window_ms": 30_000}
    assert facts.value("wait_headers")
    assert "of statuses 200" in facts.all()["rate_headers"].how
    assert facts.number("reset_granularity_ms", 0) in {1, 10, 100}


async def test_a_store_without_a_quota_has_no_headers(tmp_path: Path) -> None:
    async with ground(tmp_path, Quirks(request_id=False), quota=None) as store:
        facts, _ = await store.asked(reads.headers)
    assert facts.all()["wait_headers"].how == "no call was answered 429"
    assert {name: one.value for name, one in facts.all().items()} == {
        "request_id": False,
        "rate_headers": False,
        "wait_headers": None,
    }


async def test_an_address_without_letters_has_no_case(tmp_path: Path) -> None:
    async with ground(tmp_path, customers={7: "1@2.3"}) as store:
        facts, _ = await store.asked(reads.addresses)
    fact = facts.all()["case_sensitive_emails"]
    assert (fact.settled, fact.how) == (False, "the address has no letters")
