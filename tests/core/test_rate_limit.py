"""The quota's state machine, by hand and against a simulated service.

What no client can do, and so is not asked for: to know the quota before the first answer; to
foresee what other apps spend, or a smaller plan, between an answer and the next request; and to
tell windows apart by answers that were under way for longer than a window.
"""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from multidict import CIMultiDict

from bc_attrvals.core.rate_limit import (
    QuotaHeaders,
    QuotaSnapshot,
    QuotaState,
    http_date,
    read_quota_headers,
    read_retry_after_s,
)
from tests.core.quota_service import MS, SECOND, Client, Service, Simulation, Window

LEFT, RESET = "X-Rate-Limit-Requests-Left", "X-Rate-Limit-Time-Reset-Ms"
QUOTA, WINDOW = "X-Rate-Limit-Requests-Quota", "X-Rate-Limit-Time-Window-Ms"


def examples(count: int) -> settings:
    return settings(
        max_examples=count,
        derandomize=True,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


# --- the headers -----------------------------------------------------------------------------


def headers(**changes: str | None) -> dict[str, str]:
    plain: dict[str, str | None] = {
        LEFT: "149",
        RESET: "29123",
        QUOTA: "150",
        WINDOW: "30000",
        **{
            {"left": LEFT, "reset": RESET, "quota": QUOTA, "window": WINDOW}[name]: text
            for name, text in changes.items()
        },
    }
    return {name: text for name, text in plain.items() if text is not None}


def test_the_four_headers_are_read() -> None:
    assert read_quota_headers(headers()) == QuotaHeaders(30.0, 29.123, 150, 149)


def test_a_missing_window_length_is_the_services_thirty_seconds() -> None:
    assert read_quota_headers(headers(window=None)) == QuotaHeaders(30.0, 29.123, 150, 149)


@pytest.mark.parametrize("name", ["left", "reset", "quota"])
def test_without_one_of_the_others_nothing_is_believed(name: str) -> None:
    assert read_quota_headers(headers(**{name: None})) is None


ABSURD = ["", " ", "-1", "+1", "1.5", "1e3", "0x10", "1_000", "٣", "²", "NaN", "none", "9" * 16]


@pytest.mark.parametrize("text", ABSURD)
@pytest.mark.parametrize("name", ["left", "reset", "quota"])
def test_what_is_no_plain_number_is_not_believed(name: str, text: str) -> None:
    assert read_quota_headers(headers(**{name: text})) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"quota": "0"},
        {"quota": "1000000000"},
        {"window": "0"},
        {"window": "0", "reset": "0"},
        {"window": "86400001", "reset": "5"},
        {"reset": "31001"},
        {"reset": "999999999999999"},
    ],
)
def test_numbers_beyond_reason_are_not_believed(changes: dict[str, str]) -> None:
    assert read_quota_headers(headers(**changes)) is None


@pytest.mark.parametrize("quota", [1, 999_999_999])
def test_a_quota_from_one_to_below_a_billion_is_believed(quota: int) -> None:
    read = read_quota_headers(headers(quota=str(quota), left=str(quota - 1)))
    assert read == QuotaHeaders(30.0, 29.123, quota, quota - 1)


@pytest.mark.parametrize("left", ["151", "9999", "9" * 15])
def test_more_left_than_the_quota_is_the_quota(left: str) -> None:
    read = read_quota_headers(headers(left=left))
    assert read is not None
    assert read.left == 150


def test_the_last_millisecond_of_a_window_and_a_countdown_rounded_up_are_believed() -> None:
    last, first = read_quota_headers(headers(reset="0")), read_quota_headers(headers(reset="31000"))
    assert (last and last.reset_s, first and first.reset_s) == (0.0, 31.0)


@pytest.mark.parametrize("window_s", [0.001, 1.0, 86_400.0])
def test_windows_from_a_millisecond_to_a_day_are_believed(window_s: float) -> None:
    read = read_quota_headers(headers(window=f"{1000 * window_s:.0f}", reset="1"))
    assert read == QuotaHeaders(window_s, 0.001, 150, 149)


@examples(300)
@given(*[st.text(max_size=4) | st.integers(-5, 40_000).map(str)] * 4)
def test_whatever_the_headers_hold_reading_them_raises_nothing(
    left: str, reset: str, quota: str, window: str
) -> None:
    read = read_quota_headers({LEFT: left, RESET: reset, QUOTA: quota, WINDOW: window})
    assert read is None or 0 <= read.left <= read.quota


# --- by hand ---------------------------------------------------------------------------------


def answer(left: int, reset_s: float, *, quota: int = 150, window_s: float = 30.0) -> QuotaHeaders:
    return QuotaHeaders(window_s, reset_s, quota, left)


