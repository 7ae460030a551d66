"""The emulated store as a test sees it: its options, its contents, and the controls over it.

`server` serves it over HTTP, and `control` offers the same to other languages as JSON. This module
knows neither. The rows live in SQLite; what takes long there is done in a thread of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

import attrs

from bc_attrvals.sandbox.definitions import (
    AttributeSeeds,
    Checked,
    CustomerSeeds,
    StoredAttribute,
    StoredCustomer,
    check_definitions,
)
from bc_attrvals.sandbox.faults import Faults
from bc_attrvals.sandbox.operations import Operation
from bc_attrvals.sandbox.quirks import Quirks
from bc_attrvals.sandbox.quota import Window
from bc_attrvals.sandbox.request_handler import Service
from bc_attrvals.sandbox.request_log import RequestLog
from bc_attrvals.sandbox.resources import Resources
from bc_attrvals.sandbox.row_search import RowPage, RowQuery, browse
from bc_attrvals.sandbox.rows import SeedRow, StoredRow

T = TypeVar("T")

# Read by OpenSSL (Python, Ruby, Go), by Python's requests, by curl, and by Node.
_CA_VARIABLES: Final = (
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
)
# The last one is read by global-agent, for Node before 24.
_PROXY_VARIABLES: Final = ("HTTPS_PROXY", "https_proxy", "GLOBAL_AGENT_HTTPS_PROXY")
#: The parts of a store that `reset` takes.
RESET_PARTS: Final = ("rows", "log", "faults", "quota", "customers", "attributes")


@attrs.frozen
class Addresses:
    """Where a running store is reached; `ca_file` and `proxy_url` are None without TLS or proxy."""

    url: str
    port: int
    ca_file: str | None = None
    proxy_url: str | None = None


class EmulatedStore:
    """The state of one emulated store and the controls over it. `Sandbox` serves it."""

    def __init__(
        self, database: str, service: Service, defined: Checked, wall_clock: Callable[[], float]
    ) -> None:
        """Prepare; nothing is opened before the start. `defined` is inserted at the start."""
        self._database = database
        self._service = service
        self._options = service.options
        self._defined = defined
        self._wall_clock = wall_clock
        self._addresses: Addresses | None = None

    def __repr__(self) -> str:
        """Show the address and counts, never the token."""
        state = "closed" if self._addresses is None else self._addresses.url
        return (
            f"<{type(self).__name__} {state} store_hash={self.store_hash!r} "
            f"requests={self.requests.seen} in_flight={self.in_flight()} "
            f"answered_429={self.count_429} faults={len(self.faults)}>"
        )

    @property
    def addresses(self) -> Addresses:
        """Where it is reached; raises RuntimeError unless running."""
        if self._addresses is None:
            raise RuntimeError("the sandbox is not running")
        return self._addresses

    @property
    def url(self) -> str:
        """The base URL, `http://127.0.0.1:PORT`; raises RuntimeError unless running."""
        return self.addresses.url

    @property
    def port(self) -> int:
        """The port it listens on; raises RuntimeError unless running."""
        return self.addresses.port

    @property
    def environment(self) -> dict[str, str]:
        """The variables that point `Store.from_env()` and the command line here, token included."""
        return {"BIGCOMMERCE_API_URL": self.url, **self._credentials()}

    @property
    def proxy_environment(self) -> dict[str, str]:
        """The variables that lead any SDK here through the proxy, with the store's credentials.

        Raises RuntimeError unless the proxy is open.
        """
        if self.addresses.proxy_url is None:
            raise RuntimeError("the sandbox has no proxy: give it proxy=True")
        proxy = dict.fromkeys(_PROXY_VARIABLES, self.addresses.proxy_url)
        direct = dict.fromkeys(("NO_PROXY", "no_proxy"), "localhost,127.0.0.1")
        return {**self._credentials(), **proxy, **direct, "NODE_USE_ENV_PROXY": "1"}

    def _credentials(self) -> dict[str, str]:
        ca_file = self.addresses.ca_file
        trust = {} if ca_file is None else dict.fromkeys(_CA_VARIABLES, ca_file)
        return {
            "BIGCOMMERCE_STORE_HASH": self.store_hash,
            "BIGCOMMERCE_ACCESS_TOKEN": self.access_token,
            **trust,
        }

    @property
    def latency_ms(self) -> float:
        """Milliseconds between arrival and application; may be set at any time."""
        return self._options.latency_ms

    @latency_ms.setter
    def latency_ms(self, latency_ms: float) -> None:
        self._options.latency_ms = latency_ms

    @property
    def store_hash(self) -> str:
        """The hash of the one store; may be set at any time."""
        return self._options.store_hash

    @store_hash.setter
    def store_hash(self, store_hash: str) -> None:
        self._options.store_hash = store_hash

    @property
    def access_token(self) -> str:
        """The token that is accepted; may be set at any time."""
        return self._options.access_token

    @access_token.setter
    def access_token(self, access_token: str) -> None:
        self._options.access_token = access_token

    @property
    def max_concurrent_puts(self) -> int | None:
        """How many PUTs are accepted at once, None for any number; may be set at any time."""
        return self._options.max_concurrent_puts

    @max_concurrent_puts.setter
    def max_concurrent_puts(self, max_concurrent_puts: int | None) -> None:
        self._options.max_concurrent_puts = max_concurrent_puts

    @property
    def quirks(self) -> Quirks:
        """The quirks in force."""
        return self._options.quirks

    async def set_quirks(self, quirks: Quirks) -> None:
        """Follow other quirks from the next request on."""
        self._options.quirks = quirks
        self._service.quota.reset_granularity_ms = quirks.reset_granularity_ms
        backend = self._service.backend
        if backend is not None:
            await backend.thread.run(backend.resources.set_quirks, quirks)

    @property
    def requests(self) -> RequestLog:
        """The requests it received, oldest first."""
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
        """How many requests were answered 429, for any reason."""
        return self._service.statuses[429]

    @property
    def quota(self) -> int | None:
        """Units of a window, or None without a limit."""
        return self._service.quota.quota

    @property
    def quota_left(self) -> int | None:
        """Units left in the current window, or None without a quota."""
        return self._service.quota.left

    @property
    def window_s(self) -> float:
        """Seconds a window lasts."""
        return self._service.quota.window_s

    @property
    def quota_reset_s(self) -> float:
        """Seconds until the next window."""
        return self._service.quota.remaining_s

    @property
    def windows(self) -> list[Window]:
        """What each quota window granted and refused, oldest first."""
        return self._service.quota.windows

    def in_flight(self, operation: Operation | str | None = None) -> int:
        """Return how many requests are open now, of one operation or of all."""
        return self._service.in_flight.now(None if operation is None else Operation(operation))

    def peak_in_flight(self, operation: Operation | str) -> int:
        """Return the most requests of an operation at once so far, refused ones included."""
        return self._service.in_flight.peak[Operation(operation)]

    def spend(self, units: int) -> None:
        """Spend units of the current window, as another app of the store would."""
        self._service.quota.spend(units)

    def set_quota(self, quota: int | None) -> None:
        """Change the store's plan, in the middle of the window."""
        self._service.quota.quota = quota

    @property
    def rejected_customers(self) -> frozenset[int]:
        """The customers that an upsert must not name."""
        return self._service.rejected_customers

    def reject_customers(self, customer_ids: Iterable[int]) -> None:
        """Treat customers as missing: an upsert that names one is refused.

        Their rows stay.
        """
        self._service.rejected_customers |= frozenset(customer_ids)

    def accept_customers(self, customer_ids: Iterable[int] | None = None) -> None:
        """Accept rejected customers again, by default all of them."""
        rejected = self._service.rejected_customers
        accepted = rejected if customer_ids is None else frozenset(customer_ids)
        self._service.rejected_customers = rejected - accepted

    def when(self, clock_s: float) -> float:
        """Return the UNIX seconds of a time in the log, which holds monotonic seconds."""
        return self._wall_clock() - (self._options.clock() - clock_s)

    async def define(
        self,
        *,
        customers: CustomerSeeds | None = None,
        attributes: AttributeSeeds | None = None,
        replace: bool = False,
    ) -> None:
        """Define customers and attributes past HTTP; values then name only existing ones.

        `customers` maps ids to addresses, or lists addresses, which get the next ids. `attributes`
        maps names to types (string, number or date), or lists (name, type) or (name, type, id).
        Existing ones are kept and updated; `replace` deletes the others of each kind given. Values
        stay. Raises ValueError, and changes nothing, for bad input, an address of two customers, or
        more than 50 attributes.
        """
        checked = check_definitions(customers, attributes)
        replaced = []
        if replace:
            given = (("customers", customers), ("attributes", attributes))
            replaced = [table for table, seeds in given if seeds is not None]
        await self._in_thread(lambda to: to.definitions.define(checked, replace=replaced))

    async def customers(self) -> list[StoredCustomer]:
        """Return all customers by ascending id."""
        return await self._in_thread(lambda of: of.definitions.customers())

    async def attributes(self) -> list[StoredAttribute]:
        """Return all attributes by ascending id."""
        return await self._in_thread(lambda of: of.definitions.attributes())

    async def delete_customers(self, customer_ids: Iterable[int]) -> int:
        """Delete customers past HTTP; their values stay. Returns how many there were."""
        ids = list(customer_ids)
        return await self._in_thread(lambda of: of.definitions.delete_customers(ids))

    async def seed(self, rows: Iterable[SeedRow], *, replace: bool = False) -> int:
        """Insert rows into the database, past HTTP and its limits.

        A row is (customer_id, attribute_id, value[, date_created[, date_modified]]). Dates are UNIX
        seconds or aware datetimes, now by default. Existing keys are overwritten; `replace` deletes
        all other rows. `rows` is read in the database thread. Returns how many were read. Raises
        ValueError, and stores nothing, if one is bad.
        """
        return await self._in_thread(lambda to: to.rows.seed(rows, replace=replace))

    async def rows(self) -> list[StoredRow]:
        """Return all stored rows by ascending id."""
        return await self._in_thread(lambda of: of.rows.rows())

    async def browse(self, query: RowQuery) -> RowPage:
        """Return one page of the rows that a query selects."""
        return await self._in_thread(lambda of: browse(of, query))

    async def values(self) -> dict[tuple[int, int], str]:
        """Return all stored values by (customer_id, attribute_id)."""
        return await self._in_thread(lambda of: of.rows.values())

    async def count(self) -> int:
        """Return the number of stored rows."""
        return await self._in_thread(lambda of: of.database.count("attribute_values"))

    async def delete_rows(self, ids: Iterable[int]) -> int:
        """Delete rows past HTTP; returns how many there were."""
        wanted = list(ids)
        return await self._in_thread(lambda of: of.rows.delete(wanted))

    async def reset(self, only: Iterable[str] = RESET_PARTS) -> None:
        """Return to an empty, healthy store, or `only` parts of it.

        By default all rows, log entries, counts, faults and rejected customers are deleted, and a
        new window begins. Customers and attributes return to the options'. Parts are `rows`, `log`
        (with the counts), `faults` (with the scripts), `quota` (a new window of the same size),
        `customers` (with the rejected ones) and `attributes`; raises ValueError for another.
        """
        parts = frozenset(only)
        if not parts <= frozenset(RESET_PARTS):
            unknown = ", ".join(sorted(parts - frozenset(RESET_PARTS)))
            raise ValueError(f"unknown part {unknown!r}; one of {', '.join(RESET_PARTS)}")
        service = self._service
        await self._in_thread(lambda of: self._reset_database(of, parts))
        if "faults" in parts:
            service.faults.clear()
        if "log" in parts:
            service.log.clear()
            service.calls.clear()
            service.statuses.clear()
            service.in_flight.forget_peaks()
        if "customers" in parts:
            service.rejected_customers = frozenset()
        if "quota" in parts:
            service.quota.restart()

    def _reset_database(self, resources: Resources, parts: frozenset[str]) -> None:
        if "rows" in parts:
            resources.database.clear("attribute_values")
        for table in sorted(parts & {"customers", "attributes"}):
            resources.database.clear(table)
        resources.definitions.define(
            attrs.evolve(
                self._defined,
                customers=self._defined.customers if "customers" in parts else (),
                attributes=self._defined.attributes if "attributes" in parts else (),
            )
        )

    async def _in_thread(self, job: Callable[[Resources], T]) -> T:
        backend = self._service.backend
        if backend is None:
            raise RuntimeError("the sandbox is not running")
        return await backend.thread.run(job, backend.resources)
