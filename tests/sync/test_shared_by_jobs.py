"""What the writing jobs of one Store share is made when it is first used."""

from __future__ import annotations

from bc_attrvals import Limits
from bc_attrvals.core.requests import RequestBuilder, Resource
from bc_attrvals.sync.shared_by_jobs import SharedByJobs

REQUESTS = {one: RequestBuilder("abc", "https://api.example", one) for one in Resource}


async def test_each_part_is_made_once_and_only_what_was_made_is_closed() -> None:
    parts = SharedByJobs(Limits(), REQUESTS)
    await parts.aclose()
    assert vars(parts).keys() == {"_limits", "_requests"}
    assert parts.registry is parts.registry
    assert parts.resolver is parts.resolver
    assert parts.coalescer is parts.coalescer
    await parts.aclose()
