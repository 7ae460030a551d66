"""Resolves `NamedValue`s of a Store: remembers what was looked up, asks for the rest in chunks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from bc_attrvals.core.models import AttributeValueUpsert
from bc_attrvals.core.named_value import NamedValue, check_type
from bc_attrvals.core.requests import RequestBuilder
from bc_attrvals.errors import (
    AttributeTypeError,
    InvalidInputError,
    UnknownCustomerError,
    UnresolvedError,
)
from bc_attrvals.naming.addresses import Addresses, look_up
from bc_attrvals.naming.definitions import Definitions, KnownDefinitions
from bc_attrvals.scheduling.calls import Calls

#: Items that are resolved together: enough to fill the URLs of several look-ups.
WINDOW: Final = 2_000

#: Unknown addresses that a job remembers.
_MOST_UNKNOWN: Final = 100_000


@attrs.define
class JobNames:
    """What one job knows of its names."""

    #: By the loop's clock. Definitions that were read before may lack what others made since.
    began_at_s: float = attrs.field(factory=lambda: asyncio.get_running_loop().time())
    #: Addresses that no customer has, up to a bound.
    unknown: set[str] = attrs.field(factory=set)


class Resolver:
    """Turns names and addresses into ids. One for a Store, for the Store's life."""

    def __init__(self, attributes: RequestBuilder, customers: RequestBuilder) -> None:
        self._attributes = attributes
        self._customers = customers
        self._addresses = Addresses()
        self.definitions = KnownDefinitions()

    def __repr__(self) -> str:
        return f"<Resolver, {len(self._addresses)} addresses known>"

    def forget(self, address: str) -> None:
        """Look an address up anew when it is next needed: its customer was refused as unknown."""
        self._addresses.forget(address)

    async def resolve(
        self, items: Sequence[NamedValue], calls: Calls, names: JobNames | None = None
    ) -> list[AttributeValueUpsert | UnresolvedError]:
        """Return an upsert, or its own error, for each item in order.

        An address is asked for once, however many items have it. `calls` and `names` are those of
        the job that needs the ids, which counts the calls. Raises an error of the look-up as a
        whole.
        """
        if not items:
            return []
        names = names or JobNames()
        unknown = names.unknown
        attributes = {item.attribute for item in items}
        definitions = await self.definitions.get(
            calls.of(self._attributes), attributes, names.began_at_s
        )
        wanted = {item.customer for item in items if isinstance(item.customer, str)}
        customers: dict[str, int | UnknownCustomerError | None]
        customers = {one: self._addresses.get(one) for one in wanted}
        missing = [one for one in wanted if customers[one] is None and one not in unknown]
        if missing:
            customers |= await look_up(calls.of(self._customers), missing)
        for address in missing:
            found = customers[address]
            if isinstance(found, int):
                self._addresses.remember(address, found)
            elif found is None and len(unknown) < _MOST_UNKNOWN:
                unknown.add(address)
        return [_resolved(item, definitions, customers) for item in items]

    async def attribute_ids(self, name: str, calls: Calls) -> list[int]:
        """Return the ids of the definitions with exactly this name; they are read anew.

        With them each row that is listed by `name` can be checked.
        """
        found = await self.definitions.read(calls.of(self._attributes))
        return [one.id for one in found if one.name == name]


def _resolved(
    item: NamedValue,
    definitions: Definitions,
    customers: Mapping[str, int | UnknownCustomerError | None],
) -> AttributeValueUpsert | UnresolvedError:
    customer = customers[item.customer] if isinstance(item.customer, str) else item.customer
    if isinstance(customer, UnknownCustomerError):
        return customer
    if customer is None:
        message = f"no customer has the address {item.customer!r}"
        return UnknownCustomerError(message, name=str(item.customer))
    try:
        attribute = definitions.get(item.attribute)
    except UnresolvedError as error:
        return error
    try:
        check_type(item, attribute.type, attribute.name)
    except AttributeTypeError as error:
        error.key = (customer, attribute.id)
        return error
    try:
        return AttributeValueUpsert(customer, attribute.id, item.text)
    except InvalidInputError as error:
        # The item was checked when it was made, so the id is the service's.
        return UnresolvedError(f"the service named an id that no value can have: {error}")
