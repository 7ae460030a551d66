"""Parquet in and out: streamed, typed, exact; and one line where its extra is missing."""

from __future__ import annotations

import io
import sys
from datetime import UTC, datetime

import pytest

pa = pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
parquet = pytest.importorskip("pyarrow.parquet")

WIDE = ["--wide", "--customer-column", "ID", "--attribute", "x=1", "--attribute", "zbar=4"]
ROWS = ((7, 1, "2"), (7, 4, "22.35"), (8, 4, 'say "hi", you\n'), (9, 1, ""), (2**31 - 1, 1, "お"))


def test_the_long_form_goes_out_and_in(served, tmp_path) -> None:
    served.seed(*ROWS)
    expected = served.values()
    path = tmp_path / "out.parquet"
    assert served.run("export", "--output", path).exit_code == 0
    assert path.stat().st_mode & 0o777 == 0o600
    table = parquet.read_table(path)
    assert table.schema.names == ["customer_id", "attribute_id", "value"]
    assert [str(type_) for type_ in table.schema.types] == ["int64", "int64", "string"]
    assert {(c, a): v for c, a, v in zip(*table.to_pydict().values(), strict=True)} == expected
    served.do(served.sandbox.reset())
    assert served.run("upsert", path).exit_code == 0
    assert served.values() == expected


def test_all_columns_have_their_types(served, tmp_path) -> None:
    served.seed(*ROWS)
    path = tmp_path / "out.parquet"
    assert served.run("export", "--all-columns", "--output", path).exit_code == 0
    table = parquet.read_table(path)
    stored = served.do(served.sandbox.rows())
    assert table["id"].type == pa.int64()
    assert sorted(table["id"].to_pylist()) == sorted(row.id for row in stored)
    assert table["date_created"].type == pa.timestamp("us", tz="UTC")
    created = table["date_created"].to_pylist()[0]
    assert abs((datetime.now(UTC) - created).total_seconds()) < 300


def test_the_wide_form_goes_out_and_in(served, tmp_path) -> None:
    served.seed(*ROWS)
    path = tmp_path / "out.pq"
    assert served.run("export", "--output", path, *WIDE).exit_code == 0
    table = parquet.read_table(path).to_pydict()
    assert table["ID"] == [7, 8, 9, 2**31 - 1]
    assert table["x"] == ["2", None, "", "お"]
    served.do(served.sandbox.reset())
    assert served.run("upsert", path, *WIDE).exit_code == 0
    assert served.values() == {(c, a): value for c, a, value in ROWS if value}


def test_ids_of_an_export_are_deleted(served, tmp_path) -> None:
    served.seed(*ROWS)
    path = tmp_path / "out.parquet"
    args = ["export", "--attribute-id", 4, "--all-columns", "--output", path]
    assert served.run(*args).exit_code == 0
    assert served.run("delete", "--ids", path, "--yes").exit_code == 0
    assert {attribute for _, attribute in served.values()} == {1}
    parquet.write_table(pa.table({"id": [1, None]}), path)
    result = served.run("delete", "--ids", path, "--yes")
    assert result.exit_code == 2
    assert "row 2, column id" in result.stderr


def test_standard_streams(served) -> None:
    served.seed(*ROWS)
    expected = served.values()
    exported = served.run("export", "--format", "parquet")
    assert exported.exit_code == 0
    served.do(served.sandbox.reset())
    again = served.run("upsert", "-", "--format", "parquet", input=exported.stdout_bytes)
    assert again.exit_code == 0
    assert served.values() == expected


def test_an_empty_table_goes_out_and_in(served, tmp_path) -> None:
    path = tmp_path / "out.parquet"
    assert served.run("export", "--output", path).exit_code == 0
    assert parquet.read_table(path).num_rows == 0
    assert served.run("upsert", path).exit_code == 0


def test_an_export_that_fails_leaves_the_old_file(served, tmp_path) -> None:
    path = tmp_path / "out.parquet"
    path.write_bytes(b"old")
    served.sandbox.faults.add("401")
    result = served.run("export", "--output", path)
    assert result.exit_code == 3
    assert (path.read_bytes(), [one.name for one in tmp_path.iterdir()]) == (b"old", [path.name])


def test_failures_are_given_in_again(served, tmp_path, summary) -> None:
    served.sandbox.reject_customers([3])
    path, failed = tmp_path / "in.parquet", tmp_path / "failed.parquet"
    table = {"no": [1, 2, 3, None], "attribute_id": [5] * 4, "value": ["a", None, "c", "d"]}
    parquet.write_table(pa.table(table), path)
    options = ["--column", "customer_id=no", "--failures", failed, "--skip-invalid", "--json"]
    result = served.run("upsert", path, *options)
    found = summary(result)
    assert (result.exit_code, found["stored"], found["failed"]) == (1, 1, 1)
    rows = parquet.read_table(failed).to_pylist()
    by_id = {row["no"]: row for row in rows}
    assert len(rows) == 3
    assert by_id[3]["value"] == "c"
    assert "does not exist" in by_id[3]["reason"]
    assert by_id[2]["value"] is None
    assert "row 2, column value" in by_id[2]["reason"]
    served.sandbox.accept_customers()
    again = served.run("upsert", failed, "--column", "customer_id=no", "--skip-invalid")
    assert again.exit_code == 1
    assert served.values() == {(1, 5): "a", (3, 5): "c"}


@pytest.mark.parametrize("command", ["upsert", "export", "failures"])
def test_without_the_extra_one_line_says_how_to_install_it(
    served, tmp_path, monkeypatch, command
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = tmp_path / "x.parquet"
    if command == "upsert":
        path.write_bytes(b"PAR1")
        result = served.run("upsert", path)
    elif command == "export":
        result = served.run("export", "--output", path)
    else:
        table = "customer_id,attribute_id,value\n1,2,a\n"
        result = served.run("upsert", "-", "--failures", path, input=table)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    assert "pip install 'bc_attrvals[parquet]'" in result.stderr
    assert served.sandbox.requests.seen == 0


def test_a_pipe_carries_it(served) -> None:
    served.seed(*ROWS)
    process = served.start("export", "--format", "parquet", variables={"PYTHONUNBUFFERED": "1"})
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 0
    assert stderr.startswith(b"Exported ")
    assert parquet.read_table(io.BytesIO(stdout)).num_rows == len(ROWS)


def test_a_reader_that_goes_away_ends_the_export_quietly(served) -> None:
    served.seed(*((customer, 1, "v" * 200) for customer in range(1, 2000)))
    process = served.start("export", "--format", "parquet")
    process.stdout.close()
    stderr = process.stderr.read()
    assert process.wait(30) == 141
    assert stderr == b""
    process.stdin.close()
    process.stderr.close()
