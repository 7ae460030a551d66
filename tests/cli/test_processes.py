"""What only a process of its own shows: signals, pipes, terminals."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and terminals of POSIX")

HEAD = "customer_id,attribute_id,value\n"


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


@pytest.mark.parametrize("variables", [{}, {"PYTHONUNBUFFERED": "1"}])
def test_a_broken_pipe_ends_quietly(serve, variables) -> None:
    with serve() as served:
        served.seed(*((customer, 1, "v" * 200) for customer in range(1, 2000)))
        process = served.start("export", variables=variables)
        assert process.stdout is not None
        assert process.stdout.readline() == b"customer_id,attribute_id,value\r\n"
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        process.stderr.close()
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(30) == 141


def test_standard_input_and_output_can_be_chained(serve) -> None:
    with serve() as served:
        served.seed((1, 1, "ä\r\nb"), (2, 1, ""))
        before = served.values()
        process = served.start("export")
        stdout, _ = process.communicate(timeout=30)
        served.do(served.sandbox.reset())
        process = served.start("upsert", "-")
        process.communicate(stdout, timeout=30)
        assert process.returncode == 0
        assert served.values() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_sandbox_serves_until_it_is_stopped(serve, until, tmp_path, number) -> None:
    with serve() as other:
        process = other.start(
            *("sandbox", "--quota", "none", "--seed-values", "30", "--latency-ms", "1"),
            *("--database", tmp_path / "rows.sqlite", "--fault", "503=0"),
        )
        assert process.stdout is not None
        lines = [process.stdout.readline().decode() for _ in range(3)]
        own = dict(line.removeprefix("export ").rstrip().split("=", 1) for line in lines)
        args = ["--url", own["BIGCOMMERCE_API_URL"]]
        args += ["--access-token", own["BIGCOMMERCE_ACCESS_TOKEN"]]
        assert other.run("count", *args).stdout == "30\n"
        process.send_signal(number)
        _, stderr = process.communicate(timeout=30)
        assert process.returncode == 0, stderr
        assert b"Stopped after 1 call" in stderr


def test_a_taken_port_exits_2(serve) -> None:
    with serve() as served:
        result = served.run("sandbox", "--port", served.sandbox.port)
        assert result.exit_code == 2
        assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(("answer", "status", "left"), [("n", 2, 3), ("y", 0, 0)])
def test_delete_asks_on_a_terminal(serve, answer, status, left) -> None:
    with serve() as served:
        served.seed((1, 1, "a"), (2, 1, "b"), (3, 1, "c"))
        ours, theirs = pty.openpty()
        process = served.start("delete", "--everything", stdin=theirs)
        os.write(ours, f"{answer}\n".encode())
        _, stderr = process.communicate(timeout=30)
        os.close(ours)
        os.close(theirs)
        assert b"Delete 3 values - every value of the store? [y/N]" in stderr
        assert process.returncode == status
        assert len(served.values()) == left


def test_a_wait_for_quota_is_redrawn_every_second_with_what_is_left_of_it(serve, tmp_path) -> None:
    table = tmp_path / "in.csv"
    table.write_text(HEAD + "".join(f"{customer},1,v\n" for customer in range(1, 52)))
    with serve(quota=3, window_s=4) as served:
        ours, theirs = pty.openpty()
        variables = {"TERM": "xterm", "COLUMNS": "120", "NO_COLOR": "1"}
        process = served.start("upsert", table, stderr=theirs, variables=variables)
        os.close(theirs)
        drawn: list[tuple[float, bytes]] = []
        while True:
            try:
                drawn.append((time.monotonic(), os.read(ours, 4096)))
            except OSError:
                break
        process.communicate(timeout=30)
        os.close(ours)
        assert process.returncode == 0
    waits = [
        (at, int(left))
        for at, text in drawn
        for left in re.findall(rb"next calls in (\d+) s", text)
    ]
    # A window lasts four seconds, and one of them is waited for.
    assert {3, 2, 1} <= {left for _, left in waits} <= {4, 3, 2, 1}
    assert len(waits) >= waits[-1][0] - waits[0][0]
    assert b"waiting for quota" in b"".join(text for _, text in drawn)


@pytest.mark.parametrize("colour", [True, False])
def test_progress_is_shown_on_a_terminal_and_heeds_no_color(serve, tmp_path, colour) -> None:
    table = tmp_path / "in.csv"
    table.write_text(HEAD + "".join(f"{customer},1,v\n" for customer in range(1, 101)))
    with serve(quota=1000, latency_ms=50) as served:
        ours, theirs = pty.openpty()
        variables = {"TERM": "xterm", "COLUMNS": "120"} | ({} if colour else {"NO_COLOR": "1"})
        process = served.start("upsert", table, stderr=theirs, variables=variables)
        os.close(theirs)
        shown = b""
        while True:
            try:
                shown += os.read(ours, 4096)
            except OSError:
                break
        stdout, _ = process.communicate(timeout=30)
        os.close(ours)
        assert process.returncode == 0
        assert b"Storing" in shown
        assert b"calls left" in shown
        assert (b"\x1b[3" in shown or b"\x1b[1;3" in shown) == colour
        assert stdout.startswith(b"Stored 100 values")
