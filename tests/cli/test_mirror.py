"""`mirror`."""

from __future__ import annotations

import errno
import json
from typing import Never

from bc_attrvals.tables.csv_format import CSVRows
from tests.cli.tables import START


def test_a_mirror_is_made_and_then_refreshed_in_few_calls(stored, tmp_path, summary) -> None:
    path = tmp_path / "store.db"
    result = stored.run("mirror", path)
    assert result.exit_code == 0, result.stderr
    assert "The mirror holds 600 values, all of them listed" in result.stdout
    stored.do(stored.sandbox.delete_rows([7]))
    seen = summary(stored.run("--json", "mirror", path))
    assert (seen["exit_status"], seen["rows"], seen["removed"], seen["verified"]) == (
        0,
        599,
        1,
        False,
    )
    assert seen["calls"] <= 14
    result = stored.run("mirror", path)
    assert "599 values, proven by counts" in result.stdout


def test_changes_are_those_since_they_were_written_last(stored, tmp_path) -> None:
    path, out = tmp_path / "store.db", tmp_path / "changes.jsonl"
    result = stored.run("mirror", path, "--changes", out)
    assert "600 changes written" in result.stdout
    assert len(out.read_text().splitlines()) == 600
    stored.do(stored.sandbox.delete_rows([9]))
    stored.seed((9_000, 1, "new"))
    assert stored.run("mirror", path).exit_code == 0
    stored.run("mirror", path, "--changes", out)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert {(one["kind"], one["customer_id"]) for one in rows} == {("put", 9_000), ("delete", 5)}
    assert all(one["sequence"] > 600 for one in rows)
    result = stored.run("mirror", path, "--changes", "-")
    assert result.stdout == (
        "sequence,kind,customer_id,attribute_id,value,id,date_created,date_modified\n"
    )


def test_what_verify_finds_is_named_and_ends_with_status_1(stored, tmp_path) -> None:
    path = tmp_path / "store.db"
    stored.run("mirror", path)
    stored.run("mirror", path)
    # The same date, and another value.
    stored.do(stored.sandbox.seed([(40, 1, "silently", START + 39)]))
    assert stored.run("mirror", path).exit_code == 0
    result = stored.run("mirror", path, "--verify")
    assert result.exit_code == 1
    assert "wrong: changed without a new date_modified" in result.stdout
    assert "silently" not in result.stdout
    assert stored.run("mirror", path, "--verify").exit_code == 0


def test_a_full_disk_for_the_changes_is_named_and_they_are_written_next_time(
    stored, tmp_path, monkeypatch
) -> None:
    def fill_the_disk(*_: object, **__: object) -> Never:
        raise OSError(errno.ENOSPC, "No space left on device")

    path, out = tmp_path / "store.db", tmp_path / "changes.csv"
    with monkeypatch.context() as patched:
        patched.setattr(CSVRows, "write", fill_the_disk)
        result = stored.run("mirror", path, "--changes", out)
    assert result.exit_code == 1
    assert "The mirror holds 600 values" in result.stdout
    assert f"Error: {out}: No space left on device\n" in result.stderr
    assert not out.exists()
    assert "600 changes written" in stored.run("mirror", path, "--changes", out).stdout


def test_a_mirror_keeps_its_scope(stored, tmp_path) -> None:
    path = tmp_path / "scores.db"
    assert "300 values" in stored.run("mirror", path, "--attribute-id", 1).stdout
    assert "300 values" in stored.run("mirror", path).stdout
    result = stored.run("mirror", path, "--attribute-id", 2)
    assert result.exit_code == 2
    assert "of another scope" in result.stderr


def test_a_file_that_is_the_mirror_too_is_refused(stored, tmp_path) -> None:
    path = tmp_path / "store.csv"
    for args in (
        ["mirror", path, "--changes", path],
        ["export", "--mirror", path, "--output", path],
        ["sync", "-", "--mirror", path, "--journal", path],
    ):
        result = stored.run(*args, input="customer_id,attribute_id,value\n")
        assert result.exit_code == 2
        assert "are the same file" in result.stderr
