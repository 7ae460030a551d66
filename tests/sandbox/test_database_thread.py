"""The database thread: order, errors, and jobs whose caller went away."""

from __future__ import annotations

import asyncio
import threading

import pytest

from bc_attrvals.sandbox.database_thread import DatabaseThread


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
