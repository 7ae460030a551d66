"""Back-off and recovery of concurrency by hand; `test_admission.py` has them in time."""

from __future__ import annotations

from random import Random

import pytest

from bc_attrvals import RetryPolicy
from bc_attrvals.scheduling.congestion import BulkPace, Concurrency


class Longest(Random):
    """Draws the upper end, so that each pause is its bound."""

    def random(self) -> float:
        return 1.0


RETRY = RetryPolicy(base_s=0.25, cap_s=20.0)


def test_a_refusal_halves_and_pauses_and_those_sent_before_it_count_no_more() -> None:
    slots = Concurrency(8)
    for _ in range(8):
        slots.enter(True)
    assert slots.room(0.0) == 0
    assert slots.back_off(1.0, 2.0, RETRY, Longest())
    assert not slots.back_off(1.9, 2.0, RETRY, Longest())
    for _ in range(8):
        slots.leave(2.0, True)
    assert slots.room(2.249) == 0
    assert slots.room(2.25) == 4
    assert slots.is_weak
    assert (slots.in_flight, slots.bulk_in_flight) == (0, 0)


def test_good_answers_win_one_slot_back_a_round_up_to_the_limit() -> None:
    slots = Concurrency(3)
    slots.back_off(0.0, 1.0, RETRY, Longest())
    slots.went_well(0.5)
    assert slots.room(9.0) == 1, "it was sent before the back-off"
    rooms = []
    for _ in range(5):
        slots.went_well(2.0)
        rooms.append(slots.room(9.0))
    assert rooms == [2, 3, 3, 3, 3]
    assert not slots.is_weak


@pytest.mark.parametrize("most", [1, 2, 10])
def test_bulk_reads_give_way_while_interactive_ones_are_slow(most: int) -> None:
    pace = BulkPace(most)
    assert pace.room(0.0, 0) == most
    pace.answered(0.0, 0.01, 200)
    for _ in range(20):
        pace.answered(0.0, 0.05, 200)
    assert pace.room(0.5, 0) == min(2, most)
    assert pace.room(0.5, 1) == min(2, most) - 1
    # Nobody reads interactively any more.
    assert pace.room(1.0, 0) == most


def test_only_good_answers_say_how_quick_reads_are() -> None:
    pace = BulkPace(10)
    pace.answered(0.0, 0.05, 200)
    pace.answered(0.0, 0.001, 500)
    pace.answered(0.0, 0.001, None)
    pace.answered(0.0, 0.05, 200)
    assert pace.room(0.5, 0) == 10
