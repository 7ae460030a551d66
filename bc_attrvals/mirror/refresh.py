"""One refresh of a mirror: lists what was modified, then proves by counts that the rest is equal.

1. The rows modified since the last known moment are listed completely: all that are new or changed.
2. Newly created rows of the mirror that this listing did not show are gone.
3. A reconciliation finds the other rows that are gone.

The first refresh lists everything, and `verify` does so after these steps. A refresh is one
transaction: one that ends early leaves the last proven state, and the next one begins where this
one began.

The proof assumes that the service sets `date_modified` to the present whenever a row is added or
changed, that a row is visible less than a minute later, by all of the service's clocks, and that
`date_created` of a row never changes. Then a second of a minute ago gains no rows, and only the
minute before the last known moment is listed again. `verify` checks the assumptions.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import aclosing
from typing import Final

from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.core.sync_plan import MAX_VALUES_PER_CUSTOMER
from bc_attrvals.errors import InvalidInputError
from bc_attrvals.events import MirrorFoundWrong
from bc_attrvals.mirror.created_index import CreatedIndex
from bc_attrvals.mirror.full_listing import take_all, verify_all
from bc_attrvals.mirror.gone_customers import drop_near, filter_of
from bc_attrvals.mirror.ingest import Ingest
from bc_attrvals.mirror.modified_since import take_modified
from bc_attrvals.mirror.range_counts import (
    Answer,
    Done,
    Drop,
    Question,
    Search,
    SearchCustomers,
    SeenRow,
)
from bc_attrvals.mirror.ranges import END, Range, pages
from bc_attrvals.mirror.reconcile import reconcile
from bc_attrvals.mirror.replica import Replica
from bc_attrvals.mirror.report import FaultKind, RefreshReport
from bc_attrvals.mirror.service_clock import LAG_S, second_of
from bc_attrvals.scheduling.calls import Calls
from bc_attrvals.sync.database_thread import DatabaseThread
from bc_attrvals.sync.scope import Scope

#: Seconds that are searched for one without a row of the mirror; see `_choose_until`.
_QUIET_S: Final = 60
#: What the questions of a refresh add to a query: three dates, and all attributes of a store.
_DATES_BYTES: Final = len("&date_modified:min=&date_created:min=&date_created:max=") + 3 * 20
_ATTRIBUTES_BYTES: Final = len("&attribute_id:in=") + 11 * MAX_VALUES_PER_CUSTOMER

_logger = logging.getLogger(__name__)


class Refresh:
    """One refresh. Create it, then call `run` once."""

    def __init__(self, calls: Calls, database: DatabaseThread[Replica], scope: Scope) -> None:
        self._calls = calls
        self._made_before = (calls.calls, calls.retries)
        self._database = database
        self._filter = scope.narrowed(None)
        self._ingest = Ingest(calls, database)
        self._deficit = 0

    async def run(self, *, verify: bool, verify_every_s: float | None) -> RefreshReport:
        """Refresh. If it raises or is cancelled, the mirror stays as it was."""
        loop = asyncio.get_running_loop()
        started_at_s = loop.time()
        parts = self._parts()
        await self._database.run(Replica.begin)
        try:
            known = await self._database.run(lambda replica: replica.known)
            if known is None:
                verify = True
                known = await take_all(self._ingest, self._filter)
            else:
                verify = verify or await self._is_verification_due(verify_every_s)
                known = await self._update(known, parts)
                if verify:
                    self._ingest.index = None
                    await verify_all(self._ingest, self._filter, settled=known - LAG_S)
            verified_at = int(time.time()) if verify else None
            counts = await self._database.run(Replica.commit, known, verified_at)
        except BaseException:
            await self._database.run(Replica.rollback)
            raise
        faults = self._ingest.faults
        report = RefreshReport(
            **counts,
            calls=self._calls.calls - self._made_before[0],
            retries=self._calls.retries - self._made_before[1],
            seconds=loop.time() - started_at_s,
            listed=self._ingest.count,
            anew_calls=pages(counts["rows"], self._calls.sizes.page),
            verified=verify,
            stale=faults.counts[FaultKind.STALE],
            missing=faults.counts[FaultKind.MISSING],
            surplus=faults.counts[FaultKind.SURPLUS],
            uncounted=self._deficit,
            faults=tuple(faults.named),
        )
        self._warn(report)
        return report

    async def _is_verification_due(self, every_s: float | None) -> bool:
        if every_s is None:
            return False
        # Our clock is compared with itself; if it was set back, the time is unknown.
        passed_s = time.time() - await self._database.run(Replica.number, "verified_at")
        return not 0 <= passed_s < every_s

    async def _update(self, known: int, parts: Sequence[AttributeValueFilter]) -> int:
        """Bring the mirror up to date, and return the next known second."""
        ingest = self._ingest
        since = await self._since(known)
        ingest.clock.observe(known, asyncio.get_running_loop().time(), our_second=known)
        ingest.settled = since
        reached: list[int] = []
        for part in parts:
            ingest.index = None
            await self._database.run(Replica.select_customers, part.customer_id_in)
            ingest.shown, ingest.shown_from = set(), since
            reached.append(await take_modified(ingest, part, since))
            ingest.shown_from = None
            await self._drop_gone(part, since, known - LAG_S - 1, reached[-1])
        return min(reached, default=known)

    async def _since(self, known: int) -> int:
        """Return the first second whose modified rows are listed.

        It is a minute before the known one, or earlier: rows created later are not counted, and a
        clock that was behind may have dated their changes before it.
        """
        since = known - LAG_S
        first = await self._database.run(Replica.first_modified, since, since - LAG_S)
        return since if first is None else min(since, first)

    def _parts(self) -> list[AttributeValueFilter]:
        """Return the scope in parts, each with room in a URL for three dates and for attributes.

        Raises `InvalidInputError` for more attributes than a URL holds: rows of those that a part
        left out would look gone.
        """
        # A reconciliation asks for some of the attributes that it finds.
        spare = _DATES_BYTES + (0 if self._filter.attribute_id_in else _ATTRIBUTES_BYTES)
        parts = [query.filter for query in self._calls.queries(self._filter, spare)]
        if len({part.attribute_id_in for part in parts}) > 1:
            raise InvalidInputError("scope has more attributes than a URL holds", field="scope")
        return parts

    async def _drop_gone(
        self, part: AttributeValueFilter, since: int, counted: int, reached: int
    ) -> None:
        """Drop the rows of a part of the scope that are gone.

        Rows created after second `counted` were listed, if they were modified since `since`.
        Raises `ListingDriftError` if the rest can't be proven equal, and `FilterIgnoredError`.
        """
        ingest, run = self._ingest, self._database.run
        ingest.gone_customers = set()
        ingest.index = index = await run(Replica.created_index)
        until = _choose_until(index, counted, reached)
        new = Range(index.attribute_ids(), until + 1, END)
        ingest.follow(await run(Replica.drop_range, new, ingest.shown, modified_from=since))
        bounds = await run(lambda replica: replica.bounds)
        search = Search(index, until=until, page_size=self._calls.sizes.page, bounds=bounds)
        steps = reconcile(search)
        step = next(steps)
        while not isinstance(step, Done):
            if isinstance(step, Drop):
                ingest.follow(await run(Replica.drop_range, step.range, step.keep))
                step = next(steps)
            elif isinstance(step, SearchCustomers):
                search.asked_of_customers += await drop_near(ingest, part, search, step)
                step = next(steps)
            else:
                step = steps.send(await self._answers(part, step.questions))
        self._deficit = max(self._deficit, step.deficit)
        await run(Replica.note_bounds, search.bounds)

    async def _answers(
        self, part: AttributeValueFilter, questions: Sequence[Question]
    ) -> Sequence[Answer]:
        asked = []
        for one in questions:
            (query,) = self._calls.queries(filter_of(part, one))
            asked.append((query, one.page, one.limit))
        answers = []
        async with aclosing(self._ingest.pages(asked)) as found:
            async for page in found:
                rows = [
                    SeenRow(row.id, row.attribute_id, second_of(row.date_created))
                    for row in page.data
                ]
                answers.append(Answer(page.pagination.total, rows))
        return answers

    def _warn(self, report: RefreshReport) -> None:
        if report.ok:
            return
        wrong = (report.stale, report.missing, report.surplus, report.uncounted)
        _logger.warning(
            "the mirror was wrong, and is repaired; rows changed without a new date_modified: %d, "
            "missing: %d, not in the store: %d, counted too few: %d",
            *wrong,
        )
        if self._calls.events:
            self._calls.events.emit(MirrorFoundWrong(*wrong))


def _choose_until(index: CreatedIndex, earliest: int, reached: int) -> int:
    """Return the last second to reconcile, at least `earliest`.

    Rows of it and of the next second are visible, because the service has reached the minute after
    them. A second is preferred that is followed by one without a row of the mirror: counts are then
    the same whether bounds include their own second or not.
    """
    attribute_ids = index.attribute_ids()
    for until in range(earliest, min(reached - LAG_S - 2, earliest + _QUIET_S) + 1):
        if not index.count(Range(attribute_ids, until + 1, until + 1)):
            return until
    return earliest
