"""CSV: delimiters, quotes, hints, and cells that are read as they were written."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bc_attrvals.tables.csv_format import CSVRows
from bc_attrvals.tables.files import FileError, InputFile
from bc_attrvals.tables.layout import Layout
from bc_attrvals.tables.reader import read_values

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


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("plain", "plain"),
        (" a", '" a"'),
        ("\ta", '"\ta"'),
        ("a ", "a "),
        ("a,b", '"a,b"'),
        ('"', '""""'),
        ("a\rb", '"a\rb"'),
        (";", ";"),
        ("", ""),
        (None, ""),
        (7, "7"),
        (1.5, "1.5"),
    ],
)
def test_only_cells_that_need_quotes_have_them(cell, written) -> None:
    text = io.StringIO(newline="")
    CSVRows(text, ["a", "b"]).write([[1, cell]])
    assert text.getvalue() == f"a,b\r\n1,{written}\r\n"


def test_the_header_comes_with_the_first_rows_or_at_the_end() -> None:
    text = io.StringIO(newline="")
    rows = CSVRows(text, ["a", "b"])
    assert text.getvalue() == ""
    rows.write([[1, 2]])
    rows.finish()
    assert text.getvalue() == "a,b\r\n1,2\r\n"
    empty = io.StringIO(newline="")
    CSVRows(empty, ["a", "b"]).finish()
    assert empty.getvalue() == "a,b\r\n"


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
    ),
    st.sampled_from(",;\t|^ "),
)
def test_it_reads_what_it_writes_and_so_does_any_other_reader(cells, delimiter) -> None:
    text = io.StringIO(newline="")
    rows = [(n, 1, cell) for n, cell in enumerate(cells, 1)]
    CSVRows(text, HEAD, delimiter=delimiter).write(rows)
    assert values(text.getvalue(), Layout(delimiter=delimiter)) == rows
    others = csv.reader(io.StringIO(text.getvalue(), newline=""), delimiter=delimiter)
    assert [row[2] for row in others][1:] == cells


def test_an_open_quote_in_the_header_reads_no_further_than_some_lines() -> None:
    text = 'customer_id,attribute_id,"value\n' + "1,2,a\n" * 10_000
    with pytest.raises(FileError, match=r"line 1: not CSV: .*never closed"):
        values(text)
