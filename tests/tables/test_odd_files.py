"""Files as people have them: each gives the values that its author meant, or one clear error."""

from __future__ import annotations

import gzip
import io
import json

import pytest

from bc_attrvals import AttributeValueUpsert, NamedValue
from bc_attrvals.tables.files import FileError, InputFile, open_input
from bc_attrvals.tables.layout import Layout
from bc_attrvals.tables.reader import read_cells, read_ids, read_values, resolved_layout
from bc_attrvals.tables.rows import Absent

HEAD = "customer_id,attribute_id,value\n"


def read(text: str | bytes, layout: Layout | None = None) -> list[object]:
    content = text if isinstance(text, bytes) else text.encode()
    entries = read_values(InputFile("memory", io.BytesIO(content)), layout or Layout())
    return [str(one) if hasattr(one, "message") else one for one in entries]


def upserts(*rows: tuple[int, int, str]) -> list[AttributeValueUpsert]:
    return [AttributeValueUpsert(*row) for row in rows]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        # A spreadsheet's empty rows, of the table's width and of any other.
        (HEAD.replace(",", ";") + "1;2;gold\r\n;;\r\n \r\n; ;\t\r\n;;;;\r\n", [(1, 2, "gold")]),
        # Blanks after each delimiter.
        (
            'customer_id, attribute_id, value\n1, 2, gold\n3, 2, " silver "\n4, 2,"  "\n',
            [(1, 2, "gold"), (3, 2, " silver "), (4, 2, "  ")],
        ),
        (" customer_id ;attribute_id ; value\n1 ; 2 ;gold \n", [(1, 2, "gold ")]),
        # An old editor's mark at the end, on a line of its own and behind the last row.
        (HEAD + "1,2,gold\r\n\x1a", [(1, 2, "gold")]),
        (HEAD + "1,2,gold\x1a", [(1, 2, "gold")]),
        (HEAD + '1,2,"\x1a"\n', [(1, 2, "\x1a")]),
        # Whole floats are ids; values stand as they are.
        (HEAD + "5.0,2.,5.0\n6.000,02,1e5\n", [(5, 2, "5.0"), (6, 2, "1e5")]),
        ("sep=|\n" + HEAD.replace(",", "|") + "1|2|a,b\n", [(1, 2, "a,b")]),
    ],
    ids=range(8),
)  # fmt: skip
def test_csv(text, rows) -> None:
    assert read(text) == upserts(*rows)


def test_a_mark_of_the_end_within_a_file_is_content() -> None:
    assert read(HEAD + "\x1a\n1,2,gold\n")[0] == "line 2: 1 field, the header has 3"
    assert read(HEAD + "1,2,\x1a\n") == upserts((1, 2, "\x1a"))


def test_json_lines_of_any_types() -> None:
    lines = [
        {"customer_id": "1", "attribute_id": 2.0, "value": "gold"},
        {" customer_id": 3.0, "attribute_id ": "2", "value": True},
        {"customer_id": 4, "attribute_id": "2.0", "value": 5},
        {"customer_id": "", "attribute_id": None, "value": " "},
    ]
    text = "\n".join(map(json.dumps, lines))
    # Numbers keep their digits, which a float would not.
    text += '\n{"customer_id": 5, "attribute_id": 2, "value": 0.10}'
    text += '\n{"customer_id": 6, "attribute_id": 2, "value": -1.5E+400}\x1a'
    assert read(text, Layout(format="jsonl")) == upserts(
        (1, 2, "gold"), (3, 2, "true"), (4, 2, "5"), (5, 2, "0.10"), (6, 2, "-1.5E+400")
    )


@pytest.mark.parametrize("cell", ["5.5", "1.0E+05", "1e400", "5.0.0", "0x5", "٣", "5,0", "1_000"])
def test_what_is_no_whole_number_is_no_id(cell) -> None:
    (found,) = read(HEAD + f'"{cell}",2,gold\n')
    assert found.startswith(f"line 2, column customer_id: not an integer: {cell!r}")
    assert ("scientific" in found) == ("e" in cell.lower())


@pytest.mark.parametrize(
    ("header", "layout", "words"),
    [
        ("Customer_ID,atribute_id,value", Layout(),
         "'atribute_id' for attribute_id?"),
        ("Customer_ID,attribute_id,value", Layout(), "did you mean 'Customer_ID' for customer_id"),
        ("customer_id,attribute_id,Valeu", Layout(), "'Valeu' for value?"),
        ("E-mail,attribute_id,value", Layout(columns={"email": "E-Mail"}), "'E-mail' for E-Mail"),
        ("ID,Tier", Layout(customer_column="Id", attributes={"Tier": 1}), "'ID' for Id?"),
        ("ID,Teir", Layout(customer_column="ID", attributes={"Tier": 1}), "'Teir' for Tier?"),
        ("E-Mail", Layout(email_column="E-Mail", attributes_by_header=True), "no columns"),
        ("x,y,z", Layout(), "attribute_id, value; the file has: 'x, y, z'"),
    ],
    ids=range(8),
)  # fmt: skip
def test_a_mistyped_column_gets_a_suggestion(header, layout, words) -> None:
    with pytest.raises(FileError) as caught:
        read(f"{header}\n1,2,gold\n", layout)
    assert words in str(caught.value)
    assert str(caught.value).startswith("memory: line 1: ")


