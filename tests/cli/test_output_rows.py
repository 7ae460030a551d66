"""A full disk for an output: the summary comes, and no row that was not stored is lost."""

from __future__ import annotations

import csv
import json
from functools import partial
from pathlib import Path

import pytest

from tests.cli.tables import HEAD

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
        told = stderr.decode().splitlines()
        assert f"Error: {failed}: File too large" in told
        in_file = [row[:3] for row in csv.reader(failed.read_text().splitlines())][1:]
        on_stderr = [row[:3] for row in csv.reader(told) if len(row) == 4][1:]
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
        told = stderr.decode().splitlines()
        assert process.returncode == 1, stderr
        assert told[-1] == "Error: standard output: No space left on device"
        if options:
            found = json.loads(told[0])
            assert (found["stored"], found["exit_status"]) == (1, 1)
        else:
            assert told[0].startswith("Stored 1 value;")
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
        told = stderr.decode()
        assert "customer_id,attribute_id,value,reason\n2,1,b," in told
        assert "Stored 1 value" in told
        assert "Error: standard output: No space left on device" in told


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
