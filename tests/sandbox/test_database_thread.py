"""The database work: its order, its thread, errors, and jobs whose caller went away."""

from __future__ import annotations

import asyncio
import threading

import pytest

from bc_attrvals.sandbox.database_thread import DatabaseThread, GroupedJob


async def test_jobs_are_done_in_order_in_one_other_thread() -> None:
    thread = DatabaseThread()
    done: list[int] = []

    def job(number: int) -> int:
        done.append(number)
        return threading.get_ident()

    threads = await asyncio.gather(*(thread.run(job, number) for number in range(20)))
    assert done == list(range(20))
    assert len(set(threads)) == 1
    assert threads[0] != threading.get_ident()
    await thread.aclose()


async def test_an_error_is_raised_where_the_job_was_given_and_ends_nothing() -> None:
    thread = DatabaseThread()
    with pytest.raises(ZeroDivisionError):
        await thread.run(lambda: 1 // 0)
    assert await thread.run(lambda: 5) == 5
    await thread.aclose()


async def test_a_job_is_done_though_its_caller_is_cancelled() -> None:
    thread = DatabaseThread()
    done = threading.Event()
    task = asyncio.create_task(thread.run(done.set))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await thread.aclose()
    assert done.is_set()


def squares(numbers: list[int]) -> list[tuple[int, list[int], int]]:
    return [(number**2, numbers, threading.get_ident()) for number in numbers]


async def test_items_of_one_turn_are_done_together_in_the_loop() -> None:
    thread = DatabaseThread()
    grouped = GroupedJob(thread, squares, lambda: False)
    results = await asyncio.gather(*map(grouped.run, (2, 3, 4)))
    assert results == [(n**2, [2, 3, 4], threading.get_ident()) for n in (2, 3, 4)]
    assert await grouped.run(5) == (25, [5], threading.get_ident())
    await thread.aclose()


async def test_a_group_waits_a_few_turns_while_it_may_grow() -> None:
    thread = DatabaseThread()
    grouped = GroupedJob(thread, squares, lambda: True)
    first = asyncio.create_task(grouped.run(2))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    late = asyncio.create_task(grouped.run(3))
    await asyncio.sleep(0)
    late.cancel()
    assert (await first)[:2] == (4, [2, 3])
    assert late.cancelled()
    await thread.aclose()


async def test_items_wait_behind_the_jobs_of_the_thread() -> None:
    thread = DatabaseThread()
    grouped = GroupedJob(thread, squares, lambda: False)
    may_end = threading.Event()
    first = asyncio.create_task(thread.run(may_end.wait))
    await asyncio.sleep(0)
    tasks = [asyncio.create_task(grouped.run(number)) for number in (2, 3, 4)]
    for _ in range(4):
        await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)
    tasks[0].cancel()
    may_end.set()
    assert await first
    cancelled, *others = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(cancelled, asyncio.CancelledError)
    assert [one[:2] for one in others if isinstance(one, tuple)] == [
        (9, [2, 3, 4]),
        (16, [2, 3, 4]),
    ]
    await thread.aclose()


async def test_an_error_is_raised_for_each_item_of_the_group() -> None:
    thread = DatabaseThread()

    def fail(numbers: list[int]) -> list[int]:
        raise ZeroDivisionError(numbers)

    grouped = GroupedJob(thread, fail, lambda: False)
    errors = await asyncio.gather(*map(grouped.run, (1, 2)), return_exceptions=True)
    assert [repr(one) for one in errors] == ["ZeroDivisionError([1, 2])"] * 2
    await thread.aclose()
