"""One timer for the deadlines of all requests under way: cancels on time, and nothing else."""

from __future__ import annotations

import asyncio

import pytest

from bc_attrvals.transport.deadlines import Deadlines

pytestmark = [pytest.mark.looptime, pytest.mark.usefixtures("no_task_left")]


async def _work(deadlines: Deadlines, timeout_s: float, takes_s: float) -> tuple[str, float]:
    deadline = deadlines.begin(timeout_s)
    try:
        await asyncio.sleep(takes_s)
        how = "done"
    except asyncio.CancelledError:
        if not deadline.was_missed():
            raise
        how = "late"
    finally:
        deadlines.end(deadline)
    # A cancellation that was counted and not taken back would end what follows.
    async with asyncio.timeout(100):
        await asyncio.sleep(0)
    return how, asyncio.get_running_loop().time()


async def test_each_task_is_cancelled_at_its_own_deadline_and_no_other() -> None:
    deadlines = Deadlines()
    began_at = asyncio.get_running_loop().time()
    ended = await asyncio.gather(
        _work(deadlines, 30, 60),
        _work(deadlines, 5, 60),
        _work(deadlines, 30, 29.5),
        _work(deadlines, 7, 3),
    )
    assert [how for how, _ in ended] == ["late", "late", "done", "done"]
    assert [round(at - began_at, 3) for _, at in ended] == [30, 5, 29.5, 3]


async def test_a_later_request_is_not_measured_by_the_timer_of_an_earlier_one() -> None:
    deadlines = Deadlines()
    assert (await _work(deadlines, 10, 1))[0] == "done"
    assert (await _work(deadlines, 10, 9.5))[0] == "done"
    assert (await _work(deadlines, 10, 11))[0] == "late"
    assert (await _work(deadlines, 1, 2))[0] == "late"


async def test_a_callers_cancellation_stays_one_even_in_the_moment_of_the_deadline() -> None:
    deadlines = Deadlines()
    task = asyncio.create_task(_work(deadlines, 5, 60))
    asyncio.get_running_loop().call_later(5, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    other = asyncio.create_task(_work(deadlines, 5, 60))
    await asyncio.sleep(1)
    other.cancel()
    with pytest.raises(asyncio.CancelledError):
        await other


async def test_closed_it_leaves_no_timer() -> None:
    deadlines = Deadlines()
    deadline = deadlines.begin(1)
    deadlines.close()
    await asyncio.sleep(2)
    deadlines.end(deadline)
    assert not deadline.has_passed
