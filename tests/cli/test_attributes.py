"""`attributes`: definitions are listed, made, renamed and deleted with what they take along."""

from __future__ import annotations

import json
import os
import pty
import sys

import pytest

TYPES = {"Loyalty tier": "string", "Shoe size": "number"}


@pytest.fixture
def store(serve):
    with serve(attributes=TYPES, customers={7: "ada@example.com"}) as served:
        yield served


def listed(served) -> dict[str, tuple[int, str]]:
    found = json.loads(served.run("attributes", "list", "--json").stdout)
    assert found["command"] == "attributes list"
    return {row["name"]: (row["id"], row["type"]) for row in found["attributes"]}


def test_definitions_are_listed(store) -> None:
    found = listed(store)
    assert {name: kind for name, (_, kind) in found.items()} == TYPES
    lines = store.run("attributes", "list").stdout.splitlines()
    assert [line.split(None, 2)[1:] for line in lines] == [
        ["string", "Loyalty tier"],
        ["number", "Shoe size"],
    ]
    assert "Shoe size" not in store.run("attributes", "list", "--type", "string").stdout
    assert "Loyalty" not in store.run("attributes", "list", "--name-like", "size").stdout


def test_what_is_missing_is_made_once(store) -> None:
    args = ["attributes", "ensure", "Loyalty tier=string", "a=b=date"]
    first = store.run(*args)
    assert first.exit_code == 0
    assert [line.split()[1] for line in first.stdout.splitlines()] == ["string", "date"]
    assert store.run(*args).stdout == first.stdout
    assert listed(store)["a=b"][1] == "date"
    assert store.sandbox.calls["create_attributes"] == 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["ensure", "Shoe size=string"], "'Shoe size' is a number, not a string"),
        (["ensure", "Shoe size"], "give NAME=TYPE"),
        (["ensure", "x=text"], "give NAME=TYPE"),
        (["ensure", "=string"], "give NAME=TYPE"),
        (["ensure", "x=string", "x=number"], "'x' is given twice"),
        (["ensure"], "NAME=TYPE"),
        (["rename", "shoe size", "Size"], "there is no attribute 'shoe size'"),
        (["rename", "Shoe size", "n" * 256], "name"),
        (["delete", "Shoe size"], "there is no terminal"),
        (["delete", "Shoe size", "9", "--yes"], "there is no attribute '9'"),
        (["lst"], "Did you mean 'list'?"),
    ],
)
def test_bad_input_exits_2_and_changes_nothing(store, args, message) -> None:
    result = store.run("attributes", *args)
    assert result.exit_code == 2, result.stderr
    assert message in result.stderr
    assert {name: kind for name, (_, kind) in listed(store).items()} == TYPES


def test_a_name_changes_and_the_values_stay(store) -> None:
    number = listed(store)["Shoe size"][0]
    store.seed((7, number, "42"))
    assert "Size" in store.run("attributes", "rename", number, "Size").stdout
    assert listed(store)["Size"] == (number, "number")
    assert store.run("attributes", "rename", "Size", "Shoe size").exit_code == 0
    assert store.values() == {(7, number): "42"}


def test_a_deletion_says_how_many_values_go_with_it(store, summary) -> None:
    ids = {name: number for name, (number, _) in listed(store).items()}
    store.seed((7, ids["Shoe size"], "42"), (7, ids["Loyalty tier"], "gold"))
    args = ["attributes", "delete", "Shoe size", ids["Shoe size"], "--yes"]
    result = store.run(*args)
    assert result.stdout == "Deleted 1 attribute ('Shoe size') and 1 value.\n"
    assert store.values() == {(7, ids["Loyalty tier"]): "gold"}
    found = summary(store.run("attributes", "delete", "Loyalty tier", "--yes", "--json"))
    assert found["attributes"][0]["name"] == "Loyalty tier"
    assert found["values"] == 1
    assert listed(store) == {}


@pytest.mark.skipif(sys.platform == "win32", reason="terminals of POSIX")
@pytest.mark.parametrize(("answer", "status", "left"), [("n", 2, 2), ("y", 0, 1)])
def test_a_deletion_asks_on_a_terminal(store, answer, status, left) -> None:
    number = listed(store)["Shoe size"][0]
    store.seed((7, number, "42"))
    ours, theirs = pty.openpty()
    process = store.start("attributes", "delete", "Shoe size", stdin=theirs)
    os.write(ours, f"{answer}\n".encode())
    _, stderr = process.communicate(timeout=30)
    os.close(ours)
    os.close(theirs)
    assert b"Delete 1 attribute ('Shoe size') and 1 value of customers? [y/N]" in stderr
    assert process.returncode == status
    assert len(listed(store)) == left
