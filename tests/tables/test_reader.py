"""Ids of a file, and the layout that its columns give."""

from __future__ import annotations

import io

import pytest

from bc_attrvals.tables.files import FileError, InputFile
from bc_attrvals.tables.layout import Layout
from bc_attrvals.tables.reader import read_ids, read_values, resolved_layout


def test_ids_alone_or_in_a_column() -> None:
    for text in ("5\n\n 6 \r\n7", "id\n5\n6\n7\n", "name;id\na;5\nb;6\nc;7\n"):
        assert list(read_ids(InputFile("memory", io.BytesIO(text.encode())))) == [5, 6, 7]


def test_ids_are_whole_numbers_of_any_spelling() -> None:
    found = list(read_ids(InputFile("memory", io.BytesIO(b"id,name\n5.0,a\n 6 ,b\n,\n7.5,c\n"))))
    assert [str(one) for one in found] == ["5", "6", "line 5, column id: not an integer: '7.5'"]


def test_ids_of_parquet() -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    file = io.BytesIO()
    parquet.write_table(pa.table({"id": [5.0, 6.0, None]}), file)
    found = [str(one) for one in read_ids(InputFile("memory", file))]
    assert found == ["5", "6", "row 3, column id: must be an integer, not null"]


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("customer_id,attribute_id,value\n", ("customer_id", "attribute_id", "value")),
        ("value,attribute,email\n", ("email", "attribute", "value")),
        (
            "email,customer_id,attribute,attribute_id,value\n",
            ("customer_id", "attribute_id", "value"),
        ),
    ],
)
def test_the_header_shows_whether_ids_or_names_are_given(text, fields) -> None:
    source = InputFile("memory", io.BytesIO(text.encode()))
    assert resolved_layout(source, Layout()).fields == fields
    assert list(read_values(source, Layout())) == []


def test_a_bad_file_is_refused_by_all_of_them() -> None:
    for read in (lambda one: list(read_ids(one)), lambda one: resolved_layout(one, Layout())):
        with pytest.raises(FileError, match="memory: the file is empty"):
            read(InputFile("memory", io.BytesIO(b"\n")))
