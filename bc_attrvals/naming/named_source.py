"""The input of a bulk upsert that may hold `NamedValue`s: resolved ahead of the writes, in order.

Between an input of `writing/sources.py` and the upsert job. As long as only plain upserts come,
they are passed through. From the first name on, a task reads windows of the input, has their names
resolved, and keeps at most one window ahead of what the job has taken: memory stays flat.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any, Final

from bc_attrvals.core.models import AttributeValueUpsert
from bc_attrvals.core.named_value import Item, NamedValue
from bc_attrvals.core.outcomes import OutcomeStatus
from bc_attrvals.errors import APIError, BCAttrValsError, UnresolvedError
from bc_attrvals.naming.resolver import WINDOW, JobNames, Resolver
from bc_attrvals.scheduling.calls import Calls
from bc_attrvals.writing.outcomes import Outcomes
from bc_attrvals.writing.sources import Items, Source, check_item, open_input

#: Addresses of which a job notes that they were looked up a second time.
_MOST_ASKED_AGAIN: Final = 100_000


class NamedSource:
    """An input whose names are resolved before its items are pulled, in the order they came.

    An item that can't be resolved goes to `outcomes` as failed. What was resolved is in
    `outcomes.originals`, so that its outcome holds the item as it was given.
    """

    def __init__(
        self,
        items: Items,
        resolver: Resolver,
        calls: Calls,
        outcomes: Outcomes,
        on_change: Callable[[], None],
        context: Context,
    ) -> None:
        self._resolver = resolver
        self._calls = calls
        self._outcomes = outcomes
        self._on_change = on_change
        self._context = context
        self._saw_name = False
        self._reads_ahead = False
        self._ready: deque[AttributeValueUpsert] = deque()
        # Read and not resolved yet.
        self._window: list[Item] = []
        # Refused once, with the id that was refused: looked up again before they fail.
        self._again: list[tuple[NamedValue, int, BCAttrValsError]] = []
        self._asked_again: set[str] = set()
        self._names = JobNames()
        self._task: asyncio.Task[None] | None = None
        self._error: BaseException | None = None
        self._stopped = False
        self._news = asyncio.Event()
        outcomes.reconsider = self.reconsider
        self._items: Source[Any] = open_input(items, self._changed, self._check)

    @property
    def exhausted(self) -> bool:
        """Whether all items were pulled, or are lost."""
        if self._error is not None:
            return not self._ready
        left = self._ready or self._window or self._again
        return self._task is None and self._items.exhausted and not left

    @property
    def pausing(self) -> bool:
        """Whether nothing comes for a while, so that an unfilled batch is sent."""
        return self._items.pausing and not self._window

    @property
    def error(self) -> BaseException | None:
        """What ended the input early: an error of its own, or of a look-up as a whole."""
        return self._error or self._items.error

    def pull(self, most: int) -> list[AttributeValueUpsert]:
        """Return up to `most` items that are ready."""
        if not self._reads_ahead:
            items = self._items.pull(most)
            if not self._saw_name:
                # Plain upserts alone, as `_check` has seen.
                return items
            self._reads_ahead = True
            self._window = items
            self._start()
        taken = [self._ready.popleft() for _ in range(min(most, len(self._ready)))]
        self._news.set()
        return taken

    def reconsider(
        self, items: Sequence[AttributeValueUpsert], error: BCAttrValsError
    ) -> list[AttributeValueUpsert]:
        """Take back refused items whose address may have gone to another customer meanwhile.

        Returns those that stay refused. A job looks each address up again at most once.
        """
        refused: list[AttributeValueUpsert] = []
        for item in items:
            _, named = self._outcomes.originals.get(id(item), (None, None))
            address = named.customer if isinstance(named, NamedValue) else None
            if (
                not isinstance(named, NamedValue)
                or not isinstance(address, str)
                or address in self._asked_again
                or len(self._asked_again) >= _MOST_ASKED_AGAIN
                or self._stopped
                or not _names_customer(error)
            ):
                refused.append(item)
                continue
            self._asked_again.add(address)
            del self._outcomes.originals[id(item)]
            self._resolver.forget(address)
            self._again.append((named, item.customer_id, error))
        if self._again and self._task is None:
            self._start()
        return refused

    def stop(self) -> None:
        """Read no further; `pull` and `drain` still return what was read."""
        self._stopped = True
        if self._task is not None:
            self._task.cancel()
        self._items.stop()

    def drain(self) -> list[Item]:
        """Return what was read and not pulled, resolved or not."""
        again = [item for item, _, _ in self._again]
        left = [*again, *self._ready, *self._window, *self._items.drain()]
        self._ready.clear()
        self._window, self._again = [], []
        return left

    async def close(self) -> None:
        """Stop reading, and close the input."""
        self.stop()
        if self._task is not None:
            await asyncio.wait([self._task])
        await self._items.close()

    def _changed(self) -> None:
        self._news.set()
        self._on_change()

    def _check(self, item: object, index: int) -> Item:
        checked = check_item(item, index)
        if isinstance(checked, NamedValue):
            self._saw_name = True
        return checked

    def _start(self) -> None:
        if not self._stopped and self._error is None:
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(self._read(), context=self._context)

    async def _read(self) -> None:
        try:
            while await self._fill():
                await self._resolve_window()
        except BaseException as error:  # noqa: BLE001 - raised again by the job
            # After `stop` the cancellation is the job's own.
            if not (self._stopped and isinstance(error, asyncio.CancelledError)):
                self._fail(error)
        finally:
            self._task = None
            self._changed()

    def _fail(self, error: BaseException) -> None:
        """End the input: a look-up as a whole has failed. What is resolved is still sent."""
        self._error = error
        reason = error if isinstance(error, BCAttrValsError) else None
        if reason is None:
            reason = UnresolvedError(f"the look-up ended with {type(error).__name__}")
        unresolved = [*(item for item, _, _ in self._again), *self._window, *self._items.drain()]
        self._window, self._again = [], []
        self._items.stop()
        self._outcomes.lost(unresolved, OutcomeStatus.NOT_SENT, reason)

    async def _fill(self) -> bool:
        """Read until a window is full or the input pauses; False when there is nothing more."""
        while True:
            self._news.clear()
            if len(self._ready) < WINDOW:
                self._window += self._items.pull(WINDOW - len(self._window))
            if self._again or len(self._window) >= WINDOW:
                return True
            if self._window and (self._items.exhausted or self._items.pausing):
                return True
            if self._items.exhausted:
                return False
            # Until more of an asynchronous input comes, or the job pulls what is resolved.
            await self._news.wait()

    async def _resolve_window(self) -> None:
        again, window = list(self._again), self._window
        named = [one for one, _, _ in again]
        named += [item for item in window if isinstance(item, NamedValue)]
        found = iter(await self._resolver.resolve(named, self._calls, self._names))
        # More may have been refused meanwhile.
        self._again, self._window = self._again[len(again) :], []
        for refused, refused_id, error in again:
            upsert = next(found)
            if isinstance(upsert, AttributeValueUpsert) and upsert.customer_id == refused_id:
                self._outcomes.lost([refused], OutcomeStatus.FAILED, error)
            else:
                self._take(refused, upsert)
        for item in window:
            if isinstance(item, NamedValue):
                self._take(item, next(found))
            else:
                self._ready.append(item)
        self._on_change()

    def _take(self, item: NamedValue, found: AttributeValueUpsert | UnresolvedError) -> None:
        if isinstance(found, UnresolvedError):
            self._outcomes.lost([item], OutcomeStatus.FAILED, found)
            return
        self._outcomes.originals[id(found)] = (found, item)
        self._ready.append(found)


def _names_customer(error: BCAttrValsError) -> bool:
    """Return whether a refusal may mean an unknown customer. One that names nothing may."""
    if not isinstance(error, APIError):
        return False
    words = " ".join([*error.errors, *error.errors.values()]).lower()
    return not words or "customer" in words
