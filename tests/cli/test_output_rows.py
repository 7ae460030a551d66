"""Outputs that a job writes to: a full disk, and failures that are sent again."""

from __future__ import annotations

import csv
import json
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from bc_attrvals.cli.output_rows import FailureFile
from bc_attrvals.core.models import AttributeValueUpsert
from bc_attrvals.tables.files import OutputFile
from bc_attrvals.tables.layout import Layout
from tests.cli.tables import HEAD, WIDE, csv_of, posix

linux = pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")


def limit_files(size: int) -> None:
    """Let no file of this process grow beyond a size, as on a small file system."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@linux
@pytest.mark.parametrize("command", ["upsert", "sync"])
def test_a_full_disk_for_the_failures_ends_in_a_summary(serve, tmp_path, command) -> None:
    table, failed = tmp_path / "in.csv", tmp_path / "failed.csv"
    rows = [(customer, 1, "v" * 40) for customer in range(1, 251)]
    table.write_text(HEAD + "".join(f"{c},{a},{v}\n" for c, a, v in rows))
    with serve() as served:
        served.sandbox.reject_customers(range(51, 251))
        served.seed(*((customer, 9, "other") for customer in range(1, 251)))
        # Room for the temporary files of the command, but not for all failures.
        limit = partial(limit_files, 36_000)
        process = served.start(command, table, "--failures", failed, "--json", preexec_fn=limit)
        stdout, stderr = process.communicate(timeout=60)
        assert process.returncode == 1, stderr
        found = json.loads(stdout)
        assert (found["exit_status"], found["failed"]) == (1, 200)
        assert str(failed) in found["error"]
        shown = stderr.decode().splitlines()
        problem = f"Error: {failed}: File too large; rows that are not in it are above"
        assert problem in shown
        assert f"rows in {failed}" not in stdout.decode()
        in_file = [row[:3] for row in csv.reader(failed.read_text().splitlines())][1:]
        on_stderr = [row[:3] for row in csv.reader(shown) if len(row) == 4][1:]
        assert in_file
        assert on_stderr
        given = {(int(c), int(a), v) for c, a, v in in_file + on_stderr}
        assert given == {row for row in rows if row[0] > 50}
        assert len(in_file) + len(on_stderr) == 200


@linux
@pytest.mark.parametrize("options", [["--json"], []])
def test_a_full_standard_output_sends_the_summary_to_stderr(serve, tmp_path, options) -> None:
    table = tmp_path / "in.csv"
    table.write_text(HEAD + "1,1,a\n")
    with serve() as served, Path("/dev/full").open("wb") as full:
        process = served.start("upsert", table, *options, stdout=full)
        _, stderr = process.communicate(timeout=60)
        shown = stderr.decode().splitlines()
        assert process.returncode == 1, stderr
        assert shown[-1] == "Error: standard output: No space left on device"
        if options:
            found = json.loads(shown[0])
            assert (found["stored"], found["exit_status"]) == (1, 1)
        else:
            assert shown[0].startswith("Stored 1 value;")
        assert served.values() == {(1, 1): "a"}


@linux
def test_failures_that_standard_output_has_no_room_for_go_to_stderr(serve, tmp_path) -> None:
    table = tmp_path / "in.csv"
    table.write_text(HEAD + "1,1,a\n2,1,b\n")
    with serve() as served, Path("/dev/full").open("wb") as full:
        served.sandbox.reject_customers([2])
        process = served.start("upsert", table, "--failures", "-", stdout=full)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 1, stderr
        shown = stderr.decode()
        assert "customer_id,attribute_id,value,reason\n2,1,b," in shown
        assert "Stored 1 value" in shown
        assert "Error: standard output: No space left on device" in shown


@linux
def test_an_export_to_a_full_standard_output_exits_2(serve) -> None:
    with serve() as served, Path("/dev/full").open("wb") as full:
        served.seed((1, 1, "v"))
        process = served.start("export", stdout=full)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 2
        assert stderr == b"Error: standard output: No space left on device\n"


@linux
def test_an_export_names_the_file_that_is_full(serve, tmp_path) -> None:
    with serve() as served:
        served.seed(*((customer, 1, "v" * 200) for customer in range(1, 2000)))
        limit = partial(limit_files, 20_000)
        process = served.start("export", "-o", tmp_path / "out.csv", preexec_fn=limit)
        _, stderr = process.communicate(timeout=60)
        assert (process.returncode, stderr.count(b"\n")) == (2, 1)
        assert f"Error: {tmp_path}/out.csv: File too large".encode() in stderr
        assert list(tmp_path.iterdir()) == []


def test_a_named_delimiter_is_written_to_the_failures_too(served, tmp_path) -> None:
    served.sandbox.reject_customers([1])
    failed = tmp_path / "failed.csv"
    options = ["upsert", "-", "--delimiter", "^", "--failures", failed]
    text = "customer_id^attribute_id^value\n1^2^a,b\n3^2^c\n"
    assert served.run(*options, input=text).exit_code == 1
    assert failed.read_text().startswith("customer_id^attribute_id^value^reason\n1^2^a,b^")
    served.sandbox.accept_customers()
    assert served.run("upsert", failed, "--delimiter", "^").exit_code == 0
    assert served.values() == {(1, 2): "a,b", (3, 2): "c"}
    for bad in ("ab", "", '"', "\n"):
        assert served.run("upsert", "-", "--delimiter", bad, input=text).exit_code == 2
    refused = served.run("upsert", failed, "--format", "jsonl", "--delimiter", ";")
    assert "--delimiter is for CSV" in refused.stderr
    assert (
        served.run("upsert", "-", "--delimiter", "tab", input=text.replace("^", "\t")).exit_code
        == 0
    )


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet", ""])
def test_failures_of_the_wide_form_are_sent_again_with_the_same_options(
    served, tmp_path, summary, suffix
) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    served.sandbox.reject_customers([2])
    path, failed = tmp_path / "in.csv", tmp_path / f"failed{suffix}"
    path.write_text("ID;y;x\n1;a;b\n2;c;=d\n3;;e\nzz;f;g\n4;h;" + "i" * 300 + "\n")
    result = served.run("upsert", path, *WIDE, "--failures", failed, "--skip-invalid", "--json")
    found = summary(result)
    assert (result.exit_code, found["failed"], found["skipped"]) == (1, 2, 3)
    served.sandbox.accept_customers()
    again = served.run("upsert", failed, *WIDE, "--skip-invalid", "--json")
    assert summary(again)["skipped"] == 3
    assert {key: value for key, value in served.values().items() if key[0] == 2} == {
        (2, 1): "=d",
        (2, 2): "c",
    }
    assert len(served.values()) == 6


def test_failures_have_the_names_and_the_encoding_of_the_input(served, tmp_path) -> None:
    served.sandbox.reject_customers([5])
    path, failed = tmp_path / "in.csv", tmp_path / "failed.csv"
    options = ["--column", "customer_id=reason", "--column", "value=Größe"]
    options += ["--encoding", "latin-1"]
    path.write_bytes("reason;attribute_id;Größe\n5;6;ä\n".encode("latin-1"))
    assert served.run("upsert", path, *options, "--failures", failed).exit_code == 1
    text = failed.read_bytes().decode("latin-1")
    assert text.startswith("reason,attribute_id,Größe,reason_\r\n5,6,ä,")
    served.sandbox.accept_customers()
    assert served.run("upsert", failed, *options).exit_code == 0
    assert served.values() == {(5, 6): "ä"}


def _fill(failures: FailureFile) -> None:
    for customer in range(1, 4):
        failures.item(AttributeValueUpsert(customer, 1, f"v{customer}"), "refused")


@pytest.mark.parametrize("name", ["failed.csv", "failed.jsonl", "failed.parquet"])
def test_a_file_that_can_not_be_put_in_its_place_is_named(tmp_path, capsys, name) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    target = tmp_path / name
    with ExitStack() as stack:
        failures = FailureFile(stack, str(target), Layout(), same_options=True)
        _fill(failures)
        # Somebody puts a directory there while the job runs.
        target.mkdir()
        failures.commit()
    assert failures.problem is not None
    assert failures.problem.startswith(f"{target}: is a directory")
    shown = capsys.readouterr().err
    if name.endswith("parquet"):
        assert "1,1,v1,refused\n2,1,v2,refused\n3,1,v3,refused\n" in shown
    else:
        kept = Path(failures.problem.rpartition(" are in ")[2])
        target.rmdir()
        # The next run of the same command leaves it where it is.
        with OutputFile(str(target)):
            pass
        assert sum("v" in line for line in kept.read_text().splitlines()) == 3 + ("csv" in name)
        assert shown == ""


def test_rows_are_in_the_file_when_nothing_goes_wrong(tmp_path, capsys) -> None:
    with ExitStack() as stack:
        failures = FailureFile(stack, str(tmp_path / "f.csv"), Layout(), same_options=True)
        _fill(failures)
        failures.commit()
    assert failures.problem is None
    assert len((tmp_path / "f.csv").read_text().splitlines()) == 4
    assert capsys.readouterr() == ("", "")


@posix
def test_what_a_killed_dry_run_left_is_removed_by_the_next(serve, tmp_path, until) -> None:
    table, diff, failed = (tmp_path / name for name in ("in.csv", "diff.csv", "failed.csv"))
    table.write_text(csv_of(5))
    args = ("sync", table, "--dry-run", "--diff", diff, "--failures", failed)
    with serve(latency_ms=10_000) as served:
        process = served.start(*args, "--attribute-id", 1)
        until(lambda: served.sandbox.requests.seen)
        process.kill()
        process.communicate(timeout=10)
        assert len(list(tmp_path.glob(".*.tmp"))) == 2
        served.sandbox.latency_ms = 0
        assert served.run(*args).exit_code == 0
    assert set(tmp_path.iterdir()) == {table, diff, failed}
    assert len(diff.read_text().splitlines()) == 6
