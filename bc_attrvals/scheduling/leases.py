"""Takes and ends leases. A lease is a slot of an operation and a unit of the quota, for one try.

Between `admission.py`, which decides whose lease is next, and the quota. Each lease ends once: by
`end` after its request was sent, or by `cancel` if nothing was sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias

import msgspec

from bc_attrvals.core.limits import Limits
from bc_attrvals.core.requests import Operation
from bc_attrvals.scheduling.congestion import BulkPace, Concurrency
from bc_attrvals.scheduling.external_quota import ExternalQuota
from bc_attrvals.scheduling.local_quota import LocalQuota

# Read for each request; access to an enum member is slow.
_READ: Final = Operation.READ


#: Where the units come from.
Units: TypeAlias = LocalQuota | ExternalQuota


class Lease(msgspec.Struct, eq=False):
    """A slot and a unit, taken at `sent_at` (event loop's clock, seconds) after the two waits."""

    operation: Operation
    # Where the slot was taken, and the quota's own lease.
    slots: Concurrency
    unit: object
    sent_at: float
    is_bulk: bool
    slot_wait_s: float = 0.0
    quota_wait_s: float = 0.0


class Leases:
    """Takes and ends the leases of one Store, and counts the free slots."""

    __slots__ = ("_pace", "_units", "slots")

    def __init__(self, units: Units) -> None:
        self._units = units
        #: The slots of each operation.
        self.slots: dict[Operation, Concurrency] = {}
        self._pace = BulkPace(1)

    async def open(self, store_hash: str, limits: Limits) -> None:
        """Make the slots, and open the quota."""
        self._pace = BulkPace(limits.reads)
        self.slots = {
            Operation.READ: Concurrency(limits.reads),
            Operation.WRITE: Concurrency(limits.writes),
            Operation.DELETE: Concurrency(limits.deletes),
        }
        await self._units.open(store_hash, limits)

    def room(self, operation: Operation, now: float, is_bulk: bool) -> int:
        """Return how many slots are free now."""
        slots = self.slots[operation]
        if is_bulk and operation is _READ:
            return min(slots.room(now), self._pace.room(now, slots.bulk_in_flight))
        return slots.room(now)

    def take(self, operation: Operation, now: float, is_bulk: bool) -> Lease | None:
        """Take a slot, which must be free, and a unit; None if there is no unit."""
        unit = self._units.take(operation, now)
        if unit is None:
            return None
        slots = self.slots[operation]
        slots.enter(is_bulk)
        return Lease(operation, slots, unit, now, is_bulk)

    def end(
        self, lease: Lease, now: float, headers: Mapping[str, str] | None, status: int | None
    ) -> None:
        """Give slot and unit back and learn from the answer.

        `headers` and `status` are None if no answer came.
        """
        slots, took_s = lease.slots, now - lease.sent_at
        slots.leave(now, lease.is_bulk, None if status is None else took_s)
        if not lease.is_bulk and lease.operation is _READ:
            self._pace.answered(now, took_s, status)
        self._units.end(lease.unit, now, headers, is_refused=status == 429)
        # Without a refusal before, no concurrency has to recover.
        if slots.is_weak and status is not None and status < 500 and status != 429:
            slots.went_well(lease.sent_at)

    def cancel(self, lease: Lease, now: float) -> None:
        """Give slot and unit back unused."""
        lease.slots.leave(now, lease.is_bulk)
        self._units.cancel(lease.unit)
