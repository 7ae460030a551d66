"""Collects what became of the items of one upsert job: counts, the first failures, a queue."""

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

# Looked up with each call, and an enum's members take their time.
_STORED: Final = OutcomeStatus.STORED


Reconsider: TypeAlias = Callable[
    [Sequence[AttributeValueUpsert], BCAttrValsError], list[AttributeValueUpsert]
]


class Outcomes:
    """Where a job puts what became of its items; counts them all.

    Outcomes are made one by one only where there is a `queue` to put them in. While more than
    `most_untaken` of them wait there, the job begins no batch by itself. An item that stands for a
    named one, by `originals`, has its outcome under the item as it was given.
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
        #: The named value of each upsert under way, by the `id()` of the upsert that stands there.
        self.originals: dict[int, tuple[AttributeValueUpsert, Item]] = {}
        #: Takes back refused items that are to be resolved anew, and returns the others.
        self.reconsider: Reconsider | None = None

    @property
    def untaken(self) -> int:
        """How many outcomes nobody has read yet; none where nobody reads them."""
        return len(self._queue) if self._queue is not None else 0

    def decode(self, body: bytes) -> Sequence[Row]:
        """Return the rows of an answer that prove values, with dates only where a queue needs them.

        A row proves its value by its id, key and value. An answer that can't be read has none: it
        confirms nothing, and need not be wrong.
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
        """Note items as failed by a refusal, but for those that are to be resolved anew."""
        if self.originals and self.reconsider is not None:
            items = self.reconsider(items, error)
        self.lost(items, OutcomeStatus.FAILED, error)

    def lost(self, items: Iterable[Item], status: OutcomeStatus, error: BCAttrValsError) -> None:
        """Note items as failed or not sent, for one reason."""
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
        """Note an outcome that another job had."""
        self.counts[outcome.status] += 1
        if outcome.error is not None and len(self._failures) < self._most_failures:
            self._failures.append(outcome)

    def _as_given(self, item: Item) -> Item:
        if not self.originals:
            return item
        _, given = self.originals.pop(id(item), (None, item))
        return given

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
