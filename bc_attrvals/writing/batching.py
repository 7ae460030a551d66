"""Cuts a stream of items into batches: ten at most, no key twice, no key that is under way.

Pure and synchronous: `feed` items, `take` batches, `release` the keys of a call that has ended.
Of waiting items with equal keys, the latest wins. An item whose key is under way in any job of the
Store is parked until that call has ended. So the values of one key go out in order, one at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Final

from bc_attrvals.core.models import AttributeValueUpsert, Key

#: The items that wait while batches count customers: their rows need not come together.
MOST_BY_CUSTOMERS: Final = 2_000


class KeyRegistry:
    """The keys under way in one Store, and the batchers that wait for them."""

    __slots__ = ("_waiting", "held")

    def __init__(self) -> None:
        #: The keys under way. A batcher adds those of each batch it gives out; see `release`.
        self.held: set[Key] = set()
        self._waiting: dict[Key, list[Batcher]] = {}

    def __len__(self) -> int:
        """Return how many keys are under way."""
        return len(self.held)

    def __contains__(self, key: Key) -> bool:
        """Return whether a key is under way."""
        return key in self.held

    def wait(self, key: Key, batcher: Batcher, *, first: bool = False) -> None:
        """Have `batcher` unpark a key when it is released; `first` puts it before the others."""
        batchers = self._waiting.setdefault(key, [])
        batchers.insert(0 if first else len(batchers), batcher)

    def leave(self, key: Key, batcher: Batcher) -> None:
        """Undo a `wait`."""
        batchers = self._waiting.get(key)
        if batchers is not None and batcher in batchers:
            batchers.remove(batcher)
            if not batchers:
                del self._waiting[key]

    def release(self, keys: Iterable[Key]) -> bool:
        """Mark keys as free and unpark their waiting items; return whether there were any."""
        if not self._waiting:
            self.held.difference_update(keys)
            return False
        unparked = False
        for key in keys:
            self.held.discard(key)
            for batcher in self._waiting.pop(key, ()):
                batcher.unpark(key)
                unparked = True
        return unparked


class Batcher:
    """The items of one job that were read and are not sent yet."""

    __slots__ = (
        "_groups",
        "_held",
        "_on_unpark",
        "_parked",
        "_registry",
        "customers",
        "ready",
        "size",
    )

    def __init__(
        self, registry: KeyRegistry, size: int, on_unpark: Callable[[], object] = lambda: None
    ) -> None:
        self._registry = registry
        self._held = registry.held
        #: The most items of a batch; it may be changed.
        self.size = size
        #: If not 0, a batch holds all items of this many customers instead.
        self.customers = 0
        self._on_unpark = on_unpark
        #: The items that may be sent; read only.
        self.ready: dict[Key, AttributeValueUpsert] = {}
        self._parked: dict[Key, AttributeValueUpsert] = {}
        # If batches count customers: the keys of each one's ready items, and some that are not.
        self._groups: dict[int, list[Key]] = {}

    def __len__(self) -> int:
        """Return how many items wait, parked ones included."""
        return len(self.ready) + len(self._parked)

    @property
    def room(self) -> int:
        """How many more items a batch surely has room for; 0 if it is full."""
        if not self.customers:
            room = self.size - len(self.ready)
            return room if room > 0 else 0
        return max(0, MOST_BY_CUSTOMERS - len(self.ready))

    def feed(self, item: AttributeValueUpsert) -> AttributeValueUpsert | None:
        """Add an item; return the waiting item of the same key that it supersedes, if any."""
        key = (item.customer_id, item.attribute_id)
        if key in self._held:
            superseded = self.ready.pop(key, None) or self._parked.get(key)
            if key not in self._parked:
                self._registry.wait(key, self)
            self._parked[key] = item
            return superseded
        ready = self.ready
        superseded = ready.get(key)
        ready[key] = item
        if self.customers and superseded is None:
            self._groups.setdefault(key[0], []).append(key)
        return superseded

    def fill(self, items: Sequence[AttributeValueUpsert]) -> list[AttributeValueUpsert]:
        """Add items; return all that are superseded, which may be some of the given ones."""
        superseded = (self.feed(item) for item in items)
        return [item for item in superseded if item is not None]

    def pass_through(
        self, items: Sequence[AttributeValueUpsert]
    ) -> dict[Key, AttributeValueUpsert] | None:
        """Return items that make a full batch, and hold their keys: `fill` and `take` in one step.

        Returns None, and adds nothing, if the result would not be the same.
        """
        keyed = {(item.customer_id, item.attribute_id): item for item in items}
        if (
            len(keyed) != self.size
            or self.ready
            or self.customers
            or not self._held.isdisjoint(keyed)
        ):
            return None
        self._held.update(keyed)
        return keyed

    def take(self) -> dict[Key, AttributeValueUpsert]:
        """Return the items of one batch, in the order they came, and hold their keys.

        If batches count customers, those of one customer come together.
        """
        if self.customers:
            return self._take_customers()
        batch: dict[Key, AttributeValueUpsert] = {}
        for key in list(self.ready):
            item = self.ready.pop(key)
            if key in self._held:
                self._park(key, item)
                continue
            batch[key] = item
            if len(batch) == self.size:
                break
        self._held.update(batch)
        return batch

    def _take_customers(self) -> dict[Key, AttributeValueUpsert]:
        batch: dict[Key, AttributeValueUpsert] = {}
        left = self.customers
        while self._groups and left:
            for customer in list(islice(self._groups, left)):
                before = len(batch)
                for key in self._groups.pop(customer):
                    item = self.ready.pop(key, None)
                    if item is None:
                        continue
                    if key in self._held:
                        self._park(key, item)
                    else:
                        batch[key] = item
                left -= len(batch) > before
        self._held.update(batch)
        return batch

    def _park(self, key: Key, item: AttributeValueUpsert) -> None:
        # Another job of the Store has taken the key since. This one gets it next, or a job whose
        # input repeats one key without end would keep it from the others for ever.
        self._parked[key] = item
        self._registry.wait(key, self, first=True)

    def unpark(self, key: Key) -> None:
        """Make a parked item ready, because its key is free."""
        item = self._parked.pop(key, None)
        if item is not None:
            self.ready[key] = item
            if self.customers:
                self._groups.setdefault(key[0], []).append(key)
            self._on_unpark()

    def drain(self) -> list[AttributeValueUpsert]:
        """Remove all waiting items, and return them."""
        for key in self._parked:
            self._registry.leave(key, self)
        items = [*self.ready.values(), *self._parked.values()]
        self.ready.clear()
        self._parked.clear()
        self._groups.clear()
        return items
