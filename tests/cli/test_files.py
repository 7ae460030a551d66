"""Files of commands: failures in the input's own form, safe exports, inputs that change."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from bc_attrvals.tables.spool import Spool
from bc_attrvals.transport.session import Session

WIDE = ["--wide", "--customer-column", "ID", "--attribute", "x=1", "--attribute", "y=2"]


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


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet", ""])
def test_failures_of_the_wide_form_are_given_in_again_with_the_same_options(
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


ROWS = 300
SYNC = ["sync", "--prune", "--yes", "--max-delete", "100%"]
COMMANDS = {
    "upsert": ["upsert"],
    "sync": [*SYNC, "--attribute-id", "1"],
    "sync of customers": [*SYNC, *(f"--customer-id={one}" for one in range(1, 21))],
    "sync of all": [*SYNC, "--whole-store"],
    "delete": ["delete", "--yes", "--ids"],
}


def keys_of(command: str) -> list[tuple[int, int]]:
    """Return the keys of the file of a command."""
    if command == "sync of customers":
        return [(1 + n % 20, 1 + n // 20) for n in range(ROWS)]
    return [(n, 1) for n in range(1, ROWS + 1)]


def write_rows(path: Path, command: str, ids: list[int]) -> None:
    """Write the new values of all keys, or ids, in the form that the name of the file says."""
    form = path.name.partition(".")[2]
    columns = {"id": ids}
    if command != "delete":
        customers, attributes = zip(*keys_of(command), strict=True)
        columns = {
            "customer_id": customers,
            "attribute_id": attributes,
            "value": [f"v{n}" for n in range(ROWS)],
        }
    if form == "parquet":
        arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        # Several row groups, so that it is not read at once.
        parquet.write_table(arrow.table(columns), path, row_group_size=50)
        return
    rows = [dict(zip(columns, one, strict=True)) for one in zip(*columns.values(), strict=True)]
    if form.startswith("jsonl"):
        lines = [json.dumps(row) for row in rows]
    else:
        lines = [",".join(columns), *(",".join(map(str, row.values())) for row in rows)]
    content = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(content) if form.endswith("gz") else content)


@pytest.mark.parametrize("moment", ["checked", "sending"])
@pytest.mark.parametrize(
    ("command", "form"),
    [
        ("upsert", "csv.gz"),
        ("upsert", "jsonl"),
        ("sync", "csv"),
        ("sync", "parquet"),
        ("sync", "stdin"),
        ("sync of customers", "csv.gz"),
        ("sync of customers", "parquet"),
        ("sync of all", "jsonl.gz"),
        ("delete", "csv"),
        ("delete", "parquet"),
        ("delete", "stdin"),
    ],
)
def test_a_file_that_is_cut_after_its_check_loses_nothing(
    served, tmp_path, monkeypatch, command, form, moment
) -> None:
    """The rows that were checked are sent, whatever becomes of the file."""
    from bc_attrvals.cli import running

    path = tmp_path / ("in.csv" if form == "stdin" else f"in.{form}")
    served.seed(*((customer, attribute, "old") for customer, attribute in keys_of(command)))
    write_rows(path, command, [row.id for row in served.do(served.sandbox.rows())])
    whole = path.stat().st_size
    send = Session.send

    def cut_and_send(*given: Any) -> Any:
        os.truncate(path, whole // 4)
        return send(*given)

    def cut_and_run(*given: object) -> None:
        if moment == "checked":
            os.truncate(path, whole // 4)
        else:
            monkeypatch.setattr(Session, "send", cut_and_send)
        running.run_job(*given)

    name, *options = COMMANDS[command]
    monkeypatch.setattr(f"bc_attrvals.cli.commands.{name}.run_job", cut_and_run)
    if form == "stdin":
        result = served.run(name, *options, "-", input=path.read_bytes())
    else:
        result = served.run(name, *options, path)
    assert result.exit_code == 0
    assert path.stat().st_size == whole // 4
    new = {key: f"v{n}" for n, key in enumerate(keys_of(command))}
    assert served.values() == ({} if command == "delete" else new)


@pytest.mark.parametrize("change", ["cut", "appended", "written anew"])
@pytest.mark.parametrize(
    ("command", "form"),
    [
        ("upsert", "csv.gz"),
        ("upsert", "jsonl"),
        ("sync", "csv"),
        ("sync", "parquet"),
        ("sync of customers", "csv.gz"),
        ("delete", "csv"),
        ("delete", "parquet"),
    ],
)
def test_a_file_that_changes_while_it_is_checked_is_refused_and_nothing_is_sent(
    served, tmp_path, monkeypatch, command, form, change
) -> None:
    path = tmp_path / f"in.{form}"
    served.seed(*((customer, attribute, "old") for customer, attribute in keys_of(command)))
    before = served.values()
    write_rows(path, command, [row.id for row in served.do(served.sandbox.rows())])
    content = path.read_bytes()
    keep = Spool.keep

    def changing(self: Any, rows: Any) -> Any:
        for number, row in enumerate(keep(self, rows)):
            if number == 10:
                if change == "cut":
                    os.truncate(path, len(content) // 2)
                elif change == "appended":
                    with path.open("ab") as file:
                        file.write(content)
                else:
                    with path.open("r+b") as file:
                        file.write(content)
                    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
            yield row

    monkeypatch.setattr(Spool, "keep", changing)
    result = served.run(*COMMANDS[command], path)
    assert result.exit_code == 2
    assert path.name in result.stderr
    assert served.values() == before
    assert not list(served.sandbox.requests)


@pytest.mark.parametrize("command", ["upsert", "sync"])
@pytest.mark.parametrize(
    "content", ["customer_id,attribute_id,value\r\n", "email,attribute,value\n;;\n"]
)
def test_a_file_without_values_warns(served, command, content) -> None:
    result = served.run(command, "-", input=content.replace(";", ","))
    assert result.exit_code == 0
    assert "Warning: standard input: there are no values in it\n" in result.stderr
    assert served.sandbox.requests.seen == 0


@pytest.mark.parametrize("name", ["e.xlsx", "e.XLS", "e.ods", "e.csv.zip", "e.jsonl.bz2"])
def test_a_format_that_is_not_written_is_refused(served, tmp_path, name) -> None:
    result = served.run("export", "-o", tmp_path / name)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "neither read nor written" in result.stderr
    assert (list(tmp_path.iterdir()), served.sandbox.requests.seen) == ([], 0)


@pytest.mark.parametrize("suffix", [".csv.gz", ".jsonl.gz", ".parquet.gz"])
def test_gzip_goes_out_and_in(served, tmp_path, suffix) -> None:
    if "parquet" in suffix:
        pytest.importorskip("pyarrow")
    served.seed(*((n, 1, f" v{n}") for n in range(1, 3_001)))
    stored, path, failed = served.values(), tmp_path / f"out{suffix}", tmp_path / f"f{suffix}"
    assert served.run("export", "-o", path).exit_code == 0
    assert path.read_bytes()[:2] == b"\x1f\x8b"
    served.do(served.sandbox.reset())
    served.sandbox.reject_customers([5, 7])
    assert served.run("upsert", path, "--failures", failed).exit_code == 1
    served.sandbox.accept_customers()
    assert served.run("upsert", failed).exit_code == 0
    assert served.values() == stored
