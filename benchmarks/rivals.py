"""What one would use instead of this library: aiohttp by hand, httpx, `bigc`, `bigcommerce`.

Fair rivals: pages and bodies are the same size, connections are kept alive, orjson reads and
writes where one has the choice, and none pays for being careful elsewhere. `put_all`, which is
measured under a quota, does what the service's guide says about a 429; the others would raise.

Listings hand each row out, untyped, as `stream` does each value; the return is how many came.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from itertools import islice
from random import Random
from typing import Any

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


def _aiohttp_session(target: Target) -> aiohttp.ClientSession:
    headers = {
        "X-Auth-Token": target.access_token,
        "Accept": "application/json",
        "Content-Type": "application/json",
    }
    return aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0))


async def stream_by_hand(target: Target) -> AsyncGenerator[dict[str, Any]]:
    """Yield all rows as dicts, one page after the other: aiohttp and orjson."""
    import orjson

    async with _aiohttp_session(target) as session:
        page = last = 1
        while page <= last:
            url = f"{target.endpoint}?limit=250&page={page}"
            async with session.get(url) as response:
                response.raise_for_status()
                document = orjson.loads(await response.read())
            last = document["meta"]["pagination"]["total_pages"]
            for row in document["data"]:
                yield row
            page += 1


async def stream_by_hand_ahead(target: Target, at_once: int = 10) -> AsyncGenerator[dict[str, Any]]:
    """Yield all rows as dicts, with as many pages fetched ahead as `stream` does."""
    import orjson

    async with _aiohttp_session(target) as session:

        async def fetch(page: int) -> dict[str, Any]:
            url = f"{target.endpoint}?limit=250&page={page}"
            async with session.get(url) as response:
                response.raise_for_status()
                document: dict[str, Any] = orjson.loads(await response.read())
                return document

        document = await fetch(1)
        last, page = document["meta"]["pagination"]["total_pages"], 2
        ahead: deque[asyncio.Task[dict[str, Any]]] = deque()
        while True:
            while page <= last and len(ahead) < at_once:
                ahead.append(asyncio.create_task(fetch(page)))
                page += 1
            for row in document["data"]:
                yield row
            if not ahead:
                return
            document = await ahead.popleft()


def _rows(items: Iterable[AttributeValueUpsert]) -> Iterator[dict[str, int | str]]:
    for one in items:
        yield {
            "customer_id": one.customer_id,
            "attribute_id": one.attribute_id,
            "value": one.value,
        }


async def put_by_hand(
    target: Target, items: Iterable[AttributeValueUpsert], at_once: int = 3
) -> int:
    """Store the items of a lazy input, ten a call: three workers, aiohttp and orjson.

    Answers are decoded and counted, and not compared with what was sent.
    """
    import orjson

    rows = _rows(items)
    stored = 0

    async with _aiohttp_session(target) as session:

        async def work() -> None:
            nonlocal stored
            while batch := list(islice(rows, 10)):
                async with session.put(target.endpoint, data=orjson.dumps(batch)) as response:
                    response.raise_for_status()
                    stored += len(orjson.loads(await response.read())["data"])

        await asyncio.gather(*(work() for _ in range(at_once)))
    return stored


async def stream_httpx(target: Target) -> AsyncGenerator[dict[str, Any]]:
    """Yield all rows as dicts: httpx and its own JSON."""
    import httpx

    headers = {"X-Auth-Token": target.access_token}
    async with httpx.AsyncClient(headers=headers) as client:
        page = last = 1
        while page <= last:
            response = await client.get(target.endpoint, params={"limit": 250, "page": page})
            document = response.raise_for_status().json()
            last = document["meta"]["pagination"]["total_pages"]
            for row in document["data"]:
                yield row
            page += 1


async def put_httpx(target: Target, items: Iterable[AttributeValueUpsert], at_once: int = 3) -> int:
    """Store the items, ten a call and three calls at once: httpx and its own JSON."""
    import httpx

    rows = _rows(items)
    stored = 0
    headers = {"X-Auth-Token": target.access_token}
    async with httpx.AsyncClient(headers=headers) as client:

        async def work() -> None:
            nonlocal stored
            while batch := list(islice(rows, 10)):
                response = await client.put(target.endpoint, json=batch)
                stored += len(response.raise_for_status().json()["data"])

        await asyncio.gather(*(work() for _ in range(at_once)))
    return stored


def _bigc_client(target: Target) -> Any:
    from bigc.api_client import BigCommerceV3APIClient

    class Loopback(BigCommerceV3APIClient):  # type: ignore[misc]
        # It knows one host, and has no option for another.
        def _prepare_url(self, path: str) -> str:
            return f"{target.url}/stores/{self.store_hash}/v3/{path.lstrip('/')}"

    return Loopback(target.store_hash, target.access_token)


def stream_bigc(target: Target) -> Iterator[dict[str, Any]]:
    """Yield all rows as dicts: `bigc`, synchronous, one page after the other."""
    rows: Iterator[dict[str, Any]] = _bigc_client(target).get_many(
        "/customers/attribute-values", page_size=250
    )
    return rows


def put_bigc(target: Target, items: Iterable[AttributeValueUpsert]) -> int:
    """Store the items, ten a call, one call after the other: `bigc`."""
    client = _bigc_client(target)
    rows = _rows(items)
    stored = 0
    while batch := list(islice(rows, 10)):
        stored += len(client.put("/customers/attribute-values", data=batch))
    return stored


def _bigcommerce_connection(target: Target) -> Any:
    from bigcommerce.connection import Connection

    # The package stops at V2 resources; its connection takes a whole URL, V3 or not.
    connection = Connection(target.url.removeprefix("http://"), None)
    connection._session.headers["X-Auth-Token"] = target.access_token
    return connection


def stream_bigcommerce(target: Target) -> Iterator[dict[str, Any]]:
    """Yield all rows as dicts: the official package's connection, one page after the other."""
    connection = _bigcommerce_connection(target)
    page = last = 1
    while page <= last:
        parameters = {"limit": 250, "page": page}
        document = connection.make_request("GET", target.endpoint, params=parameters)
        last = document["meta"]["pagination"]["total_pages"]
        yield from document["data"]
        page += 1


def put_bigcommerce(target: Target, items: Iterable[AttributeValueUpsert]) -> int:
    """Store the items, ten a call, one call after the other: the official package's connection."""
    connection = _bigcommerce_connection(target)
    rows = _rows(items)
    stored = 0
    while batch := list(islice(rows, 10)):
        stored += len(connection.put(target.endpoint, batch)["data"])
    return stored