def known(left: int = 149, reset_s: float = 20.001, *, reserve: int = 0, quota: int = 150):
    """A state that got one answer at second 0.1 to a request sent at 0."""
    state = QuotaState(reserve)
    state.take()
    state.answered(0.0, 0.1, answer(left, reset_s, quota=quota))
    return state


def test_before_the_first_answer_one_request_finds_out_and_one_more_every_two_seconds() -> None:
    state = QuotaState()
    assert state.available(0.0) == 1
    assert state.snapshot(0.0) == QuotaSnapshot(None, None, None)
    state.take()
    for looks, opens_at in enumerate((2.0, 4.0, 6.0), 1):
        assert state.available(opens_at - 0.001) == 0
        assert state.opens_at() == opens_at
        assert state.available(opens_at) == 1
        state.take()
        assert state.available(opens_at) == 0
        assert looks < 4
    for _ in range(4):
        # Nothing is known by these: one finds out again, alone.
        state.unanswered(6.5)
    assert state.available(6.5) == 1
    state.take()
    state.unsent()
    assert state.available(6.5) == 1
    assert state.is_finding_out


@pytest.mark.parametrize("headers", [None, "with headers"])
def test_the_first_answer_ends_the_finding_out(headers: str | None) -> None:
    state = QuotaState()
    state.take()
    state.answered(0.0, 0.1, None if headers is None else answer(100, 20.001))
    assert not state.is_finding_out
    assert state.available(0.1) == (None if headers is None else 100)


def test_without_headers_nothing_is_ever_limited() -> None:
    state = QuotaState(reserve=5)
    state.take()
    state.answered(0.0, 0.0, None)
    for second in range(1_000):
        state.take()
        assert state.available(float(second)) is None
        if second % 3:
            state.answered(float(second), second + 0.5, None)
        else:
            state.unanswered(second + 0.5)
    assert state.available(2_000.0) is None


def test_each_request_under_way_takes_a_unit_and_each_answer_is_believed() -> None:
    state = known(left=10)
    assert state.available(0.2) == 10
    state.take()
    state.take()
    assert state.available(0.2) == 8
    state.answered(0.2, 0.3, answer(9, 19.851))
    assert state.available(0.3) == 8
    state.answered(0.2, 0.3, answer(8, 19.850))
    assert state.available(0.3) == 8


def test_of_two_answers_that_overtook_one_another_the_smaller_countdown_is_believed() -> None:
    state = known(left=50)
    state.take()
    state.take()
    state.answered(0.2, 0.4, answer(30, 19.800))
    state.answered(0.2, 0.5, answer(40, 19.850))
    assert state.available(0.5) == 30


@pytest.mark.parametrize("answers", [[(30, 19.85), (40, 19.80)], [(40, 19.80), (30, 19.85)]])
def test_the_newest_of_them_is_believed_though_others_gave_units_back(
    answers: list[tuple[int, float]],
) -> None:
    state = known(left=50)
    state.take()
    state.take()
    for received_at, (left, reset_s) in zip((0.4, 0.5), answers, strict=True):
        state.answered(0.2, received_at, answer(left, reset_s))
    assert state.available(0.5) == 40


@pytest.mark.parametrize("lefts", [(30, 40), (40, 30)])
def test_of_two_answers_with_one_countdown_the_smaller_count_is_believed(
    lefts: tuple[int, int],
) -> None:
    state = known(left=50)
    state.take()
    state.take()
    state.answered(0.2, 0.4, answer(lefts[0], 19.85))
    state.answered(0.2, 0.5, answer(lefts[1], 19.85))
    assert state.available(0.5) == 30


# A coarse clock gives one reading to what came in and to what was sent next.
@pytest.mark.parametrize("sent_at", [0.1, 0.2])
def test_an_answer_asked_for_after_the_last_one_is_believed_whatever_its_countdown(
    sent_at: float,
) -> None:
    state = known(left=50, reset_s=20.0)
    state.take()
    state.answered(sent_at, 0.3, answer(70, 20.0))
    assert state.available(0.3) == 70


def test_what_other_apps_spend_and_give_back_is_believed_both_ways() -> None:
    state = known(left=100)
    state.take()
    state.answered(1.0, 1.1, answer(3, 19.001))
    assert state.available(1.1) == 3
    state.take()
    state.answered(2.0, 2.1, answer(90, 18.001))
    assert state.available(2.1) == 90


def test_the_next_window_opens_when_the_last_one_surely_is_over() -> None:
    state = known(left=0, reset_s=20.001)
    opens_at = state.opens_at()
    assert opens_at == pytest.approx(20.1035, abs=1e-6)
    assert opens_at is not None
    # The service may have counted the request as late as 0.1, so that 20.101 still is too early.
    assert state.available(20.101) == 0
    assert state.available(opens_at) == 150


def test_a_countdown_in_whole_seconds_is_taken_for_up_to_a_second_more() -> None:
    state = known(left=0, reset_s=20.0)
    assert state.available(21.1) == 0
    assert state.available(21.103) == 150


