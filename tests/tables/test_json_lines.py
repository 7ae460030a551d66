"""JSON Lines: an object a line, with numbers as they are written."""

from __future__ import annotations

import io
import json

import pytest

from bc_attrvals import AttributeValueUpsert
from bc_attrvals.tables.files import FileError, InputFile
from bc_attrvals.tables.json_lines import JSONRows
from bc_attrvals.tables.layout import Layout
from bc_attrvals.tables.reader import read_values


def read(text: str, **layout: object) -> list[object]:
    source = InputFile("memory", io.BytesIO(text.encode()))
    found = read_values(source, Layout(format="jsonl", **layout))
    return [str(one) if hasattr(one, "message") else one for one in found]


GOOD = '{"customer_id": 1, "attribute_id": 2, "value": "a"}'


def test_blank_lines_are_none_and_lines_are_counted() -> None:
    assert read(f"\n{GOOD}\n \n[]\n") == [
        AttributeValueUpsert(1, 2, "a"),
        "line 4: not a JSON object",
    ]
    assert read("[]") == ["line 1: not a JSON object"]


def test_another_kind_of_file_is_refused_as_a_whole() -> None:
    with pytest.raises(FileError, match="line 1: not JSON Lines"):
        read("a,b\n" * 30)
    assert len(read("x\n" * 19 + GOOD)) == 20


@pytest.mark.parametrize("number", ["0.10", "1e-7", "-0", "123456789012345678901234567890.5"])
def test_a_number_keeps_its_digits(number) -> None:
    assert read(GOOD.replace('"a"', number)) == [AttributeValueUpsert(1, 2, number)]


def test_names_of_fields_may_have_blanks_and_not_come_twice() -> None:
    assert read(GOOD.replace("customer_id", " customer_id ")) == [AttributeValueUpsert(1, 2, "a")]
    (bad,) = read('{"value": "a", "value ": "b"}')
    assert "field 'value' doubled" in bad


def test_all_columns_can_not_be_found_without_a_header() -> None:
    with pytest.raises(FileError, match="no header; name the attributes"):
        read(GOOD, customer_column="customer_id", attributes_by_header=True)


def test_none_is_a_field_left_out() -> None:
    text = io.StringIO()
    JSONRows(text, ["a", "b"]).write([(1, None), (2, "ü")])
    assert [json.loads(line) for line in text.getvalue().splitlines()] == [
        {"a": 1},
        {"a": 2, "b": "ü"},
    ]
