"""Collects the outcomes of one upsert job: counts, the first failures, a queue."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final, TypeAlias

from bc_attrvals.core.models import AttributeValue, AttributeValueUpsert
from bc_attrvals.core.named_value import Item
from bc_attrvals.core.outcomes import OutcomeStatus, UpsertOutcome, UpsertReport
from bc_attrvals.core.responses import decode_echoes, decode_proofs, decode_rows
from bc_attrvals.errors import BCAttrValsError, DecodeError
from bc_attrvals.writing.confirming import Row

# Read for each call; access to an enum member is slow.
_STORED: Final = OutcomeStatus.STORED


Reconsider: TypeAlias = Callable[
    [Sequence[AttributeValueUpsert], BCAttrValsError], list[AttributeValueUpsert]
]


class Outcomes:
    """Counts the outcomes of a job, and keeps those that are wanted.

    Outcomes are made for each item only if there is a `queue` to put them in. While more than
    `most_untaken` of them wait there, the job begins no batch by itself. The outcome of an upsert
    made from a `NamedValue` (see `originals`) has the item as it was given.
    """

    __slots__ = (
        "_decode",
        "_failures",
        "_most_failures",
        "_queue",
        "counts",
        "most_untaken",
        "originals",
        "reconsider",
    )

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
        #: By the `id()` of an upsert under way: this upsert, and the named value it was made from.
        self.originals: dict[int, tuple[AttributeValueUpsert, Item]] = {}
        #: Keeps the refused items that are resolved again, and returns the others.
        self.reconsider: Reconsider | None = None

    @property
    def untaken(self) -> int:
        """How many outcomes wait in the queue; 0 without a queue."""
        return len(self._queue) if self._queue is not None else 0

    def decode(self, body: bytes) -> Sequence[Row]:
        """Return the rows of an answer that confirm values, with dates only if there is a queue.

        A row confirms its value by its id, key and value. An answer that can't be read has no rows:
        it confirms nothing, and its items are read back.
        """
        try:
            return self._decode(body)
        except DecodeError:
            with suppress(DecodeError):
                return decode_proofs(body)
        return ()

    def stored(self, items: Sequence[AttributeValueUpsert], rows: Sequence[Row]) -> None:
        """Note items as stored, each with its row."""
        self.counts[_STORED] += len(items)
        given: Sequence[Item] = items
        if self.originals:
            given = [self._as_given(item) for item in items]
        if self._queue is not None:
            for item, row in zip(given, rows, strict=True):
                assert isinstance(row, AttributeValue)
                self._queue.append(UpsertOutcome(item, _STORED, row))

    def altered(self, item: AttributeValueUpsert, row: AttributeValue) -> None:
        """Note an item as stored in another form, which its row shows."""
        self.counts[OutcomeStatus.ALTERED] += 1
        given = self._as_given(item)
        if self._queue is not None:
            self._queue.append(UpsertOutcome(given, OutcomeStatus.ALTERED, row))

    def superseded(self, item: AttributeValueUpsert) -> None:
        """Note an item as superseded."""
        self.counts[OutcomeStatus.SUPERSEDED] += 1
        given = self._as_given(item)
        if self._queue is not None:
            self._queue.append(UpsertOutcome(given, OutcomeStatus.SUPERSEDED))

    def refused(self, items: Sequence[AttributeValueUpsert], error: BCAttrValsError) -> None:
        """Note items as failed by a refusal, except those that `reconsider` resolves again."""
        if self.originals and self.reconsider is not None:
            items = self.reconsider(items, error)
        self.lost(items, OutcomeStatus.FAILED, error)

    def lost(self, items: Iterable[Item], status: OutcomeStatus, error: BCAttrValsError) -> None:
        """Note items as failed or not sent, with one error for all."""
        for lost in items:
            item = self._as_given(lost)
            self.counts[status] += 1
            wanted = len(self._failures) < self._most_failures
            if not wanted and self._queue is None:
                continue
            outcome = UpsertOutcome(item, status, None, error)
            if wanted:
                self._failures.append(outcome)
            if self._queue is not None:
                self._queue.append(outcome)

    def note(self, outcome: UpsertOutcome) -> None:
        """Note the outcome of an item that another job sent."""
        self.counts[outcome.status] += 1
        if outcome.error is not None and len(self._failures) < self._most_failures:
            self._failures.append(outcome)

    def _as_given(self, item: Item) -> Item:
        if not self.originals:
            return item
        _, given = self.originals.pop(id(item), (None, item))
        return given

    def report(self, calls: int, retries: int, seconds: float) -> UpsertReport:
        """Return the report of all outcomes noted so far."""
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
