"""Reads side by side: bounded, in order, nothing left behind."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from bc_attrvals.mirror.gathering import gather

pytestmark = [pytest.mark.looptime, pytest.mark.usefixtures("no_task_left")]


async def test_answers_come_in_order_and_no_more_than_so_many_at_once() -> None:
    under_way = peak = 0

    async def read(number: int) -> int:
        nonlocal under_way, peak
        under_way += 1
        peak = max(peak, under_way)
        await asyncio.sleep(number % 3)
        under_way -= 1
        return number

    async with aclosing(gather(read, range(20), 4)) as answers:
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

    async with aclosing(gather(read, range(10), 5)) as answers:
        assert await anext(answers) == 0
        assert await anext(answers) == 1
        with pytest.raises(ValueError, match="the second"):
            await anext(answers)
    assert sorted(ended) == list(range(7))
    async with aclosing(gather(read, range(3, 9), 2)) as answers:
        async for one in answers:
            assert one == 3
            break
    assert sorted(ended) == sorted([*range(7), 3, 4])
