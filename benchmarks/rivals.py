"""What one would use instead of this library: aiohttp by hand, its helpers, httpx, two SDKs.

Two kinds. The loops of CPU (`stream_…`, `put_…`) are as lean as they can be: dicts, orjson where
one has the choice, no retries, no quota. The clients of jobs (`CLIENTS`) are what one would write
for a real store. They have a semaphore, sleep until the reset on 429 (BigCommerce guide, API rate
limits), and skip a refused batch.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import islice
from typing import Any, Self

import aiohttp
import attrs

from bc_attrvals import AttributeValueUpsert

Row = dict[str, Any]
#: Waited after a 429 without headers (the store is under load), seconds.
_PAUSE_S = 0.25
_PATH = "/customers/attribute-values"


@attrs.frozen
class Target:
    """Where the calls go."""

    url: str
    store_hash: str
    access_token: str = attrs.field(repr=False)

    @classmethod
    def from_env(cls) -> Self:
        """Return what the variables of `Store.from_env` name."""
        names = ("BIGCOMMERCE_API_URL", "BIGCOMMERCE_STORE_HASH", "BIGCOMMERCE_ACCESS_TOKEN")
        return cls(*(os.environ[name] for name in names))

    @property
    def endpoint(self) -> str:
        """The URL of the resource."""
        return f"{self.url}/stores/{self.store_hash}/v3{_PATH}"


def rows_of(items: Iterable[AttributeValueUpsert]) -> Iterator[Row]:
    for one in items:
        yield {
            "customer_id": one.customer_id,
            "attribute_id": one.attribute_id,
            "value": one.value,
        }


def _session(target: Target) -> aiohttp.ClientSession:
    headers = {
        "X-Auth-Token": target.access_token,
        "Accept": "application/json",
        "Content-Type": "application/json",
    }
    return aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0))


def _bigc(target: Target) -> Any:
    from bigc.api_client import BigCommerceV3APIClient

    class Loopback(BigCommerceV3APIClient):  # type: ignore[misc]
        # The package has no option for another host.
        def _prepare_url(self, path: str) -> str:
            return f"{target.url}/stores/{self.store_hash}/v3/{path.lstrip('/')}"

    return Loopback(target.store_hash, target.access_token)


def _bigcommerce(target: Target) -> Any:
    from bigcommerce.connection import Connection

    # The package stops at V2 resources; its connection takes a whole URL, V3 or not.
    connection = Connection(target.url.partition("://")[2], None)
    connection._session.headers["X-Auth-Token"] = target.access_token
    return connection


# --- jobs ----------------------------------------------------------------------------------------


class RefusedError(Exception):
    """A batch was refused for one of its items."""


@attrs.frozen
class Client:
    """A page of 250 by its number, with the number of pages if it is known; a PUT of rows."""

    page: Callable[[int], Awaitable[tuple[list[Row], int | None]]]
    put: Callable[[list[Row]], Awaitable[object]]
    reads: int = 1
    writes: int = 1


Send = Callable[[str, str, bytes | None], AbstractAsyncContextManager[aiohttp.ClientResponse]]


def _over_aiohttp(target: Target, send: Send) -> Client:
    import orjson  # of the extra, which the figures of this library alone do without

    async def call(method: str, query: str, body: bytes | None = None) -> Any:
        while True:
            async with send(method, target.endpoint + query, body) as response:
                answer = await response.read()
            if response.status == 429:
                # The semaphore is held meanwhile, so that other calls do not get a 429, too.
                await asyncio.sleep(_until_reset_s(response.headers))
                continue
            if response.status == 422:
                raise RefusedError
            response.raise_for_status()
            return orjson.loads(answer)

    async def page(number: int) -> tuple[list[Row], int | None]:
        document = await call("GET", f"?limit=250&page={number}")
        return document["data"], document["meta"]["pagination"]["total_pages"]

    return Client(page, lambda rows: call("PUT", "", orjson.dumps(rows)), reads=10, writes=3)


def _until_reset_s(headers: Mapping[str, str]) -> float:
    reset_ms = headers.get("X-Rate-Limit-Time-Reset-Ms")
    return _PAUSE_S if reset_ms is None else int(reset_ms) / 1000


@asynccontextmanager
async def _by_hand(target: Target, quota: int, window_s: float) -> AsyncGenerator[Client]:
    async with _session(target) as session:
        yield _over_aiohttp(
            target, lambda method, url, body: session.request(method, url, data=body)
        )


@asynccontextmanager
async def _with_helpers(target: Target, quota: int, window_s: float) -> AsyncGenerator[Client]:
    """Retries of aiohttp-retry, at the rate of aiolimiter's leaky bucket."""
    from aiohttp_retry import ExponentialRetry, RetryClient
    from aiolimiter import AsyncLimiter

    limiter = AsyncLimiter(quota, window_s)
    async with _session(target) as session:
        retry = ExponentialRetry(attempts=6, statuses={429})
        client = RetryClient(client_session=session, retry_options=retry)

        @asynccontextmanager
        async def send(
            method: str, url: str, body: bytes | None
        ) -> AsyncGenerator[aiohttp.ClientResponse]:
            async with limiter, client.request(method, url, data=body) as response:
                yield response

        yield _over_aiohttp(target, send)


