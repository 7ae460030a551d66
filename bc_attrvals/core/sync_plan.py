"""The plan of a sync and its cost: the cheapest way to read, and the calls of each kind.

Pure arithmetic over the counts of the working set, for `sync/job.py` and `sync/current_state.py`.
A call writes ten values, reads 250 or deletes fifty, so the way of finding the differences decides
the cost of a sync; see `choose_reading`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import attrs

from bc_attrvals.core.limits import Limits
from bc_attrvals.core.rate_limit import DEFAULT_WINDOW_S, QuotaSnapshot
from bc_attrvals.core.requests import Operation

#: "A customer can have a maximum of 50 attribute values" (BigCommerce reference, Upsert Customer
#: Attribute Values).
MAX_VALUES_PER_CUSTOMER: Final = 50

#: Assumed duration of a call while none has been measured.
_CALL_S: Final = 0.25


class Reading(StrEnum):
    """How a sync reads the current state of the store."""

    #: By all pages of the scope.
    LIST = "list"
    #: By the desired customers, with `customer_id:in`.
    LOOK_UP = "look_up"
    #: It does not read, and writes every value.
    NOTHING = "nothing"
    #: By refreshing a mirror.
    MIRROR = "mirror"


class ChangeKind(StrEnum):
    """What a sync does to one value."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    #: Written without reading first: a create, an update, or no change.
    WRITE = "write"


@attrs.frozen
class SyncChange:
    """One change of a plan: a value of a customer before and after it.

    `old` is None for a create and a write, and if the store's value can't be read. `new` is None
    for a delete.
    """

    kind: ChangeKind
    customer_id: int
    attribute_id: int
    old: str | None
    new: str | None

    def to_dict(self) -> dict[str, str | int | None]:
        """Return the change in plain JSON types."""
        return {**attrs.asdict(self), "kind": str(self.kind)}