def test_further_answers_narrow_the_windows_end() -> None:
    state = known(left=2, reset_s=20.001)
    state.take()
    state.answered(5.0, 5.02, answer(0, 15.001))
    opens_at = state.opens_at()
    assert opens_at == pytest.approx(20.0235, abs=1e-6)


def test_a_refusal_closes_its_window_until_the_reset_whatever_its_count_says() -> None:
    state = known(left=100)
    state.take()
    state.answered(1.0, 1.1, answer(60, 19.001), refused=True)
    assert state.available(1.1) == 0
    assert state.available(20.0) == 0
    opens_at = state.opens_at()
    assert opens_at is not None
    assert state.available(opens_at) == 150


def test_a_refusal_in_the_window_before_does_not_close_this_one() -> None:
    state = known(left=100)
    state.take()
    assert state.available(20.2) == 149
    state.answered(19.9, 20.3, answer(0, 0.050), refused=True)
    assert state.available(20.3) == 150


def test_the_first_answer_may_be_a_refusal() -> None:
    state = QuotaState()
    state.take()
    state.answered(0.0, 0.1, answer(0, 7.5), refused=True)
    assert state.available(7.0) == 0
    assert state.available(7.7) == 150


def test_a_reserve_is_left_to_others() -> None:
    state = known(left=25, reserve=20)
    assert state.available(0.2) == 5
    for _ in range(5):
        state.take()
    assert state.available(0.2) == 0


@pytest.mark.parametrize("reserve", [149, 150, 10_000])
def test_a_reserve_of_the_whole_quota_still_leaves_one_call_a_window(reserve: int) -> None:
    state = known(left=0, reserve=reserve)
    assert state.available(20.2) == 1


def test_fewer_units_than_the_reserve_are_no_negative_number() -> None:
    assert known(left=3, reserve=20).available(0.2) == 0


def test_a_block_stops_everything_even_while_no_quota_is_known() -> None:
    state = QuotaState()
    state.block(5.0)
    assert state.available(4.999) == 0
    assert state.opens_at() == 5.0
    assert state.available(5.0) == 1


def test_of_two_blocks_the_longer_one_holds() -> None:
    state = known()
    state.block(15.0)
    state.block(10.0)
    assert state.available(14.999) == 0
    assert state.available(15.0) == 149


def test_a_block_beyond_the_window_holds_in_the_next_one() -> None:
    state = known(left=0)
    state.block(40.0)
    assert state.opens_at() == 40.0
    assert state.available(39.9) == 0
    assert state.available(40.0) == 150


def test_a_unit_not_used_is_free_again() -> None:
    state = known(left=1)
    state.take()
    assert state.available(0.2) == 0
    state.unsent()
    assert state.available(0.2) == 1


def test_a_request_that_died_costs_its_unit_until_an_answer_must_tell_of_it() -> None:
    state = known(left=10)
    state.take()
    state.unanswered(1.0)
    assert state.available(1.0) == 9
    state.take()
    # Asked for a moment after it died: the service may still have been about to count it.
    state.answered(1.1, 1.2, answer(9, 18.851))
    assert state.available(1.2) == 8
    state.take()
    state.answered(3.0, 3.1, answer(7, 17.001))
    assert state.available(3.1) == 7


@pytest.mark.parametrize(("sent_at", "left"), [(1.49, 8), (1.51, 9)])
def test_what_died_may_be_counted_half_a_second_later(sent_at: float, left: int) -> None:
    state = known(left=10)
    state.take()
    state.unanswered(1.0)
    state.take()
    state.answered(sent_at, sent_at + 0.1, answer(9, 20.001 - sent_at))
    assert state.available(2.0) == left


def test_a_request_that_died_before_anything_was_known_costs_its_unit() -> None:
    state = QuotaState()
    state.take()
    state.take()
    state.unanswered(0.5)
    state.answered(0.0, 1.0, answer(10, 20.001))
    assert state.available(1.0) == 9


def test_an_answer_without_headers_costs_its_unit() -> None:
    state = known(left=10)
    state.take()
    state.answered(1.0, 1.1, None)
    assert state.available(1.1) == 9


def test_an_answer_to_a_later_request_includes_those_answered_without_headers() -> None:
    state = known()
    for _ in range(3):
        state.take()
        state.answered(1.0, 1.1, None)
    assert state.available(1.1) == 146
    state.take()
    state.answered(1.1, 1.15, answer(145, 18.9))
    assert state.available(1.15) == 145


def test_one_answer_without_headers_after_a_long_rest_does_not_forget_the_quota() -> None:
    state = known()
    state.take()
    state.answered(5_000.0, 5_000.1, None)
    assert state.available(5_000.1) is not None


