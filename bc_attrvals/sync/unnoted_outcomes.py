"""Gathers the outcomes of a sync's upserts until they are noted in the working set."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from bc_attrvals.core.models import AttributeValue, AttributeValueUpsert
from bc_attrvals.core.outcomes import OutcomeStatus, UpsertOutcome
from bc_attrvals.core.responses import decode_echoes
from bc_attrvals.writing.confirming import Row
from bc_attrvals.writing.outcomes import Outcomes

#: Over a temporary working set, this many are noted at once.
MOST_UNNOTED: Final = 500


class UnnotedOutcomes(Outcomes):
    """Outcomes that are not noted yet; `keep_rows` keeps the rows of stored values, too."""

    __slots__ = ("_keeps_rows", "others", "rows", "written")

    def __init__(self, *, keep_rows: bool) -> None:
        self.others: deque[UpsertOutcome] = deque()
        super().__init__(0, self.others, most_untaken=MOST_UNNOTED)
        if not keep_rows:
            # Their dates are not read.
            self._decode = decode_echoes
        self._keeps_rows = keep_rows
        self.written: list[AttributeValueUpsert] = []
        self.rows: list[AttributeValue] = []

    @property
    def untaken(self) -> int:
        """How many outcomes there are."""
        return len(self.written) + len(self.others)

    @property
    def confirmed(self) -> int:
        """How many of them the service confirmed."""
        return len(self.written) + sum(one.ok for one in self.others)

    def stored(self, items: Sequence[AttributeValueUpsert], rows: Sequence[Row]) -> None:
        """Note items as stored, each with its row."""
        self.counts[OutcomeStatus.STORED] += len(items)
        self.written += items
        if self._keeps_rows:
            self.rows += (row for row in rows if isinstance(row, AttributeValue))

    def take(self) -> tuple[list[AttributeValueUpsert], list[AttributeValue], list[UpsertOutcome]]:
        """Return and forget what was stored, its rows, and all other outcomes."""
        taken = self.written, self.rows, list(self.others)
        self.written, self.rows = [], []
        self.others.clear()
        return taken

    def put_back(
        self, written: list[AttributeValueUpsert], others: Sequence[UpsertOutcome]
    ) -> None:
        """Keep again what was taken and could not be noted; its rows are lost."""
        self.written = written + self.written
        self.others.extendleft(reversed(others))
