"""Who is next: refused, interactive, then bulk by turns; conserved whatever leaves when."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bc_attrvals.core.requests import Operation
from bc_attrvals.scheduling.fair_queue import FairQueue, Waiting
from bc_attrvals.scheduling.quota import Flow

READ, WRITE, DELETE = Operation


def anyone(operation: Operation, is_bulk: bool) -> bool:
    return True


def served(queue: FairQueue, count: int) -> list[Waiting]:
    """Take out so many, each noted as served, as admission does."""
    found = []
    for _ in range(count):
        waiting = queue.next(anyone)
        if waiting is None:
            break
        queue.served(waiting.flow)
        found.append(waiting)
    return found


def test_refused_go_before_interactive_and_those_before_bulk_of_all_operations() -> None:
    queue = FairQueue(Operation)
    bulk = Waiting(READ, Flow(), is_bulk=True)
    interactive = Waiting(WRITE, Flow(), is_bulk=False)
    refused = Waiting(DELETE, Flow(), is_bulk=True)
    queue.add(bulk)
    queue.add(interactive)
    queue.add(refused, was_refused=True)
    assert (queue.count, queue.bulk_count_of(READ), queue.bulk_count_of(DELETE)) == (3, 1, 0)
    assert served(queue, 4) == [refused, interactive, bulk]
    assert queue.count == 0


def test_the_flow_served_longest_ago_is_next_however_much_others_queue() -> None:
    queue, big, small = FairQueue(Operation), Flow(), Flow()
    for _ in range(50):
        queue.add(Waiting(READ, big, is_bulk=True))
    for _ in range(3):
        queue.add(Waiting(WRITE, small, is_bulk=True))
    flows = [waiting.flow for waiting in served(queue, 8)]
    assert [flow is small for flow in flows].count(True) == 3
    assert all(one is not other for one, other in pairwise(flows[:6]))


def test_what_may_not_go_holds_up_no_other() -> None:
    queue = FairQueue(Operation)
    read = Waiting(READ, Flow(), is_bulk=False)
    write = Waiting(WRITE, Flow(), is_bulk=True)
    queue.add(read)
    queue.add(write)
    assert queue.next(lambda operation, is_bulk: is_bulk) is write
    assert queue.next(lambda operation, is_bulk: False) is None
    assert queue.next(anyone) is read


def test_of_eight_contested_grants_one_goes_to_bulk() -> None:
    queue = FairQueue(Operation)
    for _ in range(20):
        queue.add(Waiting(READ, Flow(), is_bulk=False))
        queue.add(Waiting(READ, Flow(), is_bulk=True))
    assert [waiting.is_bulk for waiting in served(queue, 16)] == ([False] * 7 + [True]) * 2


@pytest.mark.parametrize("was_refused", [False, True])
@pytest.mark.parametrize("is_bulk", [False, True])
def test_leaving_twice_is_leaving_once(is_bulk: bool, was_refused: bool) -> None:
    queue = FairQueue(Operation)
    one, other = (Waiting(READ, Flow(), is_bulk=is_bulk) for _ in range(2))
    queue.add(one, was_refused=was_refused)
    queue.add(other, was_refused=was_refused)
    queue.leave(one)
    queue.leave(one)
    assert (queue.count, queue.count_of(READ)) == (1, 1)
    assert queue.bulk_count_of(READ) == (is_bulk and not was_refused)
    assert queue.all() == [other]
    assert served(queue, 2) == [other]


@given(st.integers(0, 10_000), st.lists(st.integers(0, 9), max_size=80))
def test_each_request_comes_out_once_or_leaves(seed: int, steps: list[int]) -> None:
    random, queue = Random(seed), FairQueue(Operation)
    flows = [Flow() for _ in range(3)]
    waiting: list[Waiting] = []
    for step in steps:
        if step < 5:
            one = Waiting(
                random.choice(list(Operation)), random.choice(flows), is_bulk=random.random() < 0.6
            )
            queue.add(one, was_refused=random.random() < 0.2)
            waiting.append(one)
        elif step < 7 and waiting:
            queue.leave(waiting.pop(random.randrange(len(waiting))))
        else:
            for one in served(queue, 1):
                waiting.remove(one)
        assert queue.count == len(waiting) == len(queue.all())
        for operation in Operation:
            mine = [one for one in waiting if one.operation is operation]
            assert queue.count_of(operation) == len(mine)
            assert queue.bulk_count_of(operation) == sum(one.takes_turns for one in mine)
    rest = served(queue, len(waiting) + 1)
    assert len(rest) == len(waiting)
    assert {id(one) for one in rest} == {id(one) for one in waiting}
