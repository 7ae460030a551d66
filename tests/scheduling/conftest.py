"""What tests of events share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from bc_attrvals import Store
from bc_attrvals.events import Event


@pytest.fixture
async def heard(store: Store) -> AsyncIterator[list[Event]]:
    events: list[Event] = []
    stop = store.subscribe(events.append)
    yield events
    stop()
