"""Which format a name says, and which columns of a file a layout takes."""

from __future__ import annotations

import pickle

import attrs
import pytest

from bc_attrvals.tables.files import FileError
from bc_attrvals.tables.layout import Layout, TableOptions, file_format


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a.csv", "csv"),
        ("a.TSV", "csv"),
        ("a.txt.gz", "csv"),
        ("a.ndjson", "jsonl"),
        ("a.jsonl.GZ", "jsonl"),
        ("a.pq", "parquet"),
        ("a.gz", "csv"),
        ("a", "csv"),
        ("-", "csv"),
        ("/dev/fd/3.x", "csv"),
    ],
)
def test_the_extension_says_the_format(name, found) -> None:
    assert file_format(name, None) == found
    assert file_format(name, "parquet") == "parquet"


@pytest.mark.parametrize("name", ["a.xlsx", "a.csv.bz2", "a.zip", "a.doc", "a.csv.zst", "a.json"])
def test_any_other_extension_is_refused(name) -> None:
    with pytest.raises(FileError, match=name):
        file_format(name, None)


def test_the_options_of_a_table_are_those_of_its_layout_in_a_format() -> None:
    given = {
        "columns": {"value": "V"},
        "customer_column": "ID",
        "email_column": "E",
        "attributes": {"x": 1},
        "attributes_by_header": True,
        "encoding": "latin-1",
        "delimiter": ";",
    }
    layout = TableOptions(**given).in_format("jsonl")
    assert attrs.asdict(layout) == {**given, "format": "jsonl"}
    assert attrs.asdict(pickle.loads(pickle.dumps(layout))) == attrs.asdict(layout)


def test_the_long_form_has_ids_or_names() -> None:
    assert Layout().by_id
    named = Layout().resolved(["email", "attribute", "value", "other"], "in.csv")
    assert (named.by_email, named.by_id, named.needed) == (
        True,
        False,
        ("email", "attribute", "value"),
    )
    renamed = Layout(columns={"email": "E", "value": "V"}).resolved(
        ["V", "attribute_id", "E"], "in.csv"
    )
    assert renamed.needed == ("E", "attribute_id", "V")
    assert renamed.in_long_form().needed == ("customer_id", "attribute_id", "value")


def test_the_wide_form_has_named_columns_or_all_others() -> None:
    assert Layout(customer_column="ID", attributes={"x": 1}).by_id
    assert not Layout(customer_column="ID", attributes={"x": "x"}).by_id
    by_header = Layout(email_column="E", attributes_by_header=True)
    assert not by_header.by_id
    assert by_header.resolved(["x", "E", "", "y"], "in.csv").needed == ("E", "x", "y")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["customer_id", "value"], "column missing: attribute_id; the file has"),
        (["customer_id", "value", "attribute_id", "value"], "column doubled: value"),
        (["Customer ID", "AttributeID", "value"], "'Customer ID' for customer_id, 'AttributeID'"),
        (["customerid", "customer-id", "attribute_id", "value"], "'customerid' for customer_id"),
    ],
)
def test_missing_and_doubled_columns(names, words) -> None:
    with pytest.raises(FileError, match=r"^in\.csv: column") as caught:
        Layout().resolved(names, "in.csv")
    assert words in str(caught.value)


def test_the_columns_that_may_be_meant_are_an_attribute_of_the_error() -> None:
    with pytest.raises(FileError) as caught:
        Layout().resolved(["Customer ID", "attribute_id", "Walue", "x"], "in.csv")
    assert caught.value.meant == {"customer_id": "Customer ID", "value": "Walue"}
    assert pickle.loads(pickle.dumps(caught.value)).meant == caught.value.meant


def test_a_column_that_would_be_an_attribute_is_suggested_for_the_customers() -> None:
    by_header = Layout(email_column="Email", attributes_by_header=True)
    with pytest.raises(ValueError, match="column missing: Email; did you mean 'E-Mail' for Email"):
        by_header.resolved(["E-Mail", "Shoe size"], "in.csv")


def test_blanks_around_the_names_of_columns_do_not_count() -> None:
    long = Layout(columns={"customer_id": " ID "}).resolved(
        ["ID", "attribute_id", "value"], "in.csv"
    )
    assert long.needed == ("ID", "attribute_id", "value")
    wide = Layout(customer_column="ID ", attributes={" x": 1}, attributes_by_header=True)
    assert wide.resolved(["ID", "x", "y"], "in.csv").attributes == {"x": 1, "y": "y"}
