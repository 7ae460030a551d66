"""The Store: owns the session, the scheduler and the keys under way, and wires them together."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, NoReturn, Self, SupportsIndex

import aiohttp
import msgspec
from msgspec.structs import replace

from bc_attrvals.attribute_values import AttributeValues
from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.core.limits import Limits
from bc_attrvals.core.requests import DEFAULT_BASE_URL, RequestBuilder, Resource
from bc_attrvals.core.retry import RetryPolicy
from bc_attrvals.errors import InvalidInputError, StoreStateError
from bc_attrvals.events import Event, EventBus
from bc_attrvals.scheduling.calls import Calls
from bc_attrvals.scheduling.close_task import CloseTask
from bc_attrvals.scheduling.exchange import CallOptions
from bc_attrvals.scheduling.learnt_sizes import LearntSizes
from bc_attrvals.scheduling.quota import Priority, Quota
from bc_attrvals.scheduling.scheduler import Scheduler, Statistics
from bc_attrvals.store_arguments import (
    STORE_HASH,
    TOKEN,
    check_absent,
    check_asyncio,
    check_pattern,
    check_quota,
    check_type,
    checked_base_url,
    checked_priority,
    checked_timeout,
    checked_traces,
    full_user_agent,
    variable,
)
from bc_attrvals.sync.shared_by_jobs import SharedByJobs
from bc_attrvals.transport.session import Session

# Imported where they are needed, so that importing the package loads what a listing needs.
if TYPE_CHECKING:
    from bc_attrvals.attributes import Attributes
    from bc_attrvals.customers import Customers
    from bc_attrvals.mirror.mirror import Mirror


class _Runtime(msgspec.Struct, eq=False):
    """What the Store and all its views share while it is open in one event loop."""

    loop: asyncio.AbstractEventLoop
    base_url: str
    session: Session
    scheduler: Scheduler
    # How requests of each resource are built.
    requests: Mapping[Resource, RequestBuilder]
    sizes: LearntSizes
    shared: SharedByJobs


class _State(msgspec.Struct, eq=False):
    """The part of a Store that outlives its openings, and its runtime while it is open."""

    name: str
    events: EventBus
    runtime: _Runtime | None = None
    is_opening: bool = False
    was_closed: bool = False
    closing: CloseTask = msgspec.field(default_factory=CloseTask)

    def __repr__(self) -> str:
        if self.runtime is not None:
            return f"{self.name}, {self.runtime.scheduler!r}"
        return f"{self.name}, {'closed' if self.was_closed else 'not entered'}"

    def running(self) -> _Runtime:
        if self.runtime is None:
            how = "is closed" if self.was_closed else "must be entered first (async with)"
            message = f"the Store {how}"
            raise StoreStateError(message)
        return self.runtime

    def bound(self, options: CallOptions) -> tuple[_Runtime, Calls, Callable[[], None]]:
        """Return what a resource is made of: the runtime, calls, and a check that all is open."""
        runtime = self.running()

        def ensure_open() -> None:
            if self.runtime is not runtime:
                raise StoreStateError("the Store is closed")
            if asyncio.get_running_loop() is not runtime.loop:
                raise StoreStateError("the Store is open in another event loop")

        calls = Calls(
            runtime.scheduler,
            runtime.requests[Resource.ATTRIBUTE_VALUES],
            options,
            events=self.events,
            sizes=runtime.sizes,
        )
        return runtime, calls, ensure_open


class StoreView:
    """A Store seen through its own options; shares session, quota and slots with the others."""

    __slots__ = ("_options", "_state")

    def __init__(self, state: _State, options: CallOptions) -> None:
        self._state = state
        self._options = options

    def __repr__(self) -> str:
        if not hasattr(self, "_state"):
            # A crash reporter shows `self` where an argument was refused.
            return f"<{type(self).__name__} not made>"
        return f"<{type(self).__name__} {self._state!r}>"

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        # A pickle would hold the access token in the clear, and a copy share half of its state.
        message = f"a {type(self).__name__} can't be pickled or copied; make another one"
        raise TypeError(message)

    @property
    def attribute_values(self) -> AttributeValues:
        """The resource, with the options of this view.

        Raises `StoreStateError` unless the Store is open.
        """
        runtime, calls, ensure_open = self._state.bound(self._options)
        return AttributeValues(
            calls,
            runtime.shared,
            place=f"{runtime.base_url}{calls.resource}",
            ensure_open=ensure_open,
        )

    @property
    def attributes(self) -> Attributes:
        """The definitions of attributes, with the options of this view.

        Raises `StoreStateError` unless the Store is open.
        """
        from bc_attrvals.attributes import Attributes

        runtime, calls, ensure_open = self._state.bound(self._options)
        return Attributes(
            calls,
            runtime.requests[Resource.ATTRIBUTES],
            ensure_open=ensure_open,
            known=runtime.shared.resolver.definitions,
        )

    @property
    def customers(self) -> Customers:
        """The customers, read only, with the options of this view.

        Raises `StoreStateError` unless the Store is open.
        """
        from bc_attrvals.customers import Customers

        runtime, calls, ensure_open = self._state.bound(self._options)
        requests = runtime.requests[Resource.CUSTOMERS]
        return Customers(calls, requests, ensure_open=ensure_open)

    def mirror(
        self,
        path: str | os.PathLike[str],
        scope: AttributeValueFilter | None = None,
        *,
        verify_every: timedelta | None = timedelta(days=30),
    ) -> Mirror:
        """Return the mirror that a file holds, an async context manager: see `Mirror`.

        It is a copy of the Store's values, or of those of a `scope` of `customer_id_in` and
        `attribute_id_in`, in an SQLite file. The file is bound to base URL, store and scope. The
        refresh that is `verify_every` after everything was listed last lists everything again;
        None leaves that to `verify=True`.

        Raises `StoreStateError` unless the Store is open, `InvalidInputError` for another scope or
        what is no path, and `MirrorError` on entering: for a file that is damaged, held by another
        process, of another format, or bound to another store or scope.
        """
        from bc_attrvals.mirror.mirror import Mirror

        if verify_every is not None:
            check_type("verify_every", verify_every, timedelta)
            if verify_every < timedelta(0):
                message = "verify_every must not be negative"
                raise InvalidInputError(message, field="verify_every")
        runtime, calls, ensure_open = self._state.bound(self._options)
        return Mirror(
            calls,
            path,
            scope,
            place=f"{runtime.base_url}{calls.resource}",
            ensure_open=ensure_open,
            verify_every_s=None if verify_every is None else verify_every.total_seconds(),
        )

    def with_options(
        self,
        *,
        priority: Priority | None = None,
        timeout: float | None = None,
        retry: RetryPolicy | None = None,
    ) -> StoreView:
        """Return a light view with other options; None keeps what this one has.

        `priority` is for all its requests, `timeout` in seconds for each try. Raises
        `InvalidInputError`, whose `field` names the argument.
        """
        options = self._options
        if priority is not None:
            options = replace(options, priority=checked_priority(priority))
        if timeout is not None:
            options = replace(options, timeout_s=checked_timeout(timeout))
        if retry is not None:
            check_type("retry", retry, RetryPolicy)
            options = replace(options, retry=retry)
        return StoreView(self._state, options)

    def statistics(self) -> Statistics:
        """Return a frozen snapshot of the Store's traffic since it was opened."""
        return self._state.running().scheduler.statistics()

    def subscribe(self, callback: Callable[[Event], object]) -> Callable[[], None]:
        """Have `callback` called with every event; the function returned ends that.

        It runs on the event loop's thread and must not block. What it raises is logged.
        """
        return self._state.events.subscribe(callback)


