"""Sends the questions of a reconciliation, and carries out its drops.

Between `reconcile.py`, which is pure, and the calls and the replica.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing

import attrs

from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.core.models import Page
from bc_attrvals.errors import FilterIgnoredError, ListingDriftError
from bc_attrvals.mirror.created_index import CreatedIndex
from bc_attrvals.mirror.dated_pages import DatedPages, moment_of, second_of
from bc_attrvals.mirror.questions import (
    Answer,
    Ask,
    Bounds,
    Done,
    Drop,
    Failed,
    Failure,
    Question,
    SeenRow,
)
from bc_attrvals.mirror.reconcile import Reconciliation
from bc_attrvals.mirror.replica import Replica
from bc_attrvals.mirror.row_sink import RowSink
from bc_attrvals.scheduling.at_once import at_once_in_order
from bc_attrvals.scheduling.calls import Calls
from bc_attrvals.sync.db_thread import DatabaseThread


@attrs.frozen
class Proven:
    """What a reconciliation learnt. `deficit` is that of its `Done`."""

    bounds: Bounds
    deficit: int


class Proving:
    """The reconciliation of one filter, which fits into one URL with two dates."""

    def __init__(
        self,
        calls: Calls,
        filter: AttributeValueFilter,
        *,
        dated_pages: DatedPages,
        database: DatabaseThread[Replica],
        sink: RowSink,
        of_customers: bool,
    ) -> None:
        self._calls = calls
        self._pages = dated_pages
        self._filter = filter
        self._database = database
        self._sink = sink
        self._of_customers = of_customers

    async def prove(self, index: CreatedIndex, until: int, bounds: Bounds) -> Proven:
        """Drop the rows created up to a second that are gone, until the rest is proven equal.

        Raises `ListingDriftError` if that can't be proven, and `FilterIgnoredError`.
        """
        reconciliation = Reconciliation(
            index, until=until, page_size=self._calls.sizes.page, bounds=bounds
        )
        step = reconciliation.advance()
        while not isinstance(step, Done):
            if isinstance(step, Failed):
                if step.reason is Failure.OUTSIDE_OF_FILTER:
                    raise FilterIgnoredError(step.reason.value)
                raise ListingDriftError(step.reason.value)
            if isinstance(step, Drop):
                taken = await self._database.run(
                    Replica.drop_part, step.part, step.keep, of_customers=self._of_customers
                )
                self._sink.apply(taken)
                step = reconciliation.advance()
            else:
                step = reconciliation.advance(await self._answers(step))
        return Proven(reconciliation.bounds, step.deficit)

    async def _answers(self, ask: Ask) -> Sequence[Answer]:
        answers = []
        reads = self._calls.limits.reads
        async with aclosing(at_once_in_order(self._page, ask.questions, reads)) as found:
            async for page in found:
                await self._sink.take(page.data)
                seen = [
                    SeenRow(row.id, row.attribute_id, second_of(row.date_created))
                    for row in page.data
                ]
                answers.append(Answer(page.pagination.total, seen))
        return answers

    async def _page(self, question: Question) -> Page:
        dated = attrs.evolve(
            self._filter,
            attribute_id_in=question.attribute_ids or self._filter.attribute_id_in,
            date_created_min=None if question.minimum is None else moment_of(question.minimum),
            date_created_max=moment_of(question.maximum),
        )
        (query,) = self._calls.queries(dated)
        return await self._pages.page(query, question.page, question.limit)
