"""Inputs with one thing wrong: each ends with status 2 and one clear line, and nothing is sent."""

from __future__ import annotations

import bz2
import codecs
import gzip
import json
import os
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bc_attrvals.tables.spool import Spool
from bc_attrvals.transport.session import Session
from tests.cli.conftest import Served
from tests.cli.tables import HEAD, WIDE


@pytest.fixture(scope="module")
def one_store() -> Iterator[Served]:
    with Served() as served:
        yield served


def refused(served: Served, path: object, message: str, *args: object, **options: Any) -> None:
    before = served.sandbox.requests.seen
    command = args or ("upsert", path)
    result = served.run(*command, **options)
    assert (result.exit_code, result.stdout) == (2, ""), result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) == 1, lines
    assert message in lines[0]
    assert str(path) in lines[0]
    assert len(lines[0]) < 600
    assert served.sandbox.requests.seen == before


CSV_FILES = {
    "empty": (b"", "the file is empty"),
    "only a byte order mark": (codecs.BOM_UTF8, "the file is empty"),
    "only blank lines": (b"\r\n\r\n", "the file is empty"),
    "latin-1": (HEAD + "1,2,\xfc\n", "line 2: is not utf-8 (byte 0xfc)"),
    "cut inside of a letter": (HEAD.encode() + b"1,2,\xc3", "line 2: is not utf-8"),
    "far into the file": (
        HEAD.encode() + b"1,2,a\n" * 50_000 + b"\xff\n",
        "line 50,002: is not utf-8",
    ),
    "utf-16": (HEAD.encode("utf-16"), "name the encoding utf-16"),
    "utf-16 without mark": (HEAD.encode("utf-16-le"), "a NUL byte"),
    "utf-32": (HEAD.encode("utf-32"), "not utf-8"),
    "gzip that is cut off": (gzip.compress((HEAD + "1,2,a\n").encode())[:-9], "damaged (gzip)"),
    "gzip of other bytes": (b"\x1f\x8b" + b"x" * 99, "damaged (gzip)"),
    "gzip in gzip": (gzip.compress(gzip.compress(HEAD.encode())), "is not utf-8"),
    "bzip2": (bz2.compress(HEAD.encode()), "bzip2"),
    "zip": (b"PK\x03\x04\x14\0\0\0", "ZIP archive or a workbook"),
    "old workbook": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" * 9, "workbook"),
    "pdf": (b"%PDF-1.7\n", "PDF"),
    "sqlite": (b"SQLite format 3\0" + bytes(99), "SQLite"),
    "a program": (b"\x7fELF\x02\x01\x01" + bytes(9), "NUL byte"),
    "an image": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "is not utf-8"),
    "a Parquet file": (b"PAR1....PAR1", "name the format parquet"),
    "no header": ("1,2,a\n3,4,b\n", "column missing: customer_id, attribute_id, value"),
    "a column missing": ("customer_id,value\n1,a\n", "column missing: attribute_id"),
    "columns in other letters": ("Customer_ID,attribute_id,value\n", "missing: customer_id"),
    "a column doubled": ("customer_id,value,attribute_id,value\n1,a,2,b\n", "doubled: value"),
    "a row too short": (HEAD + "1,2,a\n1,2\n", "line 3: 2 fields, the header has 3"),
    "a row too long": (HEAD + "1,2,a,b\n", "line 2: 4 fields, the header has 3"),
    "a row after lines in quotes": (HEAD + '1,2,"a\nb\n"\n1,2\n', "line 5: 2 fields"),
    "an id that is none": (HEAD + "x1,2,a\n", "line 2, column customer_id: not an integer: 'x1'"),
    "an id with a fraction": (
        HEAD + "1,2.5,a\n",
        "line 2, column attribute_id: not an integer: '2.5'",
    ),
    "an id in scientific notation": (
        HEAD + "1e5,2,a\n",
        "column customer_id: not an integer: '1e5'",
    ),
    "an id that is infinite": (HEAD + "1e400,2,a\n", "customer_id: not an integer: '1e400'"),
    "an id that is empty": (HEAD + ",2,a\n", "line 2, column customer_id: empty"),
    "an id below zero": (HEAD + "-1,2,a\n", "line 2, column customer_id: not an integer: '-1'"),
    "an id of zero": (HEAD + "0,2,a\n", "line 2, column customer_id"),
    "an id too large": (HEAD + "2147483648,2,a\n", "line 2, column customer_id"),
    "an id of a thousand digits": (HEAD + "9" * 1000 + ",2,a\n", "column customer_id"),
    "thousands separated": (HEAD + '"1,000",2,a\n', "not an integer: '1,000'"),
    "a value too long": (HEAD + f"1,2,{'a' * 256}\n", "column value: value has 256 characters"),
    "a cell of 200 kB": (HEAD + f"1,2,{'a' * 200_000}\n", "line 2: not CSV: a cell of more than"),
    "a line of 2 MB": (HEAD + f"1,2,{'a' * 2_000_000}\n", "line 2: longer than"),
    "one endless line": ("a" * 3_000_000, "line 1: longer than"),
    "a NUL byte": (HEAD + "1,2,a\0b\n", "line 2: a NUL byte"),
    "an open quote": (HEAD + '1,2,"a\n3,4,b\n', 'line 2: not CSV: the quote " is never closed'),
    "a quote not doubled": (HEAD + '1,2,"a"b"\n', "line 2: not CSV: text behind a closing quote"),
    "quotes escaped by a backslash": (HEAD + '1,2,"a\\"b"\n', "line 2: not CSV"),
}