def test_a_store_that_no_longer_has_a_quota_is_limited_no_more() -> None:
    state = known(quota=5, left=4)
    now = 1.0
    sent = 0
    while (available := state.available(now)) is not None:
        if available == 0:
            opens_at = state.opens_at()
            assert opens_at is not None
            now = opens_at
            continue
        state.take()
        sent += 1
        now += 0.1
        state.answered(now - 0.1, now, None)
        assert sent < 50
        assert now < 120.0
    assert state.snapshot(now) == QuotaSnapshot()


def test_two_windows_of_answers_without_headers_are_borne_and_one_more_is_not() -> None:
    state = known(quota=3, left=2)
    for at in range(1, 7):
        state.take()
        state.answered(float(at), at + 0.1, None)
    assert state.available(50.0) == 3
    state.take()
    state.answered(50.0, 50.1, None)
    assert state.available(50.1) is None


def test_a_gateways_answers_between_others_do_not_forget_the_quota() -> None:
    state = known(quota=5, left=4, reset_s=29.001)
    for window in range(1, 20):
        start = 30.0 * window
        for at in range(3):
            assert state.available(start + at)
            state.take()
            state.answered(start + at, start + at + 0.1, None)
        state.take()
        state.answered(start + 3.0, start + 3.1, answer(4, 26.001, quota=5))
    assert state.available(600.0) is not None


def test_a_quota_known_again_is_believed_again() -> None:
    state = known(quota=1, left=0)
    for at in range(10):
        state.take()
        state.answered(at * 40.0, at * 40.0 + 0.1, None)
    assert state.available(500.0) is None
    state.take()
    state.answered(500.0, 500.1, answer(6, 20.001, quota=7))
    assert state.available(500.1) == 6


def test_a_smaller_plan_holds_from_its_first_answer_on() -> None:
    state = known(left=400, quota=450)
    state.take()
    state.answered(1.0, 1.1, answer(100, 19.001, quota=150))
    assert state.available(1.1) == 100
    assert state.available(20.3) == 150


def test_a_larger_plan_holds_from_its_first_answer_on() -> None:
    state = known(left=100, quota=150)
    state.take()
    state.answered(1.0, 1.1, answer(399, 19.001, quota=450))
    assert state.available(1.1) == 399
    assert state.available(20.3) == 450


def test_an_older_answer_of_the_same_tick_does_not_bring_the_old_plan_back() -> None:
    state = known(left=100, reset_s=20.0)
    state.take()
    state.take()
    state.answered(0.2, 0.3, answer(0, 20.0, quota=50))
    state.answered(0.2, 0.4, answer(98, 20.0, quota=150))
    assert state.available(22.0) == 50


def test_no_more_than_the_quota_is_sent_in_a_window_though_the_counts_told_lag_behind() -> None:
    state = known(left=4, quota=5, reset_s=29.001)
    sent_in_window = [1]
    now = 0.1
    for _ in range(17):
        if not state.available(now):
            opens_at = state.opens_at()
            assert opens_at is not None
            now = opens_at
            sent_in_window.append(0)
            continue
        state.take()
        sent_in_window[-1] += 1
        # Told by a gateway that has not heard of any of them.
        reset_s = 29.1 + 30.0 * (len(sent_in_window) - 1) - now
        state.answered(now, now + 0.01, answer(4, reset_s, quota=5))
        now += 0.01
    assert sent_in_window == [5, 5, 5, 0]


def sent_until_nothing_is_available(state: QuotaState, at: float, lagging: QuotaHeaders) -> int:
    """Send one request after the other from `at` on, each told a count that lags behind."""
    sent = 0
    while state.available(at):
        state.take()
        sent += 1
        assert sent < 20
        following = at + 0.01
        state.answered(at, following, replace(lagging, reset_s=lagging.reset_s - 0.01 * sent))
        at = following
    return sent


def test_a_reserve_is_left_to_others_though_the_counts_told_lag_behind() -> None:
    state = known(left=4, quota=5, reserve=2)
    # One of the three was sent before.
    assert sent_until_nothing_is_available(state, 1.0, answer(4, 19.001, quota=5)) == 2


def test_a_slow_answer_of_the_window_before_makes_no_room_for_more_than_the_quota() -> None:
    state = known(left=4, quota=5)
    state.take()
    state.take()
    state.answered(20.5, 20.6, answer(4, 29.501, quota=5))
    state.answered(19.0, 21.0, answer(3, 1.001, quota=5))
    # One of the five was sent before.
    assert sent_until_nothing_is_available(state, 21.1, answer(4, 28.901, quota=5)) == 4


def test_what_died_is_remembered_for_a_window_and_no_longer() -> None:
    """A store without a quota would fill the memory with it."""
    state = QuotaState()
    for tenth in range(10_000):
        state.take()
        if tenth % 2:
            state.answered(tenth / 10, tenth / 10, None)
        else:
            state.unanswered(tenth / 10)
    assert 300 <= len(state._lost) <= 310


