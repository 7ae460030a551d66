"""A listing over raw HTTP, and the lies its server tells."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs

from bc_attrvals import Store
from tests.probes import at_rest
from tests.raw_server import Connection, RawRequest, answer, page_body, row, store_on


@attrs.define
class Pager:
    """A listing over raw HTTP whose rows and counters change from request to request."""

    ids: list[int]
    per_page: int = 4
    # Called before each answer, with how many were given.
    change: Callable[[int, list[int]], object] = lambda given, ids: None
    # Turns (page, rows, total, total_pages) into what is answered.
    lie: Callable[[int, list[int], int, int], tuple[list[int], int, int, int]] = (
        lambda page, ids, total, pages: (ids, page, total, pages)
    )
    asked: list[int] = attrs.field(factory=list)

    async def script(self, request: RawRequest, connection: Connection) -> None:
        self.change(len(self.asked), self.ids)
        page = request.page
        self.asked.append(page)
        start = (page - 1) * self.per_page
        pages = -(-len(self.ids) // self.per_page)
        ids, current, total, pages = self.lie(
            page, self.ids[start : start + self.per_page], len(self.ids), pages
        )
        body = page_body(
            [row(one, one) for one in ids],
            total=total,
            per_page=self.per_page,
            page=current,
            total_pages=pages,
        )
        await connection.say(answer(body))


@asynccontextmanager
async def listing(pager: Pager, **options: Any) -> AsyncIterator[Store]:
    """Open a Store on a pager."""
    async with asyncio.timeout(10), store_on(pager.script, **options) as (store, _):
        yield store
        await at_rest(store)
