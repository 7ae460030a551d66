"""Looks customers up by e-mail address, in chunks as large as a URL holds.

Whether `email:in` is case-sensitive, and how many addresses it takes, is not documented
(BigCommerce reference, Get All Customers). So an address is asked for as given and, if not found,
in lower case. The first of several spellings is asked for before the others. Once an answer shows
an address in another case than it was asked for, each address is asked for once. A chunk that is
refused, or answered with a page too small for it, is halved, and the accepted size is learnt.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final
from urllib.parse import quote

from bc_attrvals.core.definitions import Customer, decode_customers
from bc_attrvals.core.named_value import address_key
from bc_attrvals.errors import APIError, ListingDriftError, UnknownCustomerError
from bc_attrvals.scheduling.calls import Calls
from bc_attrvals.scheduling.learnt_sizes import DEFAULT_PAGE_SIZE
from bc_attrvals.scheduling.parallel_reads import all_at_once

#: Addresses that a Store remembers: some 15 MB.
_MOST_REMEMBERED: Final = 100_000
#: Statuses that refuse a request as too large.
_TOO_LARGE: Final = frozenset({400, 413, 414, 422})


async def customers_by(calls: Calls, parameter: str, texts: Sequence[str]) -> list[Customer]:
    """Return the customers that one parameter names; `texts` are percent-encoded already.

    Chunks are asked for at once, as many as slots allow. Raises `ListingDriftError` where a page
    is short of what the service says matches.
    """
    parts = calls.parts(parameter, texts)
    lists = await all_at_once(_fetch(calls, parameter, part) for part in parts)
    return [customer for customers in lists for customer in customers]


async def _fetch(calls: Calls, parameter: str, part: Sequence[str]) -> list[Customer]:
    # A page that holds the part; the service may refuse larger ones.
    limit = min(calls.sizes.page, max(len(part), DEFAULT_PAGE_SIZE))
    query = f"{parameter}={','.join(part)}"
    try:
        page = await calls.rows(query, 1, limit, decode_customers)
    except APIError as error:
        if error.status not in _TOO_LARGE or len(part) == 1:
            raise
        return await _fetch_smaller(calls, parameter, part)
    rows = list(page.data)
    if page.total <= len(rows):
        return rows
    if rows and 1 < page.total <= len(part):
        # The pages of this service are smaller than asked for.
        return await _fetch_smaller(calls, parameter, part)
    # There are more customers than were asked for.
    message = "the service did not answer with the customers that were asked for"
    raise ListingDriftError(message)


async def _fetch_smaller(calls: Calls, parameter: str, part: Sequence[str]) -> list[Customer]:
    """Fetch a part in smaller ones, and learn their size."""
    # Another chunk may have learnt a smaller size meanwhile, which this one has not tried yet.
    size = calls.sizes.look_up
    if size >= len(part):
        size = len(part) // 2
        calls.sizes.lower_look_up(size)
    return [
        customer
        for begin in range(0, len(part), size)
        for customer in await _fetch(calls, parameter, part[begin : begin + size])
    ]


async def look_up(
    calls: Calls, addresses: Iterable[str]
) -> dict[str, int | UnknownCustomerError | None]:
    """Return the customer's id of each address, as given; None where no customer has it.

    An address that several customers have in different case, none of them as given, has an error.
    `calls` are those of the customers' resource.
    """
    wanted = list(dict.fromkeys(addresses))
    spellings: dict[str, dict[str, None]] = {}
    for address in wanted:
        spellings.setdefault(address_key(address), {})[address.strip()] = None
    by_key: dict[str, dict[str, int]] = {}
    asked = [next(iter(some)) for some in spellings.values()]
    for _ in range(2):
        customers = await customers_by(calls, "email:in", [quote(one, safe="") for one in asked])
        asked_for = set(asked)
        for customer in customers:
            key = address_key(customer.email)
            by_key.setdefault(key, {})[customer.email] = customer.id
            if key in spellings and customer.email.strip() not in asked_for:
                calls.sizes.disregards_case = True
        if calls.sizes.disregards_case:
            break
        # Another customer may have another spelling. What is not found is asked for in lower case.
        asked = [one for some in spellings.values() for one in list(some)[1:]]
        asked += [key for key, some in spellings.items() if key not in by_key and key not in some]
        if not asked:
            break
    found: dict[str, int | UnknownCustomerError | None] = {}
    for address in wanted:
        there = by_key.get(address_key(address), {})
        ids = sorted(set(there.values()))
        found[address] = there.get(address.strip(), ids[0] if ids else None)
        if len(ids) > 1 and address.strip() not in there:
            message = f"several customers have the address {address!r} in different case: "
            message += ", ".join(map(str, ids))
            found[address] = UnknownCustomerError(message, name=address)
    return found


class Addresses:
    """The addresses that a Store has looked up: a bounded number, the oldest forgotten first."""

    def __init__(self, most: int = _MOST_REMEMBERED) -> None:
        self._most = most
        self._ids: OrderedDict[str, int] = OrderedDict()

    def __len__(self) -> int:
        """Return how many are remembered."""
        return len(self._ids)

    def get(self, address: str) -> int | None:
        """Return the id of an address if it is remembered."""
        found = self._ids.get(address)
        if found is not None:
            self._ids.move_to_end(address)
        return found

    def remember(self, address: str, customer_id: int) -> None:
        """Remember an address."""
        self._ids[address] = customer_id
        self._ids.move_to_end(address)
        while len(self._ids) > self._most:
            self._ids.popitem(last=False)

    def forget(self, address: str) -> None:
        """Forget an address, so that it is looked up again."""
        self._ids.pop(address, None)
