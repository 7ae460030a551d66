"""`fleet`: JOBS.toml is checked as a whole, and its stores are synced on a cluster made here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ..valkey import Valkey

pytest.importorskip("distributed", reason="needs Dask: pip install 'bc_attrvals[dev]'")

ROOT = Path(__file__).parents[2]


def write_jobs(folder: Path, text: str) -> Path:
    (folder / "values.csv").write_text("customer_id,attribute_id,value\n1,1,a\n2,1,b\n")
    path = folder / "jobs.toml"
    path.write_text(text)
    return path


GOOD = """
[[jobs]]
store_hash = "abc"
token_env = "FLEET_CLI_TOKEN"
source = "values.csv"
attribute_ids = [1]
"""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("jobs = 5", "jobs: there must be at least one"),
        ("[[jobs", "no TOML"),
        ("other = 1", "other: unknown"),
        (GOOD + 'colour = "red"', "jobs[0].colour: unknown field"),
        (GOOD.replace('"abc"', "5"), "jobs[0].store_hash: must be a string"),
        (GOOD.replace('"abc"', '"a/b"'), "jobs[0].store_hash: "),
        (GOOD.replace("values.csv", "none.csv"), "jobs[0].source: "),
        (GOOD.replace("[1]", "[0]"), "jobs[0].attribute_ids: "),
        (GOOD.replace("[1]", "[]"), "jobs[0].attribute_ids: must be a list of ids"),
        (GOOD.replace("attribute_ids = [1]", "prune = true"), "jobs[0].prune: needs"),
        (GOOD.replace('token_env = "FLEET_CLI_TOKEN"', ""), "jobs[0].token_env: missing"),
        (GOOD + 'journal = "none/a.db"', "jobs[0].journal: "),
        (GOOD + 'url = "http://example.com"', "jobs[0].url: "),
        (GOOD + 'customer_column = "ID"', "jobs[0].customer_column: the wide form"),
        (GOOD + 'columns = {colour = "x"}', "jobs[0].columns: "),
        (GOOD + GOOD, "jobs[1].name: the same as of jobs[0]"),
        ("[defaults]\nprune = 1\n" + GOOD, "defaults.prune: must be true or false"),
        (GOOD, "jobs[0].token_env: the variable FLEET_CLI_TOKEN is not set"),
    ],
)
def test_what_can_not_be_is_told_by_file_and_field(served, tmp_path, text, told) -> None:
    path = write_jobs(tmp_path, text)
    result = served.run("fleet", path)
    assert result.exit_code == 2, result.stderr
    assert told in " ".join(result.stderr.split())
    assert served.sandbox.requests.seen == 0


def test_stores_are_synced_and_told_of_as_they_finish(serve, tmp_path) -> None:
    with serve(store_hash="one") as one, serve(store_hash="two") as two, Valkey() as valkey:
        jobs = "[defaults]\nprune = true\nattribute_ids = [1]\n" + "".join(
            f'[[jobs]]\nname = "{name}"\nstore_hash = "{name}"\nsource = "values.csv"\n'
            f'url = "{place.sandbox.url}"\ntoken_env = "{variable}"\njournal = "{name}.db"\n'
            for name, place, variable in (
                ("one", one, "FLEET_CLI_TOKEN"),
                ("two", two, "FLEET_CLI_WRONG"),
            )
        )
        one.seed((9, 1, "old"))
        done = subprocess.run(
            [
                *(sys.executable, "-m", "bc_attrvals", "fleet"),
                *(str(write_jobs(tmp_path, jobs)), "--json", "--workers", "1"),
            ],
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "FLEET_CLI_TOKEN": "s3cret-token",
                "FLEET_CLI_WRONG": "s3cret-wrong",
                "BIGCOMMERCE_SHARED_QUOTA": valkey.url,
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stderr == ""
        *lines, summary = [json.loads(line) for line in done.stdout.splitlines()]
        results = {line["job"]: line for line in lines}
        assert results["one"]["ok"]
        assert results["one"]["deleted"] == 1
        assert one.values() == {(1, 1): "a", (2, 1): "b"}
        assert not results["two"]["ok"]
        assert results["two"]["error"].startswith("AuthenticationError: 401")
        assert (summary["exit_status"], summary["ok"], summary["failed"]) == (1, 1, 1)
        assert done.returncode == 1
        assert "s3cret" not in done.stdout + done.stderr


def test_a_scheduler_out_of_reach_is_said_so(served, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("bc_attrvals.cli.commands.fleet._CONNECT_S", 0.2)
    path = write_jobs(tmp_path, GOOD)
    result = served.run("fleet", path, "--scheduler", "tcp://127.0.0.1:9")
    assert result.exit_code == 3
    assert "scheduler tcp://127.0.0.1:9" in result.stderr


def test_commands_share_a_quota_when_told_to(served, tmp_path) -> None:
    from redis import Redis

    with Valkey(password=True) as valkey:
        write_jobs(tmp_path, "")
        result = served.run("upsert", tmp_path / "values.csv", "--shared-quota", valkey.url)
        assert (result.exit_code, served.values()) == (0, {(1, 1): "a", (2, 1): "b"})
        with Redis.from_url(valkey.url) as redis:
            assert redis.keys() == [b"bc_attrvals:{sandbox}"]
        refused = served.run("count", "--shared-quota", valkey.url.replace("p4ss", "wrong"))
        assert refused.exit_code == 2
        assert "wrong" not in refused.stderr
        assert served.run("count", "--shared-quota", "http://:hid@den").exit_code == 2
