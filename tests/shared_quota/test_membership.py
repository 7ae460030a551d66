"""What a process may believe of the others when the server of the shared quota goes away."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from bc_attrvals.shared_quota.membership import Membership


def membership() -> Membership:
    return Membership(hold_s=10.0, fresh_s=14.0)


def known(one: Membership, now: float) -> tuple[int, int, bool]:
    members = one.known(now)
    return members.count, members.rank, members.is_sure


def test_who_never_heard_of_others_is_alone_and_sure_of_it() -> None:
    assert known(membership(), 1e6) == (1, 0, True)


def test_more_are_believed_at_once_and_fewer_after_a_while() -> None:
    one = membership()
    one.update(8, 5, 1000.0, 0.0)
    assert known(one, 0.0) == (8, 5, True)
    # As from a server that has forgotten all, and is told of us first.
    one.update(1, 0, 1001.0, 1.0)
    one.update(3, 1, 1002.0, 2.0)
    assert known(one, 10.9) == (8, 5, True)
    assert known(one, 11.1) == (3, 1, True)
    one.update(9, 2, 1012.0, 12.0)
    assert known(one, 12.0) == (9, 2, True)


def test_hearing_the_same_again_does_not_put_off_what_is_believed() -> None:
    one = membership()
    one.update(8, 5, 1000.0, 0.0)
    for second in range(1, 10):
        one.update(2, 0, 1000.0 + second, float(second))
    assert known(one, 11.1) == (2, 0, True)


def test_what_comes_late_changes_nothing_and_a_clock_set_back_is_followed() -> None:
    one = membership()
    one.update(5, 4, 1000.0, 0.0)
    one.update(9, 8, 999.0, 0.1)
    assert known(one, 0.1) == (5, 4, True)
    one.update(6, 0, 900.0, 1.0)
    assert known(one, 1.0) == (6, 0, True)
    assert one.known(1.0).clock_s == 899.0
    # What lay unread for an hour does not make the clock an hour late.
    one.update(7, 0, 901.0, 3601.0, is_delayed=True)
    assert one.known(3601.0).count == 7
    assert one.known(3601.0).clock_s == 899.0


def test_what_nobody_has_confirmed_for_long_is_not_sure() -> None:
    one = membership()
    one.update(2, 1, 1000.0, 0.0)
    one.confirmed(10.0)
    assert known(one, 24.0) == (2, 1, True)
    assert known(one, 24.1) == (2, 1, False)
    one.confirmed(30.0)
    assert known(one, 30.0) == (2, 1, True)


@pytest.mark.parametrize("seed", range(20))
def test_nobody_reckons_with_fewer_than_were_told_within_the_last_while(seed: int) -> None:
    rng = random.Random(seed)
    one, told, now = membership(), [(-99.0, 1)], 0.0
    for _ in range(200):
        now += rng.expovariate(1.0)
        count = rng.randint(1, 9)
        one.update(count, rng.randrange(count), 1000.0 + now, now)
        told.append((now, count))
        later = now + rng.random()
        assert one.known(later).count >= told[-1][1]
        # What was the newest until less than the hold ago still holds.
        replaced = [c for (_, c), (at, _) in pairwise(told) if later - at < 9.9]
        assert one.known(later).count >= max([told[-1][1], *replaced[-1:]])
        now = later
