"""The jobs of `upsert`: what becomes of each value."""

from __future__ import annotations

import json

import pytest

from bc_attrvals.sandbox import Quirks
from tests.cli.tables import CHANGED, HEAD


def test_a_dry_run_of_an_upsert_sends_nothing(served, tmp_path, summary) -> None:
    table = HEAD + "".join(f"{n},1,v\n" for n in range(1, 26)) + "x,1,bad\n"
    failed = tmp_path / "failed.csv"
    args = ["upsert", "-", "--dry-run", "--skip-invalid", "--failures", failed]
    result = served.run(*args, input=table)
    assert result.exit_code == 1
    assert result.stdout.startswith("Would store 25 values in at most 3 calls.\n1 row in ")
    assert failed.read_text().splitlines()[1].startswith("x,1,bad,")
    found = summary(served.run("upsert", "-", "--dry-run", "--json", input=CHANGED))
    assert (found["dry_run"], found["values"], found["planned_calls"]) == (True, 3, 1)
    wide = ["--wide", "--customer-column", "ID", "--attribute", "x=1", "--empty", "delete"]
    result = served.run("upsert", "-", "--dry-run", *wide, input="ID,x\n1,\n2,a\n")
    assert "Would then look up 1 empty cell." in result.stdout
    assert served.sandbox.requests.seen == 0


def test_failed_values_can_be_given_in_again(served, tmp_path, summary, parse) -> None:
    served.sandbox.reject_customers([3, 5])
    failed = tmp_path / "failed.csv"
    table = HEAD + "".join(f'{customer},1,"v,{customer}"\n' for customer in range(1, 40))
    result = served.run("upsert", "-", "--failures", failed, "--json", input=table)
    assert result.exit_code == 1
    found = summary(result)
    assert (found["stored"], found["failed"]) == (37, 2)
    rows = parse(failed.read_text())
    assert rows[0] == ["customer_id", "attribute_id", "value", "reason"]
    assert sorted(row[:3] for row in rows[1:]) == [["3", "1", "v,3"], ["5", "1", "v,5"]]
    assert all("does not exist" in row[3] for row in rows[1:])
    served.sandbox.accept_customers()
    again = served.run("upsert", failed, "--failures", tmp_path / "left.csv")
    assert again.exit_code == 0
    assert len(served.values()) == 39
    assert len(parse((tmp_path / "left.csv").read_text())) == 1


def test_a_job_that_is_refused_leaves_everything_in_the_failures(served, tmp_path, summary) -> None:
    failed = tmp_path / "failed.jsonl"
    table = HEAD + "".join(f"{customer},1,v\n" for customer in range(1, 2001))
    served.sandbox.faults.script([None] * 4 + ["403"] * 10)
    result = served.run("upsert", "-", "--failures", failed, "--json", input=table)
    assert result.exit_code == 3
    found = summary(result)
    left = len(failed.read_text().splitlines())
    assert found["unknown"] == 0
    assert found["stored"] + left == 2000
    served.sandbox.faults.clear()
    assert served.run("upsert", failed).exit_code == 0
    assert len(served.values()) == 2000


def test_of_equal_keys_the_last_row_wins(served, summary) -> None:
    result = served.run("upsert", "-", "--json", input=HEAD + "1,1,a\n1,1,b\n1,1,c\n")
    assert served.values() == {(1, 1): "c"}
    found = summary(result)
    assert found["stored"] + found["superseded"] == 3


def five_each(path) -> dict[tuple[int, int], str]:
    rows = {
        (customer, attribute): f"{customer}/{attribute}"
        for customer in range(1, 401)
        for attribute in range(1, 6)
    }
    lines = [f"{customer},{attribute},{value}\n" for (customer, attribute), value in rows.items()]
    path.write_text(HEAD + "".join(lines))
    return rows


@pytest.mark.parametrize(("takes_customers", "most"), [(True, 45), (False, 212)])
@pytest.mark.parametrize("command", ["upsert", "sync"])
def test_by_customers_a_call_holds_all_rows_of_ten_where_the_service_takes_them(
    serve, tmp_path, command, takes_customers, most
) -> None:
    path = tmp_path / "in.csv"
    rows = five_each(path)
    quirks = Quirks(batch_by="customers" if takes_customers else "rows")
    with serve(quirks=quirks) as served:
        args = [command, path, "--batch-by", "customers", "--json"]
        planned = served.run(*args, "--dry-run")
        assert planned.exit_code == 0
        result = served.run(*args, *(["--journal", tmp_path / "j.db"] if command == "sync" else []))
        assert result.exit_code == 0
        assert served.values() == rows
        assert served.sandbox.calls["upsert"] <= most
        if command == "upsert":
            assert json.loads(planned.stdout)["planned_calls"] == 40
        else:
            plan = json.loads(result.stdout)["plan"]
            # Reading costs a call or none.
            assert 40 <= plan["calls"] <= 42
