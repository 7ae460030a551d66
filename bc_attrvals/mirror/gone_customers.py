"""Finds rows that are gone among customers whose ids are near to one that lost rows.

Customers that are deleted together mostly have neighbouring ids, and their rows may be of any date.
Then each page of `date_created` lacks few rows, and customers are the cheaper way to find them. A
group of customers is listed completely, so each drop is proven.

How many ids `customer_id:in` takes is not documented (BigCommerce reference, Get All Customer
Attribute Values). So the last id is that of a witness: a customer with a row that was just seen. An
answer without that row proves nothing.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection
from contextlib import aclosing
from typing import Final

import attrs

from bc_attrvals.core.filters import AttributeValueFilter, ListingQuery
from bc_attrvals.core.models import AttributeValue
from bc_attrvals.errors import APIError
from bc_attrvals.mirror.ingest import Ingest
from bc_attrvals.mirror.range_counts import Question, Search, SearchCustomers
from bc_attrvals.mirror.ranges import pages
from bc_attrvals.mirror.replica import Replica
from bc_attrvals.mirror.service_clock import moment_of

#: The pages of the mirror's rows of one group, on either side of a customer.
_PAGES: Final = 2
#: How many times more of its rows than others a group must lack, if it can.
_CLUSTERED: Final = 4
#: How many groups may find too little in one search.
_MOST_FAILURES: Final = 2
#: A comma and an id.
_WITNESS_BYTES: Final = 20
#: Refusals that may be of the number of ids.
_REFUSALS: Final = (400, 413, 414, 422)
#: Ids that count as near when the next customer is chosen.
_NEAR: Final = 64


async def drop_near(
    ingest: Ingest, part: AttributeValueFilter, search: Search, asked: SearchCustomers
) -> int:
    """Drop rows of groups of customers while that finds more than dates do; return the reads."""
    witness = await ingest.database.run(Replica.customer_of, asked.sample)
    if witness is None:
        return 0
    within = filter_of(part, search.question(asked.range, 1, search.page_size))
    tried: list[tuple[int, int]] = []
    reads = failures = 0
    while reads < asked.most_reads and failures < _MOST_FAILURES:
        place = _next_place(ingest.gone_customers, tried)
        if place is None:
            break
        ids = await _near(ingest, within, place, _PAGES * search.page_size)
        tried.append((min([place[0], *ids]), max([place[0], *ids])))
        ids = [*(one for one in ids if one != witness), witness]
        if len(ids) == 1:
            continue
        held = await ingest.database.run(Replica.count_range, asked.range, ids)
        share = asked.gone_share
        if place[1] and place[2]:
            # By chance a group lacks this share. One that continues another may lack no more.
            share = min(_CLUSTERED * share, (1 + share) / 2)
        (query,) = ingest.calls.queries(attrs.evolve(within, customer_id_in=ids))
        try:
            rows, count = await _listed(ingest, query, held * (1 - share), asked.most_reads - reads)
        except APIError as error:
            if error.status not in _REFUSALS:
                raise
            return reads + 1
        reads += count
        if any(row.customer_id == witness for row in rows):
            keep = {row.id for row in rows}
            ingest.follow(await ingest.database.run(Replica.drop_range, asked.range, keep, ids))
        else:
            failures += 1
    return reads


async def _near(
    ingest: Ingest, within: AttributeValueFilter, place: tuple[int, bool, bool], most_rows: int
) -> list[int]:
    """Return customers that the mirror has at a place, in order, as many as a URL holds."""
    customer_id, below, above = place
    near = await ingest.database.run(
        Replica.customers_near, customer_id, below * most_rows, above * most_rows
    )
    parts = ingest.calls.queries(attrs.evolve(within, customer_id_in=near), _WITNESS_BYTES)
    fitting = [list(one.filter.customer_id_in or ()) for one in parts]
    return next((ids for ids in fitting if ids[-1] >= customer_id), fitting[-1] if fitting else [])


async def _listed(
    ingest: Ingest, query: ListingQuery, most_rows: float, most_reads: int
) -> tuple[list[AttributeValue], int]:
    """Return all rows of a query, and the pages read.

    There are none if the rows are incomplete, or at least `most_rows`.
    """
    size = ingest.calls.sizes.page
    rows: list[AttributeValue] = []
    totals: set[int] = set()
    count = number = 1
    while number <= count:
        async with aclosing(ingest.pages([(query, number, size)])) as found:
            async for page in found:
                rows += page.data
                totals.add(page.pagination.total)
        if number == 1:
            count = pages(page.pagination.total, max(1, len(rows)))
            if page.pagination.total >= most_rows or count > most_reads:
                return [], 1
        number += 1
    return (rows if totals == {len({row.id for row in rows})} else []), count


def _next_place(
    gone: Collection[int], tried: Collection[tuple[int, int]]
) -> tuple[int, bool, bool] | None:
    """Return a customer, and whether to look up to it and from it on; None if no place is left.

    Of the customers that lost rows, the one with most others near comes first. A group whose end
    lost rows is continued beyond.
    """

    def is_new(customer_id: int) -> bool:
        return not any(first <= customer_id <= last for first, last in tried)

    ordered = sorted(filter(is_new, gone))
    if ordered:

        def near(one: int) -> int:
            return bisect_right(ordered, one + _NEAR) - bisect_left(ordered, one - _NEAR)

        return max(ordered, key=near), True, True
    for first, last in tried:
        if first in gone and is_new(first - 1):
            return first - 1, True, False
        if last in gone and is_new(last + 1):
            return last + 1, False, True
    return None


def filter_of(part: AttributeValueFilter, one: Question) -> AttributeValueFilter:
    """Return a part of the scope narrowed to a question."""
    return attrs.evolve(
        part,
        attribute_id_in=one.attribute_ids or part.attribute_id_in,
        date_created_min=None if one.minimum is None else moment_of(one.minimum),
        date_created_max=moment_of(one.maximum),
    )
