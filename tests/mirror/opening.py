"""A mirror of a store in memory, what it holds, and a refresh that is checked."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.core.models import AttributeValue
from bc_attrvals.mirror.mirror import Mirror
from bc_attrvals.mirror.report import RefreshReport

from .fake_store import FakeStore, as_calls


@asynccontextmanager
async def opened(
    store: FakeStore,
    path: Path,
    scope: AttributeValueFilter | None = None,
    *,
    verify_every_s: float | None = None,
) -> AsyncIterator[Mirror]:
    mirror = Mirror(
        as_calls(store),
        path / "mirror.db",
        scope,
        place="https://example.com/x",
        ensure_open=lambda: None,
        verify_every_s=verify_every_s,
    )
    async with mirror:
        yield mirror


async def held(mirror: Mirror) -> dict[int, AttributeValue]:
    return {row.id: row async for row in mirror.rows()}


async def refreshed(mirror: Mirror, store: FakeStore) -> RefreshReport:
    """Refresh, and check the mirror and the report."""
    before = await held(mirror)
    report = await mirror.refresh()
    after = await held(mirror)
    assert after == store.rows
    assert report.rows == len(after)
    assert report.added == len(after.keys() - before.keys())
    assert report.removed == len(before.keys() - after.keys())
    common = after.keys() & before.keys()
    assert report.changed == sum(before[one] != after[one] for one in common)
    assert report.calls == store.calls
    assert report.ok
    return report


def change_and_insert(store: FakeStore, rng: random.Random, changed: int, added: int) -> None:
    for one in rng.sample(sorted(store.rows), changed):
        store.change(one, f"changed {one}")
    for index in range(added):
        store.insert(500_000 + index, 1, "new")


def delete(store: FakeStore, row_ids: Iterable[int]) -> None:
    for one in row_ids:
        store.delete(one)
