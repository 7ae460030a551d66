"""When the server is called: at once, after a short while if that is needed, or at a named time."""

from __future__ import annotations

import asyncio

import pytest

from bc_attrvals.shared_quota.wake_up import WakeUp

pytestmark = pytest.mark.looptime


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_without_a_reason_nobody_is_woken() -> None:
    wake_up = WakeUp(lambda: True)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(wake_up.wait(), 100)


async def test_several_reasons_wake_once() -> None:
    wake_up = WakeUp(lambda: True)
    wake_up.wake()
    wake_up.wake()
    await wake_up.wait()
    assert now() == 0
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(wake_up.wait(), 100)


@pytest.mark.parametrize("is_needed", [True, False])
async def test_a_report_waits_a_little_and_may_have_gone_with_another_call(is_needed: bool) -> None:
    wake_up = WakeUp(lambda: is_needed)
    wake_up.wake_soon()
    wake_up.wake_soon()
    if is_needed:
        await wake_up.wait()
        assert now() == pytest.approx(0.02)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(wake_up.wait(), 100)


async def test_a_time_that_is_named_takes_the_place_of_the_one_before() -> None:
    wake_up = WakeUp(lambda: True)
    wake_up.wake_at(1.0)
    wake_up.wake_at(3.0)
    await wake_up.wait()
    assert now() == 3.0
    wake_up.wake_at(5.0)
    wake_up.wake_at(None)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(wake_up.wait(), 100)


async def test_closed_it_leaves_no_timer() -> None:
    wake_up = WakeUp(lambda: True)
    wake_up.wake_at(1.0)
    wake_up.wake_soon()
    wake_up.close()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(wake_up.wait(), 100)
