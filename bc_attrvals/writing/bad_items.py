"""Finds the bad items of a refused batch in few calls, by group testing; makes no calls itself.

Pure: `take` the part to send next, then report its result. One half of a refused part is sent. If
it is accepted, the bad item is in the other half, and no call is needed to prove that. Items that
are not known to include a bad one are gathered into one part again.

A refusal means that an item is bad, and may name it. A failure, such as a 500 that repeats for one
item, may mean the same. If each part fails, the service has failed, and the search ends after a
bounded number of calls.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final

from bc_attrvals.core.models import AttributeValueUpsert

#: The most customers, and the most attributes, that are remembered; further ones are not.
_MOST_REMEMBERED: Final = 10_000
#: Refusals after which an attribute is suspected. A customer is suspected after the first.
_ATTRIBUTE_REFUSALS: Final = 2
#: More failures in a row of one job than this mean that the service has failed, not an item. Three
#: batches of ten at once, each with one bad item, fail twelve times in a row at most.
_MOST_FAILURES: Final = 16
#: If a larger share of items is refused without a name, a search takes more calls than sending each
#: item alone: measured with batches of ten.
_CUTOFF: Final = 0.28
#: The weight of the newest item in the share of bad ones.
_SHARE_WEIGHT: Final = 1 / 32


class Suspects:
    """The customers and attributes that one job suspects after refusals, and its failure count.

    A customer or an attribute is suspected if an item of it was refused alone and none was stored.
    Most refusals concern a deleted customer, who has several values, or an attribute. A search by
    halves for each of their items would cost several calls a value. If single values are bad,
    suspecting their customers costs more than it saves, so that stops after some wrong suspicions.
    """

    __slots__ = (
        "_attributes",
        "_customers",
        "_errors",
        "_failures",
        "_good_attributes",
        "_good_customers",
        "_hits",
        "_share",
        "known",
    )

    def __init__(self) -> None:
        self._customers: set[int] = set()
        # How often items of an attribute were refused.
        self._attributes: dict[int, int] = {}
        # Former suspects with a stored value: the value of their refused item was bad.
        self._good_customers: set[int] = set()
        self._good_attributes: set[int] = set()
        #: Whether anything was refused or failed; checked for each call.
        self.known = False
        # Failures since the last call that was accepted.
        self._failures = 0
        # Refused values of suspected customers, and suspected customers with a stored value.
        self._hits = self._errors = 0
        # The recent share of bad items, as a moving average.
        self._share = 0.0

    def __contains__(self, item: AttributeValueUpsert) -> bool:
        """Return whether an item is suspected, and so better sent alone."""
        return (
            item.customer_id in self._customers
            or self._attributes.get(item.attribute_id, 0) >= _ATTRIBUTE_REFUSALS
        )

    @property
    def are_many(self) -> bool:
        """Whether so many items were bad lately that each is better sent alone."""
        return self._share > _CUTOFF

    def add(self, item: AttributeValueUpsert) -> None:
        """Note that an item was refused alone."""
        self._share += (1 - self._share) * _SHARE_WEIGHT
        customer, attribute = item.customer_id, item.attribute_id
        # The refusal of a suspected customer's item says nothing of the attribute.
        by_customer = customer in self._customers
        by_attribute = self._attributes.get(attribute, 0) >= _ATTRIBUTE_REFUSALS
        self._hits += by_customer
        pays = self._errors <= self._hits + 1
        if pays and not (by_attribute or customer in self._good_customers):
            _remember(self._customers, customer)
        known = attribute in self._attributes or len(self._attributes) < _MOST_REMEMBERED
        if known and not (by_customer or attribute in self._good_attributes):
            self._attributes[attribute] = self._attributes.get(attribute, 0) + 1
        self._look()

    def fail(self) -> bool:
        """Note a failure; return whether the service has failed rather than an item."""
        self._failures += 1
        self.known = True
        return self._failures > _MOST_FAILURES

    def clear(self, items: Iterable[AttributeValueUpsert]) -> None:
        """Note that items were stored."""
        self._failures = 0
        for item in items:
            self._share *= 1 - _SHARE_WEIGHT
            if item.customer_id in self._customers:
                self._customers.discard(item.customer_id)
                self._errors += 1
                _remember(self._good_customers, item.customer_id)
            self._attributes.pop(item.attribute_id, None)
            _remember(self._good_attributes, item.attribute_id)
        self._look()

    def _look(self) -> None:
        self.known = bool(self._customers or self._attributes or self._good_customers)


def _remember(ids: set[int], one: int) -> None:
    if len(ids) < _MOST_REMEMBERED:
        ids.add(one)


class BadItemSearch:
    """The items of a batch that are not settled; `begin` reuses it for the next batch."""

    __slots__ = ("_guilty", "_most", "_single", "_suspects", "_unknown", "has_begun")

    def __init__(self, items: Collection[AttributeValueUpsert], suspects: Suspects) -> None:
        self._suspects = suspects
        self.begin(items)

    def begin(self, items: Collection[AttributeValueUpsert]) -> None:
        """Start with the items of the next batch."""
        # Items not known to be bad; items that include a bad one; items that are sent one by one.
        self._unknown = list(items)
        self._guilty: list[AttributeValueUpsert] = []
        self._single: list[AttributeValueUpsert] = []
        self._most = len(items)
        #: Whether a part was refused or failed, so that the next ones are parts of it.
        self.has_begun = False

    def items(self) -> list[AttributeValueUpsert]:
        """Return all items that are not settled."""
        return [*self._guilty, *self._unknown, *self._single]

    def take(self) -> list[AttributeValueUpsert]:
        """Return the part to send now; empty if all items are settled. It is kept until settled."""
        most = self._most
        if self._suspects.known:
            self._set_suspects_apart()
            if self._suspects.are_many:
                most = 1
        if self._guilty:
            return self._guilty[: max(1, min(len(self._guilty) // 2, most))]
        if self._unknown:
            return self._unknown[:most]
        return self._single[:1]

    def settle(self, items: Sequence[AttributeValueUpsert]) -> bool:
        """Remove items that need no further call; return whether one call settled all items.

        The rest of a guilty part stays guilty.
        """
        if len(items) == len(self._unknown) and not self._guilty and not self._single:
            # The usual case: the batch was accepted as a whole.
            self._unknown.clear()
            return True
        keys = {item.key for item in items}
        for rest in (self._guilty, self._unknown, self._single):
            rest[:] = [item for item in rest if item.key not in keys]
        return False

    def again(self, items: Sequence[AttributeValueUpsert]) -> None:
        """Add items again that were accepted but not confirmed."""
        self._unknown.extend(items)

    def lost(self, part: Sequence[AttributeValueUpsert]) -> None:
        """Settle a part that is given up for a reason that does not concern its items."""
        self._acquit()
        self.settle(part)

    def refused(
        self, part: list[AttributeValueUpsert], named: Collection[int]
    ) -> list[AttributeValueUpsert]:
        """Note that a part was refused; settle and return the items that are certainly bad.

        `named` are the indexes in it that the answer names. The service reports only the first bad
        item, so the rest may include others.
        """
        self._acquit()
        self.has_begun = True
        bad = [part[index] for index in sorted(named)]
        if not bad and len(part) == 1:
            self._suspects.add(part[0])
            bad = part
        self.settle(bad or part)
        if not bad:
            self._guilty = part
        return bad

    def failed(
        self, part: list[AttributeValueUpsert], named: Collection[int]
    ) -> list[AttributeValueUpsert]:
        """Note that a part failed, because of an item or because of the service.

        Settle and return the items that are given up: those of `refused`, or all items if the
        service has failed.
        """
        if not self._suspects.fail():
            return self.refused(part, named)
        self._acquit()
        items = self.items()
        self.begin(())
        return items

    def too_large(
        self, part: list[AttributeValueUpsert], allowed: int | None = None
    ) -> list[AttributeValueUpsert]:
        """Note that a part was too large; settle and return it if it is a single item.

        `allowed` is the size that the refusal names; without one the part is halved.
        """
        self._acquit()
        if len(part) > 1:
            self.limit((len(part) + 1) // 2 if allowed is None else allowed)
            return []
        self.settle(part)
        return part

    def acquit(self) -> None:
        """Take the rest of a guilty part whole, because its size may be what was refused."""
        if self._guilty:
            self.limit(len(self._guilty))
            self._acquit()

    def limit(self, size: int) -> None:
        """Take at most `size` items at once from now on."""
        self._most = max(1, min(self._most, size))

    @property
    def most(self) -> int:
        """The most items that are taken at once."""
        return self._most

    def _set_suspects_apart(self) -> None:
        if self._single:
            # Some of them may have been cleared since.
            self._unknown += [item for item in self._single if item not in self._suspects]
            self._single = [item for item in self._single if item in self._suspects]
        apart = [item for item in (*self._guilty, *self._unknown) if item in self._suspects]
        if apart:
            self._acquit()
            self.settle(apart)
            self._single += apart

    def _acquit(self) -> None:
        """Make the guilty part unknown again, before the other unknown items."""
        self._unknown[:0] = self._guilty
        self._guilty = []
