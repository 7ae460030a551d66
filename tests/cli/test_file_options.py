"""The options that describe a file: those that do not go together are refused."""

from __future__ import annotations

import shlex

import pytest

from tests.cli.tables import CRM


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--wide", "--email-column", "E"], "at least one --attribute or --attributes-by-header"),
        (["--wide", "--attributes-by-header"], "needs --customer-column or --email-column"),
        (["--email-column", "E"], "go with --wide"),
        (["--attributes-by-header"], "go with --wide"),
        ([*CRM, "--customer-column", "ID"], "not both"),
        ([*CRM, "--format", "jsonl"], "for CSV and Parquet"),
        ([*CRM, "--empty", "delete", "--yes"], "--empty delete needs --customer-column"),
        (["--wide", "--email-column", "E", "--attribute", "x="], "COLUMN=ID or COLUMN=NAME"),
        (["--wide", "--email-column", "E", "--attribute", "x=0"], "must be from 1"),
        (["--wide", "--email-column", "E", "--attribute", "x=" + "y" * 256], "256 characters"),
        (["--wide", "--email-column", "E", "--attribute", "x=a", "--attribute", "y=a"], "twice"),
        (["--column", "email=E", "--column", "customer_id=C"], "names both customer_id and email"),
        (["--column", "name=N"], "FIELD one of customer_id, email, attribute_id, attribute, value"),
        (
            ["--wide", "--customer-column", "E", "--attribute", "x=1", "--attribute", " x=2"],
            "--attribute ' x=2': column or attribute is named twice",
        ),
    ],
)
def test_options_that_do_not_go_together(store, args, message) -> None:
    result = store.run("upsert", "-", *args, input="E,x\na@b.c,1\n")
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert store.sandbox.requests.seen == 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--wide", "--emails"], "at least one --attribute or --names"),
        (["--wide", "--names"], "needs --customer-column or --emails"),
        (["--wide", "--names", "--email-column", "E"], "--email-column goes with --emails"),
        (["--emails", "--email-column", "E"], "go with --wide"),
    ],
)
def test_options_of_an_export_that_do_not_go_together(store, args, message) -> None:
    result = store.run("export", *args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in " ".join(result.stderr.split())


@pytest.mark.parametrize("command", ["upsert", "demo"])
@pytest.mark.parametrize(
    ("header", "form", "wrong", "words"),
    [
        (
            "Ann's ID,attribute_id,value",
            [],
            ["--column", "customer_id=Anns ID"],
            """--column 'customer_id=Ann'"'"'s ID'""",
        ),
        (
            "Customer ID,atribute_id,value",
            [],
            [],
            "--column 'customer_id=Customer ID' --column attribute_id=atribute_id",
        ),
        (
            "Customer,My Tier",
            ["--wide"],
            ["--customer-column", "customer", "--attribute", "My-Tier =7"],
            "--customer-column Customer --attribute 'My Tier=7'",
        ),
    ],
)
def test_a_missing_column_is_answered_with_options_to_paste(
    store, tmp_path, command, header, form, wrong, words
) -> None:
    path = tmp_path / "in.csv"
    path.write_text(header + "\n")
    run = ["demo", "--input", path] if command == "demo" else ["upsert", path, "--dry-run"]
    refused = store.run(*run, *form, *wrong)
    assert refused.exit_code == 2
    assert refused.stderr.rstrip().endswith(f"; say {words}")
    assert "column missing" not in store.run(*run, *form, *shlex.split(words)).stderr


def test_a_missing_column_of_addresses_is_answered_likewise(store) -> None:
    result = store.run("upsert", "-", *CRM, input="E-mail;Score\n")
    assert result.stderr.rstrip().endswith("; say --email-column E-mail")
