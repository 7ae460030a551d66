"""What a refresh finds wrong: rows that break the rule of `date_modified`, counted and named."""

from __future__ import annotations

from collections import Counter
from typing import Final

import attrs

from bc_attrvals.core.models import AttributeValue
from bc_attrvals.mirror.report import Fault, FaultKind

#: How many faults are named.
_MOST_NAMED: Final = 100


@attrs.define
class Faults:
    """The faults of one refresh."""

    counts: Counter[FaultKind] = attrs.field(factory=Counter)
    named: list[Fault] = attrs.field(factory=list)

    def add(self, held: AttributeValue | None, stored: AttributeValue | None) -> None:
        """Count a row that the mirror held, or that the store holds, or both; name the first."""
        if held is None:
            kind = FaultKind.MISSING
        else:
            kind = FaultKind.SURPLUS if stored is None else FaultKind.STALE
        self.counts[kind] += 1
        if len(self.named) < _MOST_NAMED:
            self.named.append(Fault(kind, held, stored))
