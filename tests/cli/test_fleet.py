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

from tests.cli.tables import GOOD, write_jobs
from tests.valkey import Valkey

pytest.importorskip("distributed", reason="needs Dask: pip install 'bc_attrvals[dev]'")

ROOT = Path(__file__).parents[2]


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
                *("--shared-quota", valkey.url),
            ],
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "FLEET_CLI_TOKEN": "s3cret-token",
                "FLEET_CLI_WRONG": "s3cret-wrong",
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
    ("address", "status", "message"),
    [
        ("nonsense://x", 3, "scheduler nonsense://x: unknown address scheme"),
        ("tls://127.0.0.1:9", 3, "scheduler tls://127.0.0.1:9: TLS expects"),
        ("tcp://", 3, "scheduler tcp://: missing port"),
        (" ", 2, "--scheduler is empty"),
    ],
)
def test_what_is_no_scheduler_is_said_so_and_nothing_else(
    served, tmp_path, address, status, message
) -> None:
    result = served.run("fleet", write_jobs(tmp_path, GOOD), "--scheduler", address)
    assert result.exit_code == status
    assert message in result.stderr
    # What was begun of a client is ended: nothing warns when it is collected.
    gc.collect()
    assert "Warning" not in result.stderr
    # Nor has Dask a word of its own where a scheduler goes midway.
    for name in ("distributed.client", "distributed.core", "distributed.comm.tcp"):
        assert status == 2 or not logging.getLogger(name).isEnabledFor(logging.ERROR)


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
    """Return where processes of a session listen, as Linux reports it."""
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
