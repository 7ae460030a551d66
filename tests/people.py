"""A sandbox with 800 customers and three attributes, and a Store open on it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from bc_attrvals import Store
from bc_attrvals.sandbox import Sandbox
from tests.conftest import make_store

PEOPLE = {number: f"person{number}@example.org" for number in range(1, 801)}
TYPES = {"Loyalty tier": "string", "Shoe size": "number", "Birthday": "date"}


@asynccontextmanager
async def opened(**options: Any) -> AsyncIterator[tuple[Sandbox, Store]]:
    sandbox = Sandbox(**{"quota": None, "customers": PEOPLE, "attributes": TYPES, **options})
    async with sandbox, make_store(sandbox) as store:
        yield sandbox, store
