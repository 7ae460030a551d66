"""The quirks as a table, and each that belongs to no other test."""

from __future__ import annotations

import attrs
import pytest

from bc_attrvals.sandbox import Quirks, Sandbox
from tests.sandbox.api import Clock, item, running


async def test_the_quirks_of_listings() -> None:
    quirks = Quirks(
        value_field="value",
        clamp_pages=True,
        date_bounds="exclusive",
        omit_links=True,
        over_limit="clamp",
        max_limit=4,
        zoneless_dates=True,
        request_id=False,
    )
    async with running(quirks=quirks) as (sandbox, api):
        await sandbox.seed((i, 1, "v", 1_714_521_600 + i) for i in range(1, 11))
        clamped = await api.get("page=9&limit=100")
        bounded = await api.get("date_created:min=1714521602&date_created:max=1714521605")
        put = await api.put(item(50))
    assert clamped.pagination == {
        "total": 10,
        "count": 2,
        "per_page": 4,
        "current_page": 3,
        "total_pages": 3,
    }
    assert [row["id"] for row in clamped.data] == [9, 10]
    assert clamped.data[0]["value"] == "v"
    assert "attribute_value" not in clamped.data[0]
    assert clamped.data[0]["date_created"] == "2024-05-01T00:00:09"
    assert "X-Request-Id" not in clamped.headers
    assert [row["id"] for row in bounded.data] == [3, 4]
    assert put.data[0]["value"] == "v"
    assert not put.data[0]["date_created"].endswith("Z")


def test_quirks_and_options_are_checked() -> None:
    with pytest.raises(ValueError, match="order"):
        Quirks(order="random")  # type: ignore[arg-type] # the point of the test
    with pytest.raises(ValueError, match="latency_ms"):
        Sandbox(latency_ms=-1)
    for latency_ms in (float("nan"), float("inf"), 1e12):
        with pytest.raises(ValueError, match="latency_ms"):
            Sandbox(latency_ms=latency_ms)
        with pytest.raises(ValueError, match="latency_ms"):
            Sandbox().latency_ms = latency_ms
    with pytest.raises(ValueError, match="max_concurrent_puts"):
        Sandbox(max_concurrent_puts=0)


async def test_filters_or_the_whole_query_may_be_lost() -> None:
    async with running(quirks=Quirks(ignore_filters=True)) as (sandbox, api):
        await sandbox.seed((i, 1 + i % 2, "v") for i in range(1, 101))
        ignored = await api.get("attribute_id:in=1&limit=10&page=2")
        assert (ignored.pagination["total"], ignored.data[0]["id"]) == (100, 11)
        await sandbox.set_quirks(Quirks(drop_query=True))
        dropped = await api.get("attribute_id:in=1&limit=10&page=2")
        assert (len(dropped.data), dropped.data[0]["id"]) == (50, 1)
        assert (await api.delete("id:in=1")).status == 204
        assert await sandbox.count() == 100


@pytest.mark.parametrize(
    ("quirks", "total_pages", "current_page"),
    [
        (Quirks(), 4, 2),
        (Quirks(total_pages="of_asked_limit", max_limit=10, over_limit="clamp"), 1, 2),
        (Quirks(total_pages="of_whole_store"), 8, 2),
        (Quirks(current_page="always_1"), 4, 1),
        (Quirks(current_page="from_0"), 4, 1),
    ],
)
async def test_pagination_may_be_wrong(quirks: Quirks, total_pages: int, current_page: int) -> None:
    async with running(quirks=quirks) as (sandbox, api):
        await sandbox.seed((i, 1 + i % 2, "v") for i in range(1, 81))
        limit = 100 if quirks.over_limit == "clamp" else 10
        reply = await api.get(f"attribute_id:in=1&limit={limit}&page=2")
        assert len(reply.data) == 10
    pagination = reply.pagination
    assert (pagination["total"], pagination["total_pages"]) == (40, total_pages)
    assert pagination["current_page"] == current_page


async def test_a_shifting_order_repeats_and_misses_rows_under_a_constant_total() -> None:
    async with running(quirks=Quirks(order="shifting")) as (sandbox, api):
        await sandbox.seed((i, 1, "v") for i in range(1, 201))
        pages = [await api.get(f"limit=20&page={page}") for page in range(1, 11)]
        assert {reply.pagination["total"] for reply in pages} == {200}
        ids = [row["id"] for reply in pages for row in reply.data]
        assert len(ids) == 200
        assert 50 < len(set(ids)) < 180
        assert (await api.get("limit=20&page=3")).data == pages[2].data


async def test_values_may_be_trimmed() -> None:
    async with running(quirks=Quirks(trim_values=True)) as (sandbox, api):
        reply = await api.put(item(1, 1, "  a b\t"))
        assert reply.data[0]["attribute_value"] == "a b"
        assert await sandbox.values() == {(1, 1): "a b"}