def test_units_not_used_are_no_part_of_what_was_sent() -> None:
    state = known(left=4, quota=5)
    for _ in range(20):
        state.take()
        state.unsent()
    assert state.available(0.2) == 4


def test_units_not_used_make_no_room_for_more_than_the_quota() -> None:
    state = known(left=4, quota=5)
    for at in (1.0, 2.0, 3.0):
        state.take()
        state.take()
        state.unsent()
        # The count lags behind, so that what was sent alone bounds.
        state.answered(at, at + 0.1, answer(4, 20.001 - at, quota=5))
    assert state.available(4.0) == 1


def test_after_a_rest_the_end_of_the_running_window_is_believed() -> None:
    state = known(reset_s=20.0)
    assert state.available(100.0) == 150
    state.take()
    state.answered(100.0, 100.1, answer(3, 0.0))
    assert state.available(100.1) == 3
    assert state.opens_at() == pytest.approx(101.1, abs=0.01)


@pytest.mark.parametrize("window_s", [10.0, 30.0, 60.0])
def test_while_no_answer_tells_of_a_new_window_it_lasts_as_long_as_any(window_s: float) -> None:
    state = QuotaState()
    state.take()
    state.answered(0.0, 0.1, answer(0, 5.001, quota=2, window_s=window_s))
    assert state.available(7.0) == 2
    state.take()
    state.take()
    assert state.available(8.0) == 0
    assert state.opens_at() == pytest.approx(7.0 + window_s, abs=0.01)


def test_an_answer_under_way_for_most_of_a_window_does_not_end_the_next_one_early() -> None:
    state = known(left=100, reset_s=10.001)
    state.take()
    assert state.available(10.2) == 149
    state.take()
    state.answered(10.2, 25.0, answer(140, 20.001))
    # Of the window that ended at 10, though by its bounds it might end as late as 33.5.
    state.answered(5.0, 29.5, answer(99, 4.001))
    opens_at = state.opens_at()
    assert opens_at is not None
    assert opens_at > 40.0
    assert state.available(29.5) == 140


def test_an_answer_under_way_for_most_of_its_window_does_not_put_off_the_next() -> None:
    state = known(left=100, reset_s=29.001)
    state.take()
    state.answered(1.0, 25.0, answer(99, 28.001))
    assert state.available(25.0) == 99
    assert state.opens_at() == pytest.approx(29.1035, abs=1e-6)


def test_a_quick_answer_bounds_a_window_that_a_slow_one_told_of_first() -> None:
    state = QuotaState()
    state.take()
    state.take()
    state.answered(0.0, 25.0, answer(149, 29.001))
    state.answered(24.5, 25.1, answer(148, 5.001))
    assert state.available(25.1) == 148
    assert state.opens_at() == pytest.approx(30.1035, abs=1e-6)


def test_a_slow_answer_of_the_window_before_changes_nothing() -> None:
    state = known(left=100)
    state.take()
    assert state.available(21.0) == 149
    state.take()
    state.answered(21.0, 21.1, answer(149, 29.001))
    state.answered(19.0, 24.0, answer(3, 0.501))
    assert state.available(24.0) == 149
    assert state.opens_at() == pytest.approx(50.1, abs=0.01)


def test_answers_of_the_window_before_do_not_use_up_this_one() -> None:
    # All that the quota allows is under way when the window ends, and is counted in it.
    state = known(left=5, quota=5)
    for _ in range(5):
        state.take()
    assert state.available(20.2) == 0
    for left in range(5):
        state.answered(20.0, 20.3, answer(left, 0.050, quota=5))
    assert state.available(20.3) == 5


def test_an_answer_may_tell_of_the_next_window_before_the_clock_does() -> None:
    state = known(left=1, reset_s=20.0)
    state.take()
    # The whole-second countdown allowed for an end as late as 21.1.
    state.answered(20.6, 20.7, answer(149, 29.501))
    assert state.available(20.7) == 149


def test_a_window_that_the_service_began_anew_is_followed() -> None:
    state = known(left=0, reset_s=10.001)
    state.take()
    state.answered(5.0, 5.1, answer(149, 30.0))
    assert state.available(5.1) == 149


def test_a_window_that_ends_some_seconds_later_than_was_told_is_another() -> None:
    state = known(left=4, reset_s=10.001, quota=5)
    for left in (3, 2, 1, 0):
        state.take()
        state.answered(1.0, 1.1, answer(left, 9.001, quota=5))
    state.take()
    # What was sent before was sent in a window that is over.
    state.answered(5.0, 5.1, answer(4, 13.001, quota=5))
    assert state.available(5.1) == 4


