"""Cancelled at its n-th suspension, for every n, each public coroutine leaves nothing behind.

After each cancellation nothing of the Store is under way, no task and (in the end) no descriptor is
left, the same Store works, and what was sent is whole: a value is the old one or the new one, and
the same call made again completes it.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import re
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator
from contextlib import aclosing, suppress
from pathlib import Path
from types import coroutine
from typing import Any

import attrs
import pytest

from bc_attrvals import AttributeValueFilter, JournalError, Limits, Store
from bc_attrvals.attribute_values import AttributeValues
from bc_attrvals.sandbox import Sandbox
from tests.conftest import make_store
from tests.probes import at_rest, upserts

pytestmark = pytest.mark.usefixtures("no_task_left")

#: More suspensions than anything here has: a bound, for the count varies with the loop's timing.
MOST = 400
ROWS = 35
#: Rows of different seconds can be listed exactly without a wait.
LONG_AGO = 1_600_000_000
FIRST = AttributeValueFilter(attribute_id_in=[1])
LIMITS = Limits(page_size=10, delete_size=10)


@coroutine
def cancelling(
    work: Coroutine[Any, Any, Any], moments: set[int], count: list[int]
) -> Generator[Any, Any, Any]:
    """Drive a coroutine, and cancel the task that runs it at its suspensions of these numbers."""
    task = asyncio.current_task()
    assert task is not None
    step: Callable[[], Any] = lambda: work.send(None)  # noqa: E731
    while True:
        try:
            waited_for = step()
        except StopIteration as end:
            return end.value
        count[0] += 1
        if count[0] in moments:
            task.cancel()
        try:
            yield waited_for
        except BaseException as error:  # noqa: BLE001 - it goes where it belongs
            thrown = error
            step = lambda: work.throw(thrown)  # noqa: E731, B023
        else:
            step = lambda: work.send(None)  # noqa: E731


async def run(work: Coroutine[Any, Any, Any], moments: set[int], count: list[int]) -> Any:
    return await cancelling(work, moments, count)


async def all_of(items: AsyncGenerator[Any]) -> list[Any]:
    async with aclosing(items):
        return [item async for item in items]


@pytest.fixture(autouse=True, scope="module")
def quick_collections() -> Iterator[None]:
    """Have collections look at what a test made alone: there are hundreds of them."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def descriptors() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else 0


@attrs.frozen
class Work:
    """A public coroutine, or a generator read to its end."""

    name: str
    begin: Callable[[AttributeValues, Path], Coroutine[Any, Any, Any]]
    good: Callable[[Any], bool]


WORKS = [
    Work("get_page", lambda v, _: v.get_page(limit=10), lambda page: len(page.data) == 10),
    Work("get", lambda v, _: v.get(1, 1), lambda one: one.key == (1, 1)),
    Work("count", lambda v, _: v.count(), lambda count: count >= ROWS),
    Work("put_batch", lambda v, _: v.put_batch(upserts(9)), lambda rows: len(rows) == 9),
    Work("delete_batch", lambda v, _: v.delete_batch([10_000]), lambda done: done is None),
    Work("pages", lambda v, _: all_of(v.pages()), lambda pages: len(pages) >= 4),
    Work("stream", lambda v, _: all_of(v.stream()), lambda rows: len(rows) >= ROWS),
    Work(
        "stream exactly_once",
        lambda v, _: all_of(v.stream(exactly_once=True)),
        lambda rows: len({row.id for row in rows}) == len(rows) >= ROWS,
    ),
    Work("upsert", lambda v, _: v.upsert(upserts(ROWS)), lambda report: report.stored == ROWS),
    Work(
        "upsert_stream",
        lambda v, _: all_of(v.upsert_stream(upserts(ROWS))),
        lambda outcomes: [one.ok for one in outcomes] == [True] * ROWS,
    ),
    Work(
        "delete",
        lambda v, _: v.delete(range(10_000, 10_000 + ROWS)),
        lambda report: report.deleted == ROWS,
    ),
    Work(
        "delete_where",
        lambda v, _: v.delete_where(AttributeValueFilter(attribute_id_in=[2])),
        lambda report: report.deleted == 0,
    ),
    Work(
        "plan_sync",
        lambda v, _: v.plan_sync(upserts(ROWS + 5), scope=FIRST, prune=True),
        lambda plan: plan.create == 5,
    ),
    Work(
        "sync",
        lambda v, _: v.sync(upserts(ROWS), scope=FIRST, prune=True),
        lambda report: report.ok,
    ),
    Work(
        "sync with a journal",
        lambda v, folder: v.sync(
            upserts(ROWS), scope=FIRST, prune=True, journal=folder / "journal.db"
        ),
        lambda report: report.ok,
    ),
]


_OF_THE_SANDBOX = re.compile("RequestHandler|PlainConnection")


async def check_order(sandbox: Sandbox, store: Store, tasks: set[asyncio.Task[Any]]) -> None:
    """Check that nothing is under way and that no value is half a one."""
    await at_rest(store)
    for _ in range(100):
        left = asyncio.all_tasks() - tasks - {asyncio.current_task()}
        # Those of the sandbox go on after their client has gone away.
        left = {one for one in left if not _OF_THE_SANDBOX.search(repr(one))}
        if not left:
            break
        await asyncio.sleep(0)
    assert not left
    held = await sandbox.values()
    assert all(value in {"old", f"v{customer}"} for (customer, _), value in held.items())


