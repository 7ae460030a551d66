"""Files of addresses and names: what the options mean, and exports that hold both."""

from __future__ import annotations

import csv
import io
import json

import pytest

from tests.cli.tables import CRM, KINDS, PEOPLE


def rows_of(result) -> list[dict[str, str]]:
    assert result.exit_code == 0, result.stderr
    return list(csv.DictReader(io.StringIO(result.stdout_bytes.decode())))


def test_the_long_form_with_names_and_addresses(store) -> None:
    store.seed((1, 1, "gold"), (2, 2, "7"), (99, 1, "of nobody"))
    assert rows_of(store.run("export", "--names", "--emails")) == [
        {"customer_id": c, "email": e, "attribute_id": a, "attribute": n, "value": v}
        for c, e, a, n, v in [
            ("1", PEOPLE[1], "1", "Loyalty tier", "gold"),
            ("2", PEOPLE[2], "2", "Score", "7"),
            ("99", "", "1", "Loyalty tier", "of nobody"),
        ]
    ]
    lines = store.run("export", "--names", "--format", "jsonl").stdout.splitlines()
    first = {"customer_id": 1, "attribute_id": 1, "attribute": "Loyalty tier", "value": "gold"}
    assert json.loads(lines[0]) == first
    dates = store.run("export", "--emails", "--all-columns")
    assert list(rows_of(dates)[0]) == [
        *("customer_id", "email", "attribute_id", "value", "id"),
        *("date_created", "date_modified"),
    ]


def test_the_wide_form_with_names_and_addresses(store) -> None:
    store.seed((1, 1, "gold"), (1, 2, "7.5"), (2, 3, "x,y"))
    named = store.run("export", "--wide", "--names", "--emails", "--email-column", "E-Mail")
    assert rows_of(named) == [
        {"E-Mail": PEOPLE[1], "Loyalty tier": "gold", "Score": "7.5", "Café=1": ""},
        {"E-Mail": PEOPLE[2], "Loyalty tier": "", "Score": "", "Café=1": "x,y"},
    ]
    both = ["--customer-column", "ID", "--emails", "--attribute", "s=Score", "--attribute", "t=1"]
    assert rows_of(store.run("export", "--wide", *both)) == [
        {"ID": "1", "email": PEOPLE[1], "s": "7.5", "t": "gold"},
    ]
    ids = store.run("export", "--wide", "--customer-column", "ID", "--names", "--attribute-id", "3")
    assert rows_of(ids) == [{"ID": "2", "Loyalty tier": "", "Score": "", "Café=1": "x,y"}]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_customer_without_an_address_comes_back_by_id(store, tmp_path, summary, suffix) -> None:
    """What is exported by address and pruned with again is still there."""
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    store.seed((1, 1, "gold"), (99, 1, "of nobody"), (99, 2, "8"))
    before, path = store.values(), tmp_path / f"crm{suffix}"
    args = ["export", "--wide", "--names", "--emails", "-o", path]
    result = store.run(*args)
    assert result.exit_code == 0
    assert "customers without an address 1" in " ".join(result.stderr.split())
    if suffix == ".csv":
        assert path.read_text().splitlines() == [
            "email,Loyalty tier,Score,Café=1",
            f"{PEOPLE[1]},gold,,",
            "id:99,of nobody,8,",
        ]
    found = json.loads(store.run(*args, "--json").stderr.splitlines()[0])
    assert (found["values"], found["rows"], found["without_address"]) == (3, 2, 1)
    columns = [word for name in list(KINDS)[:2] for word in ("--attribute", f"{name}={name}")]
    again = ["--wide", "--email-column", "email", *columns, "--prune", "--whole-store", "--yes"]
    synced = summary(store.run("sync", path, *again, "--json"))
    assert (synced["unchanged"], synced["created"], synced["updated"]) == (3, 0, 0)
    assert (synced["deleted"], store.values()) == (0, before)


def test_a_refused_value_of_such_a_customer_is_given_in_again(store, tmp_path) -> None:
    failed = tmp_path / "failed.csv"
    store.sandbox.reject_customers([3])
    wide = ["--wide", "--email-column", "email", "--attribute", "Score=Score"]
    args = ["upsert", "-", *wide, "--failures", failed]
    assert store.run(*args, input="email,Score\nid:3,8\nid:x,9\n").exit_code == 2
    assert store.run(*args, input="email,Score\nid:3,8\n").exit_code == 1
    assert failed.read_text().splitlines()[1].startswith("id:3,8,")
    store.sandbox.accept_customers()
    assert store.run("upsert", failed, *wide).exit_code == 0
    assert store.values() == {(3, 2): "8"}


def test_a_name_of_digits_is_told_from_an_id(serve, tmp_path) -> None:
    path = tmp_path / "crm.csv"
    path.write_text("email,a,b\njane@example.org,x,y\n")
    with serve(customers=PEOPLE, attributes={"Tier": "string", "2024": "string"}) as store:
        wide = ["--wide", "--email-column", "email", "--attribute", "a=name:2024"]
        assert store.run("upsert", path, *wide, "--attribute", "b=1").exit_code == 0
        assert store.values() == {(2, 2): "x", (2, 1): "y"}
        listings = [one.path.endswith("/customers/attributes") for one in store.sandbox.requests]
        assert sum(listings) == 1
        missing = store.run("upsert", path, *wide, "--attribute", "b=name:1")
        assert missing.exit_code == 2
        assert "no attribute has the name '1'" in missing.stderr
        assert store.run("attributes", "rename", "name:2024", "2025").exit_code == 0
        assert store.run("attributes", "delete", "name:2025", "--yes").exit_code == 0
        assert store.values() == {(2, 1): "y"}


