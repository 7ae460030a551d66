"""Dialects of CSV, failures in the input's own form, and spreadsheet-safe exports."""

from __future__ import annotations

import csv
import io

import pytest

from bc_attrvals.tables.files import InputFile
from bc_attrvals.tables.layout import Layout
from bc_attrvals.tables.reading import read_ids, read_values

WIDE = ["--wide", "--customer-column", "ID", "--attribute", "x=1", "--attribute", "y=2"]
HEAD = ["customer_id", "attribute_id", "value"]


def values(text: str | bytes, layout: Layout | None = None) -> list[object]:
    content = text if isinstance(text, bytes) else text.encode()
    entries = read_values(InputFile("memory", io.BytesIO(content)), layout or Layout())
    return [
        str(one) if hasattr(one, "message") else (one.customer_id, one.attribute_id, one.value)
        for one in entries
    ]


CELLS = [
    "plain",
    "a,b",
    "a;b",
    "a\tb",
    "a|b",
    'say "hi"',
    "it's",
    "two\nlines",
    "a\r\nb",
    " x ",
    "",
]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", ":", "^", "~", " ", "\x1f", "§"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_delimiters_that_the_header_shows_or_that_are_named(delimiter, quoting, end) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, quoting=quoting, lineterminator=end)
    writer.writerow(["note", *HEAD])
    writer.writerows(["-", n, 1, cell] for n, cell in enumerate(CELLS, 1))
    named = Layout(delimiter=delimiter)
    layouts = [named, Layout()] if delimiter in ",;\t|" else [named]
    # Blanks after a delimiter are no part of a cell that is not quoted.
    bare = quoting == csv.QUOTE_MINIMAL and delimiter != " "
    cells = [cell.lstrip(" ") if bare else cell for cell in CELLS]
    for layout in layouts:
        assert values(text.getvalue(), layout) == [(n, 1, cell) for n, cell in enumerate(cells, 1)]


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


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("customer_id,attribute_id,value\n1,2,'tis\n", "'tis"),
        ("customer_id,attribute_id,value\n1,2,it's 'so'\n", "it's 'so'"),
        ('customer_id, attribute_id, value\n1, 2, "a, b"\n', "a, b"),
        ("customer_id,attribute_id,value\n1,2, a\n", "a"),
        ('customer_id,attribute_id,value\n1,2,  " a "\n', " a "),
        ("sep=;\ncustomer_id;attribute_id;value\n1;2;a,b\n", "a,b"),
        ('"sep=|"\r\ncustomer_id|attribute_id|value\r\n1|2|a\r\n', "a"),
        ("\n\ncustomer_id;attribute_id;value\n\n1;2;a\n\n", "a"),
        ("customer_id,attribute_id,value\r1,2,a\r", "a"),
        ('"customer_id","attribute_id","value"\n"1","2","a\n\n""b"""', 'a\n\n"b"'),
        ('"two\nlines";customer_id;attribute_id;value\n-;1;2;a\n', "a"),
    ],
)
def test_dialects(text, found) -> None:
    assert values(text)[-1] == (1, 2, found)
    assert values(b"\xef\xbb\xbf" + text.encode())[-1] == (1, 2, found)


def test_a_row_is_told_by_its_line_below_a_hint_and_blank_lines() -> None:
    text = "sep=;\n\ncustomer_id;attribute_id;value\n1;2;a\n1;2\n"
    assert values(text)[1] == "line 5: 2 fields, the header has 3"


def test_a_sample_that_ends_inside_of_a_cell() -> None:
    rows = "".join(f'{n};1;"{"a" * 200};\n{n}"\n' for n in range(1, 1500))
    found = values("customer_id;attribute_id;value\n" + rows)
    assert len(found) == 1499
    assert found[-1][2] == "a" * 200 + ";\n1499"


def test_one_column_may_serve_twice() -> None:
    layout = Layout(columns={"customer_id": "n", "attribute_id": "a", "value": "n"})
    assert values("n,a\n5,1\n", layout) == [(5, 1, "5")]
    wide = Layout(customer_column="n", attributes={"n": 3})
    assert values("n\n5\n", wide) == [(5, 3, "5")]


def test_ids_alone_or_in_a_column() -> None:
    for text in ("5\n\n 6 \r\n7", "id\n5\n6\n7\n", "name;id\na;5\nb;6\nc;7\n"):
        assert list(read_ids(InputFile("memory", io.BytesIO(text.encode())))) == [5, 6, 7]


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


@pytest.mark.parametrize("command", ["upsert", "sync", "delete"])
def test_a_file_that_is_cut_after_its_check_loses_nothing(
    served, tmp_path, monkeypatch, command
) -> None:
    """The rows that were checked are sent, whatever becomes of the file."""
    from bc_attrvals.cli import running

    path = tmp_path / "in.csv"
    rows = [(customer, 1, f"v{customer}") for customer in range(1, 3_001)]
    expected = {(customer, 1): value for customer, _, value in rows}
    if command == "delete":
        served.seed(*rows)
        ids = [row.id for row in served.do(served.sandbox.rows())]
        path.write_text("\n".join(map(str, ids)))
        args = ["delete", "--ids", path, "--yes"]
        expected = {}
    else:
        text = "".join(f"{customer},1,{value}\n" for customer, _, value in rows)
        path.write_text("customer_id,attribute_id,value\n" + text)
        args = [command, path]
    if command == "sync":
        served.seed(*rows)
        args += ["--prune", "--yes", "--attribute-id", "1"]

    def cut_and_run(*given: object) -> None:
        size = path.stat().st_size
        path.write_bytes(path.read_bytes()[: size // 4])
        running.run_job(*given)

    monkeypatch.setattr(f"bc_attrvals.cli.commands.{command}.run_job", cut_and_run)
    assert served.run(*args).exit_code == 0
    assert path.stat().st_size < 30_000
    assert served.values() == expected
