"""`upsert`: what is refused before anything is sent, and what becomes of each value."""

from __future__ import annotations

import json

import pytest

from bc_attrvals.sandbox import Quirks
from tests.cli.tables import CHANGED, HEAD


@pytest.mark.parametrize(
    ("content", "message"),
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
def test_bad_csv_is_refused_before_anything_is_sent(served, tmp_path, content, message) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    result = served.run("upsert", path)
    if message is None:
        assert result.exit_code == 0
        return
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert str(path) in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert served.sandbox.requests.seen == 0


@pytest.mark.parametrize(
    ("line", "message"),
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
def test_bad_json_lines_are_refused(served, tmp_path, line, message) -> None:
    path = tmp_path / "in.jsonl"
    good = json.dumps({"customer_id": 1, "attribute_id": 2, "value": "a"})
    path.write_text(f"{good}\n\n{line}\n")
    result = served.run("upsert", path)
    assert result.exit_code == 2
    assert "line 3" in result.stderr
    assert message in result.stderr
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


def test_a_dry_run_of_an_upsert_sends_nothing(served, tmp_path, summary) -> None:
    table = HEAD + "".join(f"{n},1,v\n" for n in range(1, 26)) + "x,1,bad\n"
    failed = tmp_path / "failed.csv"
    args = ["upsert", "-", "--dry-run", "--skip-invalid", "--failures", failed]
    result = served.run(*args, input=table)
    assert result.exit_code == 1
    assert result.stdout.startswith("Would store 25 values in at most 3 calls.\n1 row in ")
    assert failed.read_text().splitlines()[1].startswith("x,1,bad,")
    found = summary(served.run("upsert", "-", "--dry-run", "--json", input=CHANGED))
    assert (found["dry_run"], found["values"], found["planned_calls"]) == (True, 3, 1)
    wide = ["--wide", "--customer-column", "ID", "--attribute", "x=1", "--empty", "delete"]
    result = served.run("upsert", "-", "--dry-run", *wide, input="ID,x\n1,\n2,a\n")
    assert "Would look up 1 empty cell first." in result.stdout
    assert served.sandbox.requests.seen == 0


def test_failed_values_can_be_given_in_again(served, tmp_path, summary, parse) -> None:
    served.sandbox.reject_customers([3, 5])
    failed = tmp_path / "failed.csv"
    table = HEAD + "".join(f'{customer},1,"v,{customer}"\n' for customer in range(1, 40))
    result = served.run("upsert", "-", "--failures", failed, "--json", input=table)
    assert result.exit_code == 1
    found = summary(result)
    assert (found["stored"], found["failed"]) == (37, 2)
    rows = parse(failed.read_text())
    assert rows[0] == ["customer_id", "attribute_id", "value", "reason"]
    assert sorted(row[:3] for row in rows[1:]) == [["3", "1", "v,3"], ["5", "1", "v,5"]]
    assert all("does not exist" in row[3] for row in rows[1:])
    served.sandbox.accept_customers()
    again = served.run("upsert", failed, "--failures", tmp_path / "left.csv")
    assert again.exit_code == 0
    assert len(served.values()) == 39
    assert len(parse((tmp_path / "left.csv").read_text())) == 1


def test_a_job_that_is_refused_leaves_everything_in_the_failures(served, tmp_path, summary) -> None:
    failed = tmp_path / "failed.jsonl"
    table = HEAD + "".join(f"{customer},1,v\n" for customer in range(1, 2001))
    served.sandbox.faults.script([None] * 4 + ["403"] * 10)
    result = served.run("upsert", "-", "--failures", failed, "--json", input=table)
    assert result.exit_code == 3
    found = summary(result)
    left = len(failed.read_text().splitlines())
    assert found["unknown"] == 0
    assert found["stored"] + left == 2000
    served.sandbox.faults.clear()
    assert served.run("upsert", failed).exit_code == 0
    assert len(served.values()) == 2000


def test_of_equal_keys_the_last_row_wins(served, summary) -> None:
    result = served.run("upsert", "-", "--json", input=HEAD + "1,1,a\n1,1,b\n1,1,c\n")
    assert served.values() == {(1, 1): "c"}
    found = summary(result)
    assert found["stored"] + found["superseded"] == 3


def five_each(path) -> dict[tuple[int, int], str]:
    rows = {
        (customer, attribute): f"{customer}/{attribute}"
        for customer in range(1, 401)
        for attribute in range(1, 6)
    }
    lines = [f"{customer},{attribute},{value}\n" for (customer, attribute), value in rows.items()]
    path.write_text(HEAD + "".join(lines))
    return rows


@pytest.mark.parametrize(("takes_customers", "most"), [(True, 45), (False, 212)])
@pytest.mark.parametrize("command", ["upsert", "sync"])
def test_by_customers_a_call_holds_all_rows_of_ten_where_the_service_takes_them(
    serve, tmp_path, command, takes_customers, most
) -> None:
    path = tmp_path / "in.csv"
    rows = five_each(path)
    quirks = Quirks(batch_by="customers" if takes_customers else "rows")
    with serve(quirks=quirks) as served:
        args = [command, path, "--batch-by", "customers", "--json"]
        planned = served.run(*args, "--dry-run")
        assert planned.exit_code == 0
        result = served.run(*args, *(["--journal", tmp_path / "j.db"] if command == "sync" else []))
        assert result.exit_code == 0
        assert served.values() == rows
        assert served.sandbox.calls["upsert"] <= most
        if command == "upsert":
            assert json.loads(planned.stdout)["planned_calls"] == 40
        else:
            plan = json.loads(result.stdout)["plan"]
            # Reading costs a call or none.
            assert 40 <= plan["calls"] <= 42
