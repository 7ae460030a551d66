"""Lists everything: a mirror's first refresh, and `verify`, which says what was wrong.

Every row that lives through the listing is shown exactly once (`reading/exactly_once.py`), so what
is not shown is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Final

import attrs

from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.core.models import AttributeValue
from bc_attrvals.mirror.ingest import Ingest
from bc_attrvals.mirror.replica import Replica
from bc_attrvals.mirror.replica_schema import cells_of, row_of
from bc_attrvals.mirror.report import Faults
from bc_attrvals.mirror.service_clock import moment_of, second_of
from bc_attrvals.reading.exactly_once import exact_rows

#: Rows dropped at once.
_CHUNK: Final = 4_096


async def take_all(ingest: Ingest, filter: AttributeValueFilter) -> int | None:
    """Take all rows of a filter into an empty mirror.

    Returns a second: changes that the listing may have missed come at or after it. None for a store
    without rows.
    """
    loop = asyncio.get_running_loop()
    queries = ingest.calls.queries(filter)
    began_at_s = loop.time()
    for query in queries[:1]:
        # Its answer has the `Date` that tells rows of the future apart.
        first = await ingest.first_page(query)
        if len(queries) == 1 and len({row.id for row in first.data}) == first.pagination.total:
            return ingest.clock.least(began_at_s)
    async with aclosing(exact_rows(ingest.calls, filter)) as parts:
        async for rows in parts:
            await ingest.take(rows)
    return ingest.clock.least(began_at_s)


async def verify_all(ingest: Ingest, filter: AttributeValueFilter, *, settled: int) -> None:
    """Compare a mirror that a refresh has just proven with all rows, and repair it.

    What was wrong is noted in `ingest.faults`. Rows modified at or after second `settled` may
    have become visible since, and are no faults. Nor are rows that were deleted meanwhile: the
    counts, which said that they are there, then say that they are gone.
    """
    async with aclosing(exact_rows(ingest.calls, filter)) as parts:
        async for rows in parts:
            ingest.check(rows)
            await ingest.database.run(_compare, rows, ingest.faults, settled)
    gone = Faults()
    while held := await ingest.database.run(Replica.not_shown, _CHUNK):
        for one in held:
            gone.add(row_of(one.cells), None)
        await ingest.database.run(Replica.drop_rows, held)
    if gone.counts and await _counts_more(ingest, filter, settled - 1):
        ingest.faults.extend(gone)


async def _counts_more(ingest: Ingest, filter: AttributeValueFilter, until: int) -> bool:
    """Return whether the store counts more rows created up to second `until` than the mirror.

    Such rows only become fewer, so deletions do not explain it.
    """
    past = attrs.evolve(filter, date_created_max=moment_of(until))
    total = 0
    async with aclosing(ingest.pages((one, 1, 1) for one in ingest.calls.queries(past))) as pages:
        async for page in pages:
            total += page.pagination.total
    return total > await ingest.database.run(Replica.count, past)


def _compare(
    replica: Replica, rows: Sequence[AttributeValue], faults: Faults, settled: int
) -> None:
    """Count what differs in the mirror, and take the rows in."""
    with replica.transaction():
        held = replica.held(row.id for row in rows)
        for row in rows:
            one = held.get(row.id)
            if second_of(row.date_modified) >= settled or (one and one.cells == cells_of(row)):
                continue
            faults.add(row_of(one.cells) if one else None, row)
        replica.note_shown(rows)
        replica.take(rows, is_newest=True)
