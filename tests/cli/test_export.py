"""`export`: values out of the store, into a file or a pipe."""

from __future__ import annotations

import json

import pytest

from tests.cli.tables import TABLE, WIDE, X_AND_ZBAR

VALUES = {(7, 1): "2", (7, 4): "22.35", (8, 4): 'say "hi", you', (9, 1): "two\nlines"}


def test_a_wide_table_comes_back_value_by_value(served, tmp_path, parse) -> None:
    (tmp_path / "in.csv").write_text(TABLE, newline="")
    stored = served.run("upsert", tmp_path / "in.csv", *X_AND_ZBAR)
    assert (stored.exit_code, served.values()) == (0, VALUES)
    assert "Stored 4 values" in stored.stdout
    wide = served.run("export", *X_AND_ZBAR)
    assert parse(wide.stdout) == [row[:3] for row in parse(TABLE)]
    long = served.run("export", "--output", tmp_path / "long.csv")
    assert long.exit_code == 0
    served.do(served.sandbox.reset())
    assert served.run("upsert", tmp_path / "long.csv").exit_code == 0
    assert served.values() == VALUES


def test_json_lines_come_back_value_by_value(served, tmp_path) -> None:
    served.seed(*((*key, value) for key, value in VALUES.items()), (1, 1, ""))
    expected = served.values()
    for options in ([], [*X_AND_ZBAR], ["--all-columns"]):
        name = tmp_path / "values.jsonl"
        assert served.run("export", "--output", name, *options).exit_code == 0
        lines = [json.loads(line) for line in name.read_text().splitlines()]
        assert len(lines) == (4 if options == X_AND_ZBAR else 5)
        served.do(served.sandbox.reset())
        form = [one for one in options if one != "--all-columns"]
        assert served.run("upsert", name, *form).exit_code == 0
        # The wide form leaves empty values alone.
        wanted = {key: value for key, value in expected.items() if value or options != X_AND_ZBAR}
        assert served.values() == wanted
        served.seed((1, 1, ""))


def test_exported_files_are_private_and_whole(served, tmp_path) -> None:
    served.seed((1, 2, "v"))
    target = tmp_path / "out.csv"
    assert served.run("export", "-o", target).exit_code == 0
    assert target.stat().st_mode & 0o777 == 0o600
    served.sandbox.faults.add("401")
    assert served.run("export", "-o", target).exit_code == 3
    assert target.read_bytes() == b"customer_id,attribute_id,value\r\n1,2,v\r\n"
    assert [one.name for one in tmp_path.iterdir()] == ["out.csv"]


@pytest.mark.parametrize(
    ("status", "command"),
    [
        (2, "export --mirror missing.db"),
        (3, "export"),
        (3, "mirror new.db --changes -"),
        (2, "sync bad.csv --dry-run --diff -"),
        (3, "sync good.csv --dry-run --diff -"),
        (2, "upsert bad.csv --failures -"),
    ],
)
def test_nothing_is_on_stdout_where_nothing_was_done(
    served, tmp_path, monkeypatch, status, command
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in (("good", "1"), ("bad", "one")):
        (tmp_path / f"{name}.csv").write_text(f"customer_id,attribute_id,value\n1,{value},v\n")
    served.sandbox.faults.add("401")
    result = served.run(*command.split())
    assert (result.exit_code, result.stdout) == (status, "")
    assert result.stderr.startswith("Error: ")


@pytest.mark.parametrize("kind", ["link", "directory", "device", "missing"])
def test_output_that_is_no_ordinary_file_is_refused(served, tmp_path, kind) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    (tmp_path / "link").symlink_to(victim)
    target = {
        "link": tmp_path / "link",
        "directory": tmp_path,
        "device": "/dev/null",
        "missing": tmp_path / "none" / "out.csv",
    }[kind]
    result = served.run("export", "--output", target)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    assert victim.read_text() == "untouched"
    assert served.sandbox.requests.seen == 0


SAFE = {
    "=1+1": "'=1+1",
    "+1+1": "'+1+1",
    "-1+1": "'-1+1",
    "@SUM(A1)": "'@SUM(A1)",
    "\t=1": "'\t=1",
    "\r=1": "'\r=1",
    " =1": "' =1",
    "＝1": "'＝1",
    "＋1a": "'＋1a",
    "－1a": "'－1a",
    "＠x": "'＠x",
    "-": "'-",
    "-12.5": "-12.5",
    "+3": "+3",
    "-1.5e-7": "-1.5e-7",
    "-1\n": "'-1\n",
    "a=1": "a=1",
    "'=1": "'=1",
    "12": "12",
    "": "",
}


def test_a_spreadsheet_runs_nothing_of_a_safe_export(served, parse) -> None:
    served.seed(*((n, 1, cell) for n, cell in enumerate(SAFE, 1)))
    safe = served.run("export", "--spreadsheet-safe")
    cells = {int(row[0]): row[2] for row in parse(safe.stdout_bytes.decode())[1:]}
    assert [cells[n] for n in sorted(cells)] == list(SAFE.values())
    plain = parse(served.run("export").stdout_bytes.decode())[1:]
    assert {row[2] for row in plain} == set(SAFE)
    wide = [*WIDE[:2], "=ID", "--attribute", "@x=1"]
    rows = parse(served.run("export", "--spreadsheet-safe", *wide).stdout_bytes.decode())
    assert rows[0] == ["'=ID", "'@x"]
    assert rows[1] == ["1", "'=1+1"]


@pytest.mark.parametrize("name", ["e.xlsx", "e.XLS", "e.ods", "e.csv.zip", "e.jsonl.bz2"])
def test_a_format_that_is_not_written_is_refused(served, tmp_path, name) -> None:
    result = served.run("export", "-o", tmp_path / name)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "neither read nor written" in result.stderr
    assert (list(tmp_path.iterdir()), served.sandbox.requests.seen) == ([], 0)