def calls_for(count: int, size: int) -> int:
    """Return how many calls of `size` items `count` items need."""
    return -(-count // size)


def customers_per_listing(most: int, attributes: int, page_size: int) -> int:
    """Return how many customers to look up at once, at most `most`, so that pages are full.

    Each customer has up to `attributes` rows. An almost empty last page costs a whole call.
    """
    full_pages = most * attributes // page_size
    return most if not full_pages else max(1, full_pages * page_size // attributes)


def look_up_calls(customers: int, per_listing: int, attributes: int, page_size: int) -> int:
    """Return the most calls that looking customers up takes, with `per_listing` at once."""
    listings, rest = divmod(customers, per_listing)
    pages = calls_for(per_listing * attributes, page_size)
    return listings * pages + calls_for(rest * attributes, page_size)


def is_worth_probing(*, blind_calls: int, look_up_calls: int) -> bool:
    """Return whether to read the first page of the listing, to learn its length."""
    return min(blind_calls, look_up_calls) > 1


def choose_reading(
    *,
    blind_calls: int,
    look_up_calls: int,
    list_calls: int | None = None,
    always: bool = False,
) -> Reading:
    """Return the cheapest way to read, for a sync that could also write without reading.

    The arguments count calls still to be made; `list_calls` is None if listing is not possible. The
    calls that a reading saves are unknown before it. So it is chosen only if it costs at most half
    of the calls that it could save, or with `always`.
    """
    listing = math.inf if list_calls is None else list_calls
    if not always and 2 * min(listing, look_up_calls) > blind_calls:
        return Reading.NOTHING
    return Reading.LIST if listing <= look_up_calls else Reading.LOOK_UP


def estimate_seconds(
    read_calls: int,
    write_calls: int,
    delete_calls: int,
    *,
    quota: QuotaSnapshot,
    limits: Limits,
    latency_s: Mapping[Operation, float] | None = None,
) -> float:
    """Estimate the duration of calls in seconds, by the requests at once and by the quota.

    `latency_s` is the recent latency of operations; for an operation without one, the slowest of
    the others is used. Calls beyond the rest of the window wait for the next windows. Their length
    is the service's, or 30 seconds (BigCommerce guide, API rate limits).
    """
    measured_s = latency_s or {}
    unmeasured_s = max(measured_s.values(), default=_CALL_S)
    busy_s = sum(
        measured_s.get(operation, unmeasured_s) * calls_for(calls, at_once)
        for operation, calls, at_once in (
            (Operation.READ, read_calls, limits.reads),
            (Operation.WRITE, write_calls, limits.writes),
            (Operation.DELETE, delete_calls, limits.deletes),
        )
    )
    calls = read_calls + write_calls + delete_calls
    if quota.quota is None or quota.left is None or calls <= quota.left:
        return busy_s
    beyond = calls - quota.left
    per_window = max(1, quota.quota - limits.reserve)
    windows = calls_for(beyond, per_window)
    window_s = quota.window_s or DEFAULT_WINDOW_S
    last_opens_s = (quota.resets_in_s or 0.0) + (windows - 1) * window_s
    in_last = beyond - (windows - 1) * per_window
    in_last_s = min(window_s, busy_s * in_last / calls)
    return max(busy_s, last_opens_s + in_last_s)


_READING_WORDS: Final = {
    Reading.LIST: "list the scope",
    Reading.LOOK_UP: "look customers up",
    Reading.NOTHING: "nothing",
    Reading.MIRROR: "refresh the mirror",
}


@attrs.frozen(kw_only=True)
class SyncPlan:
    """The changes that a sync would make, and their cost.

    `create`, `update`, `delete` and `unchanged` count values. `write` counts values that are sent
    without reading first (`reading` is then `Reading.NOTHING`), so it is unknown which of them are
    creates, updates or unchanged. `repeated` counts keys that the store holds in more than one row.
    `read_calls` counts the calls that the plan itself took, and that a sync takes again; with a
    mirror, those of its refresh. `saved_calls` is how many fewer these were than listing the whole
    mirror. `seconds` is an estimate by the quota and the latencies known when the plan was made.

    `unresolved` counts desired values with an unknown name or address, or of a wrong type. If the
    keys of some of them are unknown, nothing is pruned: `delete` is 0, and `withheld` counts the
    values that would be pruned otherwise.
    """

    reading: Reading
    create: int = 0
    update: int = 0
    delete: int = 0
    unchanged: int = 0
    write: int = 0
    read_calls: int = 0
    write_calls: int = 0
    delete_calls: int = 0
    seconds: float = 0.0
    repeated: int = 0
    saved_calls: int = 0
    unresolved: int = 0
    withheld: int = 0

    @property
    def calls(self) -> int:
        """The sum of all calls, if each succeeds at the first try."""
        return self.read_calls + self.write_calls + self.delete_calls

    def to_dict(self) -> dict[str, str | int | float]:
        """Return the plan in plain JSON types, with `calls`."""
        return {**attrs.asdict(self), "reading": str(self.reading), "calls": self.calls}

    def __str__(self) -> str:
        """Return a table of a few lines."""
        rows = [("read", _READING_WORDS[self.reading], _calls_text(self.read_calls))]
        if self.reading is Reading.NOTHING:
            rows.append(("write", f"{self.write:,}", _calls_text(self.write_calls)))
        else:
            rows += [
                ("create", f"{self.create:,}", ""),
                ("update", f"{self.update:,}", _calls_text(self.write_calls)),
                ("unchanged", f"{self.unchanged:,}", ""),
            ]
        if self.saved_calls:
            rows.insert(1, ("saved", "against listing", _calls_text(self.saved_calls)))
        for name, count in (
            ("repeated", self.repeated),
            ("unresolved", self.unresolved),
            ("not pruned", self.withheld),
        ):
            if count:
                rows.append((name, f"{count:,}", ""))
        rows += [
            ("delete", f"{self.delete:,}", _calls_text(self.delete_calls)),
            ("in all", f"about {_duration_text(self.seconds)}", _calls_text(self.calls)),
        ]
        return "\n".join(f"{name:<10}{what:>18}{calls:>16}".rstrip() for name, what, calls in rows)


def _calls_text(calls: int) -> str:
    return f"{calls:,} call{'' if calls == 1 else 's'}"


def _duration_text(seconds: float) -> str:
    whole = math.ceil(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
