"""The result of a refresh, and the changes of a mirror. Imports no SQLite."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from typing import Final

import attrs

from bc_attrvals.core.models import AttributeValue

#: How many faults are named.
_MOST_NAMED: Final = 100


@attrs.frozen
class Change:
    """One change of a mirror. `kind` is "put" (added or changed) or "delete".

    Sequence numbers ascend, with gaps. `row` is the row after a put, or before a delete.
    """

    sequence: int
    kind: str
    row: AttributeValue

    def to_dict(self) -> dict[str, object]:
        """Return it in plain JSON types, the row's fields beside the sequence and the kind."""
        return {"sequence": self.sequence, "kind": self.kind, **self.row.to_dict()}


class FaultKind(StrEnum):
    """What `verify` found wrong about a row."""

    #: It changed, and its `date_modified` did not move.
    STALE = "stale"
    #: It is in the store, and its `date_modified` says that it was there before.
    MISSING = "missing"
    #: The counts say that it is in the store, and the listing does not show it.
    SURPLUS = "surplus"


@attrs.frozen
class Fault:
    """One row that was wrong in the mirror: as the mirror held it, and as the store holds it."""

    kind: FaultKind
    held: AttributeValue | None
    stored: AttributeValue | None

    def to_dict(self) -> dict[str, object]:
        """Return it in plain JSON types."""
        held, stored = self.held, self.stored
        return {
            "kind": str(self.kind),
            "held": None if held is None else held.to_dict(),
            "stored": None if stored is None else stored.to_dict(),
        }


@attrs.define
class Faults:
    """The faults of one refresh, counted, and the first of them named."""

    counts: Counter[FaultKind] = attrs.field(factory=Counter)
    named: list[Fault] = attrs.field(factory=list)

    def add(self, held: AttributeValue | None, stored: AttributeValue | None) -> None:
        """Count a row that the mirror held, or that the store holds, or both."""
        if held is None:
            kind = FaultKind.MISSING
        else:
            kind = FaultKind.SURPLUS if stored is None else FaultKind.STALE
        self.counts[kind] += 1
        if len(self.named) < _MOST_NAMED:
            self.named.append(Fault(kind, held, stored))

    def extend(self, others: Faults) -> None:
        """Add other faults."""
        self.counts += others.counts
        self.named = [*self.named, *others.named][:_MOST_NAMED]


@attrs.frozen
class RefreshReport:
    """The sum of a refresh.

    `rows` is how many the mirror holds now. `added`, `changed` and `removed` count the rows that
    differ from those before. `calls` counts requests, `retries` those of them sent again. `listed`
    counts the rows that answers showed. `anew_calls` is how many calls listing everything takes.

    `verified` says whether everything was listed: a mirror's first refresh, or `verify`. `stale`,
    `missing` and `surplus` count the rows that answers showed to be wrong in the mirror (see
    `FaultKind`), and `faults` holds the first 100. Listing everything finds them all. `uncounted`
    is above 0 when the store counted more rows of the past than the mirror held. What was found
    wrong is repaired.
    """

    rows: int
    added: int
    changed: int
    removed: int
    calls: int
    retries: int
    seconds: float
    listed: int
    anew_calls: int = 0
    verified: bool = False
    stale: int = 0
    missing: int = 0
    surplus: int = 0
    uncounted: int = 0
    faults: tuple[Fault, ...] = ()

    @property
    def ok(self) -> bool:
        """True when nothing was found wrong."""
        return not (self.stale or self.missing or self.surplus or self.uncounted)

    @property
    def saved_calls(self) -> int:
        """How many calls fewer it took than listing everything; 0 if it listed everything."""
        return max(0, self.anew_calls - self.calls)

    def to_dict(self) -> dict[str, object]:
        """Return all counts and faults in plain JSON types."""
        counts = attrs.asdict(self, recurse=False, filter=lambda field, _: field.name != "faults")
        return {**counts, "faults": [one.to_dict() for one in self.faults]}
