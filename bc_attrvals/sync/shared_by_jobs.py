"""What the writing jobs of one open Store share: keys under way, names looked up, shared calls."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from bc_attrvals.core.limits import Limits
from bc_attrvals.core.requests import RequestBuilder, Resource

if TYPE_CHECKING:
    from bc_attrvals.naming.resolver import Resolver
    from bc_attrvals.writing.batching import KeyRegistry
    from bc_attrvals.writing.coalescing import Coalescer


class SharedByJobs:
    """Each part is imported and made when a job first needs it: a listing needs none of them."""

    def __init__(self, limits: Limits, requests: Mapping[Resource, RequestBuilder]) -> None:
        self._limits = limits
        self._requests = requests

    @cached_property
    def registry(self) -> KeyRegistry:
        """The keys under way."""
        from bc_attrvals.writing.batching import KeyRegistry

        return KeyRegistry()

    @cached_property
    def resolver(self) -> Resolver:
        """What is known of names and addresses."""
        from bc_attrvals.naming.resolver import Resolver

        requests = self._requests
        return Resolver(requests[Resource.ATTRIBUTES], requests[Resource.CUSTOMERS])

    @cached_property
    def coalescer(self) -> Coalescer:
        """The calls that small upserts share."""
        from bc_attrvals.writing.coalescing import Coalescer

        limits = self._limits
        return Coalescer(coalesce_ms=limits.coalesce_ms, writes=limits.writes)

    async def aclose(self) -> None:
        """Close what was made."""
        if "coalescer" in vars(self):
            await self.coalescer.aclose()
