"""`fleet`: JOBS.toml is checked as a whole, and its stores are synced on a cluster made here."""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.valkey import Valkey

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
        (GOOD + 'journal = "./values.csv"', "jobs[0].source and jobs[0].journal are the same"),
        (GOOD + 'journal = "jobs.toml"', "this file and jobs[0].journal are the same"),
        (
            GOOD + 'journal = "a.db"' + GOOD + 'name = "b"\njournal = "./a.db"',
            "jobs[0].journal and jobs[1].journal are the same file",
        ),
        ("[defaults]\nprune = 1\n" + GOOD, "defaults.prune: must be true or false"),
        (GOOD, "jobs[0].token_env: the variable FLEET_CLI_TOKEN is not set"),
        ("\ufeff" + GOOD, "jobs[0].token_env: the variable FLEET_CLI_TOKEN is not set"),
        (GOOD.replace('"FLEET_CLI_TOKEN"', '"A=B"'), "jobs[0].token_env: must be the name"),
        (GOOD.replace('"FLEET_CLI_TOKEN"', '"A\\u0000"'), "jobs[0].token_env: must not hold"),
        (GOOD + 'journal = "a\\u0000b"', "jobs[0].journal: must not hold the character NUL"),
        (GOOD + 'journal = "."', "is a directory"),
        (GOOD + 'mirror = "."', "jobs[0].mirror: "),
        (GOOD + 'journal = "a.db"\nmirror = "a.db"', "jobs[0].mirror are the same file"),
        (GOOD + f'journal = "{"a/" * 4_000}b"', "jobs[0].journal: "),
        (GOOD + 'encoding = "nope"', "jobs[0].encoding: is an unknown"),
        (GOOD.replace('"values.csv"', '"jobs.toml"'), "jobs[0].format: "),
        (GOOD + 'email_column = "E"', "jobs[0].customer_column: the wide form needs"),
        (GOOD + 'attributes = {x = ""}', "jobs[0].attributes: has an empty name"),
        (GOOD + 'delimiter = ";;"', "jobs[0].delimiter: must be one character"),
        (GOOD + 'proxy_env = "A=B"', "jobs[0].proxy_env: must be the name"),
        (GOOD + "trust_env = 1", "jobs[0].trust_env: must be true or false"),
        ("x = " + "9" * 6_000, "it holds an integer of too many digits"),
        (GOOD.replace("[1]", f"[{'9' * 6_000}]"), "it holds an integer of too many digits"),
        (GOOD.replace("[1]", f"[0x{'f' * 6_000}]"), "jobs[0].attribute_ids: holds a number of too"),
        ("x = " + "[" * 20_000 + "]" * 20_000, "nested too deeply"),
    ],
)
def test_what_can_not_be_is_told_by_file_and_field(served, tmp_path, text, told) -> None:
    path = write_jobs(tmp_path, text)
    result = served.run("fleet", path)
    assert result.exit_code == 2, result.stderr
    assert told in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
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


@pytest.mark.parametrize(
    ("address", "status", "told"),
    [
        ("nonsense://x", 3, "scheduler nonsense://x: unknown address scheme"),
        ("tls://127.0.0.1:9", 3, "scheduler tls://127.0.0.1:9: TLS expects"),
        ("tcp://", 3, "scheduler tcp://: missing port"),
        (" ", 2, "--scheduler is empty"),
    ],
)
def test_what_is_no_scheduler_is_said_so_and_nothing_else(
    served, tmp_path, address, status, told
) -> None:
    result = served.run("fleet", write_jobs(tmp_path, GOOD), "--scheduler", address)
    assert result.exit_code == status
    assert told in result.stderr
    # What was begun of a client is ended: nothing warns when it is collected.
    gc.collect()
    assert "Warning" not in result.stderr
    # Nor has Dask a word of its own where a scheduler goes midway.
    for name in ("distributed.client", "distributed.core", "distributed.comm.tcp"):
        assert status == 2 or not logging.getLogger(name).isEnabledFor(logging.ERROR)


