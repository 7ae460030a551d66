"""Inputs that change while they are read are refused; outputs leave nothing behind."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import threading

import pytest

from bc_attrvals.tables import files
from bc_attrvals.tables.files import FileError, OutputFile, open_input
from bc_attrvals.tables.layout import Layout
from bc_attrvals.tables.reader import read_ids, read_values

ROWS = "".join(f"{n},1,v\n" for n in range(1, 20_001))


@pytest.mark.parametrize("change", ["cut", "appended", "rewritten"])
def test_a_file_that_changes_under_its_reader_is_no_input(tmp_path, change) -> None:
    path = tmp_path / "in.csv"
    path.write_text("customer_id,attribute_id,value\n" + ROWS)
    with open_input(str(path)) as source:
        entries = read_values(source, Layout())
        next(entries)
        if change == "cut":
            os.truncate(path, path.stat().st_size // 12 * 6)
        elif change == "appended":
            with path.open("a") as file:
                file.write("5,5,v\n")
        else:
            os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
        with pytest.raises(FileError, match=r"in\.csv: (was changed while it was read|line)"):
            list(entries)


def test_ids_alike(tmp_path) -> None:
    path = tmp_path / "ids.txt"
    path.write_text("\n".join(map(str, range(1, 20_001))))
    with open_input(str(path)) as source:
        entries = read_ids(source)
        next(entries)
        os.utime(path, ns=(0, 5))
        with pytest.raises(FileError, match="was changed"):
            list(entries)


@pytest.mark.parametrize("change", ["cut", "appended"])
def test_a_file_that_changes_while_standard_input_reads_it_is_no_input(
    tmp_path, monkeypatch, change
) -> None:
    path = tmp_path / "in.csv"
    path.write_text("customer_id,attribute_id,value\n" + ROWS)
    copy = shutil.copyfileobj

    def changing_copy(source, target) -> None:
        target.write(source.read(70_000))
        os.truncate(path, 80_000 if change == "cut" else 500_000)
        copy(source, target)

    with path.open("rb") as handle:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(handle))
        monkeypatch.setattr("shutil.copyfileobj", changing_copy)
        with (
            pytest.raises(FileError, match="standard input: was changed while it was read"),
            open_input("-"),
        ):
            raise AssertionError("opened")


def test_a_pipe_that_is_written_to_while_it_is_read_is_read_to_its_end(
    tmp_path, monkeypatch
) -> None:
    out, into = os.pipe()
    with os.fdopen(out, "rb") as handle:
        writer = threading.Thread(target=lambda: _write(into, "customer_id,attribute_id,value\n"))
        writer.start()
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(handle))
        with open_input("-") as source:
            assert sum(1 for _ in read_values(source, Layout())) == 20_000
        writer.join()


def _write(handle: int, header: str) -> None:
    with os.fdopen(handle, "w") as file:
        file.write(header + ROWS)


def test_a_file_put_in_its_place_does_no_harm(tmp_path) -> None:
    path, other = tmp_path / "in.csv", tmp_path / "other.csv"
    path.write_text("customer_id,attribute_id,value\n" + ROWS)
    other.write_text("customer_id,attribute_id,value\n")
    with open_input(str(path)) as source:
        entries = read_values(source, Layout())
        next(entries)
        other.replace(path)
        assert sum(1 for _ in entries) == 19_999


@pytest.mark.skipif(sys.platform == "win32", reason="locks of POSIX")
def test_what_a_killed_process_left_of_an_output_is_removed_by_the_next(tmp_path) -> None:
    path = tmp_path / "failed.csv"
    code = (
        "import os, sys, signal; from bc_attrvals.tables.files import OutputFile\n"
        "OutputFile(sys.argv[1]); os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", code, path], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    others = [tmp_path / name for name in (".other.csv.abcdefgh.tmp", ".failed.csv.abc.tmp", "x")]
    for one in others:
        one.touch()
    os.mkfifo(tmp_path / ".failed.csv.aaaaaaaa.tmp")
    with OutputFile(str(path)) as living:
        assert not left.exists()
        (own,) = set(tmp_path.glob(".failed.csv.????????.tmp"))
        with OutputFile(str(path)) as second:
            second.commit()
        assert own.exists()
        living.text.write("a")
        living.commit()
    assert path.read_text() == "a"
    assert set(tmp_path.iterdir()) == {path, *others}


def test_an_output_that_is_put_in_its_place_is_not_taken_for_left_over(
    tmp_path, monkeypatch
) -> None:
    path = tmp_path / "out.csv"
    check = files._check_target

    def another_begins(target) -> None:
        monkeypatch.setattr(files, "_check_target", check)
        check(target)
        OutputFile(str(path)).close()

    with OutputFile(str(path)) as file:
        file.text.write("a")
        monkeypatch.setattr(files, "_check_target", another_begins)
        file.commit()
    assert [one.read_text() for one in tmp_path.iterdir()] == ["a"]
