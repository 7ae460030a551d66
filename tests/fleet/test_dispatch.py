"""Many stores on a real Dask cluster with worker processes."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bc_attrvals import AuthenticationError
from bc_attrvals.errors import (
    InvalidInputError,
)
from bc_attrvals.fleet import (
    EnvironmentVariable,
    FileSource,
    Job,
    JobResult,
    run_jobs,
)
from bc_attrvals.sandbox import Sandbox
from tests import fleet_sources
from tests.fleet.cluster_jobs import SCOPE, TOKENS, all_of, job_of
from tests.fleet_sources import VALUES, token, values


async def pages_of(cluster: Any, keys: list[str]) -> str:
    """Return what the dashboard shows, and the logs of scheduler and workers."""
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
        printed = capfd.readouterr()
        for text in (pages, logs, repr(results), repr(jobs), printed.out, printed.err):
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


async def test_an_exception_of_any_kind_ends_its_own_job_only() -> None:
    from bc_attrvals.fleet.dispatch import _result_of

    job = Job(store_hash="abc", access_token=TOKENS, source=values)

    async def fails(error: BaseException) -> None:
        raise error

    panic = fleet_sources.Panic("of an extension")
    assert (await _result_of(job, fails(panic))).error is panic  # type: ignore[arg-type]
    # Of the user, in this process.
    with pytest.raises(SystemExit):
        await _result_of(job, fails(SystemExit(3)))  # type: ignore[arg-type]


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


async def test_a_client_that_blocks_is_refused() -> None:
    class Blocking:
        asynchronous = False

    with pytest.raises(InvalidInputError, match="asynchronous"):
        await anext(run_jobs(Blocking(), []))  # type: ignore[arg-type]


async def test_an_item_that_is_no_job_is_refused_before_any_is_submitted(client: Any) -> None:
    with pytest.raises(InvalidInputError) as refused:
        await anext(run_jobs(client, ["abc"]))  # type: ignore[list-item]
    assert refused.value.place == "jobs[0]"
