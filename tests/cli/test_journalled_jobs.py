"""A journal on the command line, and the circuit breaker that ends a job without answers."""

from __future__ import annotations

import json
import signal
import sqlite3
from contextlib import closing
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bc_attrvals.cli.journalled_jobs import CircuitBreaker, NoAnswerError
from bc_attrvals.errors import ServerError
from tests.cli.tables import HEAD, csv_of, posix
from tests.cli.test_output_rows import limit_files


def test_a_journal_sends_only_what_was_not_confirmed(served, tmp_path, summary) -> None:
    table = HEAD + "".join(f"{customer},1,v\n" for customer in range(1, 501))
    served.sandbox.faults.script([None] * 4 + ["403"] * 10)
    args = ["upsert", "-", "--journal", tmp_path / "u.db", "--json"]
    result = served.run(*args, input=table)
    found = summary(result)
    assert result.exit_code == 3
    assert "403" in found["error"]
    assert 0 < found["stored"] == len(served.values())
    refused = 10 * (served.sandbox.calls["upsert"] - 4)
    assert (found["failed"], found["not_sent"]) == (refused, 500 - refused - found["stored"])
    served.sandbox.faults.clear()
    other = served.run(*args, input=table + "501,1,v\n")
    assert other.exit_code == 2
    assert "--restart" in other.stderr
    sent = served.sandbox.calls["upsert"]
    found = summary(served.run(*args, input=table))
    assert (found["stored"], found["not_sent"]) == (500, 0)
    assert len(served.values()) == 500
    assert served.sandbox.calls["upsert"] - sent < 50
    text = served.run(*args[:-1], "--restart", input=table + "501,1,v\n")
    assert text.stdout.startswith("Stored 501 values;")
    assert served.run("upsert", "-", "--restart", input=table).exit_code == 2


