"""Fixtures for the tests of the core."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put the machine's clock nine and a half hours ahead of UTC."""
    if not hasattr(time, "tzset"):
        pytest.skip("the zone of a process can't be set here")
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "ELSE-9:30")
        time.tzset()
        yield
    time.tzset()