@pytest.mark.parametrize("name", CSV_FILES)
def test_csv(one_store, tmp_path, name) -> None:
    content, message = CSV_FILES[name]
    path = tmp_path / "in.csv"
    encoding = "latin-1" if name == "latin-1" else "utf-8"
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    refused(one_store, path, message)


WIDE_FILES = {
    "no such column": ("ID,x\n1,a\n", "column missing: y"),
    "no ids": ("x,y\n1,a\n", "column missing: ID"),
    "a bad id of two values": ("ID,x,y\nfoo,a,b\n", "line 2, column ID: not an integer: 'foo'"),
    "a bad id of no value": ("ID,x,y\nfoo,,\n", "line 2, column ID: not an integer: 'foo'"),
    "a value too long": (f"ID,x,y\n1,a,{'b' * 300}\n", "line 2, column y: value has 300"),
}


@pytest.mark.parametrize("name", WIDE_FILES)
def test_wide_csv(one_store, tmp_path, name) -> None:
    content, message = WIDE_FILES[name]
    path = tmp_path / "in.csv"
    path.write_text(content)
    refused(one_store, path, message, "upsert", path, *WIDE)


def _row(**changes: object) -> str:
    return json.dumps({"customer_id": 1, "attribute_id": 2, "value": "a", **changes})


JSON_FILES = {
    "empty": ("", "the file is empty"),
    "blank": ("\n \n", "the file is empty"),
    "infinity as value": ('{"customer_id": 1, "attribute_id": 2, "value": Infinity}', "no number"),
    "an object as value": (_row(value={}), "line 1, column value: must be a string, not an object"),
    "null as value": (_row(value=None), "column value: must be a string, not null"),
    "an array as value": (_row(value=["a"]), "column value: must be a string, not an array"),
    "a word as id": (_row(customer_id="x"), "customer_id: not an integer: 'x'"),
    "a fraction as id": (_row(customer_id=1.5), "customer_id: not an integer: '1.5'"),
    "an id beyond doubles": ('{"customer_id": 1e400}', "customer_id: not an integer: '1e400'"),
    "true as id": (_row(customer_id=True), "customer_id: must be an integer, not true or false"),
    "an id of 5,000 digits": ('{"customer_id": ' + "9" * 5000 + "}", "customer_id: not an integer"),
    "a field missing": ('{"customer_id": 1, "value": "a"}', "column attribute_id: missing"),
    "a field doubled": ('{"customer_id": 1, "customer_id": 1}', "'customer_id' doubled"),
    "cut off": (_row() + "\n" + _row()[:-5], "line 2: not JSON"),
    "too deep": ("[" * 100_000, "line 1: not usable JSON"),
    "a lone surrogate": (_row(value="\ud800"), "column value: value holds a lone surrogate"),
    "an array in one line": (f"[{_row()}]", "line 1: not a JSON object"),
    "a document": (json.dumps([{"customer_id": 1}], indent=2), "line 1: not JSON Lines"),
    "a table": (HEAD + "1,2,a\n" * 100, "line 1: not JSON Lines"),
    "latin-1": (b'{"value": "\xfc"}', "line 1: is not utf-8"),
}