def test_commands_share_a_quota_when_told_to(served, tmp_path) -> None:
    from redis import Redis

    with Valkey(password=True) as valkey:
        write_jobs(tmp_path, "")
        result = served.run("upsert", tmp_path / "values.csv", "--shared-quota", valkey.url)
        assert (result.exit_code, served.values()) == (0, {(1, 1): "a", (2, 1): "b"})
        with Redis.from_url(valkey.url) as redis:
            assert redis.keys() == [b"bc_attrvals:{sandbox}"]
        for url, told in (
            (valkey.url.replace("p4ss", "wrong"), "refuses the user or password"),
            (valkey.url.replace("/0", "/99"), "no database of that number"),
            (served.sandbox.url.replace("http", "redis"), "neither Redis nor Valkey"),
        ):
            write_jobs(tmp_path, GOOD.replace("FLEET_CLI_TOKEN", "PATH"))
            for command in (("count",), ("fleet", tmp_path / "jobs.toml")):
                refused = served.run(*command, "--shared-quota", url)
                assert refused.exit_code == 2, refused.stderr
                assert refused.stderr.startswith("Error: url of the shared quota: ")
                assert told in refused.stderr
                assert "wrong" not in refused.stderr
        assert served.run("count", "--shared-quota", "http://:hid@den").exit_code == 2
        # It is for processes that are started, and for no longer.
        assert "BIGCOMMERCE_SHARED_QUOTA" not in os.environ


@pytest.mark.parametrize("options", [(), ("--json",), ("--quiet",)])
def test_a_shared_quota_out_of_reach_is_told_of_on_stderr(served, tmp_path, options) -> None:
    write_jobs(tmp_path, "")
    url = "redis://:hidden@127.0.0.1:9"
    result = served.run("upsert", tmp_path / "values.csv", "--shared-quota", url, *options)
    assert result.exit_code == 0
    assert result.stderr.startswith("Warning: the server of the shared quota is out of reach (Conn")
    assert "going on with 25% of each window" in result.stderr
    assert "Warning" not in result.stdout
    assert "hidden" not in result.stderr + result.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_ctrl_c_to_all_of_a_fleet_is_told_in_one_word_and_leaves_nobody(serve, tmp_path) -> None:
    with serve(store_hash="abc", latency_ms=50) as one, Valkey() as valkey:
        valkey.stop()
        path = write_jobs(tmp_path, GOOD + f'url = "{one.sandbox.url}"\n')
        rows = "".join(f"{customer},1,v\n" for customer in range(1, 8_000))
        (tmp_path / "values.csv").write_text("customer_id,attribute_id,value\n" + rows)
        process = subprocess.Popen(
            [sys.executable, "-m", "bc_attrvals", "fleet", str(path), "--workers", "1"],
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "FLEET_CLI_TOKEN": "s3cret-token",
                "BIGCOMMERCE_SHARED_QUOTA": valkey.url,
            },
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            wait_until(lambda: one.sandbox.requests.seen > 3)
            assert {address for address, _ in listeners(process.pid)} == {"127.0.0.1"}
            assert 8787 not in {port for _, port in listeners(process.pid)}
            os.killpg(process.pid, signal.SIGINT)
            out, err = process.communicate(timeout=30)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        assert (process.returncode, out, err) == (130, "", "Interrupted.\n")


def wait_until(is_so: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


def listeners(session: int) -> set[tuple[str, int]]:
    """Return where processes of a session listen, as Linux tells."""
    inodes = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if os.getsid(int(process.name)) == session:
                inodes |= {str(one.readlink()) for one in (process / "fd").iterdir()}
    found = set()
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path("/proc/net", name).read_text().splitlines()[1:]:
            words = line.split()
            address, port = words[1].split(":")
            if words[3] == "0A" and f"socket:[{words[9]}]" in inodes:
                raw = bytes.fromhex(address)
                places = (raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
                found.add((socket.inet_ntop(family, b"".join(places)), int(port, 16)))
    return found
