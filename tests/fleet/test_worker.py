"""One job on a worker: its files, proxy, journal, mirror and shared quota."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from bc_attrvals import AttributeValueFilter
from bc_attrvals.errors import (
    InvalidInputError,
    UnknownCustomerError,
)
from bc_attrvals.fleet import (
    FileSource,
)
from bc_attrvals.sandbox import Sandbox
from tests import fleet_sources
from tests.conftest import make_store
from tests.fleet.cluster_jobs import TOKENS, all_of, job_of


async def test_files_in_both_forms_are_read_on_the_worker(client: Any, tmp_path: Path) -> None:
    long, wide = tmp_path / "long.csv", tmp_path / "wide.csv"
    long.write_text("customer_id,attribute_id,v\n1,1,a\n2,1,b\n")
    wide.write_text("ID,x\n1,c\n2,d\n")
    async with Sandbox(quota=None, access_token="s3cret-token") as sandbox:
        results = await all_of(
            client,
            job_of(
                sandbox,
                access_token=TOKENS,
                source=FileSource(path=long, columns={"value": "v"}),
                name="long",
            ),
            job_of(
                sandbox,
                access_token=TOKENS,
                source=FileSource(path=wide, customer_column="ID", attributes={"x": 2}),
                scope=AttributeValueFilter(attribute_id_in=[2]),
                name="wide",
            ),
        )
        assert all(one.ok for one in results.values()), results
        assert await sandbox.values() == {(1, 1): "a", (2, 1): "b", (1, 2): "c", (2, 2): "d"}


async def test_files_of_addresses_and_names_are_resolved_on_the_worker(
    client: Any, tmp_path: Path
) -> None:
    long, wide = tmp_path / "long.csv", tmp_path / "wide.csv"
    people = {number: f"person{number}@example.org" for number in range(1, 4)}
    long.write_text(
        "E-Mail,attribute,value\n Person1@Example.org ,Tier,gold\nnobody@example.org,Tier,x\n"
    )
    wide.write_text("E-Mail,Score,Born\nperson2@example.org,7,2020-01-31\nperson3@example.org,8,\n")
    kinds = {"Tier": "string", "Score": "number", "Born": "date"}
    options = {"quota": None, "access_token": "s3cret-token"}
    async with Sandbox(**options, customers=people, attributes=kinds) as sandbox:
        results = await all_of(
            client,
            job_of(
                sandbox,
                access_token=TOKENS,
                source=FileSource(path=long, columns={"email": "E-Mail"}),
                name="long",
            ),
            job_of(
                sandbox,
                access_token=TOKENS,
                source=FileSource(path=wide, email_column="E-Mail", attributes_by_header=True),
                scope=AttributeValueFilter(attribute_id_in=[2, 3]),
                name="wide",
            ),
        )
        assert results["wide"].ok, results
        report = results["long"].report
        assert report is not None
        assert (report.failed, report.created + report.written) == (1, 1)
        assert isinstance(report.failures[0].error, UnknownCustomerError)
        assert await sandbox.values() == {
            (1, 1): "gold",
            (2, 2): "7",
            (2, 3): "2020-01-31",
            (3, 2): "8",
        }


async def test_a_proxy_is_looked_up_on_the_worker_and_never_shown(
    client: Any, tmp_path: Path
) -> None:
    source = tmp_path / "in.csv"
    source.write_text("customer_id,attribute_id,value\n1,1,a\n")
    async with Sandbox(quota=None, access_token="s3cret-token") as sandbox:
        job = job_of(
            sandbox, access_token=TOKENS, source=FileSource(path=source), proxy=fleet_sources.proxy
        )
        assert "s3cret" not in repr(job)
        (result,) = (await all_of(client, job)).values()
        assert isinstance(result.error, InvalidInputError)
        assert result.error.field == "proxy"
        assert "s3cret" not in str(result.error)
        assert sandbox.requests.seen == 0


async def test_a_result_tells_how_long_the_shared_quota_was_out_of_reach(client: Any) -> None:
    async with Sandbox(quota=None, access_token="s3cret-token") as sandbox:
        quota = fleet_sources.nowhere
        jobs = [
            job_of(sandbox, access_token=TOKENS, shared_quota=quota, name="shared"),
            job_of(sandbox, access_token=TOKENS, store_hash="none", name="refused"),
        ]
        results = await all_of(client, *jobs)
        assert results["shared"].ok
        assert results["shared"].seconds is not None
        assert 0 < results["shared"].without_shared_quota_s <= results["shared"].seconds
        assert results["refused"].without_shared_quota_s == 0


async def test_a_journal_that_another_holds_is_waited_for(client: Any, tmp_path: Path) -> None:
    from bc_attrvals.sync.database_thread import DatabaseThread
    from bc_attrvals.sync.journal import JOURNALS

    path = tmp_path / "held.db"
    journal = DatabaseThread(JOURNALS, path, field="journal")
    await journal.open()
    async with Sandbox(quota=None, access_token="s3cret-token") as sandbox:
        jobs = [job_of(sandbox, access_token=TOKENS, journal=path)]
        waiting = asyncio.ensure_future(all_of(client, *jobs))
        await asyncio.sleep(0.6)
        assert sandbox.requests.seen == 0
        assert not waiting.done()
        await journal.aclose()
        results = await waiting
        assert [one.ok for one in results.values()] == [True]


async def test_a_job_with_a_mirror_reads_what_changed(client: Any, tmp_path: Path) -> None:
    scope = AttributeValueFilter()
    async with Sandbox(quota=None, access_token="s3cret-token") as sandbox:
        await sandbox.seed((n + 1, 1, f"v{n}", 1_700_000_000 + n) for n in range(2_000))
        job = job_of(
            sandbox, access_token=TOKENS, scope=scope, prune=True, mirror=tmp_path / "m.db"
        )
        for most_reads in (20, 6):
            before = sandbox.calls["list"]
            results = await all_of(client, job)
            assert [one.ok for one in results.values()] == [True]
            assert sandbox.calls["list"] - before <= most_reads
        async with make_store(sandbox) as store, store.mirror(tmp_path / "m.db", scope) as mirror:
            held = {row.key: row.value async for row in mirror.rows()}
            assert held == await sandbox.values()
