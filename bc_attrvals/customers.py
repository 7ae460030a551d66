"""Customers, read only: e-mail address ↔ id.

`Store.customers`. On the same scheduler, quota, slots and retries as the values. Every method
raises `StoreStateError` when the Store is not open in the running loop, and besides the errors it
names any of `APIError`, `TransportError` and `DecodeError` after the tries of the retry policy.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from urllib.parse import quote

from bc_attrvals.core.arguments import checked_list, listed
from bc_attrvals.core.definitions import Customer, decode_customers
from bc_attrvals.core.models import check_id
from bc_attrvals.core.named_value import address_key, check_address
from bc_attrvals.core.requests import RequestBuilder
from bc_attrvals.errors import InvalidInputError, UnknownCustomerError
from bc_attrvals.naming.addresses import customers_by, look_up
from bc_attrvals.reading.page_count import PageCount
from bc_attrvals.scheduling.calls import Calls


class Customers:
    """The customers of one store; get it as `Store.customers`."""

    __slots__ = ("_calls", "_ensure_open")

    def __init__(
        self, calls: Calls, requests: RequestBuilder, *, ensure_open: Callable[[], None]
    ) -> None:
        self._calls = calls.of(requests)
        self._ensure_open = ensure_open

    async def ids_by_email(self, emails: Iterable[str]) -> dict[str, int]:
        """Return the customer's id of each address that a customer has; keys are as given.

        Addresses are compared without regard to case or surrounding blanks. An address that no
        customer has is left out. Addresses are looked up in chunks as large as a URL holds; one
        that is not found as given is asked for in lower case, too.

        Raises `InvalidInputError` (`place` is `emails[i]`) before anything is sent for what is no
        address, and `UnknownCustomerError` for an address that several customers have in different
        case.
        """
        self._ensure_open()
        given = listed("emails", emails)
        checked_list("emails", given, check_address)
        ids: dict[str, int] = {}
        for email, found in (await look_up(self._calls, given)).items():
            if isinstance(found, UnknownCustomerError):
                raise found
            if found is not None:
                ids[email] = found
        return ids

    async def emails_by_id(self, ids: Iterable[int]) -> dict[int, str]:
        """Return the address of each customer that exists, by id, in chunks a URL holds.

        Raises `InvalidInputError` (`place` is `ids[i]`) before anything is sent for what is no id.
        """
        self._ensure_open()
        found = await self._of_ids(checked_list("ids", ids, check_id))
        return {one.id: one.email for one in found}

    async def stream(
        self, *, id_in: Iterable[int] | None = None, email_in: Iterable[str] | None = None
    ) -> AsyncGenerator[Customer]:
        """Yield customers in the service's order: all of them, or those of some ids or addresses.

        Without ids or addresses the pages are read one after the other. Raises `InvalidInputError`
        for both arguments at once or a bad entry, and `ListingDriftError` where the listing ends
        short of what the service says there is.
        """
        self._ensure_open()
        if id_in is not None and email_in is not None:
            raise InvalidInputError("give id_in or email_in, not both", field="email_in")
        if id_in is not None:
            customers = _each(await self._of_ids(checked_list("id_in", id_in, check_id)))
        elif email_in is not None:
            emails = checked_list("email_in", email_in, check_address)
            texts = [quote(one, safe="") for one in dict.fromkeys(emails)]
            keys = set(map(address_key, emails))
            found = await customers_by(self._calls, "email:in", texts)
            customers = _each([one for one in found if address_key(one.email) in keys])
        else:
            customers = self._all()
        async with aclosing(customers):
            async for customer in customers:
                yield customer

    async def _of_ids(self, ids: Iterable[int]) -> list[Customer]:
        wanted = set(ids)
        found = await customers_by(self._calls, "id:in", list(map(str, sorted(wanted))))
        return [one for one in found if one.id in wanted]

    async def _all(self) -> AsyncGenerator[Customer]:
        calls = self._calls.for_job()
        count = PageCount(calls.sizes.page)
        number = 0
        while number < count.last_page and not count.is_over:
            number += 1
            page = await calls.rows("", number, calls.sizes.page, decode_customers)
            for customer in count.take(number, list(page.data), page.total):
                yield customer
        count.check()


async def _each(customers: Iterable[Customer]) -> AsyncGenerator[Customer]:
    for customer in customers:
        yield customer