def _blocking(call: Callable[..., Any], errors: type[Exception]) -> Callable[..., Any]:
    """Return a call that waits as `_over_aiohttp` does; nothing else runs meanwhile."""

    def patient(*args: Any, **options: Any) -> Any:
        while True:
            try:
                return call(*args, **options)
            except errors as error:
                status, response = error.status_code, error.response  # type: ignore[attr-defined]
                if status == 422:
                    raise RefusedError from None
                if status != 429:
                    raise
                time.sleep(_until_reset_s(response.headers))

    return patient


@asynccontextmanager
async def _with_bigc(target: Target, quota: int, window_s: float) -> AsyncGenerator[Client]:
    from bigc.exceptions import BigCommerceException

    client = _bigc(target)
    get, put = (_blocking(one, BigCommerceException) for one in (client.get, client.put))

    async def page(number: int) -> tuple[list[Row], int | None]:
        return get(_PATH, params={"limit": 250, "page": number}), None

    async def put_rows(rows: list[Row]) -> None:
        put(_PATH, data=rows)

    yield Client(page, put_rows)


@asynccontextmanager
async def _with_bigcommerce(target: Target, quota: int, window_s: float) -> AsyncGenerator[Client]:
    from bigcommerce.exception import HttpException

    connection = _bigcommerce(target)
    request, put = (
        _blocking(one, HttpException) for one in (connection.make_request, connection.put)
    )

    async def page(number: int) -> tuple[list[Row], int | None]:
        document = request("GET", target.endpoint, params={"limit": 250, "page": number})
        return document["data"], document["meta"]["pagination"]["total_pages"]

    async def put_rows(rows: list[Row]) -> None:
        put(target.endpoint, rows)

    yield Client(page, put_rows)


#: By name: what opens the client, and the packages that it needs.
CLIENTS: dict[str, tuple[Callable[..., AbstractAsyncContextManager[Client]], tuple[str, ...]]] = {
    "aiohttp by hand": (_by_hand, ()),
    "aiohttp-retry + aiolimiter": (_with_helpers, ("aiohttp_retry", "aiolimiter")),
    "bigc": (_with_bigc, ("bigc",)),
    "bigcommerce": (_with_bigcommerce, ("bigcommerce",)),
}


async def list_all(client: Client) -> dict[tuple[int, int], str]:
    """Return the values of the store, page by page, or several at once behind the first."""
    stored: dict[tuple[int, int], str] = {}

    def note(rows: list[Row]) -> int:
        stored.update(
            ((row["customer_id"], row["attribute_id"]), row["attribute_value"]) for row in rows
        )
        return len(rows)

    slots = asyncio.Semaphore(client.reads)

    async def fetch(number: int) -> int:
        async with slots:
            return note((await client.page(number))[0])

    rows, last = await client.page(1)
    if note(rows) == 250 and last is None:
        number = 2
        while await fetch(number) == 250:
            number += 1
    await asyncio.gather(*(fetch(number) for number in range(2, (last or 1) + 1)))
    return stored


