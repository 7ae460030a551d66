"""Parquet is read in batches, of columns of any integer and string type."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest

from bc_attrvals.tables.files import InputFile
from bc_attrvals.tables.layout import Layout
from bc_attrvals.tables.reader import read_values

pa = pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
parquet = pytest.importorskip("pyarrow.parquet")


@pytest.mark.parametrize("ids", [pa.int8(), pa.uint64(), pa.int64(), pa.string()])
@pytest.mark.parametrize(
    "values", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())]
)
def test_ids_of_any_integer_and_values_of_any_string(ids, values) -> None:
    table = pa.table(
        {
            "other": [[1.5], None],
            "value": pa.array(["a", ""]).cast(values),
            "attribute_id": pa.array([3, 3]).cast(ids),
            "customer_id": pa.array([1, 2]).cast(ids),
        }
    )
    file = io.BytesIO()
    parquet.write_table(table, file)
    source = InputFile("memory", file)
    for _ in range(2):
        found = [
            (one.customer_id, one.attribute_id, one.value)
            for one in read_values(source, Layout(format="parquet"))
        ]
        assert found == [(1, 3, "a"), (2, 3, "")]


def test_rows_are_counted_over_batches_and_names_may_hold_dots() -> None:
    count = 20_000
    table = pa.table(
        {
            "a": ["x"] * count,
            "a.b": range(1, count + 1),
            "c": [*["y"] * (count - 1), "z" * 256],
            "n": pa.nulls(count),
        }
    )
    file = io.BytesIO()
    parquet.write_table(table, file, row_group_size=7_000)
    layout = Layout(format="parquet", customer_column="a.b", attributes={"a": 1, "c": 2, "n": 3})
    entries = list(read_values(InputFile("memory", file), layout))
    assert len(entries) == 2 * count
    assert str(entries[-1]).startswith("row 20,000, column c: value has 256")
    assert [one.customer_id for one in entries[0:-1:2]] == list(range(1, count + 1))
    assert not file.closed


def test_pyarrow_is_loaded_for_parquet_alone() -> None:
    code = (
        "import sys, bc_attrvals.cli.app\n"
        "sys.exit(any(name.partition('.')[0] == 'pyarrow' for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
