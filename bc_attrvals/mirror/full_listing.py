"""Lists everything: a mirror's first refresh, and `verify`, which says what was wrong.

Every row that lives through the listing is shown exactly once (`reading/exactly_once.py`), so what
is not shown is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Final

from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.core.models import AttributeValue
from bc_attrvals.mirror.dated_pages import DatedPages, second_of
from bc_attrvals.mirror.faults import Faults
from bc_attrvals.mirror.parts import pages
from bc_attrvals.mirror.replica import Replica, cells_of, row_of
from bc_attrvals.mirror.row_sink import RowSink
from bc_attrvals.mirror.service_clock import ServiceClock
from bc_attrvals.reading.exactly_once import exact_rows
from bc_attrvals.scheduling.calls import Calls
from bc_attrvals.sync.db_thread import DatabaseThread

#: Of so many rows that were modified last, there may be pages.
_MANY: Final = 25
#: Rows dropped at once.
_CHUNK: Final = 4_096


async def list_anew(
    calls: Calls,
    filter: AttributeValueFilter,
    *,
    dated_pages: DatedPages,
    clock: ServiceClock,
    sink: RowSink,
) -> int | None:
    """Take all rows into an empty mirror.

    Returns a second: changes that the listing may have missed come at or after it. None is for a
    store without rows.
    """
    loop = asyncio.get_running_loop()
    queries = calls.queries(filter)
    began_at_s = loop.time()
    for query in queries[:1]:
        first = await dated_pages.first_page(query)
        reached = await sink.take(first.data)
        total = first.pagination.total
        if len(queries) == 1 and len({row.id for row in first.data}) == total:
            return reached
        # By id, the newest rows stand on the last page.
        number = pages(total, max(1, len(first.data)))
        last = await dated_pages.page(query, number, calls.sizes.page)
        await sink.take(last.data)
        seconds = [second_of(row.date_modified) for row in (*first.data, *last.data)]
        newest = max((one for one in seconds if clock.is_near(one, loop.time())), default=0)
        if sum(newest - 2 <= one <= newest for one in seconds) > _MANY:
            # Once their seconds are over, the next refresh need not list them again.
            await asyncio.sleep(max(0, clock.until_over_s(newest + 2, loop.time())))
        began_at_s = loop.time()
    async with aclosing(exact_rows(calls, filter)) as parts:
        async for rows in parts:
            await sink.take(rows)
    return clock.least(began_at_s)


async def verify(
    calls: Calls,
    filter: AttributeValueFilter,
    database: DatabaseThread[Replica],
    sink: RowSink,
    *,
    known: int,
) -> None:
    """Compare a mirror that a refresh has just proven with all rows, and repair it.

    What was wrong goes to the sink's faults. Rows modified at or after second `known` may have
    changed since, and are no faults.
    """
    async with aclosing(exact_rows(calls, filter)) as parts:
        async for rows in parts:
            sink.check(rows)
            await database.run(_compare, rows, sink.faults, known)
    while held := await database.run(Replica.not_shown, _CHUNK):
        for one in held:
            sink.faults.add(row_of(one[2]), None)
        await database.run(Replica.drop_rows, held)


def _compare(replica: Replica, rows: Sequence[AttributeValue], faults: Faults, known: int) -> None:
    """Count what differs in the mirror, and take the rows in."""
    with replica.transaction():
        held = replica.held(row.id for row in rows)
        for row in rows:
            one = held.get(row.id)
            if second_of(row.date_modified) >= known or (one and one[2] == cells_of(row)):
                continue
            faults.add(row_of(one[2]) if one else None, row)
        replica.note_shown(rows)
        replica.take(rows, is_newest=True)
