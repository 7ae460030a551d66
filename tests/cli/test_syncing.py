"""The jobs of `sync`: its plan, and the changes that `--diff` shows."""

from __future__ import annotations

import csv
import io
import json

import pytest

from tests.cli.tables import CHANGED

DIFF = [
    ["change", "customer_id", "attribute_id", "old", "new"],
    ["update", "1", "1", "old", "new"],
    ["create", "3", "1", "", "c;d"],
    ["delete", "9", "1", "gone", ""],
]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", "-"])
def test_a_diff_shows_each_change_with_the_old_and_the_new_value(served, tmp_path, suffix) -> None:
    served.seed((1, 1, "old"), (2, 1, "v2"), (9, 1, "gone"), (9, 2, "out of the scope"))
    before = served.values()
    diff = "-" if suffix == "-" else tmp_path / f"diff{suffix}"
    args = ["sync", "-", "--dry-run", "--diff", diff, "--prune", "--attribute-id", 1]
    result = served.run(*args, input=CHANGED)
    assert result.exit_code == 0, result.stderr
    text = result.stdout if suffix == "-" else diff.read_text()
    if suffix == ".jsonl":
        rows = [json.loads(line) for line in text.splitlines()]
        assert rows == [
            {name: int(cell) if name.endswith("_id") else cell for name, cell in row if cell}
            for row in (list(zip(DIFF[0], one, strict=True)) for one in DIFF[1:])
        ]
    else:
        assert list(csv.reader(io.StringIO(text))) == DIFF
    plan = result.stderr if suffix == "-" else result.stdout
    assert "create" in plan
    assert served.values() == before
    assert all(one.method == "GET" for one in served.sandbox.requests)


def test_a_diff_of_few_values_reads_the_store(served, tmp_path) -> None:
    served.seed((1, 1, "old"))
    args = ["sync", "-", "--dry-run", "--json"]
    blind = json.loads(served.run(*args, input=CHANGED).stdout)
    assert blind["plan"]["reading"] == "nothing"
    found = json.loads(served.run(*args, "--diff", tmp_path / "d.csv", input=CHANGED).stdout)
    assert (found["plan"]["create"], found["plan"]["update"]) == (2, 1)
    assert len((tmp_path / "d.csv").read_text().splitlines()) == 4


def test_a_diff_in_parquet(served, tmp_path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    served.seed((1, 1, "old"))
    result = served.run("sync", "-", "--dry-run", "--diff", tmp_path / "d.parquet", input=CHANGED)
    assert result.exit_code == 0
    rows = parquet.read_table(tmp_path / "d.parquet").to_pylist()
    assert rows[0] == dict(zip(DIFF[0], ["update", 1, 1, "old", "new"], strict=True))
    assert rows[1]["old"] is None


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--diff", "d.csv"], "--diff goes with --dry-run"),
        (["--dry-run", "--diff", "-", "--json"], "--json and --diff can't share stdout"),
        (["--dry-run", "--diff", "-", "--failures", "-"], "--failures and --diff are the same"),
        (["--dry-run", "--diff", "d.xlsx"], "is a workbook"),
    ],
)
def test_options_that_do_not_go_together(served, args, told) -> None:
    result = served.run("sync", "-", *args, input=CHANGED)
    assert result.exit_code == 2
    assert told in result.stderr
    assert served.sandbox.requests.seen == 0
