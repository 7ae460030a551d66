"""A mirror of a store in memory, and what it holds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.core.models import AttributeValue
from bc_attrvals.mirror.mirror import Mirror

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
