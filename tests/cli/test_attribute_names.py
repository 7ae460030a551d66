"""Attributes given by name are looked up before any value is sent."""

from __future__ import annotations

import pytest

from bc_attrvals.cli.attribute_names import id_or_name, shown_attribute
from bc_attrvals.sandbox import Quirks
from tests.cli.tables import CRM, KINDS, PEOPLE


@pytest.mark.parametrize(
    ("text", "attribute"),
    [("7", 7), ("Tier", "Tier"), ("name:7", "7"), ("name:name:x", "name:x"), ("Café=1", "Café=1")],
)
def test_what_names_an_attribute_is_shown_as_it_is_read(text, attribute) -> None:
    assert id_or_name(text) == attribute
    assert shown_attribute(attribute) == text


@pytest.mark.parametrize("command", ["upsert", "sync"])
def test_a_header_that_names_no_attribute_is_refused(store, tmp_path, command) -> None:
    path, failed = tmp_path / "crm.csv", tmp_path / "failed.csv"
    path.write_text(f"E-Mail;Loyality tier;Scores;Score\n{PEOPLE[1]};gold;7;7\n")
    result = store.run(command, path, *CRM, "--failures", failed)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    assert str(path) in result.stderr
    assert (
        "no attribute has the name 'Loyality tier' (did you mean 'Loyalty tier'?)" in result.stderr
    )
    assert "no attribute has the name 'Scores' (did you mean 'Score'?)" in result.stderr
    assert store.values() == {}
    assert not failed.exists()
    assert [one.method for one in store.sandbox.requests] == ["GET"]


def test_an_export_of_an_unknown_attribute_is_refused(store) -> None:
    args = ["export", "--wide", "--customer-column", "ID", "--attribute", "x=Scor"]
    result = store.run(*args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "no attribute has the name 'Scor' (did you mean 'Score'?)" in result.stderr


def test_a_name_that_two_attributes_have_is_refused(serve) -> None:
    with serve(attributes=KINDS, quirks=Quirks(unique_attribute_names=False)) as served:
        assert served.run("attributes", "rename", "Score", "Loyalty tier").exit_code == 0
        args = ["export", "--wide", "--customer-column", "ID", "--attribute", "x=Loyalty tier"]
        result = served.run(*args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "two definitions have the name 'Loyalty tier' (ids 1, 2); use the id" in result.stderr
