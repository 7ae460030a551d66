"""Inputs of bulk writes: sync and async iterables, read no further than they are needed.

Between the caller's iterable and `bulk.py`. An error of the input is kept until all that was read
before it was sent.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from itertools import islice
from typing import Final, TypeAlias

from bc_attrvals.core.models import AttributeValueUpsert
from bc_attrvals.errors import InvalidInputError

__all__ = ["LOOK_AHEAD", "Items", "open_input"]

#: What bulk writes read: any iterable of upserts, sync or async.
Items: TypeAlias = Iterable[AttributeValueUpsert] | AsyncIterable[AttributeValueUpsert]

#: Items read for a batch before it is sent as it is: with few keys, most items only replace
#: one another, and an endless input of one key would be read for ever.
LOOK_AHEAD: Final = 200
#: An asynchronous input that pauses this long has its unfilled batch sent.
_LINGER_S: Final = 0.05


def _checked(item: object, index: int) -> AttributeValueUpsert:
    if not isinstance(item, AttributeValueUpsert):
        message = f"expected AttributeValueUpsert, got {type(item).__name__}"
        raise InvalidInputError(message, field="items", place=f"items[{index}]")
    return item


class _SyncInput:
    """Items of an ordinary iterable, pulled when they are needed."""

    pausing = False

    def __init__(self, items: Iterable[AttributeValueUpsert]) -> None:
        if isinstance(items, list | tuple):
            # All at hand, so a bad one is found before anything is sent.
            for index, item in enumerate(items):
                _checked(item, index)
        self._items: Iterator[AttributeValueUpsert] = iter(items)
        self._count = 0
        self.exhausted = False
        self.error: BaseException | None = None

    def pull(self, most: int) -> list[AttributeValueUpsert]:
        """Return the next items, `most` of them or all up to the end, or to where it failed."""
        items: list[AttributeValueUpsert] = []
        if self.exhausted:
            return items
        take = items.append
        try:
            # Runs once for each of 100,000 items. One that is bad ends the input there.
            for item in islice(self._items, most):
                if type(item) is AttributeValueUpsert:
                    take(item)
                else:
                    take(_checked(item, self._count + len(items)))
        except (Exception, asyncio.CancelledError, GeneratorExit) as error:  # noqa: BLE001
            # What was read before is still sent; then the job ends with this error.
            self.error = error
        self._count += len(items)
        self.exhausted = len(items) < most
        return items

    def stop(self) -> None:
        """Do nothing: no item is read unless it is asked for."""

    def drain(self) -> list[AttributeValueUpsert]:
        """Return what was read and not handed out: nothing."""
        return []

    async def close(self) -> None:
        """Do nothing: an iterator is not closed by its reader."""


class _AsyncInput:
    """Items of an asynchronous iterable, read by a task of its own into a short buffer."""

    def __init__(
        self, items: AsyncIterable[AttributeValueUpsert], on_change: Callable[[], None]
    ) -> None:
        self._items = items
        self._on_change = on_change
        self._buffer: deque[AttributeValueUpsert] = deque()
        self._space = asyncio.Event()
        self._finished = False
        self._stopped = False
        self._linger: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self.pausing = False
        self.error: BaseException | None = None
        self._task = self._loop.create_task(self._read())

    @property
    def exhausted(self) -> bool:
        """Whether all items were handed out."""
        return self._finished and not self._buffer

    def pull(self, most: int) -> list[AttributeValueUpsert]:
        """Return the items at hand, at most so many."""
        items = [self._buffer.popleft() for _ in range(min(most, len(self._buffer)))]
        if items:
            self._space.set()
        lingers = self._linger is not None or self.pausing
        if len(items) < most and not self._finished and not lingers:
            self._linger = self._loop.call_later(_LINGER_S, self._pause)
        return items

    def stop(self) -> None:
        """Read no further; what was read stays at hand."""
        self._stop_lingering()
        if not self._stopped:
            # Once: a second time would cut off the input's own clean-up.
            self._stopped = True
            self._task.cancel()

    def drain(self) -> list[AttributeValueUpsert]:
        """Return what was read and not handed out."""
        items = list(self._buffer)
        self._buffer.clear()
        return items

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
        iterator: AsyncIterator[AttributeValueUpsert] | None = None
        count = 0
        try:
            iterator = aiter(self._items)
            async for item in iterator:
                self._buffer.append(_checked(item, count))
                count += 1
                self._stop_lingering()
                self._on_change()
                while len(self._buffer) >= LOOK_AHEAD and not self._stopped:
                    self._space.clear()
                    await self._space.wait()
                if self._stopped:
                    # The input swallowed its cancellation.
                    return
        except asyncio.CancelledError as error:
            if not self._stopped:
                # What the input waited for was cancelled: this is no end of the input.
                self.error = error
            raise
        except Exception as error:  # noqa: BLE001 - raised again by the job
            self.error = error
        finally:
            self._finished = True
            self._on_change()
            await self._close(iterator)

    async def _close(self, iterator: AsyncIterator[AttributeValueUpsert] | None) -> None:
        close = getattr(iterator, "aclose", None)
        if close is None:
            return
        try:
            await close()
        except Exception as error:  # noqa: BLE001 - raised again by the job
            self.error = self.error or error


def open_input(items: Items, on_change: Callable[[], None]) -> _SyncInput | _AsyncInput:
    """Begin to read an input; `on_change` is called when an asynchronous one has news.

    Raises `InvalidInputError` when it is no iterable, or a list or tuple with a bad item in it.
    """
    if isinstance(items, AsyncIterable):
        return _AsyncInput(items, on_change)
    if isinstance(items, Iterable) and not isinstance(items, str | bytes):
        return _SyncInput(items)
    message = f"items must be an iterable, sync or async, not {type(items).__name__}"
    raise InvalidInputError(message, field="items")
