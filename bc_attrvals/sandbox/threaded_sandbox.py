"""A sandbox that serves from a thread of its own, for tests that have no event loop for it.

Every method may be called from any thread, in a coroutine too. It is carried out in the sandbox's
loop and returns when it is done, in about a millisecond. Results are copies.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, Final, ParamSpec, Self, TypeVar

from bc_attrvals.sandbox.emulated_store import Addresses
from bc_attrvals.sandbox.faults import Fault, FaultKind
from bc_attrvals.sandbox.operations import Operation
from bc_attrvals.sandbox.quota import Window
from bc_attrvals.sandbox.request_log import RecordedRequest
from bc_attrvals.sandbox.server import Sandbox

T = TypeVar("T")

P = ParamSpec("P")

_PATIENCE_S: Final = 60.0


def _waited_for(
    method: Callable[Concatenate[Sandbox, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[ThreadedSandbox, P], T]:
    """Return a coroutine method of `Sandbox` as one that returns when it is done."""

    @wraps(method)
    def waiting(self: ThreadedSandbox, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._do(method(self._sandbox, *args, **kwargs))

    return waiting


def _called(
    method: Callable[Concatenate[Sandbox, P], T],
) -> Callable[Concatenate[ThreadedSandbox, P], T]:
    """Return a method of `Sandbox` as one that is called in its loop."""

    @wraps(method)
    def calling(self: ThreadedSandbox, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.call(lambda sandbox: method(sandbox, *args, **kwargs))

    return calling


class ThreadedSandbox:
    """A `Sandbox`, made with the same options, that serves between `start()` and `close()`.

    A context manager. `with ThreadedSandbox() as sandbox:` is all a test needs, with any HTTP
    client, sync or async, in any event loop.
    """

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - Sandbox checks them
        """Prepare a sandbox with `Sandbox`'s options; nothing is opened before the start."""
        self._sandbox = Sandbox(**options)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        """Show the address and counts, never the token."""
        return f"<Threaded{repr(self._sandbox)[1:]}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def start(self) -> None:
        """Serve. Raises RuntimeError if it already serves, OSError if a port is taken."""
        if self._loop is not None:
            raise RuntimeError("the sandbox is already running")
        loop = self._loop = asyncio.new_event_loop()
        # A daemon, so that a sandbox that was not closed does not keep the process alive.
        self._thread = threading.Thread(
            target=loop.run_forever, name="bc-attrvals-sandbox-loop", daemon=True
        )
        self._thread.start()
        try:
            self._do(self._sandbox.start())
        except BaseException:
            self._end_loop()
            raise

    def close(self) -> None:
        """Stop serving at once; open requests get no answer. A second call does nothing."""
        if self._loop is None:
            return
        try:
            self._do(self._sandbox.aclose())
        finally:
            self._end_loop()

    def _end_loop(self) -> None:
        loop, self._loop = self._loop, None
        thread, self._thread = self._thread, None
        if loop is not None and thread is not None:
            # In its own thread, because the caller's may run a loop.
            ending = asyncio.run_coroutine_threadsafe(loop.shutdown_asyncgens(), loop)
            ending.add_done_callback(lambda _: loop.call_soon_threadsafe(loop.stop))
            thread.join()
            loop.close()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        if self._loop is None or threading.current_thread() is self._thread:
            work.close()
            where = "is not running" if self._loop is None else "can't wait for itself"
            raise RuntimeError(f"the sandbox {where}")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_PATIENCE_S)

    def call(self, function: Callable[[Sandbox], T]) -> T:
        """Call a function with the `Sandbox`, in its loop, and return the result."""

        async def calling() -> T:
            return function(self._sandbox)

        return self._do(calling())

    @property
    def url(self) -> str:
        """The base URL, `http://127.0.0.1:PORT`; raises RuntimeError unless running."""
        return self._sandbox.url

    @property
    def port(self) -> int:
        """The port it listens on; raises RuntimeError unless running."""
        return self._sandbox.port

    @property
    def addresses(self) -> Addresses:
        """The URL, the port, and with TLS the CA file and the proxy's URL."""
        return self._sandbox.addresses

    @property
    def store_hash(self) -> str:
        """The hash of the one store."""
        return self._sandbox.store_hash

    @property
    def access_token(self) -> str:
        """The token that is accepted."""
        return self._sandbox.access_token

    @property
    def environment(self) -> dict[str, str]:
        """The variables that point `Store.from_env()` here, token included."""
        return self._sandbox.environment

    @property
    def proxy_environment(self) -> dict[str, str]:
        """The variables that lead any SDK here through an HTTPS proxy, which is opened if need be.

        Needs the extra `sandbox`; raises RuntimeError without it.
        """
        self._do(self._sandbox.open_proxy())
        return self._sandbox.proxy_environment

    @property
    def requests(self) -> list[RecordedRequest]:
        """The requests it received, oldest first."""
        return self.call(lambda sandbox: list(sandbox.requests))

    def requests_of(self, operation: Operation | str) -> list[RecordedRequest]:
        """Return the requests of one operation: `list`, `upsert` or `delete`."""
        return self.call(lambda sandbox: sandbox.requests.of(operation))

    @property
    def calls(self) -> Counter[Operation]:
        """How many requests arrived, per operation; refused and dropped ones included."""
        return self.call(lambda sandbox: sandbox.calls)

    @property
    def statuses(self) -> Counter[int]:
        """How many answers were given, per status."""
        return self.call(lambda sandbox: sandbox.statuses)

    @property
    def count_429(self) -> int:
        """How many requests were answered 429, for any reason."""
        return self.call(lambda sandbox: sandbox.count_429)

    in_flight = _called(Sandbox.in_flight)
    peak_in_flight = _called(Sandbox.peak_in_flight)

    def fail_next(
        self,
        *faults: Fault | FaultKind | str | None,
        operation: Operation | str | None = None,
        times: int = 1,
    ) -> None:
        """Give the next requests these faults in order, `times` over; None for a healthy one.

        For example `fail_next("503", "drop_after", operation="upsert")`. A line such as
        `slow,delay_s=0.2` is a fault too. Later requests are healthy. Raises ValueError for an
        unknown fault.
        """
        if times < 1 or not faults:
            raise ValueError("give at least one fault, and times of at least 1")
        self.call(lambda sandbox: sandbox.faults.script(faults * times, operation))

    def add_fault(self, fault: Fault | FaultKind | str) -> int:
        """Add a fault, such as `503=5%,operation=list`; returns its number."""
        return self.call(lambda sandbox: sandbox.faults.add(fault))

    def remove_fault(self, number: int) -> bool:
        """End the fault of this number; False if none in force has it."""
        return self.call(lambda sandbox: sandbox.faults.remove(number))

    def clear_faults(self) -> None:
        """End all faults, those of `fail_next` too."""
        self.call(lambda sandbox: sandbox.faults.clear())

    seed = _waited_for(Sandbox.seed)
    rows = _waited_for(Sandbox.rows)
    values = _waited_for(Sandbox.values)
    count = _waited_for(Sandbox.count)
    delete_rows = _waited_for(Sandbox.delete_rows)
    define = _waited_for(Sandbox.define)
    customers = _waited_for(Sandbox.customers)
    attributes = _waited_for(Sandbox.attributes)
    delete_customers = _waited_for(Sandbox.delete_customers)
    set_quirks = _waited_for(Sandbox.set_quirks)
    reset = _waited_for(Sandbox.reset)
    reject_customers = _called(Sandbox.reject_customers)
    accept_customers = _called(Sandbox.accept_customers)
    set_quota = _called(Sandbox.set_quota)
    spend = _called(Sandbox.spend)

    @property
    def quota_left(self) -> int | None:
        """Units left in the current window, or None without a quota."""
        return self.call(lambda sandbox: sandbox.quota_left)

    @property
    def windows(self) -> list[Window]:
        """What each quota window granted and refused, oldest first."""
        return self.call(lambda sandbox: sandbox.windows)

    @property
    def latency_ms(self) -> float:
        """Milliseconds between arrival and application; may be set at any time."""
        return self._sandbox.latency_ms

    @latency_ms.setter
    def latency_ms(self, latency_ms: float) -> None:
        self.call(lambda sandbox: setattr(sandbox, "latency_ms", latency_ms))