@pytest.mark.parametrize("name", JSON_FILES)
def test_json_lines(one_store, tmp_path, name) -> None:
    content, message = JSON_FILES[name]
    path = tmp_path / "in.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(one_store, path, message)


def test_a_cell_of_the_wide_form_in_json_lines(one_store, tmp_path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"ID": 1, "x": [2]}\n')
    refused(one_store, path, "line 1, column x: must be a string", "upsert", path, *WIDE)


IDS_FILES = {
    "empty": (b"", "the file is empty"),
    "a word": (b"1\n2x\n", "line 2, column id: not an integer: '2x'"),
    "zero": (b"1\n0\n", "line 2, column id"),
    "another column": (b"customer_id\n1\n", "column missing: id"),
    "utf-16": ("1\n2\n".encode("utf-16"), "name the encoding utf-16"),
    "gzip that is cut off": (gzip.compress(b"1\n2\n" * 999)[:-9], "damaged (gzip)"),
    "ragged": (b"id,name\n1\n", "line 2: 1 field, the header has 2"),
}


@pytest.mark.parametrize("name", IDS_FILES)
def test_ids(one_store, tmp_path, name) -> None:
    content, message = IDS_FILES[name]
    path = tmp_path / "ids.csv"
    path.write_bytes(content)
    refused(one_store, path, message, "delete", "--ids", path, "--yes")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_directory_and_nothing_at_all(one_store, tmp_path, suffix) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / f"in{suffix}"
    refused(one_store, path, "No such file")
    path.mkdir()
    refused(one_store, path, "Is a directory")


def test_what_is_no_file_of_rows(one_store, tmp_path) -> None:
    refused(one_store, "/dev/zero", "Error: /dev/zero: is a device")
    for name, message in (
        ("in.xlsx", "save it as CSV"),
        ("in.csv.bz2", "use gzip"),
        ("in.doc", "unknown extension '.doc'"),
    ):
        path = tmp_path / name
        path.write_bytes(b"x")
        refused(one_store, path, message)
        refused(one_store, path, message, "upsert", "-", "--failures", path)


def test_an_unknown_encoding(one_store, tmp_path) -> None:
    path = tmp_path / "in.csv"
    path.write_text(HEAD)
    # The last two can't be read or written as a table; a name may hold any byte.
    for name in ("klingon", "\udcff", "undefined", "idna"):
        refused(one_store, path, "unknown text encoding", "upsert", path, "--encoding", name)


def test_an_empty_name(one_store, tmp_path) -> None:
    refused(one_store, "", "the name of a file is empty", "upsert", "")
    refused(one_store, "", "the name of a file is empty", "export", "--output", "")


def test_standard_input_without_anything(one_store) -> None:
    refused(one_store, "standard input", "the file is empty", "upsert", "-", input=b"")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX")
def test_a_pipe_that_nobody_writes_to(one_store, tmp_path) -> None:
    path = tmp_path / "pipe.csv"
    os.mkfifo(path)
    writer = threading.Thread(target=lambda: Path(path).write_bytes(b""))
    writer.start()
    refused(one_store, path, "the file is empty")
    writer.join(10)


def test_two_bad_rows_are_a_line_each_and_a_closing_one(one_store, tmp_path) -> None:
    path = tmp_path / "in.csv"
    path.write_text(HEAD + "x,1,a\n1,1,a\n1,y,a\n")
    result = one_store.run("upsert", path)
    assert result.exit_code == 2
    first, second, last = result.stderr.splitlines()
    assert "line 2, column customer_id" in first
    assert "line 4, column attribute_id" in second
    assert last.endswith("2 bad values; nothing was sent")


def arrow_table(**columns: object) -> Any:
    pa = pytest.importorskip("pyarrow")
    good = {"customer_id": [1, 2], "attribute_id": [3, 4], "value": ["a", "b"]}
    return pa.table({**good, **columns})


