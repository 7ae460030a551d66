"""What a sync costs: the choice of how to read, and the estimate, as plain arithmetic."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bc_attrvals import Limits, QuotaSnapshot, Reading, SyncPlan
from bc_attrvals.core.requests import Operation
from bc_attrvals.core.sync_plan import (
    calls_for,
    choose_reading,
    customers_per_listing,
    estimate_seconds,
    is_worth_probing,
    look_up_calls,
)

CALLS = st.integers(0, 5_000)
UNKNOWN = QuotaSnapshot()


@given(blind=CALLS, look_up=CALLS, listing=st.none() | CALLS)
def test_what_is_chosen_is_the_cheapest_that_is_allowed(
    blind: int, look_up: int, listing: int | None
) -> None:
    chosen = choose_reading(blind_calls=blind, look_up_calls=look_up, list_calls=listing)
    costs = {Reading.LOOK_UP: look_up}
    if listing is not None:
        costs[Reading.LIST] = listing
    allowed = [cost for cost in costs.values() if 2 * cost <= blind]
    if chosen is Reading.NOTHING:
        assert not allowed
    else:
        assert costs[chosen] == min(allowed)


@given(
    most=st.integers(1, 2_000),
    attributes=st.integers(1, 50),
    page_size=st.integers(1, 250),
    customers=st.integers(0, 100_000),
)
def test_look_ups_fit_and_fill_their_pages(
    most: int, attributes: int, page_size: int, customers: int
) -> None:
    per_listing = customers_per_listing(most, attributes, page_size)
    assert 1 <= per_listing <= most
    if most * attributes >= page_size:
        pages = calls_for(per_listing * attributes, page_size)
        # A listing that is full has less than one customer's rows of room left in its pages.
        assert pages * page_size - per_listing * attributes < max(attributes, page_size)
        assert pages <= most * attributes // page_size + (attributes > page_size)
    calls = look_up_calls(customers, per_listing, attributes, page_size)
    assert calls >= calls_for(customers * attributes, page_size)
    assert calls >= calls_for(customers, per_listing)


@pytest.mark.parametrize(
    ("most", "attributes", "customers"),
    [
        # Not even one page is full.
        (10, 2, 10),
        (124, 2, 124),
        # One page, three, and four to the last row.
        (125, 2, 125),
        (333, 3, 250),
        (200, 5, 200),
        # A page and a fifth: the fifth would cost a call.
        (6, 50, 5),
    ],
)
def test_as_many_customers_are_looked_up_at_once_as_fill_their_pages(
    most: int, attributes: int, customers: int
) -> None:
    assert customers_per_listing(most, attributes, 250) == customers


def test_of_two_ways_to_read_that_cost_the_same_the_scope_is_listed() -> None:
    chosen = choose_reading(blind_calls=10, look_up_calls=3, list_calls=3)
    assert chosen is Reading.LIST


@pytest.mark.parametrize(
    ("blind", "look_up", "worth_it"), [(0, 0, False), (1, 9, False), (9, 1, False), (2, 2, True)]
)
def test_a_call_to_learn_the_length_is_spent_only_where_it_can_pay(
    blind: int, look_up: int, worth_it: bool
) -> None:
    assert is_worth_probing(blind_calls=blind, look_up_calls=look_up) is worth_it


@given(reads=CALLS, writes=CALLS, deletes=CALLS, quota=st.integers(1, 5_000), data=st.data())
def test_an_estimate_grows_with_the_calls_and_never_beats_the_quota(
    reads: int, writes: int, deletes: int, quota: int, data: st.DataObject
) -> None:
    left = data.draw(st.integers(0, quota))
    known = QuotaSnapshot(quota, left, 10.0)
    limits = Limits()
    seconds = estimate_seconds(reads, writes, deletes, quota=known, limits=limits)
    assert seconds >= estimate_seconds(reads, writes, deletes, quota=UNKNOWN, limits=limits)
    assert seconds <= estimate_seconds(reads, writes + 1, deletes, quota=known, limits=limits)
    calls = reads + writes + deletes
    if calls > left:
        assert seconds >= 10.0 + 30.0 * (calls_for(calls - left, quota) - 1)


def test_an_estimate_leaves_the_reserve_to_others() -> None:
    known = QuotaSnapshot(150, 0, 0.0)
    assert estimate_seconds(0, 100, 0, quota=known, limits=Limits()) < 30
    assert estimate_seconds(0, 100, 0, quota=known, limits=Limits(reserve=100)) >= 30


@pytest.mark.parametrize(
    ("writes", "known", "seconds"),
    [
        # A hundred rounds of three, a quarter of a second each.
        (300, QuotaSnapshot(300, 300, 10.0), 25.0),
        # 250 more than are left: two whole windows, and half of the third.
        (300, QuotaSnapshot(100, 50, 10.0), 10.0 + 30.0 + 30.0 + 25.0 * 50 / 300),
        # The next window opens at once.
        (3, QuotaSnapshot(100, 0, 0.0), 0.25),
        (3, QuotaSnapshot(100, 0, None), 0.25),
        # Nothing can be said of a quota of which it is not known what is left.
        (3, QuotaSnapshot(100, None, 10.0), 0.25),
        (3, QuotaSnapshot(None, 0, 10.0), 0.25),
    ],
)
def test_an_estimate_adds_up_the_windows_and_what_is_sent_in_the_last(
    writes: int, known: QuotaSnapshot, seconds: float
) -> None:
    assert estimate_seconds(0, writes, 0, quota=known, limits=Limits()) == pytest.approx(seconds)


def test_an_estimate_takes_the_durations_that_were_measured() -> None:
    measured = {Operation.READ: 0.1, Operation.WRITE: 2.0}
    known = {"quota": UNKNOWN, "limits": Limits(), "latency_s": measured}
    assert estimate_seconds(20, 0, 0, **known) == pytest.approx(0.2)  # type: ignore[arg-type]
    assert estimate_seconds(20, 9, 0, **known) == pytest.approx(6.2)  # type: ignore[arg-type]
    # A delete was never sent: as slow as the slowest.
    assert estimate_seconds(0, 0, 3, **known) == pytest.approx(2.0)  # type: ignore[arg-type]


def test_the_words_for_a_way_to_read_are_fixed() -> None:
    assert [str(one) for one in Reading] == ["list", "look_up", "nothing", "mirror"]


def test_a_plan_of_nothing_comes_to_nothing() -> None:
    plan = SyncPlan(reading=Reading.LIST)
    assert set(attrs.astuple(plan)[1:]) == {0}
    assert plan.calls == 0


def test_a_plan_prints_as_a_small_table() -> None:
    plan = SyncPlan(
        reading=Reading.LIST,
        create=300,
        update=1_350,
        delete=100,
        unchanged=1_350,
        read_calls=12,
        write_calls=165,
        delete_calls=2,
        seconds=75.2,
    )
    assert plan.calls == 179
    assert str(plan).splitlines() == [
        "read          list the scope        12 calls",
        "create                   300",
        "update                 1,350       165 calls",
        "unchanged              1,350",
        "delete                   100         2 calls",
        "in all      about 1 min 16 s       179 calls",
    ]


def test_a_blind_plan_says_that_it_reads_nothing() -> None:
    plan = SyncPlan(reading=Reading.NOTHING, write=1, write_calls=1, seconds=7_300)
    assert [line.split()[0] for line in str(plan).splitlines()] == [
        "read",
        "write",
        "delete",
        "in",
    ]
    assert str(plan).splitlines()[1].endswith(" 1 call")
    assert "about 2 h 1 min" in str(plan)


@pytest.mark.parametrize(
    ("reading", "words"),
    [
        (Reading.LIST, "list the scope"),
        (Reading.LOOK_UP, "look customers up"),
        (Reading.NOTHING, "nothing"),
    ],
)
def test_a_plan_says_in_words_how_it_reads(reading: Reading, words: str) -> None:
    assert (
        str(SyncPlan(reading=reading)).splitlines()[0] == f"read      {words:>18}         0 calls"
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"),
        (58.2, "59 s"),
        (59.1, "1 min 0 s"),
        (3_599.0, "59 min 59 s"),
        (3_600.0, "1 h 0 min"),
    ],
)
def test_seconds_are_printed_in_the_units_they_fill(seconds: float, text: str) -> None:
    assert f"about {text} " in str(SyncPlan(reading=Reading.LIST, seconds=seconds))
