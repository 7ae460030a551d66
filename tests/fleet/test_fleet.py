"""Many stores on a real Dask cluster with worker processes."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bc_attrvals import AttributeValueFilter, AuthenticationError
from bc_attrvals.errors import (
    ConnectionFailedError,
    InvalidInputError,
    JournalError,
    ListingDriftError,
    StoreStateError,
)
from bc_attrvals.sandbox import Sandbox
from tests import fleet_sources
from tests.conftest import make_store
from tests.fleet_sources import VALUES, token, values

distributed = pytest.importorskip(
    "distributed", reason="needs Dask: pip install 'bc_attrvals[dev]'"
)

from bc_attrvals.fleet import (  # noqa: E402 - skipped above where Dask is missing
    EnvironmentVariable,
    FileSource,
    Job,
    JobResult,
    run_jobs,
)

SCOPE = AttributeValueFilter(attribute_id_in=[1])
TOKENS = EnvironmentVariable("FLEET_TOKEN")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    directory = tmp_path_factory.mktemp("dask")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLEET_TOKEN", "s3cret-token")
        patch.setenv("FLEET_MARK", str(directory / "mark"))
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        with (
            distributed.LocalCluster(
                n_workers=2,
                threads_per_worker=4,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                local_directory=str(directory),
                silence_logs=logging.CRITICAL,
            ) as running,
        ):
            yield running


@pytest.fixture
async def client(cluster: Any) -> AsyncIterator[Any]:
    async with distributed.Client(cluster.scheduler_address, asynchronous=True) as one:
        yield one


def job_of(sandbox: Sandbox, **options: Any) -> Job:
    defaults: dict[str, Any] = {
        "store_hash": sandbox.store_hash,
        "base_url": sandbox.url,
        "access_token": token,
        "source": values,
        "scope": SCOPE,
    }
    return Job(**{**defaults, **options})


async def all_of(client: Any, *jobs: Job, **options: Any) -> dict[str, JobResult]:
    return {one.job.name: one async for one in run_jobs(client, jobs, **options)}


async def pages_of(cluster: Any, keys: list[str]) -> str:
    """Return what the dashboard tells, and the logs of scheduler and workers."""
    base = f"http://127.0.0.1:{cluster.scheduler.http_server.port}"
    paths = ["info/main/workers.html", "info/logs.html", "json/identity.json", "json/counts.json"]
    paths += [f"info/task/{key}.html" for key in keys]
    paths += ["info/call-stacks/all.html", "metrics"]
    text = ""
    async with aiohttp.ClientSession() as session:
        for path in paths:
            async with session.get(f"{base}/{path}") as response:
                text += await response.text()
    return text


async def test_40_stores_with_a_worker_killed_midway_all_complete(
    cluster: Any, client: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with AsyncExitStack() as stack:
        sandboxes = [
            await stack.enter_async_context(
                Sandbox(
                    quota=None,
                    latency_ms=10,
                    store_hash=f"store{number}",
                    access_token=token(f"store{number}"),
                )
            )
            for number in range(40)
        ]
        jobs = [
            job_of(one, prune=True, journal=tmp_path / f"{one.store_hash}.db") for one in sandboxes
        ]
        results: list[JobResult] = []
        pages = ""
        async for result in run_jobs(client, jobs):
            results.append(result)
            if len(results) == 10:
                keys = list(cluster.scheduler.tasks)
                assert any("store" in key for key in keys)
                pages = repr(keys) + await pages_of(cluster, keys[:5])
                pids = await client.run(os.getpid)
                os.kill(next(iter(pids.values())), signal.SIGKILL)
        assert sorted(one.job.name for one in results) == sorted(
            one.store_hash for one in sandboxes
        )
        assert all(one.ok for one in results), [one.error for one in results if not one.ok]
        for one in sandboxes:
            number = sum(map(ord, one.store_hash))
            wanted = {(customer, 1): f"{number}-{customer}" for customer in range(1, VALUES + 1)}
            assert await one.values() == wanted
            assert await one.count() == VALUES
        logs = repr(await client.get_worker_logs()) + repr(await client.get_scheduler_logs())
        assert "bc-attrvals-sync-store" in pages
        told = capfd.readouterr()
        for text in (pages, logs, repr(results), repr(jobs), told.out, told.err):
            assert "s3cret" not in text
        assert b"s3cret" not in pickle.dumps(jobs)


async def test_a_job_that_fails_ends_no_other_and_says_why(client: Any, tmp_path: Path) -> None:
    async with Sandbox(quota=None, access_token="s3cret-token") as sandbox:
        bad_file = tmp_path / "bad.csv"
        bad_file.write_text("customer_id,attribute_id,value\n1,1,a\nx,1,b\n")
        base = f"{sandbox.url}"
        other: dict[str, Any] = {"scope": SCOPE, "base_url": base, "source": values}
        results = await all_of(
            client,
            job_of(sandbox, access_token=TOKENS, name="good"),
            job_of(sandbox, access_token=token, name="wrong token"),
            job_of(sandbox, access_token=EnvironmentVariable("FLEET_NONE"), name="no token"),
            job_of(sandbox, access_token=fleet_sources.broken_token, name="broken"),
            job_of(sandbox, access_token=TOKENS, source=FileSource(path=bad_file), name="bad row"),
            Job(store_hash="another", access_token=TOKENS, name="no store", **other),
        )
        assert results["good"].ok
        assert results["good"].report is not None
        assert results["good"].report.created + results["good"].report.written == VALUES
        assert results["good"].worker is not None
        assert isinstance(results["wrong token"].error, AuthenticationError)
        assert results["wrong token"].refused
        assert "FLEET_NONE" in str(results["no token"].error)
        assert "ValueError" in str(results["broken"].error)
        assert "s3cret" not in repr(results["broken"].error)
        assert "line 3, column customer_id" in str(results["bad row"].error)
        assert not results["no store"].ok


async def test_what_would_end_more_than_a_job_ends_that_job_alone(client: Any) -> None:
    async with Sandbox(quota=None, access_token="s3cret-token") as sandbox:
        sources = (
            *("stops_iterating", "exits", "exits_late", "cancels", "panics", "panics_at_last"),
            *("panics_late", "ends_as_generator"),
        )
        tokens = ("token_exits", "token_panics")
        results = await asyncio.wait_for(
            all_of(
                client,
                *(
                    job_of(
                        sandbox,
                        access_token=TOKENS,
                        source=getattr(fleet_sources, name),
                        name=name,
                    )
                    for name in sources
                ),
                *(
                    job_of(sandbox, access_token=getattr(fleet_sources, name), name=name)
                    for name in tokens
                ),
                job_of(sandbox, access_token=TOKENS, name="good"),
                retries=0,
            ),
            40,
        )
        assert results["good"].ok
        for name in (*sources, *tokens):
            assert not results[name].ok
            assert isinstance(results[name].error, Exception)
            assert "s3cret" not in repr(results[name].error)


async def test_whatever_a_worker_hands_on_ends_its_job_alone() -> None:
    from bc_attrvals.fleet.running import _result_of

    job = Job(store_hash="abc", access_token=TOKENS, source=values)

    async def fails(error: BaseException) -> None:
        raise error

    panic = fleet_sources.Panic("of an extension")
    assert (await _result_of(job, fails(panic))).error is panic  # type: ignore[arg-type]
    # Of the user, in this process.
    with pytest.raises(SystemExit):
        await _result_of(job, fails(SystemExit(3)))  # type: ignore[arg-type]


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


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"customer_column": "ID"}, "customer_column"),
        ({"email_column": "E", "customer_column": "ID", "attributes": {"x": 1}}, "email_column"),
        ({"attributes_by_header": True}, "customer_column"),
        ({"email_column": "E", "attributes": {"x": "X"}, "columns": {"value": "v"}}, "columns"),
        ({"columns": {"mail": "E"}}, "columns"),
    ],
)
def test_columns_that_do_not_go_together_are_refused(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        FileSource(path="in.csv", **fields)
    assert caught.value.field == field


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


async def test_a_job_whose_worker_dies_is_run_on_another(client: Any, tmp_path: Path) -> None:
    async with Sandbox(quota=None, access_token="s3cret-token") as sandbox:
        results = await all_of(
            client,
            job_of(
                sandbox,
                access_token=TOKENS,
                source=fleet_sources.deadly,
                journal=tmp_path / "deadly.db",
            ),
        )
        assert [one.ok for one in results.values()] == [True]
        assert await sandbox.values() == {(1, 1): "after all"}


async def test_closing_early_stops_what_is_running_and_starts_no_more(client: Any) -> None:
    async with Sandbox(quota=None, access_token="s3cret-token") as sandbox:
        names = [f"s{number}" for number in range(30)]
        endless = [
            Job(
                store_hash=sandbox.store_hash,
                base_url=sandbox.url + f"/{name}",
                access_token=TOKENS,
                source=fleet_sources.endless,
                name=name,
            )
            for name in names
        ]
        quick = job_of(sandbox, access_token=TOKENS, name="quick", source=fleet_sources.no_values)
        async with aclosing(run_jobs(client, [quick, *endless])) as results:
            async for result in results:
                assert result.job.name == "quick"
                break

        async def running() -> int:
            counts = await client.run(
                lambda dask_worker: sum("s" in key for key in dask_worker.state.tasks)
            )
            return sum(counts.values())

        for _ in range(100):
            if not await running():
                break
            await asyncio.sleep(0.05)
        assert await running() == 0


async def test_jobs_on_one_store_run_one_after_the_other(client: Any) -> None:
    async with Sandbox(quota=None, latency_ms=20, access_token="s3cret-token") as sandbox:
        jobs = [job_of(sandbox, access_token=TOKENS, name=f"job{number}") for number in range(3)]
        order = [one.job.name async for one in run_jobs(client, jobs)]
        assert order == ["job0", "job1", "job2"]
        assert sandbox.peak_in_flight("upsert") <= 3


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


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (JournalError("held"), False),
        (InvalidInputError("bad"), False),
        (StoreStateError("closed"), False),
        (ValueError("of the source"), False),
        (None, False),
        (ConnectionFailedError("nobody"), True),
        (ListingDriftError("again"), True),
    ],
)
def test_refused_is_what_the_service_or_the_way_to_it_ended(
    error: Exception | None, refused: bool
) -> None:
    job = Job(store_hash="abc", access_token=TOKENS, source=values)
    assert JobResult(job=job, error=error).refused is refused


async def test_a_journal_that_another_holds_is_waited_for(client: Any, tmp_path: Path) -> None:
    from bc_attrvals.sync.journal import open_journal

    path = tmp_path / "held.db"
    journal = open_journal(path)
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


# --- descriptions --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("access_token", {"access_token": "s3cret-token"}),
        ("function", {"access_token": lambda: "s3cret-token"}),
        ("source", {"source": "values.csv"}),
        ("store_hash", {"store_hash": "a/b"}),
        ("base_url", {"base_url": "http://example.com"}),
        ("scope", {"scope": None, "prune": True}),
        ("shared_quota", {"shared_quota": "redis://:s3cret@localhost"}),
        ("timeout_s", {"timeout_s": 0}),
        ("journal", {"journal": 5}),
        ("journal", {"journal": ""}),
        ("journal", {"journal": b"a.db"}),
        ("mirror", {"mirror": 5}),
        ("limits", {"limits": None}),
        ("name", {"name": None}),
        ("name", {"name": ""}),
        ("store_hash", {"store_hash": None}),
    ],
)
def test_what_can_not_be_is_refused_at_once(field: str, options: dict[str, Any]) -> None:
    good: dict[str, Any] = {
        "store_hash": "abc",
        "access_token": TOKENS,
        "source": values,
        "scope": SCOPE,
    }
    with pytest.raises(InvalidInputError) as refused:
        Job(**{**good, **options})
    assert refused.value.field == field
    assert field in str(refused.value)
    assert "s3cret" not in str(refused.value)


async def test_a_client_that_blocks_is_refused() -> None:
    class Blocking:
        asynchronous = False

    with pytest.raises(InvalidInputError, match="asynchronous"):
        await anext(run_jobs(Blocking(), []))  # type: ignore[arg-type]


async def test_what_is_no_job_is_refused_before_anything_is_handed_out(client: Any) -> None:
    with pytest.raises(InvalidInputError) as refused:
        await anext(run_jobs(client, ["abc"]))  # type: ignore[list-item]
    assert refused.value.place == "jobs[0]"