PARQUET_TYPES = {
    "ids as fractions": ("customer_id", [1.0, 2.5], None, "row 2, column customer_id: not an int"),
    "ids as large floats": ("customer_id", [1.0, 1e300], None, "customer_id: too large for an id"),
    "ids as fractions of decimals": ("customer_id", [1, Decimal("2.50")], None, "2.50"),
    "ids that are infinite": ("customer_id", [1.0, float("inf")], None, "not an integer: inf"),
    "ids that are not numbers": (
        "customer_id",
        [1.0, float("nan")],
        None,
        "must be an integer, not",
    ),
    "ids that are dates": ("customer_id", [1, 2], "timestamp", "of type timestamp[us]; ids are"),
    "ids as booleans": ("attribute_id", [True, False], None, "of type bool; ids are integers"),
    "ids as words": ("customer_id", ["1", "x"], None, "row 2, column customer_id: not an integer"),
    "ids of zero": ("customer_id", [1, 0], None, "row 2, column customer_id"),
    "ids too large": ("customer_id", [1, 2**40], None, "row 2, column customer_id"),
    "ids that are null": ("attribute_id", [None, 1], None, "row 1, column attribute_id: must be"),
    "values that are not finite": (
        "value",
        [1.5, float("nan")],
        None,
        "row 2, column value: value",
    ),
    "a date beyond the years": ("value", [1, 2**62], "timestamp", "outside of the years 1 to 9999"),
    "values as times": ("value", [1, 2], "time64", "of type time64[us]; values are strings"),
    "values as bytes": ("value", [b"a", b"b"], None, "of type binary; values are strings"),
    "values as lists": ("value", [["a"], ["b"]], None, "values are strings"),
    "a value null": ("value", ["a", None], None, "row 2, column value: must be a string, not null"),
    "a value too long": ("value", ["a" * 300, "b"], None, "row 1, column value: value has 300"),
    "a value of 5 MB": ("value", ["a", "b" * 5_000_000], None, "row 2, column value"),
}


@pytest.mark.parametrize("name", PARQUET_TYPES)
def test_parquet_types(one_store, tmp_path, name) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    column, cells, type_, message = PARQUET_TYPES[name]
    kind = {"time64": pa.time64("us"), "timestamp": pa.timestamp("us")}.get(type_)
    path = tmp_path / "in.parquet"
    parquet.write_table(arrow_table(**{column: pa.array(cells, type=kind)}), path)
    refused(one_store, path, message)


PARQUET_BYTES = {
    "empty": (lambda whole: b"", "the file is empty"),
    "text": (lambda whole: HEAD.encode(), "is no Parquet file"),
    "cut off": (lambda whole: whole[:-20], "cut off"),
    "only the first bytes": (lambda whole: b"PAR1", "cut off"),
    "a footer without sense": (lambda whole: whole[:-400] + b"\xff" * 392 + whole[-8:], "damaged"),
    "a footer of no length": (lambda whole: whole[:-8] + bytes(4) + b"PAR1", "damaged"),
    "a footer longer than the file": (
        lambda whole: whole[:-8] + b"\xff\xff\xff\x7fPAR1",
        "damaged",
    ),
    "data without sense": (lambda whole: whole[:4] + bytes(100) + whole[104:], "damaged"),
}


@pytest.mark.parametrize("name", PARQUET_BYTES)
def test_parquet_bytes(one_store, tmp_path, name) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    damage, message = PARQUET_BYTES[name]
    path = tmp_path / "in.parquet"
    parquet.write_table(arrow_table(value=[f"{n}" * 40 for n in range(2)]), path)
    path.write_bytes(damage(path.read_bytes()))
    refused(one_store, path, message)


def test_parquet_columns(one_store, tmp_path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "in.parquet"
    parquet.write_table(arrow_table().drop_columns(["value"]), path)
    refused(one_store, path, "column missing: value")
    table = arrow_table()
    parquet.write_table(table.append_column("value", pa.array(["c", "d"])), path)
    refused(one_store, path, "column doubled: value")


def test_strings_of_parquet_that_are_not_utf_8(one_store, tmp_path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "in.parquet"
    broken = pa.array([b"good", b"b\xffd"]).view(pa.string())
    parquet.write_table(arrow_table(value=broken), path)
    refused(one_store, path, "row 2, column value: must be a string, not bytes that are not UTF-8")


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
    from bc_attrvals.cli import job_runner

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
        job_runner.run_job(*given)

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
