"""Serves an emulated store over HTTP: its start and end, and which requests are controls."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Final, Self

from aiohttp import web

from bc_attrvals.sandbox.connections import AiohttpExchange, ConnectionServer, ReadyResponse
from bc_attrvals.sandbox.control import Control, is_control
from bc_attrvals.sandbox.database_thread import DatabaseThread, GroupedJob
from bc_attrvals.sandbox.definitions import AttributeSeeds, CustomerSeeds, check_definitions
from bc_attrvals.sandbox.emulated_store import EmulatedStore
from bc_attrvals.sandbox.faults import Fault, Faults
from bc_attrvals.sandbox.listeners import Listeners, Listening
from bc_attrvals.sandbox.quirks import Quirks
from bc_attrvals.sandbox.quota import QuotaWindow
from bc_attrvals.sandbox.request_handler import Backend, Service, ServiceOptions
from bc_attrvals.sandbox.request_log import RequestLog
from bc_attrvals.sandbox.resources import Resources

_HEAD_MARGIN_BYTES: Final = 8190
_DEFAULT_QUIRKS: Final = Quirks()


class Sandbox(EmulatedStore):
    """An emulated store: `async with Sandbox() as sandbox:` serves until the block is left.

    `quota` units per `window_s` (None: no limit and no headers), in windows on a grid that begins
    with the start. `latency_ms` passes between arrival and application. `port` 0 takes a free one.
    `customers` and `attributes` are defined at the start, in the shapes of `define`; without them
    any ids are accepted.

    `https` serves with a certificate of the sandbox's own authority, and `proxy` opens an HTTPS
    proxy that leads `api.bigcommerce.com` here; both need the extra `sandbox`. `ca_file` is where
    the authority's certificate is written, by default a temporary file. A `host` that can be
    reached from elsewhere needs `allow_remote`, and the control routes then need the access token.

    `seed` decides the draws of the faults. `clock` returns monotonic seconds for quota and log,
    `wall_clock` UNIX seconds for the rows' dates. All state is in the object: several serve side by
    side, and a database file keeps its rows for the next one.
    """

    def __init__(
        self,
        database: str | os.PathLike[str] = ":memory:",
        *,
        quota: int | None = 150,
        window_s: float = 30.0,
        latency_ms: float = 0.0,
        faults: Sequence[Fault] | Faults = (),
        port: int = 0,
        quirks: Quirks = _DEFAULT_QUIRKS,
        store_hash: str = "sandbox",
        access_token: str = "sandbox-token",  # noqa: S107 - opens nothing but this emulation
        max_concurrent_puts: int | None = 3,
        customers: CustomerSeeds | None = None,
        attributes: AttributeSeeds | None = None,
        https: bool = False,
        proxy: bool = False,
        proxy_port: int = 0,
        ca_file: str | os.PathLike[str] | None = None,
        host: str = "127.0.0.1",
        allow_remote: bool = False,
        seed: int = 0,
        request_log_size: int = 100_000,
        max_url_bytes: int = 8190,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Prepare; nothing is opened before the start."""
        options = ServiceOptions(
            store_hash=store_hash,
            access_token=access_token,
            quirks=quirks,
            latency_ms=latency_ms,
            max_concurrent_puts=max_concurrent_puts,
            max_url_bytes=max_url_bytes,
            clock=clock,
        )
        granularity_ms = quirks.reset_granularity_ms
        service = Service(
            options,
            faults=faults if isinstance(faults, Faults) else Faults(faults),
            quota=QuotaWindow(quota, window_s, clock, reset_granularity_ms=granularity_ms),
            log=RequestLog(request_log_size),
            rng=random.Random(seed),  # noqa: S311 - repeatable on purpose
        )
        defined = check_definitions(customers, attributes)
        super().__init__(os.fspath(database), service, defined, wall_clock)
        self._listening = Listening(
            host=host,
            port=port,
            https=https,
            proxy=proxy,
            proxy_port=proxy_port,
            ca_file=None if ca_file is None else os.fspath(ca_file),
            allow_remote=allow_remote,
        )
        self._control = Control(self, needs_token=allow_remote)
        self._open: AsyncExitStack | None = None
        self._listeners: Listeners | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def start(self) -> None:
        """Open the database and serve.

        Raises RuntimeError if it already serves or trustme is missing, OSError if a port is taken,
        ValueError for a database or definitions that do not fit.
        """
        if self._open is not None:
            raise RuntimeError("the sandbox is already running")
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            message = "the Sandbox needs asyncio; a ThreadedSandbox serves beside any event loop"
            raise RuntimeError(message) from None
        # What it closes, the last one first.
        closing = self._open = AsyncExitStack()
        try:
            thread = DatabaseThread()
            closing.push_async_callback(thread.aclose)
            resources = await thread.run(
                Resources,
                self._database,
                quirks=self._options.quirks,
                wall_clock=self._wall_clock,
            )
            closing.push_async_callback(thread.run, resources.close)
            await thread.run(resources.definitions.define, self._defined)
            server = ConnectionServer(
                self._service,
                self._serve_by_aiohttp,
                max_line_size=self._options.max_url_bytes + _HEAD_MARGIN_BYTES,
            )
            writes = GroupedJob(thread, resources.apply_together, self._service.expects_others)
            self._service.backend = Backend(thread, resources, writes, server)
            self._service.quota.restart()
            self._listeners = Listeners(self._listening, server)
            closing.push_async_callback(self._listeners.aclose)
            closing.push_async_callback(self._service.stop)
            closing.callback(self._listeners.stop_accepting)
            self._addresses = await self._listeners.start()
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Stop serving at once: open requests get no answer, hanging ones end.

        A second call does nothing. Requests that have reached the database are applied before it
        is closed.
        """
        closing, self._open = self._open, None
        self._addresses = self._listeners = None
        if closing is not None:
            await closing.aclose()

    async def open_proxy(self) -> None:
        """Open the HTTPS proxy unless it is open; see the option `proxy`."""
        if self._listeners is None:
            raise RuntimeError("the sandbox is not running")
        self._addresses = await self._listeners.open_proxy(self.addresses)

    async def _serve_by_aiohttp(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer for the store, or for the controls."""
        if is_control(request):
            return await self._control.serve(request)
        reply = await self._service.serve(AiohttpExchange(request))
        # What is returned for a dropped connection is never sent.
        return web.Response() if reply is None else ReadyResponse(reply)
