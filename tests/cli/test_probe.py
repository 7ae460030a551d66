"""`probe` asks first, prints and writes what it found, and restores after signals."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bc_attrvals import Limits
from bc_attrvals.cli.commands import probe as command
from bc_attrvals.sandbox import Fault, Quirks

OPTIONS = {"customers": {7: "ann@example.org"}, "attributes": {"Tier": "string"}}
NAMED = ("--customer", 7, "--attribute", "Tier")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Run in an empty folder, without the wait for the next second."""
    monkeypatch.setattr("bc_attrvals.probe.writes._NEXT_SECOND_S", 0.0)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(served) -> list[object]:
    return served.do(served.sandbox.rows())


def test_a_table_is_printed_and_the_file_makes_quirks_and_limits(serve, quick) -> None:
    with serve(**OPTIONS, quirks=Quirks(max_items=4, trim_values=True)) as served:
        done = served.run("probe", *NAMED, "--yes")
        assert rows(served) == []
    assert done.exit_code == 0, done.stderr
    assert "Most items in one PUT                       4" in done.stdout
    assert "Blanks around values are removed            yes" in done.stdout
    assert "everything is as before" in done.stdout
    found = quick / "bc-attrvals-probe.json"
    assert Quirks.from_probe(found).max_items == 4
    assert Limits.from_probe(found).batch_size == 4
    assert [one.name for one in quick.iterdir()] == [found.name]


def test_a_name_of_digits_is_given_as_in_other_commands(serve, quick) -> None:
    with serve(customers=OPTIONS["customers"], attributes={"2024": "number"}) as served:
        assert served.run("probe", "--customer", 7, "--attribute", "2024", "--yes").exit_code == 2
        done = served.run("probe", "--customer", 7, "--attribute", "name:2024", "--yes")
    assert done.exit_code == 0, done.stderr
    found = json.loads((quick / "bc-attrvals-probe.json").read_text())
    assert (found["attribute_type"], found["keys"]) == ("number", 1)


def test_the_summary_holds_the_facts(serve, quick, summary) -> None:
    with serve(**OPTIONS) as served:
        done = served.run("--json", "probe", *NAMED, "--yes", "--output", "out.json")
    document = summary(done)
    assert document["facts"]["value_field"]["value"] == "attribute_value"
    written = json.loads((quick / "out.json").read_text())
    assert written.items() <= document.items()


def test_it_asks_first_and_a_no_writes_nothing(serve, quick, monkeypatch) -> None:
    monkeypatch.setattr(command, "need_terminal", lambda **_: None)
    with serve(**OPTIONS) as served:
        served.seed((8, 1, "other"))
        done = served.run("probe", *NAMED, input="n\n")
        assert done.exit_code == 2
        asked = (
            "At most 180 calls to store sandbox. Write 1 value (customer 7, attribute Tier; 0 there"
        )
        assert asked in done.stderr
        assert served.sandbox.calls["upsert"] == 0
    assert list(quick.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "--customer ID --attribute ID_OR_NAME"),
        (("--customer", 7), "--customer ID --attribute ID_OR_NAME"),
        (NAMED, "--yes probes without asking"),
        ((*NAMED, "--yes", "--output", "a", "--state", "./a"), "are the same file"),
        ((*NAMED, "--json", "--yes", "--output", "-"), "can't share stdout"),
        ((*NAMED, "--restore", "x"), "--restore takes no --customer"),
        (("--restore", "nowhere"), "nowhere: No such file"),
        (("--customer", 7, "--attribute", "Teir", "--yes"), "there is no attribute 'Teir'"),
        (("--customer", 7, "--attribute", "0", "--yes"), "attribute_id must be from 1 to"),
        (("--customer", 7, "--attribute", "name:2023", "--yes"), "no attribute '2023'"),
    ],
)
def test_bad_usage_sends_no_write(serve, quick, options, message) -> None:
    with serve(**OPTIONS) as served:
        done = served.run("probe", *options)
        assert (done.exit_code, served.sandbox.calls["upsert"]) == (2, 0)
    assert message in done.stderr


def test_a_token_that_may_not_write_is_named(serve, quick) -> None:
    with serve(**OPTIONS, faults=[Fault.parse("403,operation=upsert")]) as served:
        done = served.run("probe", *NAMED, "--yes")
    assert done.exit_code == 3
    assert "403" in done.stderr
    assert "scope" in done.stderr
    assert list(quick.iterdir()) == []


def test_what_could_not_be_restored_is_named_with_the_remedy(serve, quick) -> None:
    with serve(**OPTIONS, faults=[Fault.parse("204,operation=delete,applied=no")]) as served:
        done = served.run("probe", *NAMED, "--yes")
        assert done.exit_code == 3
        assert "customer 7 attribute 1 not restored" in done.stderr
        assert "bc-attrvals probe --restore bc-attrvals-probe.state" in done.stderr
        again = served.run("probe", *NAMED, "--yes")
        assert again.exit_code == 2
        assert "was not undone" in again.stderr
        served.sandbox.faults.clear()
        restored = served.run("probe", "--restore", "bc-attrvals-probe.state")
        assert (restored.exit_code, rows(served)) == (0, [])
    assert "Restored 1 value; everything is as before" in restored.stdout
    assert list(quick.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
@pytest.mark.parametrize(
    ("number", "writes"),
    [(signal.SIGINT, 9), (signal.SIGKILL, 1), (signal.SIGKILL, 12)],
    ids=["SIGINT", "SIGKILL at the first write", "SIGKILL later"],
)
def test_all_is_as_before_after_a_signal_midway(
    serve, tmp_path, until, number: signal.Signals, writes: int
) -> None:
    state, out = tmp_path / "state", tmp_path / "out.json"
    with serve(**OPTIONS, latency_ms=10) as served:
        served.seed((8, 1, "other"), (7, 3, "another"))
        before = rows(served)
        named = (*NAMED, "--yes", "--state", state, "--output", out)
        process = served.start("probe", *named)
        until(lambda: served.sandbox.calls["upsert"] >= writes)
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
        if number == signal.SIGINT:
            assert process.returncode == 130, errors.decode()
            assert b"Everything is as before" in errors
        else:
            assert state.exists()
            until(lambda: not served.sandbox.in_flight())
            assert served.run("probe", "--restore", state).exit_code == 0
        assert rows(served) == before
        assert not state.exists()
        assert not out.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
def test_the_second_ctrl_c_says_how_to_restore(serve, tmp_path, until) -> None:
    state = tmp_path / "my state"
    with serve(**OPTIONS) as served:
        named = (*NAMED, "--yes", "--state", state, "--output", tmp_path / "out.json")
        process = served.start("probe", *named)
        until(lambda: served.sandbox.calls["upsert"] >= 2)
        served.sandbox.faults.add("hang")
        process.send_signal(signal.SIGINT)
        # Both at once would be one signal: wait for the restoring to begin.
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 130
        shown = f"Interrupted. To restore: bc-attrvals probe --restore '{state}'"
        assert errors.decode().splitlines()[-1] == shown
        served.sandbox.faults.clear()
        *_, option, file = shlex.split(shown)
        assert served.run("probe", option, file).exit_code == 0
        assert rows(served) == []
