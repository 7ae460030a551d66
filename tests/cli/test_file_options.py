"""The options that describe a file: those that do not go together are refused."""

from __future__ import annotations

import pytest

from tests.cli.tables import CRM


@pytest.mark.parametrize(
    ("args", "told"),
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
    ],
)
def test_options_that_do_not_go_together(store, args, told) -> None:
    result = store.run("upsert", "-", *args, input="E,x\na@b.c,1\n")
    assert result.exit_code == 2
    assert told in " ".join(result.stderr.split())
    assert store.sandbox.requests.seen == 0


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--wide", "--emails"], "at least one --attribute or --names"),
        (["--wide", "--names"], "needs --customer-column or --emails"),
        (["--wide", "--names", "--email-column", "E"], "--email-column goes with --emails"),
        (["--emails", "--email-column", "E"], "go with --wide"),
    ],
)
def test_options_of_an_export_that_do_not_go_together(store, args, told) -> None:
    result = store.run("export", *args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in " ".join(result.stderr.split())
