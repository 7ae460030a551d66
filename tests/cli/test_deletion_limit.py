"""`--max-delete`: a sync that would delete an unexpected share is refused before it writes."""

from __future__ import annotations

import pytest

from bc_attrvals.cli.deletion_limit import DeletionLimit
from bc_attrvals.core.sync_plan import Reading, SyncPlan
from bc_attrvals.sandbox import Fault, FaultKind
from tests.cli.tables import HEAD, WIDE

PRUNE = ["sync", "-", "--prune", "--attribute-id", "1", "--yes"]


def table(count: int) -> str:
    return HEAD + "".join(f"{n},1,v{n}\n" for n in range(1, count + 1))


def seed(served, count: int) -> None:
    served.seed(*((n, 1, f"v{n}") for n in range(1, count + 1)), (1, 2, "out of the scope"))


@pytest.mark.parametrize("journal", [[], ["--journal"]])
def test_more_than_half_and_more_than_100_are_refused(served, tmp_path, journal) -> None:
    seed(served, 220)
    args = [*PRUNE, *journal, *([tmp_path / "s.db"] if journal else [])]
    # The second run takes the journal up, and is refused as well.
    for _ in range(2):
        result = served.run(*args, input=table(109))
        assert result.exit_code == 2
        assert "111 values of 220 would be deleted, more than half" in result.stderr
        assert "say --max-delete 111; nothing was written" in result.stderr
        assert len(served.values()) == 221
    assert served.run(*args, "--max-delete", 111, input=table(109)).exit_code == 0
    assert len(served.values()) == 110


@pytest.mark.parametrize(
    ("stored", "left", "options", "status"),
    [
        (220, 110, [], 0),
        (150, 50, [], 0),
        (151, 50, [], 2),
        (20, 10, ["--max-delete", "9"], 2),
        (20, 10, ["--max-delete", "10"], 0),
        (20, 10, ["--max-delete", "49%"], 2),
        (20, 10, ["--max-delete", "50%"], 0),
        (20, 20, ["--max-delete", "0"], 0),
        (20, 19, ["--max-delete", "0"], 2),
    ],
)
def test_the_border(served, stored, left, options, status) -> None:
    seed(served, stored)
    result = served.run(*PRUNE, *options, input=table(left))
    assert result.exit_code == status, result.stderr
    assert len(served.values()) == 1 + (left if status == 0 else stored)
    assert served.sandbox.calls["delete"] == 0 if status else True


@pytest.mark.parametrize("given", ["-1", "1.5", "101%", "half", "%", "", "１"])
def test_what_is_no_limit_is_refused(served, given) -> None:
    result = served.run(*PRUNE, "--max-delete", given, input=table(1))
    assert result.exit_code == 2
    assert "must be a number of values, or 0% to 100%" in result.stderr
    assert served.sandbox.requests.seen == 0


def test_it_goes_with_options_that_delete(served) -> None:
    result = served.run("sync", "-", "--max-delete", "5", input=table(1))
    assert "--max-delete goes with --prune or --empty delete" in result.stderr


def wide(values: int, empty: int) -> str:
    cells = ["v"] * values + [""] * empty
    return "ID,x,y\n" + "".join(f"{n},{cell},\n" for n, cell in enumerate(cells, 1))


@pytest.mark.parametrize(
    ("left", "options", "status"),
    [
        (110, [], 0),
        (109, [], 2),
        (109, ["--max-delete", "110"], 2),
        (109, ["--max-delete", "111"], 0),
        (109, ["--max-delete", "49%"], 2),
    ],
)
def test_it_holds_for_the_values_of_empty_cells(served, tmp_path, left, options, status) -> None:
    served.seed(*((n, 1, f"v{n}") for n in range(1, 221)))
    args = ["sync", "-", *WIDE, "--empty", "delete", "--yes", *options]
    table = wide(left, 220 - left)
    dry = served.run(*args, "--dry-run", input=table)
    assert (dry.exit_code, "would be deleted, more than" in dry.stderr) == (0, status == 2)
    # With a journal, the second run takes it up and is refused as well.
    for _ in range(2):
        result = served.run(*args, "--journal", tmp_path / "s.db", input=table)
        assert result.exit_code == status, result.stderr
        assert len(served.values()) == (220 if status else left)
        if status:
            assert f"{220 - left} values of 220 would be deleted" in result.stderr


def test_what_a_stopped_prune_has_written_is_stored_when_it_goes_on(served, tmp_path) -> None:
    served.seed(*((n, 1, "old") for n in range(1, 221)))
    served.sandbox.faults.add(Fault(FaultKind.FORBIDDEN, operation="delete"))
    args = [*PRUNE, "--journal", tmp_path / "s.db"]
    assert served.run(*args, input=table(110)).exit_code == 3
    served.sandbox.faults.clear()
    result = served.run(*args, input=table(110))
    assert result.exit_code == 0, result.stderr
    assert len(served.values()) == 110


def test_a_dry_run_warns_and_shows_the_plan(served) -> None:
    seed(served, 300)
    result = served.run(*PRUNE, "--dry-run", input=table(10))
    assert result.exit_code == 0
    assert result.stderr.count("Warning: 290 values of 300 would be deleted") == 1
    assert "delete" in result.stdout


def test_values_that_are_updated_are_stored_as_well() -> None:
    plan = SyncPlan(reading=Reading.LIST, create=500, update=80, unchanged=60, delete=140)
    assert DeletionLimit().problem(plan) is None
    assert DeletionLimit().problem(SyncPlan(reading=Reading.LIST, delete=141, update=140))
