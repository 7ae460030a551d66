"""Addresses become ids, whether or not the service regards case; a bounded number is remembered."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast
from urllib.parse import unquote

from bc_attrvals.core.definitions import Customer
from bc_attrvals.core.limits import Limits
from bc_attrvals.naming.addresses import Addresses, look_up
from bc_attrvals.scheduling.calls import Calls
from bc_attrvals.scheduling.learnt_sizes import LearntSizes


async def test_spellings_are_customers_of_their_own_where_case_is_regarded() -> None:
    people = {"Ann@example.org": 1, "ann@example.org": 2, "bob@example.org": 3}
    asked: list[str] = []

    class Regarding:
        """The calls of `/customers`, answered by a service that regards case."""

        sizes = LearntSizes(Limits())

        def parts(self, parameter: str, texts: list[str]) -> list[list[str]]:
            return [texts]

        async def rows(self, query: str, number: int, limit: int, decode: object) -> object:
            addresses = [unquote(one) for one in query.removeprefix("email:in=").split(",")]
            asked.extend(addresses)
            rows = [Customer(people[one], one) for one in addresses if one in people]
            return SimpleNamespace(data=rows, total=len(rows))

    spellings = ["Ann@example.org", "ann@example.org", "BOB@example.org", "Bob@example.org"]
    found = await look_up(cast("Calls", Regarding()), spellings)
    assert found == dict(zip(spellings, [1, 2, 3, 3], strict=True))
    assert sorted(asked) == sorted([*spellings, "bob@example.org"])


def test_a_bounded_number_of_addresses_is_remembered_the_oldest_forgotten_first() -> None:
    addresses = Addresses(most=3)
    for number in range(1, 4):
        addresses.remember(f"{number}@x", number)
    assert addresses.get("1@x") == 1
    addresses.remember("4@x", 4)
    assert [addresses.get(f"{number}@x") for number in range(1, 5)] == [1, None, 3, 4]
    addresses.forget("1@x")
    assert addresses.get("1@x") is None
    assert len(addresses) == 2