def test_a_window_that_ends_earlier_than_was_told_is_followed() -> None:
    state = known(left=0, reset_s=29.001)
    state.take()
    state.answered(5.0, 5.1, answer(0, 2.001))
    assert state.available(7.0) == 0
    assert state.available(7.2) == 150


def test_a_snapshot_tells_quota_what_is_left_and_the_seconds_to_the_next_window() -> None:
    state = known(left=30, reserve=10)
    snapshot = state.snapshot(10.1)
    assert (snapshot.quota, snapshot.left) == (150, 20)
    assert snapshot.resets_in_s == pytest.approx(10.0, abs=0.01)


def test_the_seconds_to_the_next_window_run_out_and_never_below_nothing() -> None:
    state = known(left=0, reset_s=20.001)
    # Until a millisecond after the latest end that the answer allows.
    assert state.snapshot(19.6).resets_in_s == pytest.approx(0.503, abs=1e-6)
    state.block(40.0)
    assert state.snapshot(30.0).resets_in_s == 0.0


def test_a_block_tells_nothing_of_a_quota() -> None:
    state = QuotaState()
    state.block(5.0)
    assert state.snapshot(1.0) == QuotaSnapshot()


def test_looking_changes_nothing() -> None:
    looked, not_looked = known(left=30), known(left=30)
    for tenth in range(1_000):
        looked.snapshot(tenth / 10)
        looked.available(tenth / 10)
        looked.opens_at()
    for state in (looked, not_looked):
        assert state.available(100.0) == 150
        state.take()
        state.answered(100.0, 100.1, answer(149, 29.501))
    assert looked.available(100.2) == not_looked.available(100.2) == 149
    assert looked.opens_at() == not_looked.opens_at()


# --- against a simulated service -------------------------------------------------------------


@st.composite
def services(draw: st.DrawFn, *, quotas: tuple[int, ...] = (1, 2, 5, 12, 40)) -> Service:
    tick_us = draw(st.sampled_from([MS, SECOND]))
    # Whole seconds say little of a window of one second; the service's own has thirty.
    window_us = 30 * SECOND if tick_us == SECOND else draw(st.sampled_from([1, 30])) * SECOND
    return Service(
        quota=draw(st.sampled_from(quotas)),
        window_us=window_us,
        tick_us=tick_us,
        grid_at_us=draw(st.none() | st.integers(0, window_us - 1)),
    )


