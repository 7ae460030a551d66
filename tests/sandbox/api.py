"""A bare HTTP caller for the sandbox's tests: it decodes answers by itself and retries nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import attrs
from yarl import URL

from bc_attrvals.sandbox import Fault, Quirks, Sandbox


@attrs.frozen
class Reply:
    """One answer, read to its end."""

    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        """The decoded body."""
        return json.loads(self.body)

    @property
    def data(self) -> list[dict[str, Any]]:
        """The rows of the answer."""
        assert self.status == 200, (self.status, self.body)
        data: list[dict[str, Any]] = self.json["data"]
        return data

    @property
    def pagination(self) -> dict[str, Any]:
        """The pagination of a listing."""
        pagination: dict[str, Any] = self.json["meta"]["pagination"]
        return pagination


class Api:
    """Calls one sandbox, over connections that it keeps."""

    def __init__(self, sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        self.session = session
        self.path = f"{sandbox.url}/stores/{sandbox.store_hash}/v3/customers/attribute-values"
        self.token = sandbox.access_token

    async def call(
        self, method: str, query: str = "", *, url: str | None = None, **options: Any
    ) -> Reply:
        """Send a request with this raw query."""
        json_type = {"Content-Type": "application/json"}
        options.setdefault("headers", {"X-Auth-Token": self.token, **json_type})
        target = URL((url or self.path) + (f"?{query}" if query else ""), encoded=True)
        async with self.session.request(method, target, **options) as response:
            return Reply(response.status, response.headers.copy(), await response.read())

    async def get(self, query: str = "") -> Reply:
        return await self.call("GET", query)

    async def put(self, *items: Any) -> Reply:
        return await self.call("PUT", data=json.dumps(items).encode())

    async def delete(self, query: str = "") -> Reply:
        return await self.call("DELETE", query)

    async def customers(self, query: str = "") -> Reply:
        return await self.call("GET", query, url=self.path.replace("/attribute-values", ""))

    async def attributes(self, method: str, query: str = "", *items: Any) -> Reply:
        url = self.path.replace("attribute-values", "attributes")
        data = json.dumps(items).encode() if items else None
        return await self.call(method, query, url=url, data=data)


class Control:
    """Calls the control routes as curl does: without token, Origin or Accept."""

    def __init__(self, sandbox: Sandbox, api: Api) -> None:
        self._url = sandbox.url
        self._api = api

    async def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        path, _, query = path.partition("?")
        return await self._api.call(method, query, url=self._url + path, data=data, headers=named)


def item(customer_id: int, attribute_id: int = 1, value: str = "v", **more: Any) -> dict[str, Any]:
    """Return one item of an upsert."""
    return {"customer_id": customer_id, "attribute_id": attribute_id, "value": value, **more}


@asynccontextmanager
async def running(
    database: Any = ":memory:",
    *,
    quirks: Quirks | None = None,
    faults: list[Fault] | None = None,
    **options: Any,
) -> AsyncIterator[tuple[Sandbox, Api]]:
    """Run a sandbox without a quota, unless told, and a caller for it."""
    options.setdefault("quota", None)
    sandbox = Sandbox(database, quirks=quirks or Quirks(), faults=faults or (), **options)
    async with sandbox, aiohttp.ClientSession() as session:
        # aiohttp sends a dropped idempotent request again by itself, and has no public way to stop.
        session._retry_connection = False
        yield sandbox, Api(sandbox, session)


async def until(condition: Callable[[], object], timeout_s: float = 5.0) -> None:
    """Let the loop turn until the condition holds; TimeoutError if it never does."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - the sandbox tells nobody what it has seen
            await asyncio.sleep(0)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s
