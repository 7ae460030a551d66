"""The core knows no event loop, and its tests have none."""

from __future__ import annotations

import asyncio

import pytest


@pytest.fixture(autouse=True)
def no_event_loop() -> None:
    # looptime's plugin asks for the loop of every test; asyncio would make one, and warn of that.
    asyncio.set_event_loop(None)