@st.composite
def simulations(
    draw: st.DrawFn,
    *,
    # The longest way to the service or back, as a share of a window.
    delays: tuple[float, ...] = (0.001, 0.02, 0.2),
    pauses: bool = True,
    quotas: tuple[int, ...] = (1, 2, 5, 12, 40),
    **client: object,
) -> Simulation:
    service = draw(services(quotas=quotas))
    most_delay_us = int(service.window_us * draw(st.sampled_from(delays)))
    idle = pauses and draw(st.booleans())
    options: dict[str, object] = {
        "at_once": draw(st.sampled_from([1, 3, 16])),
        "least_delay_us": draw(st.sampled_from([0, most_delay_us // 10, most_delay_us])),
        "most_delay_us": most_delay_us,
        "clock_ahead_s": draw(st.sampled_from([0.0, -5.5, 1e6 + 0.123])),
        "clock_drift_ppm": draw(st.sampled_from([0.0, -20.0, 20.0])),
        "pauses": draw(st.sampled_from([0.01, 0.1, 0.5])) if idle else 0.0,
        "most_pause_us": int(service.window_us * draw(st.sampled_from([0.1, 1.0, 2.5]))),
        **{
            name: draw(value) if isinstance(value, st.SearchStrategy) else value
            for name, value in client.items()
        },
    }
    return Simulation(service, Client(**options), Random(draw(st.integers(0, 2**32))))  # type: ignore[arg-type]


def run(simulation: Simulation, windows: int = 4) -> Simulation:
    simulation.run(windows * simulation.service.window_us)
    return simulation


def can_use_all(simulation: Simulation, window: Window) -> bool:
    """Whether the concurrency alone would allow three times the quota."""
    client = simulation.client
    rounds = simulation.service.window_us / (2 * client.most_delay_us + 1)
    return rounds * client.at_once > 3 * window.quota


def full_windows(simulation: Simulation) -> list[Window]:
    """Those in which the client knew the quota and had demand from beginning to end."""
    return [
        window for window in simulation.service.windows[1:-1] if can_use_all(simulation, window)
    ]


def settled_available(simulation: Simulation) -> int | None:
    """What may be sent long after the last request."""
    windows_s = 3 * simulation.service.window_us / SECOND + 10.0
    return simulation.state.available(simulation.local() + windows_s)


@examples(250)
@given(simulations(delays=(0.001, 0.02, 0.2, 0.48)))
def test_alone_on_a_store_no_request_is_ever_refused(simulation: Simulation) -> None:
    """Even where an answer is under way for nearly a whole window.

    Beyond that the windows can't be told apart by their answers, and the aim is unattainable.
    """
    run(simulation)
    assert simulation.refused == []


@examples(150)
@given(simulations(delays=(0.0005, 0.01), pauses=False, quotas=(1, 5, 30, 150)))
def test_alone_on_a_store_every_permitted_request_is_sent(simulation: Simulation) -> None:
    run(simulation)
    assert simulation.refused == []
    for window in full_windows(simulation):
        assert window.ours >= 0.97 * window.quota, window


@examples(60)
@given(
    simulations(delays=(0.0005, 0.005), pauses=False, quotas=(5,), at_once=3, clock_drift_ppm=0.0)
)
def test_a_window_opens_late_by_no_more_than_the_way_back_and_the_tick(
    simulation: Simulation,
) -> None:
    run(simulation)
    client, service = simulation.client, simulation.service
    # A tick of a millisecond shows at the first answer that is off the whole second.
    late_us = client.most_delay_us + service.tick_us + 2 * MS
    for window, following in zip(service.windows[1:-1], service.windows[2:], strict=True):
        first_us = min(sent.sent_us for sent in simulation.sent if sent.window is following)
        assert first_us - window.end_us <= late_us


@examples(200)
@given(
    simulations(
        lost=st.sampled_from([0.05, 0.4]),
        bare=st.sampled_from([0.0, 0.1]),
        unsent=st.sampled_from([0.0, 0.1]),
        counted_late_us=st.sampled_from([0, 500 * MS]),
    )
)
def test_requests_that_die_counted_or_not_never_lead_to_an_overrun(
    simulation: Simulation,
) -> None:
    """A request given up is taken for counted up to half a second later, as the sockets have it."""
    run(simulation)
    assert simulation.refused == []


@examples(100)
@given(simulations(unsent=st.sampled_from([0.1, 0.9])))
def test_units_taken_and_not_used_are_neither_lost_nor_doubled(simulation: Simulation) -> None:
    run(simulation)
    assert simulation.refused == []
    if simulation.sent:
        assert settled_available(simulation) == simulation.service.quota


@examples(100)
@given(simulations(lost=0.1, bare=0.05, unsent=0.1, others_every_us=2 * SECOND, others_units=3))
def test_when_all_has_ended_the_whole_quota_is_there_again(simulation: Simulation) -> None:
    run(simulation)
    assert simulation.out == 0
    available = settled_available(simulation)
    assert available in (None, simulation.service.quota)
    # Nothing known is right only where no answer told anything.
    assert (available is None) == all(sent.blind for sent in simulation.sent) or available


@examples(60)
@given(simulations(pauses=False), st.integers(1, 5))
def test_each_request_still_under_way_takes_a_unit_of_a_later_window(
    simulation: Simulation, out: int
) -> None:
    run(simulation)
    available = settled_available(simulation)
    assert available == simulation.service.quota
    for _ in range(out):
        simulation.state.take()
    assert settled_available(simulation) == max(0, available - out)


@examples(150)
@given(
    simulations(
        lost=st.sampled_from([0.0, 0.05]),
        others_every_us=st.sampled_from([50 * MS, 500 * MS, 5 * SECOND]),
        others_units=st.sampled_from([1, 5]),
    )
)
def test_beside_other_apps_no_more_is_refused_than_they_spent(simulation: Simulation) -> None:
    """None at all is unattainable: they spend while our requests are on their way."""
    run(simulation)
    for window in simulation.service.windows:
        refused = [sent for sent in simulation.refused if sent.window is window]
        assert len(refused) <= window.others


@examples(150)
@given(simulations(others_every_us=200 * MS, others_units=3))
def test_after_a_refusal_arrived_nothing_is_sent_before_the_next_window(
    simulation: Simulation,
) -> None:
    run(simulation)
    for refused in simulation.refused:
        if refused.window is None or refused.answered_us is None:
            continue
        for sent in simulation.sent:
            if refused.answered_us <= sent.sent_us:
                assert sent.sent_us >= refused.window.end_us


@examples(100)
@given(simulations(delays=(0.0005, 0.01), pauses=False, reserve=st.integers(1, 60), at_once=3))
def test_a_reserve_stays_free_and_the_rest_is_used(simulation: Simulation) -> None:
    run(simulation)
    assert simulation.refused == []
    quota = simulation.service.quota
    ours = max(1, quota - simulation.client.reserve)
    blind = [sent.window for sent in simulation.sent if sent.blind]
    for window in simulation.service.windows:
        assert window.ours <= ours or window in blind
    for window in full_windows(simulation):
        assert window.ours >= ours


@examples(100)
@given(
    simulations(delays=(0.001, 0.01), pauses=False, quotas=(20,), at_once=8),
    st.sampled_from([0.0, 0.01, 0.5, 1.0, 1.01, 1.7]),
    st.sampled_from([41, 120]),
)
def test_a_larger_plan_is_used_from_the_second_window_on(
    simulation: Simulation, at: float, quota: int
) -> None:
    window_us = simulation.service.window_us
    change_us = int(at * window_us)
    simulation.at(change_us, lambda: simulation.service.set_quota(quota, simulation.now_us))
    run(simulation, windows=5)
    assert simulation.refused == []
    later = [
        window
        for window in full_windows(simulation)
        if window.start_us >= change_us + window_us + simulation.client.most_delay_us
    ]
    for window in later:
        assert window.ours >= 0.97 * quota


@examples(100)
@given(
    simulations(delays=(0.001, 0.02, 0.2), quotas=(40,), at_once=8),
    st.sampled_from([0.001, 0.01, 0.5, 1.0, 1.01, 1.7]),
    st.sampled_from([1, 10, 30]),
)
def test_a_smaller_plan_is_kept_to_from_the_first_answer_that_tells_of_it(
    simulation: Simulation, at: float, quota: int
) -> None:
    """What is sent between the change and that answer can't know.

    Nor is an answer believed that arrives when its window is over, for it may be older than all.
    """
    change_us = int(at * simulation.service.window_us)
    simulation.at(change_us, lambda: simulation.service.set_quota(quota, simulation.now_us))
    run(simulation)
    told_us = min(
        (
            sent.answered_us
            for sent in simulation.sent
            if sent.counted_us is not None
            and sent.answered_us is not None
            and sent.window is not None
            and change_us < sent.counted_us
            and sent.answered_us < sent.window.end_us
        ),
        default=None,
    )
    if told_us is not None:
        assert [sent for sent in simulation.refused if sent.sent_us > told_us] == []


def test_a_confined_state_keeps_to_its_share_of_each_window_and_leaves_a_reserve() -> None:
    state = QuotaState()
    state.confine(0.3, reserve=2)
    state.take()
    state.answered(0.0, 0.1, QuotaHeaders(30.0, 20.0, 20, 19))
    # Six of twenty, of which the first was one; the reserve is of the whole.
    assert state.available(0.1) == 5
    state.confine(0.3, reserve=17)
    assert state.available(0.1) == 2
    state.confine(0.01, reserve=3)
    assert state.available(0.1) == 0
    assert state.available(40.0) == 1


# --- Retry-After -----------------------------------------------------------------------------

NOON = 1_767_268_800.0  # Thu, 01 Jan 2026 12:00:00 GMT


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"X-Retry-After": "7"}, 7.0),
        ({"X-Retry-After": "0.5"}, 0.5),
        ({"Retry-After": "3", "X-Retry-After": "9"}, 9.0),
        ({"Retry-After": "soon", "X-Retry-After": "9"}, 9.0),
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": "1e6"}, 120.0),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": ""}, None),
        ({"Retry-After": "9" * 5_000}, None),
        # Dates of RFC 9110, the obsolete forms too; without `Date` by the clock given.
        ({"Retry-After": "Thu, 01 Jan 2026 12:00:30 GMT"}, 30.0),
        ({"Retry-After": "Thursday, 01-Jan-26 12:00:30 GMT"}, 30.0),
        ({"Retry-After": "Thu Jan  1 12:00:30 2026"}, 30.0),
        ({"Retry-After": "Thu, 01 Jan 2026 11:00:00 GMT"}, 0.0),
        ({"Retry-After": "Fri, 01 Jan 2027 12:00:00 GMT"}, 120.0),
        # The answer's own clock is the one that counts.
        (
            {
                "Retry-After": "Thu, 01 Jan 2026 09:00:20 GMT",
                "Date": "Thu, 01 Jan 2026 09:00:00 GMT",
            },
            20.0,
        ),
        ({"Retry-After": "Thu, 01 Jan 2026 12:00:30 GMT", "Date": "whenever"}, 30.0),
        ({"Retry-After": "Thu, 99 Jan 99999999 12:00:30 GMT"}, None),
    ],
)
def test_a_retry_after_is_read_in_seconds_or_as_a_date_and_bounded(
    headers: dict[str, str], wait_s: float | None
) -> None:
    assert read_retry_after_s(CIMultiDict(headers), NOON) == wait_s


@pytest.mark.parametrize(
    "text",
    [
        "Thu, 01 Jan 2026 12:00:00 GMT",
        "Thu Jan  1 12:00:00 2026",
        "Thu, 01 Jan 2026 14:00:00 +0200",
    ],
)
def test_an_http_date_means_the_same_wherever_the_machine_stands(
    elsewhere: None, text: str
) -> None:
    assert http_date(text) == datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize("text", [None, "", "soon", "Thu, 99 Jan 2026 12:00:00 GMT", "\ud800"])
def test_what_is_no_http_date_is_none(text: str | None) -> None:
    assert http_date(text) is None
