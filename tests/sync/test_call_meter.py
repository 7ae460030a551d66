"""The growth of a job's calls is taken once, in any number of pieces."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from bc_attrvals.sync.call_meter import CallMeter


def test_what_is_taken_adds_up_to_the_growth() -> None:
    calls: Any = SimpleNamespace(calls=5, retries=2)
    meter = CallMeter(calls)
    assert (meter.total, meter.total_retries, meter.has_news) == (0, 0, False)
    taken = []
    for grown in (3, 0, 4):
        calls.calls += grown
        calls.retries += grown // 2
        assert meter.has_news is (grown > 0)
        taken.append(meter.take())
        assert not meter.has_news
    assert taken == [(3, 1), (0, 0), (4, 2)]
    assert (meter.total, meter.total_retries) == (7, 3)
