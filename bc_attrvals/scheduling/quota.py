"""The protocol of quotas (`Quota`), and what a request asks with (`Priority`, `Flow`).

There are two implementations: `LocalQuota` counts for this process, `shared_quota.RedisQuota` for
all processes of a store. A user's own quota needs only the four methods of `Quota`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Protocol

from bc_attrvals.core.limits import Limits
from bc_attrvals.core.rate_limit import QuotaSnapshot
from bc_attrvals.core.requests import Operation
from bc_attrvals.events import Event


class Priority(IntEnum):
    """Which requests go first: the lower number."""

    INTERACTIVE = 0
    BULK = 1


class Flow:
    """The calls of one bulk job, or all single calls together. Flows share fairly."""

    __slots__ = ("turn",)

    def __init__(self) -> None:
        #: The number of its latest grant.
        self.turn = 0


class Quota(Protocol):
    """Where quota units come from. Pass your own as `Store(quota=...)`.

    `open` is called once, before anything else, and `close` once at the end. Each `acquire` waits
    for a unit and returns a lease. Each lease is given back to `release` exactly once. No request
    is sent without a lease. Slots, fairness and back-off stay with the Store. A Store asks for no
    more leases at once than its `Limits` allow. It decides which of its requests gets a lease when
    the lease has arrived.

    A quota may have any of the further methods of `WholeQuota`.
    """

    async def open(self, store_hash: str, limits: Limits) -> None:
        """Get ready for one store."""

    async def acquire(self, operation: Operation, priority: Priority) -> object:
        """Wait for a unit and return its lease. Cancelled, it must leave nothing taken."""

    def release(self, lease: object, headers: Mapping[str, str] | None) -> None:
        """End a lease, with the headers of the answer.

        `headers` is None if no answer came; the unit may be spent then.
        """

    async def close(self) -> None:
        """Release all resources."""


class WholeQuota(Quota, Protocol):
    """A quota with all methods that the scheduler calls."""

    def refused(self, lease: object, headers: Mapping[str, str]) -> None:
        """End a lease whose request was answered 429. The default is `release`."""

    def cancel(self, lease: object) -> None:
        """End a lease whose request was never sent: its unit is free.

        The default is `release` without headers.
        """

    def note_flows(self, operation: Operation, flows: int) -> None:
        """Note how many bulk jobs wait for leases of an operation. The default does nothing."""

    def snapshot(self) -> QuotaSnapshot:
        """Return what is known of the quota now. The default is an empty snapshot."""

    def report_to(self, emit: Callable[[Event], object]) -> None:
        """Deliver its events to `emit`; called before `open`. The default has no events."""


def whole(quota: Quota) -> WholeQuota:
    """Return a quota with every method of `WholeQuota`; defaults replace missing ones."""
    return _Completed(quota)


class _Completed:
    """A user's quota, with defaults for the methods it lacks."""

    def __init__(self, quota: Quota) -> None:
        self.open, self.acquire = quota.open, quota.acquire
        self.release, self.close = quota.release, quota.close
        self.refused = getattr(quota, "refused", quota.release)
        self.cancel = getattr(quota, "cancel", lambda lease: quota.release(lease, None))
        self.note_flows = getattr(quota, "note_flows", lambda *_: None)
        self.snapshot = getattr(quota, "snapshot", QuotaSnapshot)
        self.report_to = getattr(quota, "report_to", lambda _: None)
