"""Files that are also outputs are refused, whatever they are called."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click
import pytest

from bc_attrvals.cli.path_conflicts import check_paths

TABLE = "customer_id,attribute_id,value\n1,1,a\n"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.csv"
    path.write_text(TABLE)
    (tmp_path / "symbolic.csv").symlink_to(path)
    (tmp_path / "hard.csv").hardlink_to(path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "other").symlink_to(tmp_path)
    return path


SPELLINGS = ["in.csv", "./in.csv", "folder/../in.csv", "symbolic.csv", "hard.csv", "other/in.csv"]


@pytest.mark.parametrize("command", ["upsert", "sync"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_failures_never_replace_the_input(served, source, tmp_path, command, spelling) -> None:
    result = served.run(command, source, "--failures", f"{tmp_path}/{spelling}")
    assert result.exit_code == 2
    assert "FILE and --failures are the same file" in result.stderr
    assert source.read_text() == TABLE
    assert served.sandbox.requests.seen == 0


def test_a_relative_path_is_compared_too(served, source, monkeypatch) -> None:
    monkeypatch.chdir(source.parent)
    assert served.run("upsert", "in.csv", "--failures", source).exit_code == 2


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_journal_is_not_the_input(served, source, tmp_path, spelling) -> None:
    result = served.run("sync", source, "--journal", f"{tmp_path}/{spelling}")
    assert result.exit_code == 2
    assert "FILE and --journal are the same file" in result.stderr
    assert source.read_text() == TABLE


@pytest.mark.parametrize("name", ["s.db", "s.db-wal", "./s.db", "other/s.db-journal"])
def test_outputs_that_do_not_exist_yet_are_compared(served, source, tmp_path, name) -> None:
    options = ["--failures", f"{tmp_path}/{name}", "--journal", tmp_path / "s.db"]
    result = served.run("sync", source, *options)
    assert result.exit_code == 2
    assert "--failures and --journal are the same file" in result.stderr
    assert served.sandbox.requests.seen == 0


@pytest.mark.skipif(sys.platform == "win32", reason="files of POSIX")
def test_standard_input_is_a_file_too(serve, source) -> None:
    with serve() as served, source.open("rb") as opened:
        process = served.start("upsert", "-", "--failures", source, stdin=opened)
        _, stderr = process.communicate(timeout=30)
        assert process.returncode == 2, stderr
        assert b"FILE and --failures are the same file" in stderr
        assert source.read_text() == TABLE


def test_different_files_and_devices_are_no_clash(source, tmp_path) -> None:
    inputs = [("FILE", str(source)), ("--ids", None)]
    check_paths(inputs, [("--failures", str(tmp_path / "out.csv")), ("--diff", None)])
    check_paths([("FILE", os.devnull)], [("--failures", os.devnull + ".csv")])
    with pytest.raises(click.UsageError):
        check_paths([], [("--failures", "-"), ("--diff", "-")])


@pytest.mark.parametrize(
    ("words", "args"),
    [
        ("--journal", ["upsert", "in.csv", "--journal", "-"]),
        ("--mirror", ["sync", "in.csv", "--mirror", "-"]),
        ("--mirror", ["export", "--mirror", "-"]),
        ("FILE", ["mirror", "-"]),
    ],
)
def test_a_database_is_no_standard_stream(served, source, monkeypatch, words, args) -> None:
    monkeypatch.chdir(source.parent)
    result = served.run(*args)
    assert result.exit_code == 2
    assert f"{words} needs a file; - is a standard stream" in result.stderr
    assert not Path("-").exists()
