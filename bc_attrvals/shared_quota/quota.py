"""`RedisQuota`: the quota of one store, shared by all processes that name the same server.

It is used by `scheduling/admission.py` like every `Quota`. This module has the arguments and the
protocol; `member.py` does the work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import msgspec

from bc_attrvals.core.limits import Limits
from bc_attrvals.core.rate_limit import QuotaSnapshot, read_quota_headers, read_retry_after_s
from bc_attrvals.core.requests import Operation
from bc_attrvals.errors import InvalidInputError, StoreStateError
from bc_attrvals.events import Event
from bc_attrvals.scheduling.close_task import CloseTask
from bc_attrvals.scheduling.quota import Priority
from bc_attrvals.shared_quota.leases import ANSWERED, NO_HEADERS, UNANSWERED, UNSENT, Lease
from bc_attrvals.shared_quota.member import Member
from bc_attrvals.shared_quota.options import QuotaOptions, place_of, url_error
from bc_attrvals.shared_quota.server_link import Callbacks, Link, LinkError


class RedisQuota:
    """Slots and quota units of one store, shared through a Redis or Valkey server.

    Give one to each process's `Store(quota=...)`, with the same `url` and `namespace`; one object
    serves one Store at a time. Requests at once and units of each window are counted over all
    processes. `Limits` bound each process, and the largest of them bound the sum. Interactive
    requests go before bulk ones, across processes. The bulk jobs of all processes have equal shares
    of a scarce quota, and what one can't use goes to the others. When the
    quota of a window is spent, all wait for the next one, interactive requests too;
    `Limits.reserve` keeps units for other apps.

    A slot is a lease. When its process dies, the others have it back within `lease_s` seconds, and
    its unit counts as spent. While the server is out of reach, each process takes a part of each
    window: `fallback_share`, or an even share among all processes that are open, whichever is
    smaller. `SharedQuotaLost` and `SharedQuotaRegained` report it; the process returns by itself.
    `shared_quota/README.md` has the details.

    `url` is `redis://[user:password@]host[:port][/database]`, `rediss://…` or `unix://…/socket`,
    with special characters of user and password percent-encoded. `timeout_s` is the longest wait
    for the server. Keys of the namespace hold counts and times, no token and no value. Nothing
    shows the URL's password.

    Raises `InvalidInputError` for bad arguments. Opening raises it where the server refuses user or
    password, has no such database, or is no Redis. A server out of reach is no error.
    """

    def __init__(
        self,
        url: str,
        *,
        namespace: str = "bc_attrvals",
        lease_s: float = 10.0,
        fallback_share: float = 0.25,
        timeout_s: float = 2.0,
    ) -> None:
        try:
            self._options = QuotaOptions(
                url=url,
                namespace=namespace,
                lease_s=lease_s,
                fallback_share=fallback_share,
                timeout_s=timeout_s,
            )
        except InvalidInputError as error:
            # Crash reporters show locals.
            del url
            raise error.with_traceback(None) from None
        self._report: Callable[[Event], object] | None = None
        self._member: Member | None = None
        self._is_open = False
        self._closing = CloseTask()

    def __repr__(self) -> str:
        if not hasattr(self, "_options"):
            # A crash reporter asks for it where an argument was refused.
            return "<RedisQuota not made>"
        member = self._member
        counts = "0 held, 0 waiting"
        state = "not open"
        if member is not None:
            counts = f"{member.held} held, {member.waiting} waiting"
            if self._is_open:
                state = "degraded" if member.is_lost else "connected"
        place = place_of(self._options.url)
        return f"<RedisQuota {place} {self._options.namespace!r} {state}, {counts}>"

    def __reduce__(self) -> tuple[object, ...]:
        # A pickle would hold the password.
        raise TypeError("a RedisQuota is not pickled; make one in each process")

    @property
    def connected(self) -> bool:
        """Whether it shares now; False in degraded mode and while it is not open."""
        return self._is_open and self._member is not None and not self._member.is_lost

    def report_to(self, emit: Callable[[Event], object]) -> None:
        """Send events to `emit`; the Store calls this."""
        self._report = emit

    def snapshot(self) -> QuotaSnapshot:
        """Return what is known of the quota now, all processes taken together."""
        if not self._is_open or self._member is None:
            return QuotaSnapshot()
        return self._member.snapshot()

    async def check(self) -> None:
        """Connect once and disconnect, to learn before the work whether the address is right.

        Raises `InvalidInputError` as opening does. A server that is out of reach is no error,
        because it may come back.
        """
        failed: LinkError | None = None
        options = self._options
        link = Link(options.url, f"{options.namespace}:check", Member.new_id(), options.timeout_s)
        try:
            await link.connect(Callbacks())
        except LinkError as error:
            failed = error
        finally:
            await link.aclose()
        if failed is not None and failed.refusal is not None:
            raise url_error(failed.refusal)

    async def open(self, store_hash: str, limits: Limits) -> None:
        """Bind to the running loop and to one store, and connect, or start in degraded mode.

        Raises `InvalidInputError` where the server refuses the user or password, has no such
        database, or is no Redis. Raises `StoreStateError` when it is open already.
        """
        if self._is_open:
            raise StoreStateError("a RedisQuota serves one Store at a time")
        await self._closing.finish()
        self._member = member = Member(self._options, limits, store_hash, self._report)
        refusal = await member.start()
        if refusal is not None:
            raise url_error(refusal)
        self._is_open = True

    async def acquire(self, operation: Operation, priority: Priority) -> object:
        """Wait for a slot and a unit, and return their lease.

        Raises `StoreStateError` when it is closed. Cancelled, it leaves nothing taken.
        """
        if not self._is_open or self._member is None:
            raise StoreStateError("the Store is closed")
        return await self._member.acquire(operation, Priority(priority))

    def release(self, lease: object, headers: Mapping[str, str] | None) -> None:
        """End a lease, and report to the others what the answer said of the quota."""
        self._end(lease, headers, is_refusal=False)

    def refused(self, lease: object, headers: Mapping[str, str]) -> None:
        """End a lease whose request was answered 429: nothing is left of its window."""
        self._end(lease, headers, is_refusal=True)

    def cancel(self, lease: object) -> None:
        """End a lease whose request was never sent: its unit is free."""
        assert isinstance(lease, Lease)
        if self._member is not None:
            self._member.end(lease, UNSENT, None)

    def note_flows(self, operation: Operation, flows: int) -> None:
        """Note how many bulk jobs wait for leases of an operation: each has a share."""
        if self._member is not None:
            self._member.note_flows(operation, flows)

    async def close(self) -> None:
        """Give everything back and disconnect; all that wait get `StoreStateError`.

        Cancelled, it returns at once, and the closing goes on in a task of its own, for `timeout_s`
        at most; another `close` waits for its end. Where the event loop it was opened in has ended,
        its leases end by themselves within `lease_s`.
        """
        was_open, self._is_open = self._is_open, False
        if was_open and self._member is not None:
            self._closing.begin(self._member.stop())
        await self._closing.finish()

    def _end(self, lease: object, headers: Mapping[str, str] | None, *, is_refusal: bool) -> None:
        assert isinstance(lease, Lease)
        if self._member is None:
            return
        if headers is None:
            self._member.end(lease, UNANSWERED, None)
            return
        quota = read_quota_headers(headers)
        if quota is not None and is_refusal:
            quota = msgspec.structs.replace(quota, left=0)
        retry_after_s = read_retry_after_s(headers, time.time()) or 0.0
        self._member.end(lease, NO_HEADERS if quota is None else ANSWERED, quota, retry_after_s)
