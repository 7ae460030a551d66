"""`upsert` and `sync` of a CRM's file: addresses and attribute names, looked up together."""

from __future__ import annotations

import csv
import json

import pytest

PEOPLE = {number: f"person{number}@example.org" for number in range(1, 801)}
KINDS = {"Tier": "string", "Score": "number", "Born": "date"}
CRM = ["--wide", "--email-column", "E-Mail", "--attributes-by-header"]
HEAD = "E-Mail;Tier;Score;Born\n"


@pytest.fixture
def store(serve):
    with serve(customers=PEOPLE, attributes=KINDS) as served:
        yield served


def written(number: int) -> str:
    return f" Person{number}@Example.ORG " if number % 2 else PEOPLE[number]


def test_a_file_of_800_addresses_takes_few_look_ups(store, tmp_path, summary) -> None:
    path, failed = tmp_path / "crm.csv", tmp_path / "failed.csv"
    rows = [f"{written(n)};gold;{n};2020-01-0{n % 9 + 1}\n" for n in PEOPLE]
    wrong = "person7@example.org;silver;seven;\n"
    path.write_text(HEAD + "".join(rows) + "nobody@example.org;x;1;\n" + wrong)
    result = store.run("upsert", path, *CRM, "--failures", failed, "--json")
    found = summary(result)
    assert result.exit_code == 1
    assert (found["failed"], found["unresolved"]) == (3, 3)
    # The second value of a key is sent after the first, or in its place.
    assert found["stored"] + found["superseded"] == 2401
    values = store.values()
    assert len(values) == 2400
    assert (values[7, 1], values[7, 2], values[8, 2]) == ("silver", "7", "8")
    requests = list(store.sandbox.requests)
    assert sum(one.path.endswith("/customers") for one in requests) <= 60
    assert sum(one.method == "PUT" for one in requests) <= 242
    with failed.open(newline="") as file:
        lines = list(csv.DictReader(file, delimiter=";" if ";" in failed.read_text() else ","))
    assert sorted((row["E-Mail"], row["Tier"], row["Score"]) for row in lines) == [
        ("nobody@example.org", "", "1"),
        ("nobody@example.org", "x", ""),
        ("person7@example.org", "", "seven"),
    ]
    assert any("no customer has the address" in row[""] for row in lines)


def test_failures_are_sent_again_with_the_same_options(store, tmp_path, summary) -> None:
    path, failed = tmp_path / "crm.csv", tmp_path / "failed.csv"
    path.write_text(HEAD + "new@example.org;gold;1;\n")
    options = ["--wide", "--email-column", "E-Mail"]
    options += [one for name in KINDS for one in ("--attribute", f"{name}={name}")]
    assert store.run("upsert", path, *options, "--failures", failed).exit_code == 1
    store.do(store.sandbox.define(customers={900: "NEW@example.org"}))
    again = store.run("upsert", failed, *options, "--json")
    assert summary(again)["stored"] == 2
    assert store.values() == {(900, 1): "gold", (900, 2): "1"}


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_the_long_form_has_the_columns_email_and_attribute(store, tmp_path, suffix) -> None:
    path = tmp_path / f"in.{suffix}"
    rows = [
        {"email": PEOPLE[3], "attribute": "Tier", "value": "gold"},
        {"email": "nobody@example.org", "attribute": "Tier", "value": "gold"},
        {"email": PEOPLE[4], "attribute": "Teir", "value": "gold"},
    ]
    if suffix == "csv":
        path.write_text("\n".join([",".join(rows[0]), *(",".join(row.values()) for row in rows)]))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = store.run("upsert", path)
    assert result.exit_code == 1
    assert store.values() == {(3, 1): "gold"}
    assert "of them unknown or of a wrong type 2" in " ".join(result.stdout.split())


def test_unknown_addresses_prune_nothing_unless_that_is_said(store, tmp_path, summary) -> None:
    path, failed = tmp_path / "crm.csv", tmp_path / "failed.csv"
    store.seed((1, 1, "old"), (5, 1, "of a customer that the file may mean"))
    path.write_text("E-Mail;Tier\nperson1@example.org;gold\nperson5@example.rog;silver\n")
    args = ["sync", path, *CRM, "--prune", "--yes", "--failures", failed, "--json"]
    result = store.run(*args)
    found = summary(result)
    assert (result.exit_code, found["failed"], found["unresolved"]) == (1, 1, 1)
    assert "nothing was pruned" in found["error"]
    assert "--allow-unresolved" in found["error"]
    assert store.values() == {(1, 1): "gold", (5, 1): "of a customer that the file may mean"}
    assert "person5@example.rog" in failed.read_text()
    found = summary(store.run(*args, "--allow-unresolved"))
    assert (found["deleted"], found["exit_status"]) == (1, 1)
    assert store.values() == {(1, 1): "gold"}


def test_a_prune_without_any_known_value_writes_its_failures_and_a_dry_run_says_so(
    store, tmp_path, summary
) -> None:
    path, failed = tmp_path / "crm.csv", tmp_path / "failed.csv"
    store.seed((1, 1, "old"), (5, 1, "kept"))
    path.write_text("E-Mail;Tier\nperson5@example.rog;silver\n")
    args = ["sync", path, *CRM, "--prune", "--yes", "--json"]
    found = summary(store.run(*args, "--failures", failed))
    assert (found["exit_status"], found["failed"], found["deleted"]) == (1, 1, 0)
    assert "person5@example.rog" in failed.read_text()
    path.write_text("E-Mail;Tier\nperson1@example.org;gold\nperson5@example.rog;silver\n")
    failed.unlink()
    found = summary(store.run(*args, "--dry-run", "--failures", failed))
    assert len(failed.read_text().splitlines()) == 2
    assert "person5@example.rog" in failed.read_text()
    plan = found["plan"]
    assert (found["exit_status"], found["unresolved"]) == (1, 1)
    assert (plan["update"], plan["delete"], plan["unresolved"], plan["withheld"]) == (1, 0, 1, 1)
    assert len(store.values()) == 2


def test_what_was_exported_with_names_and_addresses_changes_nothing(
    store, tmp_path, summary
) -> None:
    store.seed((1, 1, "gold"), (2, 2, "7"), (2, 3, "2020-01-31"))
    path = tmp_path / "crm.csv"
    wide = ["--wide", "--email-column", "E-Mail"]
    exported = store.run("export", "--names", "--emails", *wide, "-o", path)
    assert exported.exit_code == 0, exported.stderr
    result = store.run("sync", path, *CRM, "--prune", "--yes", "--json")
    found = summary(result)
    assert (found["unchanged"], found["plan"]["reading"]) == (3, "list")
    assert not any(one.method in {"PUT", "DELETE"} for one in store.sandbox.requests)


def test_a_journal_takes_names_as_well(store, tmp_path, summary) -> None:
    path = tmp_path / "crm.csv"
    path.write_text(HEAD + "person1@example.org;gold;1;\nnobody@example.org;gold;;\n")
    for command in ("upsert", "sync"):
        args = [command, path, *CRM, "--journal", tmp_path / f"{command}.db", "--json"]
        found = summary(store.run(*args))
        assert (found["failed"], found["unresolved"], found["exit_status"]) == (1, 1, 1)
        assert store.values() == {(1, 1): "gold", (1, 2): "1"}
