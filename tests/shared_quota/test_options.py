"""The arguments of a `RedisQuota`."""

from __future__ import annotations

from typing import Any

import pytest

from bc_attrvals.errors import InvalidInputError
from tests.shared_quota.quotas import RedisQuota

pytestmark = pytest.mark.usefixtures("no_task_left")


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("url", {"url": "http://localhost"}),
        ("url", {"url": "redis://:hidden@localhost:port/0"}),
        ("url", {"url": 5}),
        ("namespace", {"namespace": "a{b}"}),
        ("namespace", {"namespace": ""}),
        ("lease_s", {"lease_s": 0}),
        ("timeout_s", {"timeout_s": True}),
        ("fallback_share", {"fallback_share": 1.5}),
    ],
)
def test_arguments_that_cannot_be_are_refused(field: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError) as refused:
        RedisQuota(**{"url": "redis://localhost", **arguments})
    assert refused.value.field == field
    assert "hidden" not in str(refused.value)