async def completed(begin: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run it to its end. Cancelled twice, a sync does not wait until its file is let go of."""
    async with asyncio.timeout(5):
        while True:
            try:
                return await begin()
            except JournalError as error:
                if "held" not in str(error):
                    raise
                await asyncio.sleep(0.001)


@pytest.mark.parametrize("cancellations", [1, 2], ids=["once", "twice"])
@pytest.mark.parametrize("work", WORKS, ids=lambda one: one.name)
async def test_cancelled_at_every_suspension_it_leaves_nothing(
    work: Work, cancellations: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Sandbox(quota=None) as sandbox:
        tasks = asyncio.all_tasks()
        before = descriptors()
        async with make_store(sandbox, limits=LIMITS) as store:
            await sandbox.seed(
                (customer, 1, "old", LONG_AGO + 9 * customer) for customer in range(1, ROWS + 1)
            )
            values = store.attribute_values
            cancelled = 0
            for moment in itertools.count(1):
                assert moment < MOST
                if work.name.startswith("sync"):
                    # Something is left to do each time.
                    await sandbox.seed(
                        (customer, 1, "old", LONG_AGO + 9 * customer)
                        for customer in range(1, ROWS + 9)
                    )
                folder = tmp_path / str(moment)
                folder.mkdir()
                count = [0]
                moments = set(range(moment, moment + cancellations))
                task = asyncio.create_task(run(work.begin(values, folder), moments, count))
                await asyncio.wait([task])
                if count[0] < moment:
                    assert work.good(task.result())
                    break
                cancelled += task.cancelled()
                sent = store.statistics().requests
                # Cancelled, or just done: an end that came in the same turn is no loss.
                assert task.cancelled() or work.good(task.result())
                await check_order(sandbox, store, tasks)
                # What was on the wire has ended, and nothing more was sent for nobody.
                assert store.statistics().requests == sent
                # What was left is completed by the same again, with the journal it left.
                if work.name.startswith("sync"):
                    assert work.good(await completed(lambda: work.begin(values, folder)))  # noqa: B023
                    held = await sandbox.values()
                    assert held == {(one.customer_id, 1): one.value for one in upserts(ROWS)}
            assert cancelled > 0
            assert (await values.get_page()).pagination.total >= ROWS
            await at_rest(store)
        await asyncio.sleep(0)
        for _ in range(50):
            if descriptors() <= before + 1:
                break
            await asyncio.sleep(0.01)
        # One more: the listening side may still hold the last connection.
        assert descriptors() <= before + 1
    gc.collect()
    assert [one.getMessage() for one in caplog.records if one.levelno >= logging.ERROR] == []


GENERATORS: dict[str, Callable[[AttributeValues], AsyncGenerator[Any]]] = {
    "pages": lambda v: v.pages(),
    "pages one by one": lambda v: v.pages(read_ahead=0),
    "stream": lambda v: v.stream(),
    "stream exactly_once": lambda v: v.stream(exactly_once=True),
    "upsert_stream": lambda v: v.upsert_stream(upserts(ROWS)),
}


class BodyError(Exception):
    """Raised in the body of a loop."""


@pytest.mark.parametrize("how", ["closed", "let go of", "thrown into"])
@pytest.mark.parametrize("name", GENERATORS)
async def test_left_after_every_item_it_leaves_nothing(
    name: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Sandbox(quota=None) as sandbox, make_store(sandbox, limits=LIMITS) as store:
        await sandbox.seed(
            (customer, 1, "old", LONG_AGO + 9 * customer) for customer in range(1, ROWS + 1)
        )
        tasks = asyncio.all_tasks()
        for stop in itertools.count():
            items = GENERATORS[name](store.attribute_values)
            taken = 0
            while taken < stop:
                if await anext(items, None) is None:
                    break
                taken += 1
            if how == "closed":
                await items.aclose()
            elif how == "thrown into":
                with suppress(BodyError, StopAsyncIteration):
                    await items.athrow(BodyError())
            del items
            if how == "let go of":
                gc.collect()
            await check_order(sandbox, store, tasks)
            if taken < stop:
                break
        assert stop >= 4
        assert (await store.attribute_values.count()) == ROWS
    assert [one.getMessage() for one in caplog.records if one.levelno >= logging.ERROR] == []


@pytest.mark.parametrize("what", ["entering", "closing", "closing during work"])
@pytest.mark.usefixtures("quick_probes")
async def test_entering_and_closing_cancelled_at_every_suspension(what: str) -> None:
    async with Sandbox(quota=None) as sandbox:
        before = descriptors()
        for moment in itertools.count(1):
            store = make_store(sandbox)
            count = [0]
            jobs: list[asyncio.Task[Any]] = []
            if what == "entering":
                work: Any = store.__aenter__()
            else:
                await store.__aenter__()
                if what == "closing during work":
                    sandbox.faults.add("hang")
                    jobs = [
                        asyncio.create_task(one)  # type: ignore[arg-type]
                        for one in (
                            store.attribute_values.upsert(upserts(50)),
                            store.attribute_values.get_page(),
                        )
                    ]
                    while sandbox.in_flight() < 4:  # noqa: ASYNC110
                        await asyncio.sleep(0)
                work = store.aclose()
            task = asyncio.create_task(run(work, {moment}, count))
            await asyncio.wait([task])
            # Closed again, or for the first time, nothing is left.
            await store.aclose()
            async with asyncio.timeout(5):
                ended = await asyncio.gather(*jobs, return_exceptions=True)
            assert all(isinstance(one, BaseException) for one in ended)
            sandbox.faults.clear()
            while sandbox.in_flight():  # noqa: ASYNC110
                await asyncio.sleep(0)
            if count[0] < moment:
                break
        for _ in range(50):
            if descriptors() <= before + 1:
                break
            await asyncio.sleep(0.01)
        assert descriptors() <= before + 1
