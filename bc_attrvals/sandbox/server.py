"""Serves an emulated store over HTTP: start, end, and the split between store and controls."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self

from aiohttp import web

from bc_attrvals.sandbox.control import Control, is_control
from bc_attrvals.sandbox.definitions import AttributeSeeds, CustomerSeeds
from bc_attrvals.sandbox.emulation import Addresses, EmulatedStore
from bc_attrvals.sandbox.endpoint import Endpoint
from bc_attrvals.sandbox.faults import Fault, Faults
from bc_attrvals.sandbox.quirks import Quirks
from bc_attrvals.sandbox.service import Backend, ServiceOptions
from bc_attrvals.sandbox.wire import ConnectionServer
from bc_attrvals.sandbox.worker import Worker

_HOST: Final = "127.0.0.1"
_SHUTDOWN_S: Final = 0.1
_HEAD_MARGIN_BYTES: Final = 8190
_DEFAULT_QUIRKS: Final = Quirks()


class Sandbox(EmulatedStore):
    """An emulated store: `async with Sandbox() as sandbox:` serves until the block is left.

    `quota` units per `window_s` (None: no limit and no headers), in windows on a grid that begins
    with the start. `latency_ms` passes between arrival and application. `port` 0 takes a free one.
    `customers` and `attributes` are defined at the start, in the shapes of `define`; without them
    any ids are accepted. `seed` decides the draws of the faults. `clock` returns monotonic seconds
    for quota and log, `wall_clock` UNIX seconds for the rows' dates. All state is in the object:
    several serve side by side, and a database file keeps its rows for the next one.
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
            max_concurrent_puts=max_concurrent_puts,
            max_url_bytes=max_url_bytes,
            clock=clock,
        )
        super().__init__(
            database,
            options,
            quota=quota,
            window_s=window_s,
            latency_ms=latency_ms,
            faults=faults,
            seed=seed,
            request_log_size=request_log_size,
            customers=customers,
            attributes=attributes,
            wall_clock=wall_clock,
        )
        self._wanted_port = port
        self._control = Control(self)
        self._worker: Worker | None = None
        self._endpoint: Endpoint | None = None
        self._server: ConnectionServer | None = None
        self._runner: web.ServerRunner | None = None

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close."""
        await self.aclose()

    async def start(self) -> None:
        """Open the database and serve.

        Raises RuntimeError if it already serves, OSError if the port is taken, ValueError for a
        database or definitions that do not fit.
        """
        if self._worker is not None:
            raise RuntimeError("the sandbox is already running")
        self._worker = Worker()
        try:
            self._endpoint = await self._worker.run(
                Endpoint,
                self._database,
                quirks=self._options.quirks,
                wall_clock=self._wall_clock,
            )
            await self._worker.run(self._endpoint.definitions.define, self._defined)
            self._server = ConnectionServer(
                self._serve,
                max_line_size=self._options.max_url_bytes + _HEAD_MARGIN_BYTES,
            )
            self._service.backend = Backend(self._worker, self._endpoint, self._server)
            self._runner = web.ServerRunner(
                self._server, handle_signals=False, shutdown_timeout=_SHUTDOWN_S
            )
            self._service.quota.restart()
            await self._runner.setup()
            await web.TCPSite(self._runner, _HOST, self._wanted_port, backlog=1024).start()
            port = int(self._runner.addresses[0][1])
            self._addresses = Addresses(f"http://{_HOST}:{port}", port)
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Stop serving at once: open requests get no answer, hanging ones end.

        A second call does nothing. Requests that have reached the database thread are applied
        before the database is closed.
        """
        runner, self._runner = self._runner, None
        worker, self._worker = self._worker, None
        endpoint, self._endpoint = self._endpoint, None
        server, self._server = self._server, None
        self._addresses = None
        if runner is not None:
            for site in list(runner.sites):
                await site.stop()
        await self._service.stop()
        if runner is not None:
            await runner.cleanup()
        if server is not None:
            server.abort_all()
            # A transport closes its socket in the next turn of the loop.
            await asyncio.sleep(0)
        if worker is not None:
            if endpoint is not None:
                await worker.run(endpoint.close)
            await worker.aclose()

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer for the store, or for the controls."""
        if is_control(request):
            return await self._control.serve(request)
        return await self._service.serve(request)
