"""A store in memory behind the interface of `Calls`, on the loop's own clock."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace
from typing import Any

import attrs

from bc_attrvals.core.filters import AttributeValueFilter, ListingQuery, split_queries
from bc_attrvals.core.limits import Limits
from bc_attrvals.core.models import AttributeValue, Page, Pagination
from bc_attrvals.events import EventBus
from bc_attrvals.scheduling.learnt_sizes import LearntSizes

START = 1_700_000_000
SECOND = timedelta(seconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def moment(second: int) -> datetime:
    return EPOCH + timedelta(seconds=second)


class FakeStore:
    """The service's rows. `before` runs before each answer: other clients.

    `after` runs when an answer is made, which then takes `slow_s` to arrive.
    """

    def __init__(
        self,
        *,
        order: str = "id",
        inclusive: bool = True,
        page_size: int = 250,
        latency_s: float = 0.01,
        room_bytes: int = 4_000,
    ) -> None:
        self.rows: dict[int, AttributeValue] = {}
        self.order = order
        self.inclusive = inclusive
        self.latency_s = latency_s
        self.room_bytes = room_bytes
        self.next_id = 1
        self.has_dates = True
        self.date_offset_s = 0
        #: Ids of a filter beyond so many are ignored.
        self.most_ids: int | None = None
        #: How far the clock of a writer may be behind: each takes one of them.
        self.lags_s: Sequence[int] = (0,)
        self.before: Callable[[], object] | None = None
        self.after: Callable[[], object] | None = None
        self.slow_s = 0.0
        self.lie: Callable[[str, Page], Page] | None = None
        self.asked: list[tuple[str, int, int]] = []
        # `Calls` has these.
        self.limits = Limits()
        self.sizes = LearntSizes(attrs.evolve(self.limits, page_size=page_size))
        self.events = EventBus()
        self.retries = 0
        self.job = 0
        self._rng = random.Random(page_size)
        self._version = 0
        self._listed: tuple[object, list[AttributeValue]] = (None, [])

    @property
    def calls(self) -> int:
        return len(self.asked)

    def now(self) -> int:
        return START + 1_000_000 + int(asyncio.get_running_loop().time())

    # Other clients.

    def _written_at(self) -> datetime:
        return moment(self.now() - self._rng.choice(self.lags_s))

    def seed(self, count: int, *, attributes: int = 4, step_s: int = 1) -> None:
        for index in range(count):
            second = START + index // attributes * step_s
            self.insert(index // attributes + 1, index % attributes + 1, f"v{index}", second)

    def insert(
        self, customer_id: int, attribute_id: int, value: str, second: int | None = None
    ) -> AttributeValue:
        when = self._written_at() if second is None else moment(second)
        row = AttributeValue(self.next_id, customer_id, attribute_id, value, when, when)
        self.next_id += 1
        return self.put(row)

    def change(self, row_id: int, value: str, *, moves_date: bool = True) -> AttributeValue:
        old = self.rows[row_id]
        when = self._written_at() if moves_date else old.date_modified
        return self.put(
            AttributeValue(old.id, old.customer_id, old.attribute_id, value, old.date_created, when)
        )

    def put(self, row: AttributeValue) -> AttributeValue:
        self.rows[row.id] = row
        self._version += 1
        return row

    def delete(self, row_id: int) -> None:
        del self.rows[row_id]
        self._version += 1

    # What `Calls` has.

    def for_job(self, *, number: int) -> FakeStore:
        self.asked = []
        self.job = number
        return self

    def next_job(self) -> int:
        return self.job + 1

    def queries(
        self, filter: AttributeValueFilter | None, spare_bytes: int = 0
    ) -> list[ListingQuery]:
        return split_queries(filter, self.room_bytes - spare_bytes)

    async def fetch(self, query: ListingQuery, number: int, limit: int) -> SimpleNamespace:
        page = await self.page(query, number, limit)
        date = moment(self.now() + self.date_offset_s)
        headers = {"Date": format_datetime(date, usegmt=True)} if self.has_dates else {}
        return SimpleNamespace(page=page, answer=SimpleNamespace(headers=headers))

    async def decode(self, fetched: SimpleNamespace) -> Page:
        return fetched.page

    async def page(self, query: ListingQuery, number: int, limit: int) -> Page:
        self.asked.append((query.text, number, limit))
        await asyncio.sleep(self.latency_s * self._rng.uniform(0, 2))
        if self.before is not None:
            self.before()
        page = self._page(query.text, number, limit)
        if self.after is not None:
            self.after()
            await asyncio.sleep(self.slow_s)
        if self.lie is not None:
            page = self.lie(query.text, page)
        query.check(page.data)
        return page

    def _page(self, query: str, number: int, limit: int) -> Page:
        key = (self._version, query)
        if self._listed[0] != key:
            self._listed = (key, self._found(query))
        found = self._listed[1]
        if self.order == "shifting":
            found = random.Random(len(self.asked)).sample(found, len(found))
        total = len(found)
        start = (number - 1) * limit
        return Page(
            found[start : start + limit],
            Pagination(total, limit, number, -(-total // limit)),
        )

    def _found(self, query: str) -> list[AttributeValue]:
        asked = dict(part.split("=") for part in query.split("&")) if query else {}
        found = list(self.rows.values())
        for name in ("customer_id", "attribute_id"):
            if f"{name}:in" in asked:
                ids = set(map(int, asked[f"{name}:in"].split(",")[: self.most_ids]))
                found = [row for row in found if getattr(row, name) in ids]
        for name in ("date_created", "date_modified"):
            least = datetime.fromisoformat(asked.get(f"{name}:min", "1970-01-01T00:00:00Z"))
            most = datetime.fromisoformat(asked.get(f"{name}:max", "2070-01-01T00:00:00Z"))
            if not self.inclusive:
                least, most = least + SECOND, most - SECOND
            found = [row for row in found if least <= getattr(row, name) <= most]
        if self.order == "id":
            found.sort(key=lambda row: row.id)
        elif self.order == "shuffled":
            found.sort(key=lambda row: row.id * 2_654_435_761 % 2**32)
        return found


def as_calls(store: FakeStore) -> Any:
    """Return the store as `Calls`, which it does not inherit from."""
    return store
