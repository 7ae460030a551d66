"""One refresh of a mirror: lists what was modified, then proves by counts that the rest is equal.

1. The rows modified since the last known moment are listed completely: all that are new or changed.
2. Newly created rows of the mirror that this listing did not show are gone.
3. A reconciliation finds the other rows that are gone.

The first refresh lists everything, and `verify` does so after these steps. A refresh is one
transaction: one that ends early leaves the last proven state, and the next one begins where this
one began.

The proof needs that the service sets `date_modified` to the present, by a clock that never goes
back, whenever a row is added or changed; `verify` finds out. `date_created` of a row never changes.
A second that is over gains no rows. Still, the last minute is listed again, as far as it fits into
a fifth of a page, for servers whose clocks differ.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence
from typing import Final

import attrs

from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.events import MirrorFoundWrong
from bc_attrvals.mirror.created_index import CreatedIndex
from bc_attrvals.mirror.dated_pages import DatedPages, moment_of
from bc_attrvals.mirror.full_listing import list_anew, verify
from bc_attrvals.mirror.modified import ModifiedRows
from bc_attrvals.mirror.parts import Part, pages
from bc_attrvals.mirror.proving import Proving
from bc_attrvals.mirror.questions import Bounds
from bc_attrvals.mirror.replica import Replica
from bc_attrvals.mirror.report import FaultKind, RefreshReport
from bc_attrvals.mirror.row_sink import RowSink
from bc_attrvals.mirror.service_clock import ServiceClock
from bc_attrvals.scheduling.calls import Calls
from bc_attrvals.sync.db_thread import DatabaseThread
from bc_attrvals.sync.scope import Scope

#: What was modified in so many seconds before the last known moment is listed again.
_OVERLAP_S: Final = 60
#: Unless it takes more of a page than this one part of so many.
_OVERLAP_SHARE: Final = 5
#: In so many seconds one is looked for in which the mirror has no row, see `_choose_until`.
_QUIET_S: Final = 60

_logger = logging.getLogger(__name__)


class Refresh:
    """One refresh. Create it, then call `run` once."""

    def __init__(
        self,
        calls: Calls,
        database: DatabaseThread[Replica],
        scope: Scope,
        *,
        verify_every_s: float | None,
    ) -> None:
        self._calls = calls
        self._made_before = (calls.calls, calls.retries)
        self._database = database
        self._filter = scope.narrowed(None)
        self._verify_every_s = verify_every_s
        self._loop = asyncio.get_running_loop()
        self._clock = ServiceClock()
        self._pages = DatedPages(calls, self._clock)
        self._sink = RowSink(database, self._clock, calls.events)
        self._deficit = 0

    async def run(self, *, verify: bool) -> RefreshReport:
        """Refresh. If it raises or is cancelled, the mirror stays as it was."""
        started_at_s = self._loop.time()
        await self._database.run(Replica.begin)
        try:
            known = await self._database.run(_known)
            if known is None:
                verify = True
                known = await list_anew(
                    self._calls,
                    self._filter,
                    dated_pages=self._pages,
                    clock=self._clock,
                    sink=self._sink,
                )
            else:
                verify = verify or await self._is_verification_due()
                known = await self._update(known)
                if verify:
                    await self._verify(known)
            verified_at = int(time.time()) if verify else None
            totals = await self._database.run(Replica.commit, known, verified_at)
        except BaseException:
            await self._database.run(Replica.rollback)
            raise
        faults = self._sink.faults
        report = RefreshReport(
            rows=totals.rows,
            added=totals.added,
            changed=totals.changed,
            removed=totals.removed,
            calls=self._calls.calls - self._made_before[0],
            retries=self._calls.retries - self._made_before[1],
            seconds=self._loop.time() - started_at_s,
            listed=self._sink.count,
            anew_calls=pages(totals.rows, self._calls.sizes.page),
            verified=verify,
            stale=faults.counts[FaultKind.STALE],
            missing=faults.counts[FaultKind.MISSING],
            surplus=faults.counts[FaultKind.SURPLUS],
            uncounted=self._deficit,
            faults=tuple(faults.named),
        )
        self._warn(report)
        return report

    async def _update(self, known: int) -> int:
        """Bring the mirror up to date, and return the next known second."""
        since = await self._since(known)
        self._clock.observe(known, self._loop.time())
        self._sink.settled = since
        reached: list[int] = []
        for part, customers in self._parts():
            self._sink.index = None
            self._sink.shown, self._sink.shown_from = set(), since
            listing = ModifiedRows(
                self._calls,
                part,
                dated_pages=self._pages,
                clock=self._clock,
                take=self._sink.take,
            )
            reached.append(await listing.read(since))
            self._sink.shown_from = None
            await self._prove(part, customers, since, reached[-1])
        return min(reached, default=known)

    async def _since(self, known: int) -> int:
        """Return the second from which on modified rows are listed.

        The second before the known one at least, for rows created in it are not counted.
        """
        most = self._calls.sizes.page // _OVERLAP_SHARE
        seconds = await self._database.run(Replica.modified_from, known - _OVERLAP_S, most + 1)
        # Whether a bound includes its own second is not known: two seconds leave its rows out.
        earliest = seconds[-1] + 2 if len(seconds) > most else known - _OVERLAP_S
        return min(known - 1, earliest)

    async def _prove(
        self,
        filter: AttributeValueFilter,
        customers: Sequence[int] | None,
        since: int,
        reached: int,
    ) -> None:
        """Drop the rows of a part of the scope that are gone."""
        of_customers = customers is not None
        if customers is not None:
            await self._database.run(Replica.set_customers, customers)
        index = await self._database.run(Replica.created_index, of_customers=of_customers)
        self._sink.index = index
        until = _choose_until(index, since, reached)
        await self._drop_new_rows(index, until, since, of_customers=of_customers)
        bounds = await self._database.run(_bounds)
        proving = Proving(
            self._calls,
            filter,
            dated_pages=self._pages,
            database=self._database,
            sink=self._sink,
            of_customers=of_customers,
        )
        proven = await proving.prove(index, until, bounds)
        self._deficit = max(self._deficit, proven.deficit)
        if proven.bounds != bounds:
            await self._database.run(_note_bounds, proven.bounds)

    async def _drop_new_rows(
        self, index: CreatedIndex, until: int, since: int, *, of_customers: bool
    ) -> None:
        """Drop the rows created after a second that the listing should have shown and did not."""
        ids = await self._database.run(
            Replica.recent,
            index.attribute_ids(),
            created_after=until,
            modified_from=since,
            of_customers=of_customers,
        )
        gone = [one for one in ids if one not in self._sink.shown]
        if gone:
            self._sink.apply(await self._database.run(Replica.drop_ids, gone))

    async def _verify(self, known: int) -> None:
        self._sink.index = None
        await verify(self._calls, self._filter, self._database, self._sink, known=known)

    async def _is_verification_due(self) -> bool:
        if self._verify_every_s is None:
            return False
        # Our clock is compared with itself; if it was set back, the time is unknown.
        passed_s = time.time() - await self._database.run(Replica.number, "verified_at")
        return not 0 <= passed_s < self._verify_every_s

    def _parts(self) -> Iterator[tuple[AttributeValueFilter, Sequence[int] | None]]:
        """Yield the scope as filters that one URL takes with two dates, and their customers."""
        customers = self._filter.customer_id_in
        if customers is None:
            yield self._filter, None
            return
        waiting = [customers] if customers else []
        while waiting:
            some = waiting.pop()
            dated = attrs.evolve(
                self._filter,
                customer_id_in=some,
                date_modified_min=moment_of(0),
                date_modified_max=moment_of(0),
            )
            if len(self._calls.queries(dated)) > 1 and len(some) > 1:
                waiting += [some[len(some) // 2 :], some[: len(some) // 2]]
            else:
                yield attrs.evolve(self._filter, customer_id_in=some), some

    def _warn(self, report: RefreshReport) -> None:
        if report.ok:
            return
        _logger.warning(
            "the mirror was wrong, and is repaired: %d rows had changed without a new "
            "date_modified, %d were missing, %d were not in the store, %d were counted too few",
            report.stale,
            report.missing,
            report.surplus,
            report.uncounted,
        )
        if self._calls.events:
            self._calls.events.emit(
                MirrorFoundWrong(report.stale, report.missing, report.surplus, report.uncounted)
            )


def _choose_until(index: CreatedIndex, since: int, reached: int) -> int:
    """Return the last second to reconcile.

    The second after it is over, for the service has reached the one after that. It is as early as
    it can be, for writers whose clocks are behind: rows created later were listed. If the mirror
    has no row of the second after it, the counts are the same whether the bounds include their own
    second or not.
    """
    earliest = since - 1
    attribute_ids = tuple(sorted(index.attribute_ids()))
    for until in range(earliest, min(reached - 2, earliest + _QUIET_S) + 1):
        if not index.count(Part(attribute_ids, until + 1, until + 1)):
            return until
    return earliest


# Jobs of the database's thread.


def _known(replica: Replica) -> int | None:
    return int(replica.number("known")) if replica.text("known") else None


def _bounds(replica: Replica) -> Bounds:
    read = {"": None, "0": False, "1": True}
    return Bounds(read[replica.text("min_inclusive")], read[replica.text("max_inclusive")])


def _note_bounds(replica: Replica, bounds: Bounds) -> None:
    known = {name: value for name, value in attrs.asdict(bounds).items() if value is not None}
    replica.put(**{name: int(value) for name, value in known.items()})
