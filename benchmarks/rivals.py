"""What one would write by hand instead of using this library: aiohttp and a semaphore.

Fair rivals: bodies are the same ten items a call, connections are kept alive, each does what the
service's guide says about a 429, and none pays for being careful elsewhere.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from random import Random

import aiohttp
import attrs

from bc_attrvals import AttributeValueUpsert

#: Waited after a 429 without headers (the store is under load), on average, seconds.
_PAUSE_S = 0.25


@attrs.frozen
class Target:
    """Where the calls go."""

    url: str
    store_hash: str
    access_token: str = attrs.field(repr=False)

    @property
    def endpoint(self) -> str:
        """The URL of the resource."""
        return f"{self.url}/stores/{self.store_hash}/v3/customers/attribute-values"


def bodies(items: Sequence[AttributeValueUpsert], size: int = 10) -> list[bytes]:
    """Return the bodies of the PUTs that store these items."""
    rows = [
        {"customer_id": one.customer_id, "attribute_id": one.attribute_id, "value": one.value}
        for one in items
    ]
    return [json.dumps(rows[at : at + size]).encode() for at in range(0, len(rows), size)]


async def put_all(
    target: Target,
    items: Sequence[AttributeValueUpsert],
    *,
    at_once: int,
    rate: AbstractAsyncContextManager[object] | None = None,
) -> None:
    """Store the items by hand: a semaphore, a sleep until the reset on 429, and once more.

    The semaphore is held during the sleep, which keeps the others from running into the same wall:
    freeing it would draw one 429 for every call that is left. `rate` is entered before each try.
    """
    slots = asyncio.Semaphore(at_once)
    random = Random(1)
    limiter = nullcontext() if rate is None else rate
    headers = {"X-Auth-Token": target.access_token, "Content-Type": "application/json"}
    connector = aiohttp.TCPConnector(limit=0)

    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:

        async def put(body: bytes) -> None:
            async with slots:
                while True:
                    async with limiter, session.put(target.endpoint, data=body) as response:
                        await response.read()
                    if response.status != 429:
                        response.raise_for_status()
                        return
                    reset_ms = response.headers.get("X-Rate-Limit-Time-Reset-Ms")
                    if reset_ms is None:
                        await asyncio.sleep(random.uniform(0, 2 * _PAUSE_S))
                    else:
                        await asyncio.sleep(int(reset_ms) / 1000)

        await asyncio.gather(*(put(body) for body in bodies(items)))


def aiolimiter_rate(calls: int, window_s: float) -> AbstractAsyncContextManager[object]:
    """Return aiolimiter's leaky bucket; ImportError says how to get it."""
    try:
        from aiolimiter import AsyncLimiter
    except ModuleNotFoundError:
        message = "this rival needs aiolimiter: pip install 'bc_attrvals[benchmarks]'"
        raise ModuleNotFoundError(message, name="aiolimiter") from None
    return AsyncLimiter(calls, window_s)
