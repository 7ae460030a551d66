"""Inputs: read lazily, checked as they are read, and never complete when they end by an error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, suppress
from typing import Any

import pytest

from bc_attrvals import InvalidInputError
from bc_attrvals.sandbox import Sandbox
from bc_attrvals.writing.sources import check_item, chunks, open_input
from tests.conftest import make_store
from tests.probes import at_rest, until, upserts

pytestmark = pytest.mark.usefixtures("no_task_left")


class PanicError(BaseException):
    """What an extension raises that crashed."""


ERRORS: list[Callable[[], BaseException]] = [
    lambda: OSError("disk gone"),
    lambda: ExceptionGroup("several", [OSError("one"), ValueError("two")]),
    lambda: BaseExceptionGroup("several", [PanicError("one"), OSError("two")]),
    GeneratorExit,
    KeyboardInterrupt,
    SystemExit,
    asyncio.CancelledError,
    lambda: PanicError("crashed"),
    lambda: StopAsyncIteration("by hand"),
    lambda: MemoryError("full"),
]


class Failing:
    """Gives items, then raises; both kinds of iterable, and closed once."""

    def __init__(self, items: list[Any], error: BaseException) -> None:
        self._items = iter(items)
        self._error = error
        self.closed = 0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        for item in self._items:
            return item
        raise self._error


class AsyncFailing:
    """The same for `async for`."""

    def __init__(self, items: list[Any], error: BaseException) -> None:
        self._items = iter(items)
        self._error = error
        self.closed = 0

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        await asyncio.sleep(0)
        for item in self._items:
            return item
        if isinstance(self._error, StopAsyncIteration):
            # The end of an input by its own protocol; anything else is none.
            raise RuntimeError("stopped")
        raise self._error

    async def aclose(self) -> None:
        self.closed += 1


def number(item: object, index: int) -> int:
    if not isinstance(item, int):
        raise InvalidInputError("no int", field="ids", place=f"ids[{index}]")
    return item


async def read(source: Any, size: int, **options: Any) -> tuple[list[Any], BaseException | None]:
    """Return what was handed out, and what it ended with."""
    found: list[Any] = []
    try:
        async with aclosing(chunks(source, number, "ids", size, **options)) as lists:
            async for entries in lists:
                found.append(entries)
    except BaseException as error:  # noqa: BLE001
        return found, error
    return found, None


@pytest.mark.parametrize("kind", [Failing, AsyncFailing])
@pytest.mark.parametrize("make", ERRORS, ids=lambda make: type(make()).__name__)
@pytest.mark.parametrize("count", [0, 3, 4, 9])
async def test_what_was_read_before_an_error_is_handed_out_and_the_error_raised(
    kind: Any, make: Callable[[], BaseException], count: int
) -> None:
    source = kind(list(range(count)), make())
    found, error = await read(source, 4)
    assert [one for entries in found for one in entries] == list(range(count))
    assert all(len(entries) == 4 for entries in found[:-1])
    assert isinstance(error, type(source._error) | RuntimeError)
    assert source.closed == (kind is AsyncFailing)


@pytest.mark.parametrize("kind", [Failing, AsyncFailing])
@pytest.mark.parametrize("make", ERRORS, ids=lambda make: type(make()).__name__)
@pytest.mark.parametrize("how", ["upsert", "upsert_stream", "sync", "delete"])
async def test_no_job_takes_an_input_that_raised_for_complete(
    sandbox: Sandbox, kind: Any, make: Callable[[], BaseException], how: str
) -> None:
    given: list[Any] = list(range(1, 26)) if how == "delete" else upserts(25)
    source = kind(given, make())
    stored = 0

    async def run() -> None:
        nonlocal stored
        values = store.attribute_values
        if how == "upsert_stream":
            async for outcome in values.upsert_stream(source):
                stored += outcome.ok
        else:
            await getattr(values, how)(source)

    async with make_store(sandbox) as store:
        with pytest.raises(BaseException) as caught:  # noqa: PT011
            await run()
        await at_rest(store)
    assert isinstance(caught.value, type(source._error) | RuntimeError)
    assert not isinstance(caught.value, AssertionError)
    # Bulk writes send what was read before; a sync needs the whole of its input to begin.
    if how == "delete":
        assert sandbox.calls["delete"] == 1
    else:
        assert await sandbox.count() == (0 if how == "sync" else 25)
    assert stored == (25 if how == "upsert_stream" else 0)


@pytest.mark.parametrize("given", [list(range(9)), set(range(9)), range(9), iter(range(9))])
async def test_an_input_is_cut_to_lists(given: Any) -> None:
    assert await read(given, 4) == ([[0, 1, 2, 3], [4, 5, 6, 7], [8]], None)


async def test_nothing_is_read_while_a_list_is_worked_on() -> None:
    taken: list[int] = []

    def noting() -> Iterator[int]:
        for one in range(100):
            taken.append(one)
            yield one

    async def slowly() -> AsyncIterator[int]:
        for one in noting():
            yield one

    for source in (noting(), slowly()):
        taken.clear()
        async with aclosing(chunks(source, number, "ids", 5)) as lists:
            await anext(lists)
            await asyncio.sleep(0)
            assert len(taken) == 5
            await anext(lists)
            assert len(taken) == 10


@pytest.mark.parametrize("check_first", [True, False])
async def test_a_bad_entry_of_a_collection_is_named_before_anything_is_handed_out(
    check_first: bool,
) -> None:
    found, error = await read([1, 2, "three"], 2, check_first=check_first)
    assert found == ([] if check_first else [[1, 2]])
    assert isinstance(error, InvalidInputError)
    assert error.place == "ids[2]"


@pytest.mark.parametrize("given", [7, "text", b"bytes", None])
async def test_what_is_no_iterable_is_refused_by_name(given: Any) -> None:
    found, error = await read(given, 2)
    assert found == []
    assert isinstance(error, InvalidInputError)
    assert (error.field, str(error)[:27]) == ("ids", "ids must be an iterable, sy")


async def test_an_input_that_swallows_its_cancellation_is_left() -> None:
    entered = asyncio.Event()
    over = False

    async def stubborn() -> AsyncIterator[int]:
        while not over:
            try:
                entered.set()
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                yield 1

    task = asyncio.create_task(read(stubborn(), 4))
    await entered.wait()
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=2)
    over = True
    task.cancel()
    found, error = await task
    assert done
    assert found == []
    assert isinstance(error, asyncio.CancelledError)


async def test_a_task_that_was_cancelled_before_may_read_all_the_same() -> None:
    """As one does that cleans up: what counts is a cancellation since."""

    async def slowly() -> AsyncIterator[int]:
        for one in range(5):
            await asyncio.sleep(0)
            yield one

    async def clean_up() -> Any:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return await read(slowly(), 2)

    task = asyncio.create_task(clean_up())
    await asyncio.sleep(0)
    task.cancel()
    assert await task == ([[0, 1], [2, 3], [4]], None)


async def test_an_input_has_its_clean_up_to_the_end_before_it_is_exhausted() -> None:
    cleaned = False

    class Careful:
        def __init__(self) -> None:
            self._items = iter(upserts(3))

        def __aiter__(self) -> AsyncIterator[Any]:
            return self

        async def __anext__(self) -> Any:
            for item in self._items:
                return item
            raise StopAsyncIteration

        async def aclose(self) -> None:
            nonlocal cleaned
            for _ in range(5):
                await asyncio.sleep(0)
            cleaned = True

    source = open_input(Careful(), lambda: None, check_item)
    await until(lambda: len(source._buffer) == 3)  # type: ignore[union-attr]
    source.pull(10)
    await until(lambda: source.exhausted)
    assert cleaned
    await source.close()


async def test_an_error_of_the_closing_is_no_end_either() -> None:
    class BadlyClosed(AsyncFailing):
        async def __anext__(self) -> Any:
            for item in self._items:
                return item
            raise StopAsyncIteration

        async def aclose(self) -> None:
            raise self._error

    for make in ERRORS[:3]:
        source = open_input(BadlyClosed(upserts(3), make()), lambda: None, check_item)
        await until(lambda: source._finished)  # type: ignore[union-attr]  # noqa: B023
        assert source.pull(10) == upserts(3)
        assert isinstance(source.error, type(make()))
        await source.close()
