"""A lower bound of the service's clock, from what its rows show."""

from __future__ import annotations

from bc_attrvals.mirror.service_clock import LAG_S, ServiceClock


def test_nothing_is_known_before_a_row_was_seen() -> None:
    clock = ServiceClock()
    assert clock.least(5.0) is None


def test_time_passes_there_as_it_does_here() -> None:
    clock = ServiceClock()
    clock.observe(1_000, at_s=50.0, our_second=9_000)
    assert clock.least(50.0) == 1_000
    assert clock.least(53.5) == 1_003
    assert clock.least(47.5) == 997
    clock.observe(1_002, at_s=60.0, our_second=9_010)
    assert clock.least(50.0) == 1_000
    clock.observe(1_020, at_s=60.0, our_second=9_010)
    assert clock.least(50.0) == 1_010


def test_no_row_is_believed_beyond_the_date_of_the_answers() -> None:
    clock = ServiceClock()
    clock.observe_date(1_000, at_s=50.0, our_second=1_000)
    clock.observe(990, at_s=50.5, our_second=9_000)
    assert clock.least(50.5) == 990
    clock.observe(86_400, at_s=50.5, our_second=9_000)
    assert clock.least(50.5) == 1_000


def test_without_a_date_no_row_is_believed_beyond_our_own_clock() -> None:
    clock = ServiceClock()
    clock.observe(86_400, at_s=50.0, our_second=1_000)
    assert clock.least(50.0) == 1_000


def test_the_date_that_came_with_the_least_delay_is_believed() -> None:
    clock = ServiceClock()
    for second, at_s in ((1_000, 50.0), (1_005, 54.0), (1_006, 57.0)):
        clock.observe_date(second, at_s=at_s, our_second=second)
    clock.observe(1_012, at_s=60.0, our_second=9_000)
    assert clock.least(60.0) == 1_011


def test_where_no_row_is_new_the_date_of_a_minute_ago_is_believed() -> None:
    clock = ServiceClock()
    clock.observe_date(1_000, at_s=50.0, our_second=1_010)
    assert clock.least(50.0) == 1_000 - LAG_S
    clock.observe(990, at_s=50.0, our_second=1_010)
    assert clock.least(50.0) == 990


def test_a_date_is_not_believed_beyond_our_own_clock() -> None:
    clock = ServiceClock()
    clock.observe_date(86_400, at_s=50.0, our_second=1_000)
    assert clock.least(50.0) == 1_000 - LAG_S
