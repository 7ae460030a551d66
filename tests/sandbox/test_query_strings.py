"""Query strings that are refused, and the forms of dates."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from bc_attrvals.sandbox import Quirks
from tests.sandbox.api import running


@pytest.mark.parametrize(
    "query",
    [
        "sort=id",
        "id:in=1",
        "customer_id=1",
        "page=0",
        "page=x",
        "page=-1",
        "limit=0",
        "limit=1.5",
        "customer_id:in=",
        "customer_id:in=1,,2",
        "customer_id:in=1;2",
        "customer_id:in=0",
        "customer_id:in=2147483648",
        "customer_id:in=1&customer_id:in=2",
        "customer_id:in=1&customer_id%3Ain=2",
        "date_created:min=yesterday",
        "date_created:min=2024-02-30",
        "date_created:min=2024-05-01T25:00:00Z",
        "date_created:min=2024-05-14T20:00:00+00:00",
        "date_created:min=2024-05-14T20:00:00%2B25:00",
        "date_created:min=2024-05-14+20:00",
        "date_created:min=",
        "date_created:minimum=2024-05-14",
    ],
)
async def test_a_malformed_query_is_refused_422(query: str) -> None:
    async with running() as (sandbox, api):
        await sandbox.seed([(1, 1, "v")])
        reply = await api.get(query)
    assert reply.status == 422
    assert set(reply.json) == {"status", "title", "type", "errors"}
    assert all(isinstance(text, str) for text in reply.json["errors"].values())


async def test_the_largest_limit_is_250() -> None:
    async with running() as (sandbox, api):
        await sandbox.seed((i, 1, "v") for i in range(1, 300))
        assert len((await api.get("limit=250")).data) == 250
        assert (await api.get("limit=251")).status == 413


@pytest.mark.parametrize(
    ("quirks", "value"),
    [
        (Quirks(encoded_dates=False), "2024-05-14T20%3A00%3A00Z"),
        (Quirks(encoded_dates=False), "2024%2D05%2D14"),
        (Quirks(encoded_dates=False), "2024-05-14T22:00:00%2B02:00"),
        (Quirks(compact_offsets=False), "2024-05-14T16:00:00-0400"),
    ],
)
async def test_other_forms_of_dates_are_accepted_unless_a_quirk_refuses_them(
    quirks: Quirks, value: str
) -> None:
    async with running(quirks=quirks) as (sandbox, api):
        at = int(datetime(2024, 5, 14, 20 if "T" in value else 0, tzinfo=UTC).timestamp())
        await sandbox.seed([(1, 1, "v", at)])
        assert (await api.get(f"date_created={value}")).status == 422
        await sandbox.set_quirks(Quirks())
        assert len((await api.get(f"date_created={value}")).data) == 1
        assert len((await api.get(f"date_created%3Amin={value}")).data) == 1
