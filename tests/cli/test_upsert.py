"""Inputs of upsert: what is refused before anything is sent, and what is left over."""

from __future__ import annotations

import json

import pytest

from tests.cli.tables import HEAD


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "the file is empty"),
        (b"\xef\xbb\xbf", "the file is empty"),
        ("\n\n", "the file is empty"),
        (HEAD + "1,2,a\n" + "1,2,\xfc\n", None),
        (HEAD.encode() + b"1,2,a\n1,2,\xfc\n", "line 3: is not utf-8 (byte 0xfc)"),
        (HEAD.encode("utf-16"), "is not utf-8"),
        (b"MZ\x03\x04\0\0" * 500, "a NUL byte"),
        (HEAD + "1,2,a\0b\n", "line 2: a NUL byte"),
        ("customer_id,value\n1,2\n", "column missing: attribute_id"),
        ("customer_id,attribute_id,value,value\n1,2,a,b\n", "column doubled: value"),
        (HEAD + "1,2\n", "line 2: 2 fields, the header has 3"),
        (HEAD + "1,2,a\n1,2,a,b\n", "line 3: 4 fields"),
        (HEAD + "x,2,a\n", "line 2, column customer_id: not an integer: 'x'"),
        (HEAD + '1,2,"a\n\nb"\n1,2.1,a\n', "line 5, column attribute_id: not an integer: '2.1'"),
        (HEAD + "1,,a\n", "column attribute_id: empty"),
        (HEAD + "0,2,a\n", "column customer_id: customer_id must be from 1"),
        (HEAD + f"{2**31},2,a\n", "column customer_id"),
        (HEAD + "１,2,a\n", "column customer_id: not an integer"),
        (HEAD + f"1,2,{'a' * 256}\n", "line 2, column value: value has 256 characters"),
        (HEAD + '1,2,"a"b\n', "line 2: not CSV"),
        (HEAD + '1,2,"a\n', "line 2: not CSV"),
        (HEAD + f"1,2,{'a' * 1_000_001}\n", "line 2: longer than"),
    ],
)
def test_bad_csv_is_refused_before_anything_is_sent(served, tmp_path, content, told) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    result = served.run("upsert", path)
    if told is None:
        assert result.exit_code == 0
        return
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in result.stderr
    assert str(path) in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert served.sandbox.requests.seen == 0


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"customer_id": 1, "attribute_id": 2, "value": NaN}', "NaN is no number"),
        ('{"customer_id": 1, "attribute_id": 2, "value": null}', "column value: must be a string"),
        ('{"customer_id": [1], "attribute_id": 2, "value": "a"}', "must be an integer, not an arr"),
        ('{"customer_id": true, "attribute_id": 2, "value": "a"}', "must be an integer, not true"),
        ('{"customer_id": 1, "value": "a"}', "column attribute_id: missing"),
        ('{"customer_id": 1, "customer_id": 2}', "'customer_id' doubled"),
        ('{"customer_id": 1,', "not JSON"),
        ("[" * 100_000, "not usable JSON"),
        ("[1, 2]", "not a JSON object"),
        ('{"customer_id": 1, "attribute_id": 2, "value": "\\ud800"}', "lone surrogate"),
    ],
)
def test_bad_json_lines_are_refused(served, tmp_path, line, told) -> None:
    path = tmp_path / "in.jsonl"
    good = json.dumps({"customer_id": 1, "attribute_id": 2, "value": "a"})
    path.write_text(f"{good}\n\n{line}\n")
    result = served.run("upsert", path)
    assert result.exit_code == 2
    assert "line 3" in result.stderr
    assert told in result.stderr
    assert served.sandbox.requests.seen == 0


def test_only_the_first_bad_rows_are_told(served, tmp_path) -> None:
    path = tmp_path / "in.csv"
    path.write_text(HEAD + "x,2,a\n" * 1000)
    result = served.run("upsert", path)
    assert len(result.stderr.splitlines()) == 21
    assert "1,000 bad values, the first 20 are shown" in result.stderr


@pytest.mark.parametrize("name", ["none.csv", "directory.csv", "/dev/zero"])
def test_what_is_no_file_is_refused(served, tmp_path, name) -> None:
    (tmp_path / "directory.csv").mkdir()
    result = served.run("upsert", tmp_path / name)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiter_byte_order_mark_encoding_and_names(served, tmp_path, delimiter) -> None:
    rows = [["Größe", "CustomerNo", "attribute_id"], ["ä;,|", "5", " 6"]]
    text = "\r\n".join(delimiter.join(f'"{cell}"' for cell in row) for row in rows)
    names = ["--column", "customer_id=CustomerNo", "--column", "value=Größe"]
    path = tmp_path / "in.csv"
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "latin-1"):
        path.write_bytes(text.encode(encoding))
        given = [] if encoding.startswith("utf-8") else ["--encoding", encoding]
        assert served.run("upsert", path, *names, *given).exit_code == 0
        assert served.values() == {(5, 6): "ä;,|"}
        served.do(served.sandbox.reset())
    assert served.run("upsert", path, *names, "--encoding", "klingon").exit_code == 2
    assert served.run("upsert", path, *names, "--encoding", "hex").exit_code == 2


def test_values_go_out_as_they_stand_and_empty_ones_are_empty(served) -> None:
    result = served.run(
        "upsert", "-", input=HEAD + '1,1," 007.50 "\n1,2,\n1,3,"a\r\nb"\n1,4,=1+1\n'
    )
    assert result.exit_code == 0
    assert served.values() == {(1, 1): " 007.50 ", (1, 2): "", (1, 3): "a\r\nb", (1, 4): "=1+1"}


def test_an_empty_table_is_no_error(served, summary) -> None:
    result = served.run("upsert", "-", "--json", input=HEAD)
    assert summary(result)["stored"] == 0


def test_invalid_rows_can_be_skipped(served, tmp_path, parse) -> None:
    failed = tmp_path / "failed.csv"
    table = HEAD + "1,1,a\nx,1,b\n1,2\n2,1,c\n"
    result = served.run("upsert", "-", "--skip-invalid", "--failures", failed, input=table)
    assert result.exit_code == 1
    assert served.values() == {(1, 1): "a", (2, 1): "c"}
    assert "invalid and skipped 2" in " ".join(result.stdout.split())
    rows = parse(failed.read_text())[1:]
    assert rows[0][:3] == ["x", "1", "b"]
    assert "line 4" in rows[1][3]


def test_wide_rows_with_a_bad_id_are_told_once_even_without_values(served) -> None:
    wide = ["--wide", "--customer-column", "ID", "--attribute", "x=1", "--attribute", "y=2"]
    result = served.run("upsert", "-", *wide, input="ID,x,y\nfoo,1,2\nbar,,\n")
    assert result.exit_code == 2
    assert result.stderr.count("'foo'") == result.stderr.count("'bar'") == 1
