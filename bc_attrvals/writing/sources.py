"""The one place that iterates inputs: sync and async iterables, for upserts, deletes and sync.

An input is read only as far as it is needed, and each entry is checked as it is read. If an input
raises any exception, the entries read before it are returned first, and then it is raised. That
includes a `CancelledError`, `GeneratorExit` or `KeyboardInterrupt` of the input's own.

`open_input` is for a job that must not wait for its input: it pulls the entries that are ready.
`chunks` is for a job that reads and works in turn.
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

#: The input of bulk writes: any iterable, sync or async, of upserts and named values.
Items: TypeAlias = Iterable[Item] | AsyncIterable[Item]

#: Returns an entry in its checked form, or raises `InvalidInputError`; the index counts from 0.
_Check: TypeAlias = Callable[[object, int], T]

#: The most items read for one batch, full or not. If there are few keys, most items only supersede
#: others, and an endless input of one key would be read for ever.
LOOK_AHEAD: Final = 200
#: If an asynchronous input pauses this long, its unfilled batch is sent.
_LINGER_S: Final = 0.05
#: Entries of this type need no check, because they were checked when they were built.
_PLAIN: Final = AttributeValueUpsert
#: Collections, which can be read twice: a bad entry is found before anything is sent.
COLLECTIONS: Final = (list, tuple, set, frozenset, range)


class Source(Protocol[T]):
    """An input that a job reads without waiting for it."""

    @property
    def exhausted(self) -> bool:
        """Whether all entries were returned."""

    @property
    def pausing(self) -> bool:
        """Whether the input pauses, so that an unfilled batch is sent."""

    @property
    def error(self) -> BaseException | None:
        """What ended the input early."""

    def pull(self, most: int) -> list[T]:
        """Return the entries that are ready, at most `most`."""

    def stop(self) -> None:
        """Read no further; entries that were read can still be pulled."""

    def drain(self) -> Sequence[Item]:
        """Return the entries that were read and not pulled."""

    async def close(self) -> None:
        """Stop reading, and close the input."""


#: Begins to read. The arguments are a callback for new entries, and the context to read in.
OpenSource: TypeAlias = Callable[[Callable[[], None], Context], Source[AttributeValueUpsert]]


def check_item(item: object, index: int) -> Item:
    """Return an entry that may be a named value, or raise `InvalidInputError` with its place."""
    if not isinstance(item, AttributeValueUpsert | NamedValue):
        message = f"expected AttributeValueUpsert or NamedValue, got {type(item).__name__}"
        raise InvalidInputError(message, field="items", place=f"items[{index}]")
    return item


def source_of_lists(lists: AsyncIterable[Sequence[AttributeValueUpsert]]) -> OpenSource:
    """Return an opener for lists of upserts; a pause of the input sends no unfilled batch."""

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
    """Begin to read an input; an asynchronous one calls `on_change` for new entries and its end.

    `check` returns each entry or raises; an `AttributeValueUpsert` is not checked again. With
    `linger`, an asynchronous input that pauses is `pausing` after a moment.

    Raises `InvalidInputError` for no iterable, and for a collection with a bad item.
    """
    if isinstance(items, AsyncIterable):
        return _AsyncInput(items, check, on_change, linger=linger)
    _check_iterable(items, "items")
    if isinstance(items, COLLECTIONS):
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

    A callable `size` is called for each list. Nothing is read while the caller works on a list.
    `check_first` checks a whole collection before anything is yielded; other inputs are checked as
    they are read. Closed or cancelled, it closes the input.

    Raises what `check` and the input raise, and `InvalidInputError` naming `field` for no iterable.
    Entries read before an error are yielded first.
    """
    size_now = size if callable(size) else lambda: size
    if isinstance(items, AsyncIterable):
        async with aclosing(_async_chunks(items, check, size_now)) as lists:
            async for entries in lists:
                yield entries
        return
    _check_iterable(items, field)
    if check_first and isinstance(items, COLLECTIONS):
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
                # Cancelled from outside, even if the input has swallowed that.
                raise asyncio.CancelledError from error
            if len(entries) >= size_now():
                yield entries
                entries = []
    if entries:
        yield entries
    if error is not None:
        raise error


async def _checked(items: AsyncIterable[object], check: _Check[T]) -> AsyncGenerator[T]:
    """Yield checked entries. Closing this closes the input."""
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
        """Return the next `most` entries, or fewer up to the end or an error of the input."""
        entries: list[T] = []
        if self.exhausted:
            return entries
        # A plain entry is a T without a check, which a type checker can't know.
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
        """Do nothing: entries are read only by `pull`."""

    def drain(self) -> list[T]:
        """Return no entries: all that were read were returned."""
        return []

    async def close(self) -> None:
        """Do nothing: an iterator is not closed by its reader."""


class _AsyncInput(Generic[T]):
    """Entries of an asynchronous iterable, read by its own task into a short buffer.

    A `nested` input yields lists of entries.
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
        """Whether all entries were returned."""
        return self._finished and not self._buffer

    def pull(self, most: int) -> list[T]:
        """Return the entries in the buffer, at most `most`."""
        entries = [self._buffer.popleft() for _ in range(min(most, len(self._buffer)))]
        if entries:
            self._space.set()
        is_waiting = self._lingers and self._linger is None and not self.pausing
        if is_waiting and len(entries) < most and not self._finished:
            self._linger = self._loop.call_later(_LINGER_S, self._pause)
        return entries

    def stop(self) -> None:
        """Read no further; entries that were read can still be pulled."""
        self._stop_lingering()
        if not self._stopped:
            # Only once: a second cancellation would interrupt the input's clean-up.
            self._stopped = True
            self._task.cancel()

    def drain(self) -> list[T]:
        """Return and remove the entries in the buffer."""
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
            # After `stop`, the cancellation is the job's own. Otherwise somebody cancelled what the
            # input waited for, and the job must not take that for the end of the input.
            if not (self._stopped and isinstance(error, asyncio.CancelledError)):
                self.error = error
        finally:
            self._finished = True
            self._on_change()
