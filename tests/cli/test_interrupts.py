"""Ctrl-C and SIGTERM, in a process of its own."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial

import pytest

from bc_attrvals.cli import interrupts
from bc_attrvals.cli.interrupts import Stopper
from tests.cli.tables import HEAD

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and terminals of POSIX")


def test_the_first_ctrl_c_stops_an_upsert_and_accounts_for_all(serve, tmp_path, until) -> None:
    table = tmp_path / "in.csv"
    failed = tmp_path / "failed.csv"
    table.write_text(HEAD + "".join(f"{customer},1,v\n" for customer in range(1, 3001)))
    with serve(latency_ms=50) as served:
        process = served.start("upsert", table, "--failures", failed, "--json")
        until(lambda: len(served.sandbox.requests) > 5)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=30)
        assert process.returncode == 130, stderr
        assert stderr == b"Interrupted.\n"
        found = json.loads(stdout)
        assert found["exit_status"] == 130
        assert 0 < found["stored"] < 1000
        assert found["unknown"] == 0
        assert found["stored"] == len(served.values())
        assert found["stored"] + found["not_sent"] == 3000
        served.sandbox.latency_ms = 0
        assert served.run("upsert", failed).exit_code == 0
        assert len(served.values()) == 3000


def test_the_second_ctrl_c_leaves_at_once(serve, tmp_path, until) -> None:
    table = tmp_path / "in.csv"
    table.write_text(HEAD + "1,1,v\n")
    with serve() as served:
        served.sandbox.faults.add("hang")
        process = served.start("upsert", table, "--failures", tmp_path / "failed.csv")
        until(lambda: len(served.sandbox.requests))
        assert len(list(tmp_path.iterdir())) == 2
        process.send_signal(signal.SIGINT)
        # Both at once would be one signal: wait for the grace to begin.
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(2) == 130
        process.communicate()
        assert [one.name for one in tmp_path.iterdir()] == ["in.csv"]


@pytest.mark.looptime
async def test_a_stop_that_is_sent_twice_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As by `timeout`, which signals its command and then its group."""
    send: dict[int, Callable[[], None]] = {}
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(
        loop, "add_signal_handler", lambda number, *call: send.update({number: partial(*call)})
    )
    left: list[int] = []
    monkeypatch.setattr(interrupts.os, "_exit", left.append)
    stopper = Stopper(None)
    stopper.listen()
    send[signal.SIGTERM]()
    await asyncio.sleep(0.05)
    send[signal.SIGTERM]()
    assert (stopper.signal_number, left) == (signal.SIGTERM, [])
    await asyncio.sleep(0.1)
    send[signal.SIGTERM]()
    assert left == [143]


def test_an_interrupted_export_leaves_no_file(serve, tmp_path, until) -> None:
    with serve() as served:
        served.seed(*((customer, 1, "v") for customer in range(1, 600)))
        served.sandbox.faults.script([None, "hang", "hang"])
        process = served.start("export", "--output", tmp_path / "out.csv")
        until(lambda: len(served.sandbox.requests) > 2)
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=30)
        assert (process.returncode, stdout, stderr) == (143, b"", b"Interrupted.\n")
        assert list(tmp_path.iterdir()) == []