class Store(StoreView):
    """One BigCommerce store: an async context manager around session and scheduler.

    `store_hash` and `access_token` come from the store's API account. `base_url` must be https,
    or http to loopback, because the token travels with each request. `limits` bounds what is under
    way at once, `retry` how often a request is sent; `timeout` is seconds for each try. A `session`
    of your own is used (its proxy, TLS and trace settings) and not closed. `quota` replaces the
    quota of this process by one shared with others. `user_agent` is put before the library's name.
    `proxy` is `http://[user:password@]host[:port]`; `trust_env=True` takes the proxy that
    `HTTPS_PROXY` and `NO_PROXY` name when the Store is entered. These two and `trace_configs`,
    aiohttp's, go with the Store's own session only.

    Certificates are checked against OpenSSL's default authorities; the environment variables
    `SSL_CERT_FILE` and `SSL_CERT_DIR` name others if they are set before aiohttp is imported. A
    sync finds a certificate that is not trusted before it reads its input; with a `session` of
    your own, at its first request.

    Raises `InvalidInputError`, whose `field` names the argument. The token is in no repr, log line
    or error, and a Store can't be pickled.

    Enter it in the event loop it is used in. Each entering makes new state; one Store can be
    entered again after it was closed.
    """

    __slots__ = (
        "_base_url",
        "_caller_session",
        "_limits",
        "_proxy_url",
        "_quota",
        "_store_hash",
        "_token",
        "_trace_configs",
        "_trust_env",
        "_user_agent",
    )

    def __init__(
        self,
        store_hash: str,
        access_token: str,
        *,
        base_url: str = DEFAULT_BASE_URL,
        limits: Limits = Limits(),
        retry: RetryPolicy = RetryPolicy(),
        timeout: float = 30.0,
        session: aiohttp.ClientSession | None = None,
        quota: Quota | None = None,
        trace_configs: Sequence[aiohttp.TraceConfig] = (),
        user_agent: str | None = None,
        trust_env: bool = False,
        proxy: str | None = None,
    ) -> None:
        self._token = access_token
        self._proxy_url = proxy
        # Errors raised below have this frame in their traceback, and crash reporters show locals.
        del access_token, proxy
        check_pattern("store_hash", store_hash, STORE_HASH, "letters, digits, '-', '_', '.', '~'")
        if not isinstance(self._token, str) or not TOKEN.fullmatch(self._token):
            message = "access_token must be a string of visible ASCII characters, at most 1,000"
            if isinstance(self._token, str) and self._token.strip() != self._token:
                message += "; it has a line break or a blank at its start or end"
            raise InvalidInputError(message, field="access_token")
        check_type("limits", limits, Limits)
        check_type("retry", retry, RetryPolicy)
        check_type("trust_env", trust_env, bool)
        if self._proxy_url is not None:
            from bc_attrvals.transport.proxies import check_proxy

            check_proxy(self._proxy_url)
        trace_configs = checked_traces(trace_configs)
        if session is not None:
            check_type("session", session, aiohttp.ClientSession)
            check_absent(
                trace_configs=bool(trace_configs), proxy=bool(self._proxy_url), trust_env=trust_env
            )
        self._store_hash = store_hash
        self._base_url = checked_base_url(base_url)
        self._limits = limits
        self._caller_session = session
        self._quota = check_quota(quota)
        self._trace_configs = trace_configs
        self._trust_env = trust_env
        self._user_agent = full_user_agent(user_agent)
        super().__init__(
            _State(f"{store_hash!r} at {self._base_url}", EventBus()),
            CallOptions(checked_timeout(timeout), retry),
        )

    @classmethod
    def from_env(
        cls,
        *,
        limits: Limits = Limits(),
        retry: RetryPolicy = RetryPolicy(),
        timeout: float = 30.0,
        session: aiohttp.ClientSession | None = None,
        quota: Quota | None = None,
        trace_configs: Sequence[aiohttp.TraceConfig] = (),
        user_agent: str | None = None,
        trust_env: bool = False,
        proxy: str | None = None,
    ) -> Self:
        """Make a Store of the environment.

        Reads `BIGCOMMERCE_STORE_HASH`, `BIGCOMMERCE_ACCESS_TOKEN` and, optional,
        `BIGCOMMERCE_API_URL`. Raises `InvalidInputError` naming the variable that is missing.
        """
        return cls(
            variable("BIGCOMMERCE_STORE_HASH"),
            variable("BIGCOMMERCE_ACCESS_TOKEN"),
            base_url=os.environ.get("BIGCOMMERCE_API_URL") or DEFAULT_BASE_URL,
            limits=limits,
            retry=retry,
            timeout=timeout,
            session=session,
            quota=quota,
            trace_configs=trace_configs,
            user_agent=user_agent,
            trust_env=trust_env,
            proxy=proxy,
        )

    async def __aenter__(self) -> Self:
        """Open the session in the running loop, which must be asyncio's."""
        check_asyncio()
        if self._state.runtime is not None or self._state.is_opening:
            raise StoreStateError("the Store is open already")
        self._state.is_opening = True
        try:
            await self._state.closing.finish()
            self._state.runtime = await self._open()
        finally:
            self._state.is_opening = False
        return self

    async def _open(self) -> _Runtime:
        proxy = self._proxy_url
        if proxy is None and self._trust_env:
            from bc_attrvals.transport.proxies import proxy_of_environment

            proxy = proxy_of_environment(self._base_url)
        session = Session(
            self._base_url,
            self._token,
            user_agent=self._user_agent,
            max_response_bytes=self._limits.max_response_bytes,
            session=self._caller_session,
            trace_configs=self._trace_configs,
            proxy=proxy,
        )
        scheduler = Scheduler(
            session,
            limits=self._limits,
            retry=self._options.retry,
            events=self._state.events,
            quota=self._quota,
        )
        try:
            await scheduler.open(self._store_hash)
        except BaseException:
            await session.aclose()
            raise
        requests = {
            resource: RequestBuilder(self._store_hash, self._base_url, resource)
            for resource in Resource
        }
        return _Runtime(
            loop=asyncio.get_running_loop(),
            base_url=self._base_url,
            session=session,
            scheduler=scheduler,
            requests=requests,
            sizes=LearntSizes(self._limits),
            shared=SharedByJobs(self._limits, requests),
        )

    async def __aexit__(self, *exc_info: object) -> None:
        """Close the Store."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close the Store; closing twice is harmless.

        Requests under way end with `ConnectionLostError` (they were on the wire, and a write may
        have been applied) or `StoreStateError` (nothing was sent). Cancelled, it returns at once,
        and the closing goes on in a task of its own; another `aclose` waits for its end.
        """
        state = self._state
        runtime, state.runtime = state.runtime, None
        state.was_closed = True
        if runtime is not None:
            state.closing.begin(_close(runtime))
        await state.closing.finish()


async def _close(runtime: _Runtime) -> None:
    try:
        await runtime.scheduler.close()
        await runtime.shared.aclose()
    finally:
        await runtime.session.aclose()
