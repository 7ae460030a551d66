"""Collects what became of the items of one upsert job: counts, the first failures, a queue."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from bc_attrvals.core.models import AttributeValue, AttributeValueUpsert
from bc_attrvals.core.outcomes import OutcomeStatus, UpsertOutcome, UpsertReport
from bc_attrvals.core.responses import decode_echoes, decode_rows
from bc_attrvals.errors import BCAttrValsError, DecodeError
from bc_attrvals.writing.confirming import Row

__all__ = ["Outcomes"]

# Looked up with each call, and an enum's members take their time.
_STORED: Final = OutcomeStatus.STORED


class Outcomes:
    """Where a job puts what became of its items; counts them all.

    Outcomes are made one by one only where there is a `queue` to put them in. While more than
    `most_untaken` of them wait there, the job begins no batch by itself.
    """

    __slots__ = ("_decode", "_failures", "_most_failures", "_queue", "counts", "most_untaken")

    def __init__(
        self,
        most_failures: int,
        queue: deque[UpsertOutcome] | None = None,
        *,
        most_untaken: int = 10,
    ) -> None:
        self.counts = dict.fromkeys(OutcomeStatus, 0)
        self._failures: list[UpsertOutcome] = []
        self._most_failures = most_failures
        self._queue = queue
        self._decode: Callable[[bytes], Sequence[Row]]
        self._decode = decode_echoes if queue is None else decode_rows
        self.most_untaken = most_untaken

    @property
    def untaken(self) -> int:
        """How many outcomes nobody has read yet; none where nobody reads them."""
        return len(self._queue) if self._queue is not None else 0

    def decode(self, body: bytes) -> Sequence[Row]:
        """Return the rows of an answer, with their ids and dates only where a queue needs them.

        An answer that can't be read has none: it confirms nothing, and need not be wrong.
        """
        try:
            return self._decode(body)
        except DecodeError:
            return ()

    def stored(self, items: Sequence[AttributeValueUpsert], rows: Sequence[Row]) -> None:
        """Note items as stored, each with its row."""
        self.counts[_STORED] += len(items)
        if self._queue is not None:
            for item, row in zip(items, rows, strict=True):
                assert isinstance(row, AttributeValue)
                self._queue.append(UpsertOutcome(item, _STORED, row))

    def altered(self, item: AttributeValueUpsert, row: AttributeValue) -> None:
        """Note an item as stored in another form, which its row shows."""
        self.counts[OutcomeStatus.ALTERED] += 1
        if self._queue is not None:
            self._queue.append(UpsertOutcome(item, OutcomeStatus.ALTERED, row))

    def superseded(self, item: AttributeValueUpsert) -> None:
        """Note an item as superseded."""
        self.counts[OutcomeStatus.SUPERSEDED] += 1
        if self._queue is not None:
            self._queue.append(UpsertOutcome(item, OutcomeStatus.SUPERSEDED))

    def lost(
        self, items: Iterable[AttributeValueUpsert], status: OutcomeStatus, error: BCAttrValsError
    ) -> None:
        """Note items as failed or not sent, for one reason."""
        for item in items:
            self.counts[status] += 1
            wanted = len(self._failures) < self._most_failures
            if not wanted and self._queue is None:
                continue
            outcome = UpsertOutcome(item, status, None, error)
            if wanted:
                self._failures.append(outcome)
            if self._queue is not None:
                self._queue.append(outcome)

    def report(self, calls: int, retries: int, seconds: float) -> UpsertReport:
        """Return the sum."""
        return UpsertReport(
            stored=self.counts[OutcomeStatus.STORED],
            altered=self.counts[OutcomeStatus.ALTERED],
            failed=self.counts[OutcomeStatus.FAILED],
            superseded=self.counts[OutcomeStatus.SUPERSEDED],
            not_sent=self.counts[OutcomeStatus.NOT_SENT],
            failures=tuple(self._failures),
            calls=calls,
            retries=retries,
            seconds=seconds,
        )
