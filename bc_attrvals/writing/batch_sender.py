"""Sends one batch until each item has one outcome: splits refused parts, reads back the rest.

Between the job that begins batches and the calls below.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Final

import attrs

from bc_attrvals.core.models import AttributeValue, AttributeValueUpsert, Key
from bc_attrvals.core.outcomes import OutcomeStatus
from bc_attrvals.core.refusals import Fault, fault_of, size_allowed
from bc_attrvals.core.responses import indexes_named
from bc_attrvals.core.retry import ends_job
from bc_attrvals.errors import (
    APIError,
    BCAttrValsError,
    DecodeError,
    StoreStateError,
    TransportError,
    UnconfirmedError,
)
from bc_attrvals.reading.unordered import read_back
from bc_attrvals.scheduling.calls import Calls
from bc_attrvals.scheduling.exchange import OutdatedError, Worker
from bc_attrvals.writing.bad_items import BadItemSearch, Suspects
from bc_attrvals.writing.confirming import (
    Row,
    are_echoes,
    confirmed_by,
    filter_of,
    is_altered,
    rows_by_key,
)
from bc_attrvals.writing.outcomes import Outcomes

#: Refusals without a reason that may mean too many rows. 409 and 423 may mean a locked one.
_MAYBE_SIZE: Final = frozenset({400, 422})
#: How often an item is sent if read-back does not find its value.
_MOST_SENDINGS: Final = 2


@attrs.define(eq=False)
class Batch:
    """The batch that a worker sends, with the state of all its calls; reused for the next one."""

    keyed: dict[Key, AttributeValueUpsert]
    worker: Worker
    # The items without an outcome, and the part of them that is sent now.
    open: BadItemSearch
    part: list[AttributeValueUpsert] = attrs.field(factory=list)
    # Keys that were sent before, in a call that was refused, cut or not confirmed.
    tried: set[Key] = attrs.field(factory=set)
    # How often unconfirmed items were sent.
    sendings: dict[Key, int] = attrs.field(factory=dict)
    # The rows of a refused part whose size may be the cause, and the most of its parts' rows that
    # were stored; 0 if an item is to blame.
    refused: int = 0
    accepted: int = 0
    # The index that the last refusal named.
    named: int | None = None
    # False while the log notes the batch; that must not be cancelled.
    is_noted: bool = True

    def begin(self, keyed: dict[Key, AttributeValueUpsert]) -> None:
        """Start the next batch."""
        self.keyed, self.part = keyed, []
        self.open.begin(keyed.values())
        if self.tried:
            self.refused, self.accepted, self.named = 0, 0, None
            self.tried.clear()
            self.sendings.clear()

    def note_sent(self) -> None:
        """Note the items of the part as tried if its call was sent."""
        if self.worker.was_sent:
            self.tried.update(item.key for item in self.part)


class BatchSender:
    """Sends the batches of one job, several at once, until an error ends the job.

    `on_stop` is then called once, with that error and its batch.
    """

    def __init__(
        self,
        calls: Calls,
        outcomes: Outcomes,
        on_stop: Callable[[BCAttrValsError, Batch], None],
    ) -> None:
        self._calls = calls
        self._part_calls = calls.for_parts()
        self._outcomes = outcomes
        self._on_stop = on_stop
        self._suspects = Suspects()
        #: The error that ended the job.
        self.stopped_by: BCAttrValsError | None = None

    def batch(self, keyed: dict[Key, AttributeValueUpsert], worker: Worker) -> Batch:
        """Return the first batch of a worker."""
        batch = Batch(keyed, worker, BadItemSearch(keyed.values(), self._suspects))
        worker.is_outdated = partial(self._is_outdated, batch)
        return batch

    def _next_part(self, batch: Batch) -> list[AttributeValueUpsert]:
        """Return the part of a batch to send now, no larger than the size learnt."""
        batch.part = part = batch.open.take()
        if self._is_outdated(batch):
            batch.open.limit(self._calls.sizes.batch)
            batch.part = part = batch.open.take()
        return part

    def _is_outdated(self, batch: Batch) -> bool:
        """Return whether the part of a batch is larger than the size learnt since it was cut."""
        sizes = self._calls.sizes
        return len(batch.part) > sizes.batch and not sizes.customers

    async def send(self, batch: Batch) -> None:
        """Send a batch, and then its parts if it is refused, until each item has an outcome."""
        left, sizes = batch.open, self._calls.sizes
        while self.stopped_by is None and (part := self._next_part(batch)):
            calls = self._part_calls if left.has_begun else self._calls
            rows: Sequence[Row] = ()
            lost: TransportError | None = None
            try:
                answer = await calls.put(part, batch.worker)
                rows = self._outcomes.decode(answer.body)
            except OutdatedError:
                batch.note_sent()
                continue
            except DecodeError:
                # The answer is too long, for example. The write may have been applied.
                pass
            except BCAttrValsError as error:
                if not (isinstance(error, TransportError) and error.was_accepted):
                    self._take_apart(part, batch, error)
                    continue
                lost = error
            if are_echoes(part, rows):
                self._outcomes.stored(part, rows)
                if self._suspects.known:
                    self._suspects.clear(part)
                is_settled = left.settle(part)
            else:
                await self._confirm(part, rows, batch, lost)
                is_settled = False
            if left.has_begun or len(part) > sizes.accepted:
                self._learn(len(part), batch)
            if is_settled:
                return

    def give_up(
        self, items: Sequence[AttributeValueUpsert], batch: Batch, error: BCAttrValsError
    ) -> None:
        """Note the items left when the job has ended: failed if ever sent, else not sent."""
        batch.note_sent()
        for item in items:
            tried = item.key in batch.tried
            status = OutcomeStatus.FAILED if tried else OutcomeStatus.NOT_SENT
            self._outcomes.lost([item], status, error)

    def _take_apart(
        self, part: list[AttributeValueUpsert], batch: Batch, error: BCAttrValsError
    ) -> None:
        """Settle the items that an error decides; the rest is sent again, in smaller parts."""
        left = batch.open
        fault = fault_of(error, len(part))
        if fault is Fault.JOB or fault is Fault.SERVICE:
            if isinstance(error, StoreStateError):
                self.give_up(part, batch, error)
            else:
                self._outcomes.lost(part, OutcomeStatus.FAILED, error)
            left.lost(part)
            batch.refused = 0
            if fault is Fault.JOB:
                self._stop(error, batch)
            return
        assert isinstance(error, APIError)
        batch.tried.update(item.key for item in part)
        named = indexes_named(error.errors, len(part))
        sizes = self._calls.sizes
        if len(part) > sizes.batch and fault is Fault.ITEM and not named:
            # The batch counts customers, and they may have too many rows.
            fault = Fault.SIZE
        if fault is Fault.SIZE:
            allowed = size_allowed(error, len(part))
            if len(part) > sizes.batch:
                allowed = min(allowed or sizes.batch, sizes.batch)
            bad = left.too_large(part, allowed)
            if not bad:
                sizes.lower_batch(left.most)
        elif self._may_be_size(part, batch, error, named):
            bad = []
        else:
            bad = (left.refused if fault is Fault.ITEM else left.failed)(part, named)
        self._outcomes.refused(bad, error)

    def _may_be_size(
        self,
        part: list[AttributeValueUpsert],
        batch: Batch,
        error: APIError,
        named: Collection[int],
    ) -> bool:
        """Note a refusal whose cause may be the size; return whether no item is searched for.

        A call with too many rows may name the first one too many. It is believed to be bad, unless
        the next refusal names the same index, or a call counts customers.
        """
        left, sizes = batch.open, self._calls.sizes
        if error.status not in _MAYBE_SIZE or len(part) <= batch.accepted or len(part) == 1:
            if batch.refused:
                sizes.blame_items()
            batch.refused = 0
            return False
        if not named:
            batch.refused = batch.refused or len(part)
            return False
        index = min(named)
        most = sizes.batch if len(part) > sizes.batch else index
        is_first_too_many = index >= sizes.batch or batch.named == index > 0
        batch.named, batch.refused = index, 0
        if not is_first_too_many or not sizes.doubts(most + 1):
            return False
        batch.refused, batch.accepted = len(part), 0
        left.too_large(part, most)
        left.has_begun = True
        return True

    def _learn(self, rows: int, batch: Batch) -> None:
        """Note that a call of so many rows was accepted; lower the size if no item was bad."""
        left, sizes = batch.open, self._calls.sizes
        if not left.has_begun:
            if rows > sizes.accepted:
                sizes.accept(rows)
            return
        batch.accepted = max(batch.accepted, rows)
        if batch.refused and not left.items():
            sizes.infer_batch(batch.refused, batch.accepted)
        elif batch.refused and sizes.doubts(batch.refused):
            # If it was an item, the rest is refused too, and no further size is doubted.
            left.acquit()

    async def _confirm(
        self,
        part: list[AttributeValueUpsert],
        rows: Sequence[Row],
        batch: Batch,
        lost: TransportError | None,
    ) -> None:
        """Match the rows of an answer with the items, and read back the unconfirmed items.

        `lost` is the error of a 2xx whose body was lost at each try. Items that the read-back does
        not find fail with it.
        """
        echoes = rows_by_key(rows)
        confirmed, stored, unconfirmed = confirmed_by(part, echoes)
        self._outcomes.stored(confirmed, stored)
        self._suspects.clear(confirmed)
        batch.open.settle(part)
        batch.open.again(unconfirmed)
        if unconfirmed:
            await self._read_back(unconfirmed, echoes, batch, lost)

    async def _read_back(
        self,
        items: list[AttributeValueUpsert],
        echoes: Mapping[Key, Row],
        batch: Batch,
        lost: TransportError | None,
    ) -> None:
        """Read unconfirmed items back, and settle those that are not sent again."""
        found, error = await read_back(self._calls, filter_of(items))
        held = rows_by_key(found)
        confirmed, rows, left = confirmed_by(items, held)
        self._outcomes.stored(confirmed, rows)
        self._suspects.clear(confirmed)
        batch.open.settle(confirmed)
        failure = lost or error
        if failure is not None:
            self._outcomes.lost(left, OutcomeStatus.FAILED, failure)
            batch.open.settle(left)
            if error is not None and ends_job(error):
                self._stop(error, batch)
            return
        for item in left:
            key = item.key
            row = held.get(key)
            if row is not None and is_altered(row, echoes.get(key)):
                self._outcomes.altered(item, row)
                self._suspects.clear([item])
                batch.open.settle([item])
                continue
            sendings = batch.sendings[key] = batch.sendings.get(key, 0) + 1
            batch.tried.add(key)
            if sendings == _MOST_SENDINGS:
                self._outcomes.lost([item], OutcomeStatus.FAILED, _unconfirmed(row))
                batch.open.settle([item])

    def _stop(self, error: BCAttrValsError, batch: Batch) -> None:
        if self.stopped_by is None:
            self.stopped_by = error
            self._on_stop(error, batch)


def _unconfirmed(row: AttributeValue | None) -> UnconfirmedError:
    held = "no value" if row is None else f"another value, {row.value!r}"
    return UnconfirmedError(
        f"sent {_MOST_SENDINGS} times with success, yet the service holds {held}"
    )
