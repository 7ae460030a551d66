"""The one place that iterates inputs: sync and async iterables, for upserts, deletes and sync.

An input is read no further than it is needed, and each entry is checked as it is read. An input
that ends by any exception has not ended: what was read before is handed out, then the exception is
raised, a `CancelledError`, `GeneratorExit` or `KeyboardInterrupt` of the input's own included.

`open_input` is for a job that must not wait for its input: it pulls what is there. `chunks` is for
a job that reads and works in turn.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from contextvars import Context
from itertools import islice
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar

from bc_attrvals.core.models import AttributeValueUpsert
from bc_attrvals.core.named_value import Item, NamedValue
from bc_attrvals.errors import InvalidInputError

T = TypeVar("T")
E = TypeVar("E", bound=Item)

#: What bulk writes read: any iterable, sync or async, of upserts and named values.
Items: TypeAlias = Iterable[Item] | AsyncIterable[Item]

#: Returns an entry in the form that is used, or raises `InvalidInputError`; the index is from 0.
_Check: TypeAlias = Callable[[object, int], T]

#: Items read for a batch before it is sent as it is: with few keys, most items only replace
#: one another, and an endless input of one key would be read for ever.
LOOK_AHEAD: Final = 200
#: An asynchronous input that pauses this long has its unfilled batch sent.
_LINGER_S: Final = 0.05
#: Entries of this type pass without a check: it has none of its own left to make.
_PLAIN: Final = AttributeValueUpsert
#: Inputs that can be read twice: a bad entry is found before anything is sent.
AT_HAND: Final = (list, tuple, set, frozenset, range)


class Source(Protocol[T]):
    """An input that a job reads without waiting for it."""

    @property
    def exhausted(self) -> bool:
        """Whether all entries were handed out."""

    @property
    def pausing(self) -> bool:
        """Whether nothing comes for a while, so that an unfilled batch is sent."""

    @property
    def error(self) -> BaseException | None:
        """What ended the input early."""

    def pull(self, most: int) -> list[T]:
        """Return the entries at hand, at most so many."""

    def stop(self) -> None:
        """Read no further; what was read stays at hand."""

    def drain(self) -> Sequence[Item]:
        """Return what was read and not handed out."""

    async def close(self) -> None:
        """Stop reading, and close the input."""


#: Begins to read; it is given what to call when there is news, and the context to read in.
OpenSource: TypeAlias = Callable[[Callable[[], None], Context], Source[AttributeValueUpsert]]


def check_item(item: object, index: int) -> Item:
    """Return an entry that may be a named value, or raise `InvalidInputError` with its place."""
    if not isinstance(item, AttributeValueUpsert | NamedValue):
        message = f"expected AttributeValueUpsert or NamedValue, got {type(item).__name__}"
        raise InvalidInputError(message, field="items", place=f"items[{index}]")
    return item


def source_of_lists(lists: AsyncIterable[Sequence[AttributeValueUpsert]]) -> OpenSource:
    """Return how to read lists of upserts; a pause of the input sends no unfilled batch."""

    def begin(on_change: Callable[[], None], context: Context) -> Source[AttributeValueUpsert]:
        del context
        return _AsyncInput(lists, lambda entries, _: entries, on_change, linger=False, nested=True)

    return begin


def open_input(
    items: Iterable[object] | AsyncIterable[object],
    on_change: Callable[[], None],
    check: _Check[E],
    *,
    linger: bool = True,
) -> Source[E]:
    """Begin to read an input; an asynchronous one calls `on_change` when it has news.

    `check` returns each entry or raises; an `AttributeValueUpsert` passes without it. With
    `linger`, an asynchronous input that pauses is `pausing` after a moment.

    Raises `InvalidInputError` when it is no iterable, or a collection with a bad item in it.
    """
    if isinstance(items, AsyncIterable):
        return _AsyncInput(items, check, on_change, linger=linger)
    _check_iterable(items, "items")
    if isinstance(items, AT_HAND):
        for index, item in enumerate(items):
            check(item, index)
    return _SyncInput(items, check, _PLAIN)


async def chunks(
    items: Iterable[object] | AsyncIterable[object],
    check: _Check[T],
    field: str,
    size: int | Callable[[], int],
    *,
    check_first: bool = False,
) -> AsyncGenerator[list[T]]:
    """Yield the checked entries of an input in lists of `size`; the last one may be shorter.

    A `size` that can be called is asked for each list.
    Nothing is read while a list is worked on. `check_first` checks a collection as a whole before
    anything is yielded; other inputs are checked as they are read. Closed or cancelled, it closes
    the input.

    Raises what `check` raises, what the input raises, and `InvalidInputError` naming `field` when
    the input is no iterable; each after a list of all that was read before it.
    """
    size_now = size if callable(size) else lambda: size
    if isinstance(items, AsyncIterable):
        async with aclosing(_async_chunks(items, check, size_now)) as lists:
            async for entries in lists:
                yield entries
        return
    _check_iterable(items, field)
    if check_first and isinstance(items, AT_HAND):
        for index, item in enumerate(items):
            check(item, index)
    source = _SyncInput(items, check)
    while not source.exhausted:
        if entries := source.pull(size_now()):
            yield entries
    if source.error is not None:
        raise source.error


async def _async_chunks(
    items: AsyncIterable[object], check: _Check[T], size_now: Callable[[], int]
) -> AsyncGenerator[list[T]]:
    task = asyncio.current_task()
    assert task is not None
    cancellations = task.cancelling()
    entries: list[T] = []
    error: BaseException | None = None
    async with aclosing(_checked(items, check)) as checked:
        while error is None:
            try:
                entries.append(await anext(checked))
            except StopAsyncIteration:
                break
            except BaseException as caught:  # noqa: BLE001 - raised again below
                error = caught
            if task.cancelling() > cancellations:
                # Cancelled from outside, though the input may have swallowed it.
                raise asyncio.CancelledError from error
            if len(entries) >= size_now():
                yield entries
                entries = []
    if entries:
        yield entries
    if error is not None:
        raise error


async def _checked(items: AsyncIterable[object], check: _Check[T]) -> AsyncGenerator[T]:
    """Yield checked entries, and close the input when this is closed."""
    iterator = aiter(items)
    count = 0
    try:
        async for item in iterator:
            yield check(item, count)
            count += 1
    finally:
        close = getattr(iterator, "aclose", None)
        if close is not None:
            await close()


def _check_iterable(items: object, field: str) -> None:
    if isinstance(items, str | bytes) or not isinstance(items, Iterable):
        message = f"{field} must be an iterable, sync or async, not {type(items).__name__}"
        raise InvalidInputError(message, field=field)


class _SyncInput(Generic[T]):
    """Entries of an ordinary iterable, pulled when they are needed.

    Entries whose type is `plain` need no check.
    """

    pausing = False

    def __init__(
        self, items: Iterable[object], check: _Check[T], plain: type | None = None
    ) -> None:
        self._items: Iterator[object] = iter(items)
        self._check = check
        self._plain = plain
        self._count = 0
        self.exhausted = False
        self.error: BaseException | None = None

    def pull(self, most: int) -> list[T]:
        """Return the next entries, `most` of them or all up to the end, or to where it failed."""
        entries: list[T] = []
        if self.exhausted:
            return entries
        # What is plain is a T without a check, which a type checker can't know.
        take: Callable[[Any], None] = entries.append
        plain, check, count = self._plain, self._check, self._count
        try:
            # Runs once for each of 100,000 items.
            for item in islice(self._items, most):
                if type(item) is plain:
                    take(item)
                else:
                    take(check(item, count + len(entries)))
        except BaseException as error:  # noqa: BLE001 - raised again when all before it is sent
            self.error = error
        self._count += len(entries)
        self.exhausted = len(entries) < most
        return entries

    def stop(self) -> None:
        """Do nothing: no entry is read unless it is asked for."""

    def drain(self) -> list[T]:
        """Return what was read and not handed out: nothing."""
        return []

    async def close(self) -> None:
        """Do nothing: an iterator is not closed by its reader."""


class _AsyncInput(Generic[T]):
    """Entries of an asynchronous iterable, read by a task of its own into a short buffer.

    What a `nested` one yields are lists of entries.
    """

    def __init__(
        self,
        items: AsyncIterable[object],
        check: _Check[Any],
        on_change: Callable[[], None],
        *,
        linger: bool,
        nested: bool = False,
    ) -> None:
        self._items = items
        self._check = check
        self._on_change = on_change
        self._buffer: deque[T] = deque()
        self._put: Callable[[Any], None] = self._buffer.extend if nested else self._buffer.append
        self._space = asyncio.Event()
        self._finished = False
        self._stopped = False
        self._lingers = linger
        self._linger: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self.pausing = False
        self.error: BaseException | None = None
        self._task = self._loop.create_task(self._read())

    @property
    def exhausted(self) -> bool:
        """Whether all entries were handed out."""
        return self._finished and not self._buffer

    def pull(self, most: int) -> list[T]:
        """Return the entries at hand, at most so many."""
        entries = [self._buffer.popleft() for _ in range(min(most, len(self._buffer)))]
        if entries:
            self._space.set()
        is_waiting = self._lingers and self._linger is None and not self.pausing
        if is_waiting and len(entries) < most and not self._finished:
            self._linger = self._loop.call_later(_LINGER_S, self._pause)
        return entries

    def stop(self) -> None:
        """Read no further; what was read stays at hand."""
        self._stop_lingering()
        if not self._stopped:
            # Once: a second time would cut off the input's own clean-up.
            self._stopped = True
            self._task.cancel()

    def drain(self) -> list[T]:
        """Return what was read and not handed out."""
        entries = list(self._buffer)
        self._buffer.clear()
        return entries

    async def close(self) -> None:
        """Stop reading, and close the input if it is a generator."""
        self.stop()
        await asyncio.wait([self._task])

    def _pause(self) -> None:
        self._linger = None
        self.pausing = True
        self._on_change()

    def _stop_lingering(self) -> None:
        self.pausing = False
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None

    async def _read(self) -> None:
        try:
            async with aclosing(_checked(self._items, self._check)) as entries:
                async for entry in entries:
                    self._put(entry)
                    self._stop_lingering()
                    self._on_change()
                    while len(self._buffer) >= LOOK_AHEAD and not self._stopped:
                        self._space.clear()
                        await self._space.wait()
                    if self._stopped:
                        # The input swallowed its cancellation.
                        return
        except BaseException as error:  # noqa: BLE001 - raised again by the job
            # Stopped, its cancellation is the job's own. Else somebody cancelled what the input
            # waited for, which is no end of the input.
            if not (self._stopped and isinstance(error, asyncio.CancelledError)):
                self.error = error
        finally:
            self._finished = True
            self._on_change()