@pytest.mark.parametrize("status", [400, 409, 413, 414, 422, 423, 500])
async def test_refusals_may_have_another_status(status: int) -> None:
    if status in (413, 414):
        quirks = Quirks().changed({"max_delete_ids": 2, "delete_limit_status": status})
        async with running(quirks=quirks) as (_, api):
            assert (await api.delete("id:in=1,2")).status == 204
            assert (await api.delete("id:in=1,2,3")).status == status
        return
    quirks = Quirks().changed({"refusal_status": status, "error_style": "empty"})
    async with running(quirks=quirks) as (sandbox, api):
        sandbox.reject_customers([2])
        for _ in range(2):
            reply = await api.put(item(1), item(2))
            assert (reply.status, reply.json["errors"]) == (status, {})
        assert (await api.put(item(1))).status == 200


@pytest.mark.parametrize(
    ("changes", "size", "customers", "status"),
    [
        ({}, 11, 1, 413),
        ({"max_items": 4}, 5, 5, 413),
        ({"max_items": 4, "batch_limit_status": 422}, 5, 5, 422),
        ({"batch_by": "customers"}, 30, 10, 200),
        ({"batch_by": "customers"}, 11, 11, 413),
    ],
)
async def test_the_size_of_a_put(
    changes: dict[str, object], size: int, customers: int, status: int
) -> None:
    async with running(quirks=Quirks().changed(changes)) as (sandbox, api):
        items = [item(1 + n % customers, 1 + n // customers) for n in range(size)]
        reply = await api.put(*items)
        assert reply.status == status
        assert await sandbox.count() == (size if status == 200 else 0)
    if status == 422:
        assert (reply.json["title"], reply.json["errors"]) == ("Max batch size allowed is 4", {})


async def test_writers_clocks_may_be_behind_or_ahead() -> None:
    clock = Clock(1_700_000_000)
    quirks = Quirks(clock_lags_s=(0, 3, -60))
    async with running(quirks=quirks, wall_clock=clock) as (sandbox, api):
        for number in range(1, 5):
            await api.put(item(number))
        dates = [row.date_created_s - 1_700_000_000 for row in await sandbox.rows()]
    assert dates == [0, -3, 60, 0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"oder": "id"}, "oder is not a quirk; did you mean order"),
        ({"order": "random"}, "order must be one of id, id_desc"),
        ({"order": 1}, "order must be one of"),
        ({"max_limit": 0}, "max_limit must be a whole number"),
        ({"max_limit": True}, "max_limit must be a whole number"),
        ({"max_limit": None}, "max_limit must be a whole number"),
        ({"max_delete_ids": 1.5}, "max_delete_ids must be a whole number from 1 up or null"),
        ({"omit_links": 1}, "omit_links must be true or false"),
        ({"refusal_status": 418}, "refusal_status must be one of 422"),
        ({"clock_lags_s": [1, "2"]}, "clock_lags_s must be a list of whole seconds"),
        ({"clock_lags_s": 3}, "clock_lags_s must be a list of whole seconds"),
    ],
)
def test_quirks_that_make_no_sense_are_refused_by_name(
    changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Quirks().changed(changes)


def test_quirks_are_read_from_lines() -> None:
    lines = ("order=shuffled", "max_limit = 9", "omit_links", "request_id=no", "clock_lags_s=[1,2]")
    assert Quirks.parse(lines) == Quirks(
        order="shuffled", max_limit=9, omit_links=True, request_id=False, clock_lags_s=(1, 2)
    )
    assert Quirks.parse(("max_delete_ids=none",)) == Quirks()
    with pytest.raises(ValueError, match="omit_links is given twice"):
        Quirks.parse(("omit_links", "omit_links=no"))


def test_every_quirk_is_described_and_its_default_allowed() -> None:
    described = Quirks.described()
    assert [one["name"] for one in described] == list(attrs.asdict(Quirks()))
    for one in described:
        assert one["says"]
        assert Quirks().changed({str(one["name"]): one["default"]}) == Quirks()
        for choice in one["choices"] or ():  # type: ignore[attr-defined] # a tuple
            assert getattr(Quirks().changed({str(one["name"]): choice}), str(one["name"])) == choice


async def test_an_equal_value_may_move_its_date() -> None:
    clock = Clock()
    async with running(quirks=Quirks(touch_unchanged=True), wall_clock=clock) as (sandbox, api):
        first = await api.put(item(1))
        clock.now_s += 5
        second = await api.put(item(1))
        (row,) = await sandbox.rows()
    assert first.data[0]["date_created"] == second.data[0]["date_created"]
    assert row.date_modified_s - row.date_created_s == 5