@pytest.mark.parametrize("command", ["upsert", "sync"])
def test_a_journal_that_could_not_be_taken_over_is_all_there_is_to_say(
    served, tmp_path, summary, command
) -> None:
    args = [command, "-", "--journal", tmp_path / "u.db", "--json"]
    served.sandbox.faults.script([None, "403"], "upsert")
    assert served.run(*args, input=csv_of(50)).exit_code == 3
    with closing(sqlite3.connect(tmp_path / "u.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        result = served.run(*args, input=csv_of(50))
    found = summary(result)
    assert (result.exit_code, found.keys()) == (2, {"command", "exit_status", "error"})
    assert "is held by another job" in found["error"]


def test_a_journal_keeps_refused_values_apart(served, tmp_path, summary, parse) -> None:
    served.sandbox.reject_customers([3])
    failed = tmp_path / "failed.csv"
    table = HEAD + "".join(f"{customer},1,v\n" for customer in range(1, 31))
    args = ["upsert", "-", "--journal", tmp_path / "u.db", "--failures", failed, "--json"]
    result = served.run(*args, input=table)
    found = summary(result)
    assert (result.exit_code, found["stored"], found["failed"]) == (1, 29, 1)
    assert [row[:3] for row in parse(failed.read_text())[1:]] == [["3", "1", "v"]]


def test_a_finished_journal_gives_way_and_an_unfinished_one_of_another_input_is_refused(
    served, tmp_path
) -> None:
    journal = tmp_path / "s.db"
    args = ("sync", "-", "--journal", journal)
    for rows in (50, 50, 51):
        assert served.run(*args, input=csv_of(rows)).exit_code == 0
    assert len(served.values()) == 51
    served.sandbox.faults.script(["401"] * 9, "upsert")
    assert served.run(*args, input=csv_of(80)).exit_code == 3
    served.sandbox.faults.clear()
    other = served.run(*args, input=csv_of(90))
    assert other.exit_code == 2
    assert other.stderr.count("\n") == 1
    assert "other desired values" in other.stderr
    assert "--restart" in other.stderr
    assert served.run(*args, "--restart", input=csv_of(90)).exit_code == 0
    assert len(served.values()) == 90
    assert served.run("sync", "-", "--restart", input=csv_of(3)).exit_code == 2
    (tmp_path / "bad.db").write_bytes(b"no database" * 100)
    bad = served.run("sync", "-", "--journal", tmp_path / "bad.db", input=csv_of(50))
    assert (bad.exit_code, bad.stderr.count("\n")) == (2, 1)


@pytest.mark.usefixtures("one_try")
def test_when_nobody_answers_the_job_ends_and_is_taken_up_later(served, tmp_path, summary) -> None:
    args = ["sync", "-", "--journal", tmp_path / "s.db", "--json"]
    served.sandbox.faults.script([None] * 10 + ["503"] * 490)
    result = served.run(*args, input=csv_of(2000))
    assert result.exit_code == 3
    assert "no answer for 30 values in a row" in summary(result)["error"]
    assert served.sandbox.requests.seen < 30
    served.sandbox.faults.clear()
    found = summary(served.run(*args, input=csv_of(2000)))
    assert (found["created"], found["failed"]) == (2000, 0)
    assert len(served.values()) == 2000


@posix
def test_a_journal_that_can_grow_no_more_ends_the_job_with_1(serve, tmp_path) -> None:
    source = tmp_path / "in.csv"
    source.write_text(csv_of(1500))
    args = ["upsert", source, "--journal", tmp_path / "u.db", "--json"]
    with serve() as served:
        process = served.start(*args, preexec_fn=partial(limit_files, 400_000))
        stdout, stderr = process.communicate(timeout=30)
        found = json.loads(stdout)
        assert (process.returncode, found["exit_status"]) == (1, 1), stderr
        assert f"the journal '{tmp_path}/u.db'" in found["error"]
        assert 0 < found["stored"] < 1500
        process = served.start(*args)
        stdout, stderr = process.communicate(timeout=30)
        assert (process.returncode, json.loads(stdout)["stored"]) == (0, 1500), stderr


@posix
def test_after_ctrl_c_the_same_command_completes(serve, tmp_path, until) -> None:
    source = tmp_path / "in.csv"
    source.write_text(csv_of(800))
    failed = tmp_path / "failed.csv"
    failed.write_text("of an earlier run")
    args = ["sync", source, "--journal", tmp_path / "s.db", "--failures", failed]
    with serve(latency_ms=30) as served:
        process = served.start(*args)
        until(lambda: served.sandbox.calls["upsert"] > 20)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=30)
        assert process.returncode == 130, stderr
        assert b"Stopped while writing" in stdout
        assert b"Run the same again with the same journal" in stdout
        # What has failed so far is in the journal alone.
        assert b"--failures was not written" in stdout
        assert failed.read_text() == "of an earlier run"
        assert stderr.endswith(b"Interrupted.\n")
        served.sandbox.latency_ms = 0
        process = served.start(*args, "--json")
        stdout, stderr = process.communicate(timeout=60)
        assert process.returncode == 0, stderr
        found = json.loads(stdout)
        assert (found["created"], found["resumed"]) == (800, True)
        assert found["resent"] <= 30
        assert failed.read_text().count("\n") == 1
        assert len(served.values()) == 800
        sent = sum(one.item_count or 0 for one in served.sandbox.requests.of("upsert"))
        assert sent <= 800 + 30


def test_thirty_values_in_a_row_open_it() -> None:
    breaker = CircuitBreaker()
    breaker.note(answered=500)
    breaker.note(unanswered=29)
    assert not breaker.is_open
    breaker.check()
    breaker.note(unanswered=1)
    assert breaker.is_open
    reason = ServerError(503, "busy")
    with pytest.raises(
        NoAnswerError, match=r"no answer for 30 values in a row.*503 busy"
    ) as caught:
        breaker.check(reason)
    assert caught.value.__cause__ is reason


def test_a_job_that_never_got_an_answer_ends_in_an_error() -> None:
    breaker = CircuitBreaker()
    breaker.check()
    breaker.note(unanswered=3)
    assert not breaker.is_open
    with pytest.raises(NoAnswerError):
        breaker.check()


def test_an_answer_closes_the_row() -> None:
    breaker = CircuitBreaker()
    for _ in range(100):
        breaker.note(unanswered=29)
        breaker.note(answered=1)
    assert not breaker.is_open
    breaker.check()


@given(st.lists(st.booleans(), max_size=200))
def test_it_counts_the_last_row(ends: list[bool]) -> None:
    breaker = CircuitBreaker()
    for answered in ends:
        breaker.note(answered=int(answered), unanswered=int(not answered))
    row = next((place for place, one in enumerate(reversed(ends)) if one), len(ends))
    assert breaker.is_open == (row >= 30)