async def put_all(client: Client, items: Iterable[AttributeValueUpsert]) -> None:
    """Store the items, ten a call; skip a refused batch."""
    rows = rows_of(items)

    async def work() -> None:
        while batch := list(islice(rows, 10)):
            try:
                await client.put(batch)
            except RefusedError:
                continue

    await asyncio.gather(*(work() for _ in range(client.writes)))


async def sync_all(client: Client, items: Iterable[AttributeValueUpsert]) -> None:
    """List the store and write what differs."""
    stored = await list_all(client)
    await put_all(client, (item for item in items if stored.get(item.key) != item.value))


# --- CPU: listings yield each row, untyped, as `stream` yields each value ------------------------


async def stream_by_hand(target: Target) -> AsyncGenerator[Row]:
    """Yield all rows as dicts, one page after the other: aiohttp and orjson."""
    import orjson

    async with _session(target) as session:
        page = last = 1
        while page <= last:
            async with session.get(f"{target.endpoint}?limit=250&page={page}") as response:
                response.raise_for_status()
                document = orjson.loads(await response.read())
            last = document["meta"]["pagination"]["total_pages"]
            for row in document["data"]:
                yield row
            page += 1


async def put_by_hand(target: Target, items: Iterable[AttributeValueUpsert]) -> int:
    """Store the items of a lazy input, ten a call: three workers, aiohttp and orjson.

    Answers are decoded and counted, and not compared with what was sent.
    """
    import orjson

    rows = rows_of(items)
    stored = 0

    async with _session(target) as session:

        async def work() -> None:
            nonlocal stored
            while batch := list(islice(rows, 10)):
                async with session.put(target.endpoint, data=orjson.dumps(batch)) as response:
                    response.raise_for_status()
                    stored += len(orjson.loads(await response.read())["data"])

        await asyncio.gather(*(work() for _ in range(3)))
    return stored


async def stream_httpx(target: Target) -> AsyncGenerator[Row]:
    """Yield all rows as dicts: httpx and its own JSON."""
    import httpx

    async with httpx.AsyncClient(headers={"X-Auth-Token": target.access_token}) as client:
        page = last = 1
        while page <= last:
            response = await client.get(target.endpoint, params={"limit": 250, "page": page})
            document = response.raise_for_status().json()
            last = document["meta"]["pagination"]["total_pages"]
            for row in document["data"]:
                yield row
            page += 1


async def put_httpx(target: Target, items: Iterable[AttributeValueUpsert]) -> int:
    """Store the items, ten a call and three calls at once: httpx and its own JSON."""
    import httpx

    rows = rows_of(items)
    stored = 0
    async with httpx.AsyncClient(headers={"X-Auth-Token": target.access_token}) as client:

        async def work() -> None:
            nonlocal stored
            while batch := list(islice(rows, 10)):
                response = await client.put(target.endpoint, json=batch)
                stored += len(response.raise_for_status().json()["data"])

        await asyncio.gather(*(work() for _ in range(3)))
    return stored


def stream_bigc(target: Target) -> Iterator[Row]:
    """Yield all rows as dicts: `bigc`, synchronous, one page after the other."""
    rows: Iterator[Row] = _bigc(target).get_many(_PATH, page_size=250)
    return rows


def put_bigc(target: Target, items: Iterable[AttributeValueUpsert]) -> int:
    """Store the items, ten a call, one call after the other: `bigc`."""
    client, rows, stored = _bigc(target), rows_of(items), 0
    while batch := list(islice(rows, 10)):
        stored += len(client.put(_PATH, data=batch))
    return stored


def stream_bigcommerce(target: Target) -> Iterator[Row]:
    """Yield all rows as dicts: the official package's connection, one page after the other."""
    connection = _bigcommerce(target)
    page = last = 1
    while page <= last:
        parameters = {"limit": 250, "page": page}
        document = connection.make_request("GET", target.endpoint, params=parameters)
        last = document["meta"]["pagination"]["total_pages"]
        yield from document["data"]
        page += 1


def put_bigcommerce(target: Target, items: Iterable[AttributeValueUpsert]) -> int:
    """Store the items, ten a call, one call after the other: the official package's connection."""
    connection, rows, stored = _bigcommerce(target), rows_of(items), 0
    while batch := list(islice(rows, 10)):
        stored += len(connection.put(target.endpoint, batch)["data"])
    return stored