def test_parquet_with_names_and_addresses(store, tmp_path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    store.seed((1, 1, "gold"))
    path = tmp_path / "out.parquet"
    assert store.run("export", "--names", "--emails", "-o", path).exit_code == 0
    assert [str(type_) for type_ in parquet.read_table(path).schema.types] == [
        *("int64", "string", "int64", "string", "string")
    ]


def test_addresses_are_looked_up_once_and_in_chunks(serve) -> None:
    people = {number: f"person{number}@example.org" for number in range(1, 801)}
    with serve(customers=people, attributes=KINDS) as store:
        store.seed(*((number, 1 + number % 3, "v") for number in people))
        rows = rows_of(store.run("export", "--wide", "--names", "--emails"))
        assert [row["email"] for row in rows] == list(people.values())
        assert sum(one.path.endswith("/customers") for one in store.sandbox.requests) <= 10


CRM_TEXT = (
    "\ufeffE-Mail;Loyalty tier;Score;\r\n"
    "jane.doe+SHOP@example.com;gold;12,5;\r\n"
    " JANE@EXAMPLE.ORG ;silver;7;note\r\n"
    ";bronze;1;\r\n"
    "nobody@example.com;gold;;\r\n"
)


def test_a_crm_file_is_stored_and_its_failures_are_given_in_again(store, tmp_path, summary) -> None:
    path, failed = tmp_path / "crm.csv", tmp_path / "failed.csv"
    path.write_bytes(CRM_TEXT.encode())
    refused = store.run("upsert", path, *CRM)
    assert refused.exit_code == 2
    assert f"{path}: line 4, column E-Mail: the e-mail address is empty" in refused.stderr
    assert store.values() == {}
    result = store.run("upsert", path, *CRM, "--skip-invalid", "--failures", failed, "--json")
    found = summary(result)
    assert (found["stored"], found["failed"], found["skipped"]) == (3, 2, 2)
    assert store.values() == {(1, 1): "gold", (2, 1): "silver", (2, 2): "7"}
    rows = list(csv.reader(io.StringIO(failed.read_text())))
    assert rows[0] == ["E-Mail", "Loyalty tier", "Score", ""]
    by_key = {(row[0], row[1] or row[2]): row[3] for row in rows[1:]}
    assert "no customer has the address" in by_key["nobody@example.com", "gold"]
    assert "can't hold '12,5'" in by_key["jane.doe+SHOP@example.com", "12,5"]
    assert "address is empty" in by_key["", "bronze"]
    fixed = failed.read_text().replace('"12,5"', "12.5").replace("nobody@example.com", PEOPLE[3])
    kept = [line for line in fixed.splitlines(keepends=True) if not line.startswith(",")]
    failed.write_text("".join(kept))
    assert summary(store.run("upsert", failed, *CRM, "--json"))["stored"] == 2
    assert store.values()[1, 2] == "12.5"
    assert store.values()[3, 1] == "gold"


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_the_long_form_of_names_goes_out_and_in(store, tmp_path, suffix) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    store.seed((1, 1, "gold"), (2, 2, "7.5"), (3, 3, "x"))
    expected = store.values()
    path, failed = tmp_path / f"out{suffix}", tmp_path / f"failed{suffix}"
    assert store.run("export", "--names", "--emails", "-o", path).exit_code == 0
    for names in ([], ["--column", "email=email", "--column", "attribute=attribute"]):
        store.seed((1, 1, "other"))
        assert store.run("upsert", path, *names, "--failures", failed).exit_code == 0
        assert store.values() == expected


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_failures_of_named_attributes_keep_their_columns(store, tmp_path, suffix) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    failed = tmp_path / f"failed{suffix}"
    args = ["--wide", "--customer-column", "ID", "--attribute", "t=Loyalty tier"]
    args += ["--attribute", "s=Score", "--skip-invalid"]
    text = f"ID,t,s\n1,{'x' * 256},7\n2,gold,many\n"
    result = store.run("upsert", "-", *args, "--failures", failed, input=text)
    assert result.exit_code == 1
    again = store.run("upsert", failed, *args, "--json")
    found = json.loads(again.stdout)
    assert (found["stored"], found["failed"], found["skipped"]) == (0, 1, 1)


def test_a_crm_file_is_synced_exported_and_changes_nothing_when_given_in_again(
    store, tmp_path, summary
) -> None:
    source, out = tmp_path / "crm.csv", tmp_path / "out.csv"
    rows = [[PEOPLE[1], "gold", "7", ""], [PEOPLE[2], "", "12.5", "x;y"]]
    with source.open("w", newline="") as file:
        csv.writer(file, delimiter=";").writerows([["E-Mail", *KINDS], *rows])
    store.seed((2, 1, "to go"), (3, 2, "to go as well"))
    args = [*CRM, "--prune", "--yes", "--json"]
    found = summary(store.run("sync", source, *args))
    assert (found["created"], found["deleted"], found["failed"]) == (4, 2, 0)
    exported = ["export", "--wide", "--emails", "--names", "--email-column", "E-Mail"]
    assert store.run(*exported, "-o", out).exit_code == 0
    with out.open(newline="") as file:
        assert list(csv.reader(file)) == [["E-Mail", *KINDS], *rows]
    again = summary(store.run("sync", out, *args))
    assert (again["unchanged"], again["created"], again["updated"], again["deleted"]) == (
        4,
        0,
        0,
        0,
    )


def test_an_address_of_nobody_stops_a_prune(store, tmp_path) -> None:
    store.seed((1, 1, "stays"))
    path = tmp_path / "crm.csv"
    path.write_text("E-Mail,Loyalty tier\nnobody@example.com,gold\n")
    result = store.run("sync", path, *CRM, "--prune", "--yes")
    assert result.exit_code != 0
    assert store.values() == {(1, 1): "stays"}
