"""Descriptions of jobs: what can not be is refused when it is made."""

from __future__ import annotations

from typing import Any

import pytest

from bc_attrvals.errors import (
    ConnectionFailedError,
    InvalidInputError,
    JournalError,
    ListingDriftError,
    StoreStateError,
)
from bc_attrvals.fleet import (
    FileSource,
    Job,
    JobResult,
)
from tests.fleet.cluster_jobs import SCOPE, TOKENS
from tests.fleet_sources import values


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"customer_column": "ID"}, "customer_column"),
        ({"email_column": "E", "customer_column": "ID", "attributes": {"x": 1}}, "email_column"),
        ({"attributes_by_header": True}, "customer_column"),
        ({"email_column": "E", "attributes": {"x": "X"}, "columns": {"value": "v"}}, "columns"),
        ({"columns": {"mail": "E"}}, "columns"),
        ({"columns": {1: 2}}, "columns"),
    ],
)
def test_columns_that_do_not_go_together_are_refused(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        FileSource(path="in.csv", **fields)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (JournalError("held"), False),
        (InvalidInputError("bad"), False),
        (StoreStateError("closed"), False),
        (ValueError("of the source"), False),
        (None, False),
        (ConnectionFailedError("nobody"), True),
        (ListingDriftError("again"), True),
    ],
)
def test_refused_is_what_the_service_or_the_way_to_it_ended(
    error: Exception | None, refused: bool
) -> None:
    job = Job(store_hash="abc", access_token=TOKENS, source=values)
    assert JobResult(job=job, error=error).refused is refused


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("access_token", {"access_token": "s3cret-token"}),
        ("function", {"access_token": lambda: "s3cret-token"}),
        ("source", {"source": "values.csv"}),
        ("store_hash", {"store_hash": "a/b"}),
        ("base_url", {"base_url": "http://example.com"}),
        ("scope", {"scope": None, "prune": True}),
        ("shared_quota", {"shared_quota": "redis://:s3cret@localhost"}),
        ("timeout_s", {"timeout_s": 0}),
        ("journal", {"journal": 5}),
        ("journal", {"journal": ""}),
        ("journal", {"journal": b"a.db"}),
        ("mirror", {"mirror": 5}),
        ("limits", {"limits": None}),
        ("name", {"name": None}),
        ("name", {"name": ""}),
        ("store_hash", {"store_hash": None}),
    ],
)
def test_what_can_not_be_is_refused_at_once(field: str, options: dict[str, Any]) -> None:
    good: dict[str, Any] = {
        "store_hash": "abc",
        "access_token": TOKENS,
        "source": values,
        "scope": SCOPE,
    }
    with pytest.raises(InvalidInputError) as refused:
        Job(**{**good, **options})
    assert refused.value.field == field
    assert field in str(refused.value)
    assert "s3cret" not in str(refused.value)
