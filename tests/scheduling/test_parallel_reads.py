"""Several reads at once: results in order, and none left behind by an error."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from bc_attrvals.scheduling.parallel_reads import all_at_once, at_once_in_order

pytestmark = [pytest.mark.looptime, pytest.mark.usefixtures("no_task_left")]


async def after(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


async def test_results_come_in_order_after_the_longest_alone() -> None:
    began_at = asyncio.get_running_loop().time()
    assert await all_at_once(map(after, (3, 1, 2))) == [3, 1, 2]
    assert asyncio.get_running_loop().time() - began_at == pytest.approx(3)


async def test_the_first_error_in_order_ends_the_others() -> None:
    async def fail() -> float:
        raise LookupError("second")

    with pytest.raises(LookupError, match="second"):
        await all_at_once([after(1), fail(), after(9)])


async def test_answers_come_in_order_and_no_more_than_so_many_at_once() -> None:
    under_way = peak = 0

    async def read(number: int) -> int:
        nonlocal under_way, peak
        under_way += 1
        peak = max(peak, under_way)
        await asyncio.sleep(number % 3)
        under_way -= 1
        return number

    async with aclosing(at_once_in_order(read, range(20), 4)) as answers:
        assert [one async for one in answers] == list(range(20))
    assert peak == 4


async def test_an_error_ends_it_and_leaving_cancels_what_is_under_way() -> None:
    ended: list[int] = []

    async def read(number: int) -> int:
        try:
            await asyncio.sleep(number)
            if number == 2:
                raise ValueError("the second")
            return number
        finally:
            ended.append(number)

    async with aclosing(at_once_in_order(read, range(10), 5)) as answers:
        assert await anext(answers) == 0
        assert await anext(answers) == 1
        with pytest.raises(ValueError, match="the second"):
            await anext(answers)
    assert sorted(ended) == list(range(7))
    async with aclosing(at_once_in_order(read, range(3, 9), 2)) as answers:
        async for one in answers:
            assert one == 3
            break
    assert sorted(ended) == sorted([*range(7), 3, 4])
