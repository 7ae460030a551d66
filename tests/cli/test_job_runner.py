"""How a job ends: one line, and the exit status."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import ExitStack

import click
import pytest

from bc_attrvals.cli.job_runner import CommandJob, Result, Work, run_job
from bc_attrvals.cli.output_rows import RowFile
from bc_attrvals.cli.settings import Settings
from bc_attrvals.store import Store
from bc_attrvals.tables.layout import Layout
from tests.cli.tables import posix


def test_a_wrong_token_exits_3_in_one_line(served, summary) -> None:
    result = served.run("--access-token", "wrong-token", "--verbose", "count", "--json")
    assert result.exit_code == 3
    assert "401" in summary(result)["error"]
    assert "wrong-token" not in result.stdout + result.stderr
    quiet = served.run("--access-token", "wrong-token", "count")
    assert quiet.stderr.count("\n") == 1


@pytest.mark.usefixtures("one_try")
@pytest.mark.parametrize("command", ["count", "export", "upsert", "delete"])
def test_an_unreachable_service_exits_3(served, tmp_path, command) -> None:
    values = tmp_path / "values.csv"
    values.write_text(
        "customer_id,attribute_id,value\n" + "".join(f"{n},1,v\n" for n in range(1, 900))
    )
    failed = tmp_path / "failed.csv"
    args = {"upsert": [values, "--failures", failed], "delete": ["--everything", "--yes"]}
    result = served.run("--url", "http://127.0.0.1:1", command, *args.get(command, []))
    assert result.exit_code == 3
    assert "Traceback" not in result.stderr
    if command == "upsert":
        assert served.run("upsert", failed).exit_code == 0
        assert len(served.values()) == 899


class _AccountingJob(CommandJob):
    """A job that a signal stops, and whose account takes longer than the signal's grace."""

    command = "upsert"
    what = "Storing"
    grace_s = 0.01

    def __init__(self, file: RowFile, signal_at: str) -> None:
        self.files = [file]
        self._signal_at = signal_at

    async def run(self, work: Work) -> None:
        if self._signal_at == "run":
            os.kill(os.getpid(), signal.SIGINT)
            await work.stopper.wait()

    async def settle(self, reason: str) -> None:
        if self._signal_at == "settle":
            os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(0.05)
        self.files[0].write(["accounted"])

    def result(self) -> Result:
        return Result(headline="Done", fields={}, counts=None)


@posix
@pytest.mark.parametrize("signal_at", ["run", "settle", "commit"])
def test_a_signal_leaves_the_account_of_a_job_whole(
    served, tmp_path, monkeypatch, signal_at
) -> None:
    commit = RowFile.commit

    def interrupted_commit(file: RowFile) -> None:
        if signal_at == "commit":
            os.kill(os.getpid(), signal.SIGINT)
        commit(file)

    monkeypatch.setattr(RowFile, "commit", interrupted_commit)
    path = tmp_path / "rows.csv"
    settings = Settings(quiet=True)
    store = Store("sandbox", "s3cret-token", base_url=served.sandbox.url)
    with ExitStack() as stack, click.Context(click.Command("upsert")) as context:
        file = RowFile(stack, str(path), ["a"], like=Layout(format="csv"))
        with pytest.raises(click.exceptions.Exit) as ended, context:
            run_job(settings, store, _AccountingJob(file, signal_at))
    assert ended.value.exit_code == (0 if signal_at == "commit" else 130)
    assert path.read_text().split() == ["a", "accounted"]
