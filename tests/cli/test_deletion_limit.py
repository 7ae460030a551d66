"""`--max-delete`: what it takes, and what it refuses."""

from __future__ import annotations

import pytest

from bc_attrvals.cli.deletion_limit import DeletionLimit

HALF = "101 values of 201 would be deleted, more than half; if that is meant, say --max-delete 101"


@pytest.mark.parametrize(
    ("given", "delete", "stored", "problem"),
    [
        (None, 100, 100, None),
        (None, 101, 202, None),
        (None, 101, 201, HALF),
        ("0", 0, 0, None),
        ("0", 1, 9, "1 value of 9 would be deleted, more than --max-delete 0"),
        ("1000", 1_000, 1_000, None),
        ("10%", 10, 109, None),
        ("10%", 11, 109, "11 values of 109 would be deleted, more than --max-delete 10%"),
        ("100%", 5, 5, None),
    ],
)
def test_deletions_beyond_the_limit_are_a_problem(given, delete, stored, problem) -> None:
    limit = DeletionLimit() if given is None else DeletionLimit.parse(given)
    assert limit.problem(delete, stored) == problem


@pytest.mark.parametrize("given", ["", "-1", "1.5", "101%", "half", "%", "1" * 13, "１"])
def test_what_is_no_limit_is_refused(given) -> None:
    with pytest.raises(ValueError, match="must be a number of values, or 0% to 100%"):
        DeletionLimit.parse(given)