CRM = (
    "\ufeffE-Mail;Loyalty tier;Score\r\n"
    "jane.doe+shop@example.com;gold;12,5\r\n"
    " JANE@EXAMPLE.ORG ;silver;7\r\n"
    ";bronze;1\r\n"
    ";;\r\n"
)


def test_a_crm_file_of_addresses_and_names() -> None:
    layout = Layout(email_column="E-Mail", attributes_by_header=True)
    first, second = "jane.doe+shop@example.com", "JANE@EXAMPLE.ORG"
    empty = "line 4, column E-Mail: the e-mail address is empty"
    assert read(CRM, layout) == [
        NamedValue(first, "Loyalty tier", "gold"),
        NamedValue(first, "Score", "12,5"),
        NamedValue(second, "Loyalty tier", "silver"),
        NamedValue(second, "Score", "7"),
        empty,
        empty,
    ]
    fitted = resolved_layout(InputFile("memory", io.BytesIO(CRM.encode())), layout)
    assert fitted.attributes == {"Loyalty tier": "Loyalty tier", "Score": "Score"}
    chosen = Layout(email_column="E-Mail", attributes={"Score": 4, "Loyalty tier": "Tier"})
    assert read(CRM, chosen)[:2] == [
        NamedValue(first, 4, "12,5"),
        NamedValue(first, "Tier", "gold"),
    ]


def test_by_header_columns_without_a_name_are_none_and_options_win() -> None:
    layout = Layout(customer_column="ID", attributes={"x": 7}, attributes_by_header=True)
    assert read(",ID,x,Tier,\n0,5,a,b,\n", layout) == [
        AttributeValueUpsert(5, 7, "a"),
        NamedValue(5, "Tier", "b"),
    ]


def test_the_long_form_of_addresses_and_names() -> None:
    named = [NamedValue("a@b.c", "Tier", "gold")]
    assert read("email,attribute,value\n a@b.c , Tier ,gold\n") == named
    assert read("E,attribute,value\na@b.c,Tier,gold\n", Layout(columns={"email": "E"})) == named
    assert read("email,attribute_id,value\na@b.c,3,x\n") == [NamedValue("a@b.c", 3, "x")]
    assert read("customer_id,attribute,value\n5,3,x\n") == [NamedValue(5, "3", "x")]
    row = '{"email": "a@b.c", "attribute": "Tier", "value": "gold"}'
    assert read(row, Layout(format="jsonl")) == named
    both = "customer_id,email,attribute_id,attribute,value\n5,a@b.c,3,Tier,x\n"
    assert read(both) == upserts((5, 3, "x"))
    by_name = Layout(columns={"email": "email", "attribute": "attribute"})
    assert read(both, by_name) == [NamedValue("a@b.c", "Tier", "x")]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("a,Tier,x", "line 2, column email: the e-mail address must have a name, @ and a domain"),
        ('"a,b@c",Tier,x', "column email: the e-mail address holds a comma"),
        (",Tier,x", "column email: the e-mail address is empty"),
        ("a@b.c,,x", "column attribute: the attribute's name is empty"),
        ("a@b.c,Tier," + "x" * 256, "column value: value has 256 characters"),
    ],
)
def test_a_bad_address_or_name_is_named(row, words) -> None:
    (found,) = read(f"email,attribute,value\n{row}\n")
    assert words in found


def test_empty_cells_of_addresses() -> None:
    layout = Layout(email_column="E-Mail", attributes={"Tier": "Tier"})
    source = InputFile("memory", io.BytesIO(b"E-Mail,Tier\na@b.c,\n,\n"))
    assert list(read_cells(source, layout)) == [Absent("a@b.c", "Tier")]


@pytest.mark.parametrize("name", ["in.csv.gz", "in.csv"])
def test_gzip_is_read_by_its_first_bytes(tmp_path, name) -> None:
    rows = "".join(f"{n},1,v{n}\n" for n in range(1, 5_001))
    path = tmp_path / name
    path.write_bytes(gzip.compress(HEAD.encode()) + gzip.compress(rows.encode()))
    with open_input(str(path)) as source:
        for _ in range(2):
            assert sum(1 for _ in read_values(source, Layout())) == 5_000
    path.write_bytes(gzip.compress(b"5\n6\n"))
    with open_input(str(path)) as source:
        assert list(read_ids(source)) == [5, 6]
