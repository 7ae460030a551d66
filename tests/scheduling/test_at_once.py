"""Several reads at once: results in order, and none left behind by an error."""

from __future__ import annotations

import asyncio

import pytest

from bc_attrvals.scheduling.at_once import all_at_once

pytestmark = pytest.mark.looptime


async def after(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


async def test_results_come_in_order_after_the_longest_alone() -> None:
    began_at = asyncio.get_running_loop().time()
    assert await all_at_once(map(after, (3, 1, 2))) == [3, 1, 2]
    assert asyncio.get_running_loop().time() - began_at == pytest.approx(3)


async def test_the_first_error_in_order_ends_the_others(no_task_left: None) -> None:
    async def fail() -> float:
        raise LookupError("second")

    with pytest.raises(LookupError, match="second"):
        await all_at_once([after(1), fail(), after(9)])
