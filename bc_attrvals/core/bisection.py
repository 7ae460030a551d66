"""Finds the bad items of a refused call in few calls: group testing, without the calls.

Pure: `take` what to send next, then say what became of it. Of a part that was refused, one half
is sent; when it is accepted the bad item is in the other half, which needs no call to prove it.
What is not known to hold a bad item is gathered again into one part.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final

from bc_attrvals.core.models import AttributeValueUpsert

__all__ = ["Bisection", "Suspects"]

#: Customers remembered as refused; one more is simply not remembered.
_MOST_SUSPECTS: Final = 10_000


class Suspects:
    """Customers of whom an item was refused by itself.

    Most refusals are of a customer (deleted since), who has several values: looking for each of
    them by halves again would cost several calls a value.
    """

    __slots__ = ("_customer_ids",)

    def __init__(self) -> None:
        self._customer_ids: set[int] = set()

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self._customer_ids)

    def __contains__(self, item: AttributeValueUpsert) -> bool:
        """Return whether the customer of an item is one of them."""
        return item.customer_id in self._customer_ids

    def add(self, item: AttributeValueUpsert) -> None:
        """Remember the customer of an item that was refused."""
        if len(self._customer_ids) < _MOST_SUSPECTS:
            self._customer_ids.add(item.customer_id)

    def clear(self, items: Iterable[AttributeValueUpsert]) -> None:
        """Forget the customers of items that were stored."""
        self._customer_ids.difference_update(item.customer_id for item in items)


class Bisection:
    """The items of one batch that are not settled."""

    __slots__ = ("_alone", "_guilty", "_most", "_suspects", "_unknown")

    def __init__(self, items: Sequence[AttributeValueUpsert], suspects: Suspects) -> None:
        self._suspects = suspects
        # What may be good or bad; what is known to hold a bad item; what goes out one by one.
        self._unknown = list(items)
        self._guilty: list[AttributeValueUpsert] = []
        self._alone: list[AttributeValueUpsert] = []
        self._most = len(items)

    def items(self) -> list[AttributeValueUpsert]:
        """Return all that is not settled."""
        return [*self._guilty, *self._unknown, *self._alone]

    def take(self) -> list[AttributeValueUpsert]:
        """Return the part to send now, which stays here until it is settled; empty when all is."""
        if self._suspects:
            self._set_suspects_apart()
        if self._guilty:
            return self._guilty[: max(1, len(self._guilty) // 2)]
        if self._unknown:
            return self._unknown[: self._most]
        return self._alone[:1]

    def settle(self, items: Sequence[AttributeValueUpsert]) -> None:
        """Take out items that need no further call; what is left of a guilty part stays guilty."""
        if len(items) == len(self._unknown) and not self._guilty and not self._alone:
            self._unknown.clear()  # all in one call, as nearly always
            return
        keys = {item.key for item in items}
        for rest in (self._guilty, self._unknown, self._alone):
            rest[:] = [item for item in rest if item.key not in keys]

    def again(self, items: Sequence[AttributeValueUpsert]) -> None:
        """Take back items that were accepted and then not found."""
        self._unknown.extend(items)

    def lost(self, part: Sequence[AttributeValueUpsert]) -> None:
        """Settle a part that is given up for a reason that says nothing of its items."""
        self._acquit()
        self.settle(part)

    def refused(
        self, part: list[AttributeValueUpsert], named: Collection[int]
    ) -> list[AttributeValueUpsert]:
        """Note that a part was refused (422); settle and return its items that are bad for certain.

        `named` are the indexes in it that the answer names. The service reports the first bad item
        alone, so the rest may hold more.
        """
        self._acquit()
        bad = [part[index] for index in sorted(named)]
        if not bad and len(part) == 1:
            self._suspects.add(part[0])
            bad = part
        self.settle(bad or part)
        if not bad:
            self._guilty = part
        return bad

    def too_large(self, part: list[AttributeValueUpsert]) -> list[AttributeValueUpsert]:
        """Note that a part was too large (413); settle and return it if it can't be halved."""
        self._acquit()
        if len(part) > 1:
            self._most = (len(part) + 1) // 2
            return []
        self.settle(part)
        return part

    def _set_suspects_apart(self) -> None:
        apart = [item for item in (*self._guilty, *self._unknown) if item in self._suspects]
        if apart:
            self._acquit()
            self.settle(apart)
            self._alone += apart

    def _acquit(self) -> None:
        """Put what was guilty before what is unknown, for that is all that is known of it now."""
        self._unknown[:0] = self._guilty
        self._guilty = []
