"""Rows that are written are read again, in every format; long and wide."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bc_attrvals import AttributeValue, AttributeValueUpsert
from bc_attrvals.tables.csv_format import CSVRows
from bc_attrvals.tables.files import InputFile, OutputFile, open_input
from bc_attrvals.tables.json_lines import JSONRows
from bc_attrvals.tables.layout import FIELDS, IDS, MOMENTS, Layout, file_format
from bc_attrvals.tables.reader import read_values
from bc_attrvals.tables.writer import LongForm, WideTable, row_writer

NOW = datetime(2024, 5, 14, 9, 34, tzinfo=UTC)


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        st.builds(
            AttributeValueUpsert,
            st.integers(1, 2**31 - 1),
            st.integers(1, 2**31 - 1),
            st.text(
                st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=255
            ),
        )
    ),
    st.sampled_from(["csv", "jsonl"]),
)
def test_what_is_written_is_read_again(items, format) -> None:
    text = io.StringIO(newline="")
    fields = ("customer_id", "attribute_id", "value")
    writer = CSVRows(text, fields) if format == "csv" else JSONRows(text, fields)
    writer.write((item.customer_id, item.attribute_id, item.value) for item in items)
    source = InputFile("memory", io.BytesIO(text.getvalue().encode()))
    if items:
        assert list(read_values(source, Layout(format=format))) == items


ROWS = [(1, 2, " a "), (3, 4, ""), (2**31 - 1, 5, 'x,\n"y"')]


@pytest.mark.parametrize("compression", ["", ".gz"])
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_file_is_read_as_it_was_written(tmp_path, suffix, compression) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    path = str(tmp_path / f"out{suffix}{compression}")
    with OutputFile(path) as file:
        row_writer(file, file_format(path, None), FIELDS, ids=FIELDS[:2]).write(ROWS)
        file.commit()
    with open_input(path) as source:
        found = list(read_values(source, Layout(format=file_format(path, None))))
    assert found == [AttributeValueUpsert(*row) for row in ROWS]


def test_a_compressed_file_that_is_cut_at_a_flush_is_whole(tmp_path) -> None:
    path = tmp_path / "failed.jsonl.gz"
    with OutputFile(str(path)) as file:
        writer = row_writer(file, "jsonl", FIELDS, ids=FIELDS[:2])
        writer.write(ROWS[:2])
        file.flush()
        writer.write(ROWS[2:])
        assert file.commit_flushed() == str(path)
    with open_input(str(path)) as source:
        found = list(read_values(source, Layout(format="jsonl")))
    assert found == [AttributeValueUpsert(*row) for row in ROWS[:2]]


@pytest.mark.parametrize("name", ["none.csv.gz", "none.jsonl.gz"])
def test_a_compressed_file_without_rows_is_one(tmp_path, name) -> None:
    import gzip

    path = tmp_path / name
    with OutputFile(str(path)) as file:
        row_writer(file, file_format(name, None), FIELDS, ids=())
        file.commit()
    assert gzip.decompress(path.read_bytes()) == (
        b"" if "json" in name else b"customer_id,attribute_id,value\r\n"
    )


def test_the_long_form() -> None:
    values = [AttributeValue(9, 1, 2, "a", NOW, None)]
    assert list(LongForm().rows(values)) == [[1, 2, "a"]]
    form = LongForm(all_columns=True, names={2: "Tier"}, emails={})
    assert dict(zip(form.columns, next(form.rows(values)), strict=True)) == {
        "customer_id": 1,
        "email": None,
        "attribute_id": 2,
        "attribute": "Tier",
        "value": "a",
        "id": 9,
        "date_created": NOW,
        "date_modified": None,
    }
    text = io.StringIO()
    JSONRows(text, form.columns).write(form.rows(values))
    assert json.loads(text.getvalue())["date_created"] == "2024-05-14T09:34:00Z"
    assert set(MOMENTS) | set(IDS) < set(form.columns)


def test_the_wide_form_groups_by_customer() -> None:
    table = WideTable([7, 3])
    table.add([AttributeValue(1, 5, 3, "c"), AttributeValue(2, 4, 7, "")])
    table.add([AttributeValue(3, 5, 7, "b"), AttributeValue(4, 5, 99, "no column")])
    assert list(table.rows()) == [(4, "", None), (5, "b", "c")]
    table.close()
