"""The `sandbox` command: what it takes, what it refuses, what it prints."""

from __future__ import annotations

import json
import signal
import sys
import urllib.request
from typing import Any

import pytest

from bc_attrvals.cli.commands import sandbox as command
from bc_attrvals.sandbox import Fault, Sandbox


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The options of the sandboxes that would be served."""
    options: list[dict[str, Any]] = []

    class Kept(Sandbox):
        def __init__(self, database: str, **given: Any) -> None:
            super().__init__(database, **given)
            options.append(given)

    monkeypatch.setattr(command, "Sandbox", Kept)
    monkeypatch.setattr(command, "run", lambda main, grace_s: None)
    return options


@pytest.mark.parametrize(
    ("args", "quota", "window_s"),
    [
        ([], 150, 30),
        (["--plan", "standard"], 150, 30),
        (["--plan", "plus"], 150, 30),
        (["--plan", "PRO"], 450, 30),
        (["--plan", "unlimited"], None, 30),
        (["--plan", "pro", "--window-s", "5"], 450, 5),
        (["--quota", "7"], 7, 30),
        (["--quota", "none"], None, 30),
        (["--quota", "7", "--window-s", "0.5"], 7, 0.5),
    ],
)
def test_a_plan_is_a_quota(served, made, args, quota, window_s) -> None:
    assert served.run("sandbox", *args).exit_code == 0
    assert (made[0]["quota"], made[0]["window_s"]) == (quota, window_s)


def test_faults_are_taken_in_order(served, made) -> None:
    faults = ["503=5%", "429,operation=upsert,times=3", "slow=0.1,delay_s=2"]
    options = [part for fault in faults for part in ("--fault", fault)]
    assert served.run("sandbox", *options, "--latency-ms", "80").exit_code == 0
    assert made[0]["faults"] == [
        Fault("503", probability=0.05),
        Fault("429", operation="upsert", times=3),
        Fault("slow", probability=0.1, delay_s=2),
    ]
    assert made[0]["latency_ms"] == 80


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--plan", "pro", "--quota", "3"], "give --plan or --quota, not both"),
        (["--plan", "por"], "'por' is not one of 'standard', 'plus', 'pro', 'unlimited'"),
        (["--plan", "unlimited", "--window-s", "3"], "--window-s has no meaning without a quota"),
        (["--latency-ms", "nan"], "nan is not a finite number"),
        (["--latency-ms", "inf"], "inf is not in the range"),
        (["--latency-ms", "-1"], "-1.0 is not in the range"),
        (["--latency-ms", "1e9"], "1000000000.0 is not in the range"),
        (["--window-s", "nan"], "nan is not a finite number"),
        (["--window-s", "0"], "0.0 is not in the range 0<x"),
        (["--seed-values", "-1"], "-1 is not in the range"),
        (["--seed-values", "99999999999"], "is not in the range"),
        (["--port", "65536"], "is not in the range"),
        (["--quota", "-1"], "'-1' is neither a number nor none"),
        (["--fault", "hnag"], "did you mean hang?"),
        (["--fault", "503,tmes=3"], "did you mean times?"),
        (["--fault", "503,operation=upset"], "did you mean upsert?"),
        (["--fault", "503=nan"], "probability must be a number"),
        (["--fault", "503=101%"], "probability must be from 0 to 1"),
        (["--fault", "slow,delay_s=inf"], "delay_s must be a number"),
        (["--fault", "slow,delay_s=1e9"], "delay_s must be from 0 to 3,600"),
        (["--fault", "503,times=1.5"], "times must be a whole number"),
        (["--fault", "503,applied=maybe"], "applied must be yes or no"),
        (["--fault", "503,times"], "times needs a value, as in times=3"),
        (["--fault", "503,after=1,after=2"], "after is given twice"),
        (["--fault", ""], "unknown fault kind ''"),
        (["--database", "/nowhere/at/all.db"], "/nowhere/at/all.db: No such file"),
    ],
)
def test_what_makes_no_sense_exits_2(served, args, told) -> None:
    result = served.run("sandbox", *args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in result.stderr


def test_help_says_all_kinds_and_fields_of_faults(served) -> None:
    told = served.run("sandbox", "--help").stdout
    for word in [kind.value for kind in command.FaultKind]:
        assert word in told
    for field in ("operation=", "times=", "after=", "delay_s=", "retry_after_s=", "applied="):
        assert field in told
    assert max(map(len, told.splitlines())) <= 100


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_json_prints_the_connection_in_a_line_and_ctrl_c_ends_it(serve) -> None:
    with serve() as other:
        process = other.start("sandbox", "--json", "--plan", "pro", "--seed-values", "8")
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        assert told["page"] == told["url"] + "/"
        assert told["BIGCOMMERCE_API_URL"] == told["url"]
        with urllib.request.urlopen(told["control"] + "/state", timeout=30) as answer:
            state = json.load(answer)
        assert (state["rows"], state["quota"]["quota"]) == (8, 450)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=30)
        assert (process.returncode, stdout) == (0, b"")
        assert f"In the browser: {told['page']}\n".encode() in stderr
        assert told["access_token"].encode() not in stderr


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_ends_it_while_it_still_makes_its_values(serve, tmp_path, until) -> None:
    database = tmp_path / "rows.db"
    with serve() as other:
        process = other.start("sandbox", "--seed-values", "10000000", "--database", database)
        # Values are coming in: they outgrow SQLite's cache into the WAL, or it is big already.
        until(lambda: sum(one.stat().st_size for one in tmp_path.iterdir()) > 1_000_000, 60)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
        assert (process.returncode, stdout) == (0, b""), stderr
        assert b"Stopped before it served." in stderr
