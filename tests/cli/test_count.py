"""`count` prints a number, or an object."""

from __future__ import annotations


def test_it_counts_what_matches(served, summary) -> None:
    served.seed((1, 1, "a"), (2, 1, "b"), (2, 3, "c"))
    assert served.run("count").stdout == "3\n"
    assert served.run("count", "--attribute-id", 1).stdout == "2\n"
    found = summary(served.run("count", "--customer-id", 2, "--json"))
    assert found == {"command": "count", "exit_status": 0, "count": 2}
