"""`sync`: the plan first, then what differs and nothing else, within the limit of deletions."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import signal
import subprocess
from contextlib import suppress

import pytest

from bc_attrvals.sandbox import Fault, FaultKind
from tests.cli.tables import CHANGED, DELETIONS, HEAD, WIDE, csv_of, posix, read_terminal, wide

DIFF = [
    ["change", "customer_id", "attribute_id", "old", "new"],
    ["update", "1", "1", "old", "new"],
    ["create", "3", "1", "", "c;d"],
    ["delete", "9", "1", "gone", ""],
]


def test_only_what_differs_is_written_and_a_second_run_writes_nothing(served, summary) -> None:
    served.seed(*((n, 1, f"v{n}") for n in range(1, 401)), (7, 2, "kept"))
    text = csv_of(400).replace("v7\n", "new\n") + "900,1,v900\n"
    found = summary(served.run("sync", "-", "--json", input=text))
    assert (found["created"], found["updated"], found["unchanged"]) == (1, 1, 399)
    assert (found["deleted"], found["failed"], found["not_sent"]) == (0, 0, 0)
    assert found["plan"]["create"] == 1
    puts = served.sandbox.calls["upsert"]
    again = summary(served.run("sync", "-", "--json", input=text))
    assert again["unchanged"] == 401
    assert served.sandbox.calls["upsert"] == puts == 1
    assert served.values()[7, 2] == "kept"


def test_a_dry_run_shows_the_plan_and_writes_nothing(served, tmp_path, summary) -> None:
    served.seed((1, 1, "old"), (2, 1, "v2"), (5, 1, "gone"))
    args = ["sync", "-", "--dry-run", "--prune", "--attribute-id", "1"]
    args += ["--journal", tmp_path / "s.db"]
    synced = served.run(*args, input=csv_of(3))
    assert synced.exit_code == 0
    assert [line.split()[:2] for line in synced.stdout.splitlines()[1:5]] == [
        ["create", "1"],
        ["update", "1"],
        ["unchanged", "1"],
        ["delete", "1"],
    ]
    found = summary(served.run(*args, "--json", input=csv_of(3)))
    assert found["dry_run"] is True
    assert (found["created"], found["plan"]["delete"]) == (None, 1)
    assert served.values() == {(1, 1): "old", (2, 1): "v2", (5, 1): "gone"}
    assert list(tmp_path.iterdir()) == []


def test_the_plan_is_shown_before_the_first_write(served) -> None:
    synced = served.run("sync", "-", input=csv_of(30))
    assert "create" in synced.stderr
    assert "3 calls" in synced.stderr
    assert synced.stdout.startswith("Synced 30 values, 30 changed")
    quiet = served.run("sync", "-", "--quiet", input=csv_of(30, value="w"))
    assert (quiet.exit_code, quiet.stdout, quiet.stderr) == (0, "", "")


def test_wide_rows_prune_the_attributes_they_name_alone(served, summary) -> None:
    served.seed((1, 1, "a"), (1, 2, "b"), (2, 1, "c"), (2, 3, "other"))
    text = "ID,x,y\n1,a,\n3,,z\n"
    found = summary(served.run("sync", "-", *WIDE, "--prune", "--yes", "--json", input=text))
    assert (found["created"], found["deleted"], found["unchanged"]) == (1, 2, 1)
    assert served.values() == {(1, 1): "a", (3, 2): "z", (2, 3): "other"}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--prune", "--yes"], "needs a scope"),
        (["--prune", "--attribute-id", "1"], "there is no terminal"),
        (["--prune", "--yes", "--attribute-id", "1", "--skip-invalid"], "the values of bad rows"),
        (["--allow-empty"], "goes with --prune"),
        (["--allow-unresolved"], "goes with --prune"),
        (["--whole-store", "--attribute-id", "1"], "no other scope"),
        (["--attribute-id", "2"], "Error: standard input: customer 1, attribute 1 is outside of"),
        (["--attribute-id", "x"], "not an integer"),
        (["--json", "--failures", "-"], "share stdout"),
    ],
)
def test_contradictory_options_are_refused_before_anything_is_sent(served, args, message) -> None:
    result = served.run("sync", "-", *args, input=csv_of(3))
    assert result.exit_code == 2
    assert message in result.stderr
    assert served.sandbox.requests.seen == 0


def test_empty_cells_are_deleted_where_asked(served, summary) -> None:
    served.seed((1, 1, "a"), (1, 2, "b"), (2, 1, "c"), (3, 2, "kept"))
    text = "ID,x,y\n1,a,\n2,,z\n4,,\n"
    args = ["sync", "-", *WIDE, "--empty", "delete"]
    plan = served.run(*args, "--dry-run", input=text)
    assert plan.exit_code == 0
    assert plan.stdout.splitlines()[-1].split()[-2:] == ["delete", "2"]
    assert len(served.values()) == 4
    found = summary(served.run(*args, "--yes", "--json", input=text))
    assert found["written"] == 2
    assert (found["stored_for_empty_cells"], found["deleted_for_empty_cells"]) == (2, 2)
    assert served.values() == {(1, 1): "a", (2, 2): "z", (3, 2): "kept"}
    for refused in (["--prune"], ["--yes", "--prune"], []):
        assert served.run(*args, *refused, input=text).exit_code == 2
    long = served.run("sync", "-", "--empty", "delete", "--yes", input=csv_of(1))
    assert long.exit_code == 2


def test_an_empty_table_deletes_nothing_unless_that_is_said(served) -> None:
    served.seed((1, 1, "a"))
    args = ["sync", "-", "--prune", "--whole-store", "--yes"]
    result = served.run(*args, input=HEAD)
    assert result.exit_code == 2
    assert "say --allow-empty" in result.stderr
    assert served.sandbox.requests.seen == 0
    assert len(served.values()) == 1
    assert served.run(*args, "--allow-empty", input=HEAD).exit_code == 0
    assert served.values() == {}


def test_what_the_service_refuses_is_in_the_failures(served, tmp_path, summary, parse) -> None:
    served.sandbox.reject_customers([3, 5])
    failed = tmp_path / "failed.csv"
    text = csv_of(40) + "x,1,bad\n"
    result = served.run("sync", "-", "--failures", failed, "--skip-invalid", "--json", input=text)
    assert result.exit_code == 1
    found = summary(result)
    assert (found["failed"], found["skipped"]) == (2, 1)
    rows = parse(failed.read_text())
    assert sorted(row[:3] for row in rows[1:]) == [
        ["3", "1", "v3"],
        ["5", "1", "v5"],
        ["x", "1", "bad"],
    ]
    served.sandbox.accept_customers()
    lines = failed.read_text().splitlines(keepends=True)
    failed.write_text("".join(line for line in lines if not line.startswith("x")))
    assert served.run("sync", failed, "--failures", tmp_path / "left.csv").exit_code == 0
    assert len(served.values()) == 40


def test_a_job_that_is_refused_exits_3_with_the_report(served, tmp_path, summary) -> None:
    served.sandbox.faults.script([None] * 4 + ["403"] * 10)
    args = ["sync", "-", "--journal", tmp_path / "s.db", "--json"]
    result = served.run(*args, input=csv_of(500))
    assert result.exit_code == 3
    found = summary(result)
    assert "403" in found["error"]
    assert 0 < found["created"] < found["not_sent"]
    served.sandbox.faults.clear()
    found = summary(served.run(*args, input=csv_of(500)))
    assert (found["created"], found["resumed"]) == (500, True)
    assert len(served.values()) == 500


@posix
@pytest.mark.parametrize(("answer", "status", "left"), [("n", 2, 3), ("y", 0, 2), (None, 130, 3)])
def test_pruning_asks_on_a_terminal(serve, tmp_path, answer, status, left) -> None:
    source = tmp_path / "in.csv"
    source.write_text(csv_of(2))
    with serve() as served:
        served.seed((1, 1, "v1"), (3, 1, "b"), (4, 1, "c"))
        ours, theirs = pty.openpty()
        process = served.start("sync", source, "--prune", "--attribute-id", "1", stdin=theirs)
        if answer is None:
            shown = b""
            while b"[y/N]" not in shown:
                shown += os.read(process.stderr.fileno(), 1024)
            # One that comes between the words and the reading of the answer waits for the latter.
            for _ in range(5):
                process.send_signal(signal.SIGINT)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(2.0)
                    break
        else:
            os.write(ours, f"{answer}\n".encode())
        stderr = process.communicate(timeout=30)[1]
        os.close(ours)
        os.close(theirs)
        assert process.returncode == status
        assert b"Traceback" not in stderr
        assert len(served.values()) == left


@posix
def test_the_plan_is_the_same_table_on_a_terminal(serve, tmp_path) -> None:
    source = tmp_path / "in.csv"
    source.write_text(csv_of(20))
    with serve() as served:
        served.seed((1, 1, "old"), (2, 1, "v2"))
        ours, theirs = pty.openpty()
        process = served.start(
            "sync", source, "--dry-run", stdout=theirs, variables={"TERM": "xterm", "NO_COLOR": "1"}
        )
        os.close(theirs)
        shown = read_terminal(ours)
        process.communicate(timeout=30)
        text = shown.decode()
        assert process.returncode == 0
        piped, _ = served.start("sync", source, "--dry-run").communicate(timeout=30)
        assert text.replace("\r\n", "\n") == piped.decode()
        assert "look customers up" in text or "list the scope" in text or "nothing" in text
        assert "in all" in text


def test_what_was_synced_is_exported_again(served, tmp_path) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    rows = [[str(n), str(n % 7), f"{n / 3:.2f}"] for n in range(1, 600)]
    with source.open("w", newline="") as file:
        csv.writer(file).writerows([["ID", "x", "y"], *rows])
    assert served.run("sync", source, *WIDE, "--journal", tmp_path / "s.db").exit_code == 0
    assert served.run("export", *WIDE, "--output", out).exit_code == 0
    assert out.read_bytes() == source.read_bytes()


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", "-"])
def test_a_diff_shows_each_change_with_the_old_and_the_new_value(served, tmp_path, suffix) -> None:
    served.seed((1, 1, "old"), (2, 1, "v2"), (9, 1, "gone"), (9, 2, "out of the scope"))
    before = served.values()
    diff = "-" if suffix == "-" else tmp_path / f"diff{suffix}"
    args = ["sync", "-", "--dry-run", "--diff", diff, "--prune", "--attribute-id", 1]
    result = served.run(*args, input=CHANGED)
    assert result.exit_code == 0, result.stderr
    text = result.stdout if suffix == "-" else diff.read_text()
    if suffix == ".jsonl":
        rows = [json.loads(line) for line in text.splitlines()]
        assert rows == [
            {name: int(cell) if name.endswith("_id") else cell for name, cell in row if cell}
            for row in (list(zip(DIFF[0], one, strict=True)) for one in DIFF[1:])
        ]
    else:
        assert list(csv.reader(io.StringIO(text))) == DIFF
    plan = result.stderr if suffix == "-" else result.stdout
    assert "create" in plan
    assert served.values() == before
    assert all(one.method == "GET" for one in served.sandbox.requests)


def test_a_diff_of_few_values_reads_the_store(served, tmp_path) -> None:
    served.seed((1, 1, "old"))
    args = ["sync", "-", "--dry-run", "--json"]
    blind = json.loads(served.run(*args, input=CHANGED).stdout)
    assert blind["plan"]["reading"] == "nothing"
    found = json.loads(served.run(*args, "--diff", tmp_path / "d.csv", input=CHANGED).stdout)
    assert (found["plan"]["create"], found["plan"]["update"]) == (2, 1)
    assert len((tmp_path / "d.csv").read_text().splitlines()) == 4


def test_a_diff_in_parquet(served, tmp_path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    served.seed((1, 1, "old"))
    result = served.run("sync", "-", "--dry-run", "--diff", tmp_path / "d.parquet", input=CHANGED)
    assert result.exit_code == 0
    rows = parquet.read_table(tmp_path / "d.parquet").to_pylist()
    assert rows[0] == dict(zip(DIFF[0], ["update", 1, 1, "old", "new"], strict=True))
    assert rows[1]["old"] is None


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--diff", "d.csv"], "--diff goes with --dry-run"),
        (["--dry-run", "--diff", "-", "--json"], "--json and --diff can't share stdout"),
        (["--dry-run", "--diff", "-", "--failures", "-"], "--failures and --diff are the same"),
        (["--dry-run", "--diff", "d.xlsx"], "is a workbook"),
    ],
)
def test_options_that_do_not_go_together(served, args, message) -> None:
    result = served.run("sync", "-", *args, input=CHANGED)
    assert result.exit_code == 2
    assert message in result.stderr
    assert served.sandbox.requests.seen == 0


PRUNE = ["sync", "-", "--prune", "--attribute-id", "1", "--yes"]


def table(count: int) -> str:
    return HEAD + "".join(f"{n},1,v{n}\n" for n in range(1, count + 1))


def seed(served, count: int) -> None:
    served.seed(*((n, 1, f"v{n}") for n in range(1, count + 1)), (1, 2, "out of the scope"))


@pytest.mark.parametrize("journal", [[], ["--journal"]])
def test_more_than_half_and_more_than_100_are_refused(served, tmp_path, journal) -> None:
    seed(served, 220)
    args = [*PRUNE, *journal, *([tmp_path / "s.db"] if journal else [])]
    # The second run takes the journal up, and is refused as well.
    for _ in range(2):
        result = served.run(*args, input=table(109))
        assert result.exit_code == 2
        assert "111 values of 220 would be deleted, more than half" in result.stderr
        assert "say --max-delete 111; nothing was written" in result.stderr
        assert len(served.values()) == 221
    assert served.run(*args, "--max-delete", 111, input=table(109)).exit_code == 0
    assert len(served.values()) == 110


@pytest.mark.parametrize(
    ("stored", "left", "options", "status"),
    [
        (220, 110, [], 0),
        (150, 50, [], 0),
        (151, 50, [], 2),
        (20, 10, ["--max-delete", "9"], 2),
        (20, 10, ["--max-delete", "10"], 0),
        (20, 10, ["--max-delete", "49%"], 2),
        (20, 10, ["--max-delete", "50%"], 0),
        (20, 20, ["--max-delete", "0"], 0),
        (20, 19, ["--max-delete", "0"], 2),
    ],
)
def test_the_border(served, stored, left, options, status) -> None:
    seed(served, stored)
    result = served.run(*PRUNE, *options, input=table(left))
    assert result.exit_code == status, result.stderr
    assert len(served.values()) == 1 + (left if status == 0 else stored)
    assert served.sandbox.calls["delete"] == 0 if status else True


@pytest.mark.parametrize("given", ["-1", "1.5", "101%", "half", "%", "", "１"])
def test_what_is_no_limit_is_refused(served, given) -> None:
    result = served.run(*PRUNE, "--max-delete", given, input=table(1))
    assert result.exit_code == 2
    assert "must be a number of values, or 0% to 100%" in result.stderr
    assert served.sandbox.requests.seen == 0


def test_it_goes_with_options_that_delete(served) -> None:
    result = served.run("sync", "-", "--max-delete", "5", input=table(1))
    assert "--max-delete goes with --prune or --empty delete" in result.stderr


@pytest.mark.parametrize(("left", "options", "status"), DELETIONS)
def test_it_holds_for_the_values_of_empty_cells(served, tmp_path, left, options, status) -> None:
    served.seed(*((n, 1, f"v{n}") for n in range(1, 221)))
    args = ["sync", "-", *WIDE, "--empty", "delete", "--yes", *options]
    table = wide(left, 220 - left)
    dry = served.run(*args, "--dry-run", input=table)
    assert (dry.exit_code, "would be deleted, more than" in dry.stderr) == (0, status == 2)
    # With a journal, the second run takes it up and is refused as well.
    for _ in range(2):
        result = served.run(*args, "--journal", tmp_path / "s.db", input=table)
        assert result.exit_code == status, result.stderr
        assert len(served.values()) == (220 if status else left)
        if status:
            assert f"{220 - left} values of 220 would be deleted" in result.stderr


def test_what_a_stopped_prune_has_written_is_stored_when_it_goes_on(served, tmp_path) -> None:
    served.seed(*((n, 1, "old") for n in range(1, 221)))
    served.sandbox.faults.add(Fault(FaultKind.FORBIDDEN, operation="delete"))
    args = [*PRUNE, "--journal", tmp_path / "s.db"]
    assert served.run(*args, input=table(110)).exit_code == 3
    served.sandbox.faults.clear()
    result = served.run(*args, input=table(110))
    assert result.exit_code == 0, result.stderr
    assert len(served.values()) == 110


def test_a_dry_run_warns_and_shows_the_plan(served) -> None:
    seed(served, 300)
    result = served.run(*PRUNE, "--dry-run", input=table(10))
    assert result.exit_code == 0
    assert result.stderr.count("Warning: 290 values of 300 would be deleted") == 1
    assert "delete" in result.stdout


@pytest.mark.parametrize(("stored", "status"), [(280, 0), (281, 2)])
def test_values_that_are_updated_are_stored_as_well(served, stored, status) -> None:
    seed(served, stored)
    changed = "".join(f"{n},1,new\n" for n in range(61, 141))
    created = "".join(f"{n},1,v\n" for n in range(1_001, 1_501))
    result = served.run(*PRUNE, input=table(60) + changed + created)
    assert result.exit_code == status, result.stderr
