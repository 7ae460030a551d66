"""The scope of a sync: which rows are compared, and which ones pruning may delete.

A scope is a filter of ids alone: a desired value has no date and no attribute name to compare with
the rest of a filter. Whether a row lies inside is checked here, and not left to the service.
"""

from __future__ import annotations

import hashlib
from typing import Final

import attrs
import msgspec

from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.errors import InvalidInputError

_IDS: Final = frozenset({"customer_id_in", "attribute_id_in"})


@attrs.frozen
class Scope:
    """Ids of customers and of attributes; None stands for all."""

    customer_ids: frozenset[int] | None = None
    attribute_ids: frozenset[int] | None = None

    @classmethod
    def of(cls, filter: AttributeValueFilter | None) -> Scope:
        """Return the scope of a filter; None and an empty one mean the whole store.

        Raises `InvalidInputError` naming a field that a desired value does not have.
        """
        if filter is None:
            return cls()
        if not isinstance(filter, AttributeValueFilter):
            message = f"scope must be an AttributeValueFilter, not {type(filter).__name__}"
            raise InvalidInputError(message, field="scope")
        for field in attrs.fields_dict(AttributeValueFilter):
            if field not in _IDS and getattr(filter, field) is not None:
                message = f"a scope takes customer_id_in and attribute_id_in alone, not {field}"
                raise InvalidInputError(message, field=field)
        customers, attributes = filter.customer_id_in, filter.attribute_id_in
        return cls(
            None if customers is None else frozenset(customers),
            None if attributes is None else frozenset(attributes),
        )

    def matches(self, customer_id: int, attribute_id: int) -> bool:
        """Return whether a value or a row of this customer and attribute lies inside."""
        return (self.customer_ids is None or customer_id in self.customer_ids) and (
            self.attribute_ids is None or attribute_id in self.attribute_ids
        )

    def contains(self, other: Scope) -> bool:
        """Return whether everything of another scope lies inside."""
        pairs = (
            (self.customer_ids, other.customer_ids),
            (self.attribute_ids, other.attribute_ids),
        )
        return all(mine is None or (its is not None and its <= mine) for mine, its in pairs)

    def narrowed(self, attribute_ids: tuple[int, ...] | None) -> AttributeValueFilter:
        """Return the filter of the scope, with these attributes alone where they are given."""
        if attribute_ids is None and self.attribute_ids is not None:
            attribute_ids = tuple(sorted(self.attribute_ids))
        customers = None if self.customer_ids is None else sorted(self.customer_ids)
        return AttributeValueFilter(customer_id_in=customers, attribute_id_in=attribute_ids)

    def digest(self) -> str:
        """Return a short text that is equal only for equal scopes."""
        ids = [None if one is None else sorted(one) for one in attrs.astuple(self, recurse=False)]
        return hashlib.blake2b(msgspec.json.encode(ids), digest_size=16).hexdigest()
