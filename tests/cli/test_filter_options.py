"""The filter options."""

from __future__ import annotations


def test_filters_reach_the_service(served) -> None:
    served.seed((1, 1, "a"), (1, 2, "b"), (2, 1, "c"), (3, 3, "d"))
    count = ["count", "--quiet"]
    assert served.run(*count).stdout == "4\n"
    assert served.run(*count, "--customer-id", "1,2", "--customer-id", 3).stdout == "4\n"
    assert served.run(*count, "--customer-id", "1", "--attribute-id", "1").stdout == "1\n"
    assert served.run(*count, "--created-max", "2001-01-01").stdout == "0\n"
    since = "2001-01-01T00:00:00.5+02:00"
    assert served.run(*count, "--modified-min", since, "--created-min", since).stdout == "4\n"
    assert "date_modified:min=2000-12-31T22:00:01Z" in served.sandbox.requests[-1].query_string
