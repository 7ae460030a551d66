"""Serves the endpoint over HTTP on 127.0.0.1: the store a client is tried against.

This module is the surface: options, start and end, and what a test asks and tells it. Requests are
handled in `service`; the rows live in SQLite in a thread of their own, so the event loop never
waits for a disk.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import Concatenate, Final, ParamSpec, Self, TypeVar

from aiohttp import web

from bc_attrvals.sandbox.browsing import RowPage, RowQuery, browse
from bc_attrvals.sandbox.control import Control, is_control
from bc_attrvals.sandbox.endpoint import Endpoint
from bc_attrvals.sandbox.faults import MAX_DELAY_S, Fault, Faults
from bc_attrvals.sandbox.limits import QuotaWindow, Window
from bc_attrvals.sandbox.operations import Operation
from bc_attrvals.sandbox.quirks import Quirks
from bc_attrvals.sandbox.requests_log import RequestLog
from bc_attrvals.sandbox.rows import RowStore, SeedRow, StoredRow
from bc_attrvals.sandbox.service import Backend, Service, ServiceOptions
from bc_attrvals.sandbox.wire import ConnectionServer
from bc_attrvals.sandbox.worker import Worker

P = ParamSpec("P")
T = TypeVar("T")

_HOST: Final = "127.0.0.1"
_SHUTDOWN_S: Final = 0.1
_HEAD_MARGIN_BYTES: Final = 8190
#: The parts of a sandbox that `reset` can return to their beginning.
RESET_PARTS: Final = ("rows", "log", "faults", "quota", "customers")
_DEFAULT_QUIRKS: Final = Quirks()
_NO_NAMES: Final[Mapping[int, str]] = MappingProxyType({})


class Sandbox:
    """An emulated store: `async with Sandbox() as sandbox:` serves until the block is left.

    `quota` units per `window_s` (None: no limit and no headers), counted on a grid that begins with
    the start.
    `latency_ms` passes between arrival and application. `port` 0 takes a free one. `seed` decides
    the faults' tosses.
    `clock` gives monotonic seconds for quota and log, `wall_clock` UNIX seconds for the rows'
    dates. All state is in the object: several serve side by side, and a database file keeps its
    rows for the next one.
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
        seed: int = 0,
        request_log_size: int = 100_000,
        attribute_names: Mapping[int, str] = _NO_NAMES,
        max_url_bytes: int = 8190,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Prepare; nothing is opened before the start."""
        _check_latency(latency_ms)
        if max_concurrent_puts is not None and max_concurrent_puts < 1:
            raise ValueError(f"max_concurrent_puts must be at least 1, got {max_concurrent_puts}")
        self._database = os.fspath(database)
        self._wanted_port = port
        self._attribute_names = attribute_names
        self._wall_clock = wall_clock
        self._options = ServiceOptions(
            store_hash=store_hash,
            access_token=access_token,
            quirks=quirks,
            max_concurrent_puts=max_concurrent_puts,
            max_url_bytes=max_url_bytes,
            clock=clock,
        )
        granularity_ms = quirks.reset_granularity_ms
        self._control = Control(self)
        self._service = Service(
            self._options,
            faults=faults if isinstance(faults, Faults) else Faults(faults),
            quota=QuotaWindow(quota, window_s, clock, reset_granularity_ms=granularity_ms),
            log=RequestLog(request_log_size),
            rng=random.Random(seed),  # noqa: S311 - repeatable on purpose
            latency_ms=latency_ms,
        )
        self._worker: Worker | None = None
        self._endpoint: Endpoint | None = None
        self._server: ConnectionServer | None = None
        self._runner: web.ServerRunner | None = None
        self._port: int | None = None

    def __repr__(self) -> str:
        """Show the address and counts, never the token."""
        state = "closed" if self._port is None else f"http://{_HOST}:{self._port}"
        return (
            f"<Sandbox {state} store_hash={self.store_hash!r} requests={self.requests.seen} "
            f"in_flight={self.in_flight()} answered_429={self.count_429} "
            f"faults={len(self.faults)}>"
        )

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

        Raises RuntimeError if it already does, OSError if the port is taken.
        """
        if self._worker is not None:
            raise RuntimeError("the sandbox is already running")
        self._worker = Worker()
        try:
            self._endpoint = await self._worker.run(
                Endpoint,
                self._database,
                quirks=self._options.quirks,
                attribute_names=self._attribute_names,
                wall_clock=self._wall_clock,
            )
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
            self._port = int(self._runner.addresses[0][1])
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Stop serving at once: open requests get no answer, hanging ones end.

        A second call does nothing. What has reached the database thread is still applied before the
        database is closed.
        """
        runner, self._runner = self._runner, None
        worker, self._worker = self._worker, None
        endpoint, self._endpoint = self._endpoint, None
        server, self._server = self._server, None
        self._port = None
        if runner is not None:
            for site in list(runner.sites):
                await site.stop()
        await self._service.stop()
        if runner is not None:
            await runner.cleanup()
        if server is not None:
            server.abort_all()
            # A transport closes its socket one turn of the loop later.
            await asyncio.sleep(0)
        if worker is not None:
            if endpoint is not None:
                await worker.run(endpoint.close)
            await worker.aclose()

    @property
    def url(self) -> str:
        """The base URL, `http://127.0.0.1:PORT`; raises RuntimeError unless running."""
        return f"http://{_HOST}:{self.port}"

    @property
    def port(self) -> int:
        """The port it listens on; raises RuntimeError unless running."""
        if self._port is None:
            raise RuntimeError("the sandbox is not running")
        return self._port

    @property
    def environment(self) -> dict[str, str]:
        """The variables that point `Store.from_env()` and the command line here, token included."""
        return {
            "BIGCOMMERCE_API_URL": self.url,
            "BIGCOMMERCE_STORE_HASH": self.store_hash,
            "BIGCOMMERCE_ACCESS_TOKEN": self.access_token,
        }

    @property
    def latency_ms(self) -> float:
        """Milliseconds between arrival and application; may be set at any time."""
        return self._service.latency_ms

    @latency_ms.setter
    def latency_ms(self, latency_ms: float) -> None:
        _check_latency(latency_ms)
        self._service.latency_ms = latency_ms

    @property
    def store_hash(self) -> str:
        """The one store there is."""
        return self._options.store_hash

    @property
    def access_token(self) -> str:
        """The token that is let in."""
        return self._options.access_token

    @property
    def requests(self) -> RequestLog:
        """The requests it saw, oldest first."""
        return self._service.log

    @property
    def faults(self) -> Faults:
        """The faults in force; change them at any time."""
        return self._service.faults

    @property
    def calls(self) -> Counter[Operation]:
        """How many requests arrived, per operation; refused and dropped ones included."""
        return Counter(self._service.calls)

    @property
    def statuses(self) -> Counter[int]:
        """How many answers were given, per status."""
        return Counter(self._service.statuses)

    @property
    def count_429(self) -> int:
        """How many requests were answered 429, for whatever reason."""
        return self._service.statuses[429]

    @property
    def quota(self) -> int | None:
        """Units of a window, or None without a limit."""
        return self._service.quota.quota

    @property
    def window_s(self) -> float:
        """Seconds a window lasts."""
        return self._service.quota.window_s

    @property
    def quota_reset_s(self) -> float:
        """Seconds until the next window."""
        return self._service.quota.remaining_s

    @property
    def max_concurrent_puts(self) -> int | None:
        """How many PUTs are let in at once; None for any number."""
        return self._options.max_concurrent_puts

    @property
    def quirks(self) -> Quirks:
        """The unverified behaviours chosen."""
        return self._options.quirks

    @property
    def rejected_customers(self) -> frozenset[int]:
        """The customers that an upsert must not name."""
        return self._service.unknown_customers

    @property
    def windows(self) -> list[Window]:
        """What each quota window granted and refused, oldest first."""
        return self._service.quota.windows

    @property
    def quota_left(self) -> int | None:
        """Units left in the current window, or None without a quota."""
        return self._service.quota.left

    def in_flight(self, operation: Operation | str | None = None) -> int:
        """Return how many requests are open now, of one operation or of all."""
        return self._service.in_flight.now(None if operation is None else Operation(operation))

    def peak_in_flight(self, operation: Operation | str) -> int:
        """Return the most requests of an operation there were at once, refused ones included."""
        return self._service.in_flight.peak(Operation(operation))

    def spend(self, units: int) -> None:
        """Let another app of the store spend units of the current window."""
        self._service.quota.spend(units)

    def set_quota(self, quota: int | None) -> None:
        """Change the store's plan, in the middle of the window."""
        self._service.quota.quota = quota

    def reject_customers(self, customer_ids: Iterable[int]) -> None:
        """Let customers not exist (any more): an upsert that names one is refused.

        Their rows stay.
        """
        self._service.unknown_customers |= frozenset(customer_ids)

    def accept_customers(self, customer_ids: Iterable[int] | None = None) -> None:
        """Let rejected customers exist again, by default all of them."""
        rejected = self._service.unknown_customers
        gone = rejected if customer_ids is None else frozenset(customer_ids)
        self._service.unknown_customers = rejected - gone

    def when(self, clock_s: float) -> float:
        """Return the UNIX seconds of a time in the log, which the monotonic clock gave."""
        return self._wall_clock() - (self._options.clock() - clock_s)

    async def seed(self, rows: Iterable[SeedRow], *, replace: bool = False) -> int:
        """Put rows straight into the database, past the endpoint and its limits.

        A row is (customer_id, attribute_id, value[, date_created[, date_modified]]). Dates are UNIX
        seconds or aware datetimes, now by default. Existing keys are overwritten; with `replace`
        all other rows go. `rows` is read in the database thread. Returns how many were read; if one
        is bad nothing is stored and ValueError is raised.
        """
        return await self._with_rows(RowStore.seed, rows, replace=replace)

    async def rows(self) -> list[StoredRow]:
        """Return all stored rows by ascending id."""
        return await self._with_rows(RowStore.rows)

    async def browse(self, query: RowQuery) -> RowPage:
        """Return one page of the rows that a query selects."""
        return await self._with_rows(browse, query)

    async def values(self) -> dict[tuple[int, int], str]:
        """Return all stored values by (customer_id, attribute_id)."""
        return await self._with_rows(RowStore.values)

    async def count(self) -> int:
        """Return the number of stored rows."""
        return await self._with_rows(RowStore.count)

    async def delete_rows(self, ids: Iterable[int]) -> int:
        """Delete rows past the endpoint; returns how many there were."""
        return await self._with_rows(RowStore.delete, list(ids))

    async def reset(self, only: Iterable[str] = RESET_PARTS) -> None:
        """Return to an empty, healthy store, or `only` parts of it.

        By default no rows, log, counts, faults or rejected customers are left, and a new window
        begins. Parts are `rows`, `log` (and the counts), `faults` (and the scripts), `quota` (a new
        window; its size stays) and `customers`; ValueError for another.
        """
        parts = frozenset(only)
        if not parts <= frozenset(RESET_PARTS):
            unknown = ", ".join(sorted(parts - frozenset(RESET_PARTS)))
            raise ValueError(f"unknown part {unknown!r}; one of {', '.join(RESET_PARTS)}")
        service = self._service
        if "rows" in parts:
            await self._with_rows(RowStore.clear)
        if "faults" in parts:
            service.faults.clear()
        if "log" in parts:
            service.log.clear()
            service.calls.clear()
            service.statuses.clear()
            service.in_flight.forget_peaks()
        if "customers" in parts:
            service.unknown_customers = frozenset()
        if "quota" in parts:
            service.quota.restart()

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Tell the store's requests from those about the sandbox itself."""
        if is_control(request):
            return await self._control.serve(request)
        return await self._service.serve(request)

    async def _with_rows(
        self, job: Callable[Concatenate[RowStore, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        if self._worker is None or self._endpoint is None:
            raise RuntimeError("the sandbox is not running")
        return await self._worker.run(job, self._endpoint.rows, *args, **kwargs)


def _check_latency(latency_ms: float) -> None:
    longest_ms = MAX_DELAY_S * 1000
    if not (math.isfinite(latency_ms) and 0 <= latency_ms <= longest_ms):
        raise ValueError(f"latency_ms must be from 0 to {longest_ms:,}, not {latency_ms!r}")
