"""`RedisQuota`: the quota of one store, shared by all processes that name the same server.

In place of the in-process quota, behind `gate.py`. Requests queue here; one task per process makes
all calls: what ended, what is held and what waits go out together in one, and grants come back in
its answer or, given by another process's call, over a channel. So nobody polls: a process calls
when it has something to say, and else when the server has named a time. While the server is out of
reach, `fallback.py` grants instead.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from bc_attrvals.core.limits import Limits
from bc_attrvals.core.rate_limit import (
    QuotaHeaders,
    QuotaSnapshot,
    read_quota_headers,
    read_retry_after_s,
)
from bc_attrvals.core.requests import Operation
from bc_attrvals.errors import InvalidInputError, StoreStateError
from bc_attrvals.events import Event, QuotaExhausted, SharedQuotaLost, SharedQuotaRegained
from bc_attrvals.scheduling.closing import Closing
from bc_attrvals.scheduling.quota import Priority
from bc_attrvals.shared_quota.address import place_of, url_error
from bc_attrvals.shared_quota.degraded import Alone
from bc_attrvals.shared_quota.fallback import LocalShare
from bc_attrvals.shared_quota.leases import (
    ANSWERED,
    BARE,
    OPERATIONS,
    PRIORITIES,
    UNANSWERED,
    UNSENT,
    Holdings,
    Lease,
)
from bc_attrvals.shared_quota.link import (
    PING_S,
    Ask,
    Grant,
    Hearers,
    Joined,
    Link,
    LinkError,
    Reply,
)
from bc_attrvals.shared_quota.membership import Roster
from bc_attrvals.shared_quota.options import Options
from bc_attrvals.shared_quota.wake_up import Bell

__all__ = ["RedisQuota"]

_logger = logging.getLogger(__name__)

#: A lease is renewed so often until the server ends it.
_RENEWALS: Final = 3
#: So often the server is tried while it is out of reach.
_RETRY_S: Final = 0.5
#: A grant given so long ago ought to have been heard.
_UNHEARD_MS: Final = 250.0
#: What is known of the others is old when it was to be confirmed so long ago.
_FRESH_S: Final = 2 * PING_S


class RedisQuota:
    """Slots and quota units of one store, shared through a Redis or Valkey server.

    Give one to each process's `Store(quota=...)`, with the same `url` and `namespace`; one object
    serves one Store at a time. Requests at once and units of each window are counted over all of
    them; `Limits` bound each process, and the largest of all the sum. Interactive requests go
    before bulk ones across processes, and of those that wait equally the process served longest
    ago is next, however much it has to do. When the quota of a window is spent all wait for the
    next one, interactive requests too: nothing is kept back for them.

    A slot is a lease: when its process dies, the others have it back within `lease_s` seconds, and
    its unit counts as spent. That a server is gone shows at once where connections break; one that
    says nothing is out of reach `timeout_s` after the next call or ping, which is the next renewal
    (every 0.3 `lease_s` while there is work) or 5 s off at the latest. From then on each process
    goes on with `fallback_share` of each window's units, or with an even share among all that are
    open then, busy or idle, if that is smaller, at least one unit; with one write, one delete and
    that share of the reads at once. Up to three processes can't have more than three PUTs at once
    so; more take turns. The server tells all of them whenever one comes or goes, and every 5 s it
    is seen to that they hear it: one that stood still for longer, and finds the server gone, takes
    one unit a window. A process that started without ever reaching the server knows of no others:
    choose the share so that all together fit, and expect that more than three such processes write
    at once. Where one process alone is cut off, its share comes on top of what the others do.
    Events `SharedQuotaLost` and `SharedQuotaRegained` say when; it returns by itself.

    `url` is `redis://[user:password@]host[:port][/database]`, `rediss://…` or `unix://…/socket`,
    with what is special in user and password percent-encoded. The namespace's keys hold counts and
    times, no token and no value. Nothing shows the URL's password. Raises `InvalidInputError` for
    arguments that can't be; opening does when the server refuses user or password, has no such
    database, or is none. One that is out of reach is no error.
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
            self._options = Options(
                url=url,
                namespace=namespace,
                lease_s=lease_s,
                fallback_share=fallback_share,
                timeout_s=timeout_s,
            )
        except InvalidInputError as error:
            # A reporter of crashes shows what stands in frames.
            del url
            raise error.with_traceback(None) from None
        self._report: Callable[[Event], object] | None = None
        self._task: asyncio.Task[None] | None = None
        self._closing = Closing()
        self._reset(Limits())

    def _reset(self, limits: Limits) -> None:
        self._limits = limits
        self._process = os.urandom(8).hex()
        options = self._options
        self._holdings = holdings = Holdings()
        self._local = LocalShare(limits, options.fallback_share)
        self._alone = Alone(self._local, holdings)
        self._bell = Bell(lambda: holdings.done)
        self._was_forgotten = False
        self._link: Link | None = None
        self._seen = 0
        self._roster = Roster(hold_s=options.lease_s, fresh_s=_FRESH_S + 2 * options.timeout_s)
        self._reply: Reply | None = None
        self._replied_at = -math.inf
        self._confirmed_at = -math.inf
        self._slack_s = 0.0
        self._lost_since: float | None = None
        self._exhausted = False

    def __repr__(self) -> str:
        if not hasattr(self, "_options"):
            # As a reporter of crashes may ask of one whose arguments were refused.
            return "<RedisQuota not made>"
        state = "not open" if self._task is None else "alone" if self._is_lost else "connected"
        return (
            f"<RedisQuota {place_of(self._options.url)} {self._options.namespace!r} {state}, "
            f"{len(self._holdings.held)} held, {self._holdings.waiting} waiting>"
        )

    def __reduce__(self) -> tuple[object, ...]:
        # A pickle would carry the password to wherever it goes.
        raise TypeError("a RedisQuota is not pickled; make one in each process")

    @property
    def connected(self) -> bool:
        """Whether it shares now; False while it is on its own or not open."""
        return self._task is not None and not self._is_lost

    @property
    def _is_lost(self) -> bool:
        return self._lost_since is not None

    def report_to(self, emit: Callable[[Event], object]) -> None:
        """Have its events delivered there; the Store does so."""
        self._report = emit

    def snapshot(self) -> QuotaSnapshot:
        """Return what is known of the quota now, all processes taken together."""
        if self._task is None:
            return QuotaSnapshot()
        now = self._loop.time()
        reply = self._reply
        if reply is None or self._is_lost:
            return self._local.snapshot(now)
        resets_in_s = reply.reset_ms / 1000 - (now - self._replied_at)
        if reply.quota < 0 or resets_in_s < 0:
            return self._local.snapshot(now)
        return QuotaSnapshot(reply.quota, reply.left, resets_in_s)

    async def check(self) -> None:
        """Connect once and let go again, to learn before the work whether the address can do.

        Raises `InvalidInputError` as opening does. A server that is out of reach is no error, for
        it may come back.
        """
        failed: LinkError | None = None
        link = self._new_link(f"{self._options.namespace}:check")
        try:
            await link.connect(Hearers.nobody())
        except LinkError as error:
            failed = error
        finally:
            await link.aclose()
        if failed is not None and failed.refusal is not None:
            raise url_error(failed.refusal)

    async def open(self, store_hash: str, limits: Limits) -> None:
        """Bind to the running loop and to one store, and connect, or go on without.

        Raises `InvalidInputError` when what answers can never do: it refuses the user or password,
        has no such database, is no Redis. `StoreStateError` when it is open already.
        """
        if self._task is not None:
            raise StoreStateError("a RedisQuota serves one Store at a time")
        await self._closing.finish()
        self._reset(limits)
        self._loop = asyncio.get_running_loop()
        # The braces keep all keys of a store in one place of a cluster.
        self._key = f"{self._options.namespace}:{{{store_hash}}}"
        failed: LinkError | None = None
        try:
            await self._connect()
        except LinkError as error:
            failed = error
        if failed is not None and failed.refusal is not None:
            raise url_error(failed.refusal)
        self._task = self._loop.create_task(self._run())
        if failed is not None:
            self._lose(failed.kind)
        elif self._link is not None and self._link.is_deaf:
            self._lose("ConnectionError")

    async def acquire(self, operation: Operation, priority: Priority) -> object:
        """Wait for a slot and a unit, and return their lease.

        Interactive requests go before bulk ones, and wait for the next window as those do when the
        quota of this one is spent: no unit is kept back for them (`Limits.reserve` keeps units for
        other apps). Raises `StoreStateError` when it is closed. Cancelled, it leaves nothing taken.
        """
        if self._task is None:
            raise _closed_error()
        future: asyncio.Future[Lease] = self._loop.create_future()
        priority = Priority(priority)
        self._holdings.wait(future, operation, priority)
        if self._is_lost:
            self._alone.grant()
        else:
            self._bell.ring()
        try:
            return await future
        except asyncio.CancelledError:
            if future.cancelled():
                self._holdings.give_up(future, operation, priority)
                if not self._is_lost:
                    self._call_soon()
            elif future.exception() is None:
                # Granted and cancelled in one step of the loop.
                self._end(future.result(), UNSENT, None)
            raise

    def release(self, lease: object, headers: Mapping[str, str] | None) -> None:
        """End a lease, and report to the others what the answer said of the quota."""
        assert isinstance(lease, Lease)
        if headers is None:
            self._end(lease, UNANSWERED, None)
            return
        quota = read_quota_headers(headers)
        retry_after_s = read_retry_after_s(headers, time.time()) or 0.0
        self._end(lease, BARE if quota is None else ANSWERED, quota, retry_after_s)

    def refused(self, lease: object, headers: Mapping[str, str]) -> None:
        """End a lease whose request was answered 429: nothing is left of its window."""
        assert isinstance(lease, Lease)
        quota = read_quota_headers(headers)
        if quota is not None:
            quota = msgspec.structs.replace(quota, left=0)
        retry_after_s = read_retry_after_s(headers, time.time()) or 0.0
        self._end(lease, BARE if quota is None else ANSWERED, quota, retry_after_s)

    def cancel(self, lease: object) -> None:
        """End a lease whose request was never sent: its unit is free."""
        assert isinstance(lease, Lease)
        self._end(lease, UNSENT, None)

    async def close(self) -> None:
        """Give everything back and let go of the server; all that wait get `StoreStateError`.

        Cancelled, it returns at once, and the closing goes on in a task of its own, for `timeout_s`
        at the most; another `close` waits for its end.
        """
        task, self._task = self._task, None
        if task is not None:
            self._bell.close()
            self._alone.stop()
            task.cancel()
            self._holdings.turn_away(_closed_error())
            self._closing.begin(self._let_go(task))
        await self._closing.finish()

    async def _let_go(self, task: asyncio.Task[None]) -> None:
        try:
            await asyncio.gather(task, return_exceptions=True)
            if self._link is not None and not self._is_lost:
                await self._link.call(self._ask(leave=True))
        except LinkError:
            # The lease then ends by itself.
            return
        finally:
            link, self._link = self._link, None
            if link is not None:
                await link.aclose()

    # The task that calls.

    async def _run(self) -> None:
        while True:
            try:
                await self._step()
            except Exception as error:  # noqa: BLE001 - whatever it is, work goes on without it
                # Its words and its frames may hold the address.
                _logger.error(  # noqa: TRY400
                    "the shared quota failed: %s", type(error).__name__
                )
                self._lose(type(error).__name__)
                await asyncio.sleep(_RETRY_S)

    async def _step(self) -> None:
        if self._is_lost:
            await self._regain()
        await self._bell.wait()
        if not self._is_lost:
            await self._call()

    async def _call(self) -> None:
        assert self._link is not None
        began_at = self._loop.time()
        ask = self._ask()
        told = self._holdings.take_done()
        try:
            reply = await self._link.call(ask)
        except LinkError as error:
            self._holdings.not_told(told)
            self._lose(error.kind)
            return
        self._was_forgotten = reply.forgotten and ask.back
        if self._was_forgotten:
            # Emptied while it ran: what is held was told just now, what is known of the quota is
            # told next.
            self._emit(SharedQuotaRegained(0.0, forgotten=True))
            self._bell.ring()
        self._take(reply, began_at, ask)

    def _ask(self, *, leave: bool = False) -> Ask:
        now = self._loop.time()
        limits = self._limits
        holdings = self._holdings
        wanted = holdings.wanted()
        is_known = now - self._confirmed_at < self._options.ttl_s
        # The server may have forgotten the quota too: the newest answer tells of it.
        may_not_know = self._is_lost or self._was_forgotten or not is_known
        return Ask(
            id=self._process,
            seen=self._seen,
            held=holdings.kept(),
            done=holdings.told(now, with_newest=may_not_know),
            want=[0] * len(wanted) if leave else wanted,
            limits=(limits.reads, limits.writes, limits.deletes, limits.reserve),
            ttl=self._options.ttl_s * 1000,
            slack=self._slack_s * 1000,
            back=self._is_lost or is_known,
            lost=self._is_lost,
            leave=leave,
            # The one that comes back may be another, with another clock.
            at=0.0 if self._is_lost else self._roster.server_s(now) * 1000,
        )

    def _take(self, reply: Reply, began_at: float, ask: Ask) -> None:
        now = self._loop.time()
        self._reply, self._replied_at, self._confirmed_at = reply, now, began_at
        # The way there took less than there and back; the longest of late, forgotten slowly. For
        # how long the call lay unread is none of it: the server sees that by its clock.
        way_s = now - began_at - ask.unread_ms(reply.now_ms) / 1000
        self._slack_s = max(way_s, self._slack_s * 0.9)
        self._roster.heard(reply.processes, reply.rank, reply.now_ms / 1000, now)
        for grant in reply.grants:
            if grant.seq > self._seen and grant.age_ms > _UNHEARD_MS:
                self._doubt()
            self._granted(grant)
        renewal_s = self._options.ttl_s / _RENEWALS
        if self._holdings.waiting:
            self._bell.ring_at(now + min(renewal_s, reply.wait_ms / 1000))
        elif self._holdings.held:
            self._bell.ring_at(now + renewal_s)
        else:
            # Nothing to renew: an idle process is no load, and is forgotten without harm.
            self._bell.ring_at(None)
        self._note_whether_exhausted(reply)
        if self._holdings.done and reply.contended:
            self._bell.ring()

    def _granted(self, grant: Grant) -> None:
        """Take a grant, from an answer or from the channel; each counts once, in order."""
        if self._is_lost or self._task is None or grant.seq <= self._seen:
            return
        now = self._loop.time()
        if grant.seq > self._seen + 1 or now - self._confirmed_at > self._options.ttl_s:
            # One was missed, or this process has slept too long to hold anything: ask.
            self._doubt()
            self._bell.ring()
            return
        self._seen = grant.seq
        operation = OPERATIONS[grant.operation - 1]
        priority = PRIORITIES[grant.priority - 1]
        lease = self._begin(grant.seq, operation, priority, now)
        future = self._holdings.next_waiter(operation, priority)
        if future is None:
            self._end(lease, UNSENT, None)
        else:
            future.set_result(lease)
            # What this process waited for has happened, so the time it was told is over.
            self._bell.ring_at(self._confirmed_at + self._options.ttl_s / _RENEWALS)

    def _joined(self, joined: Joined) -> None:
        """Take who there is, from the channel."""
        if self._process not in joined.ids:
            # The server has forgotten us: say that we are there too.
            self._roster.confirmed(self._loop.time())
            self._bell.ring()
            return
        now, rank = self._loop.time(), joined.ids.index(self._process)
        self._roster.heard(len(joined.ids), rank, joined.now_ms / 1000, now, lay=True)
        if self._is_lost:
            self._local.meet(self._roster.known(now))

    def _alive(self) -> None:
        self._roster.confirmed(self._loop.time())

    def _doubt(self) -> None:
        if self._link is not None:
            self._link.doubt()

    def _begin(self, number: int, operation: Operation, priority: Priority, now: float) -> Lease:
        self._local.state.take()
        return self._holdings.begin(number, operation, priority, now)

    def _end(
        self, lease: Lease, kind: int, headers: QuotaHeaders | None, retry_after_s: float = 0.0
    ) -> None:
        if self._task is None:
            return
        now = self._loop.time()
        if not self._holdings.end(lease, kind, now, headers, retry_after_s):
            return
        self._local.ended(lease.sent_at, now, kind, headers, retry_after_s)
        if self._is_lost:
            self._alone.grant()
        else:
            self._call_soon()

    def _call_soon(self) -> None:
        """Have what ended told: at once if others wait or we do, else with what comes next."""
        if self._holdings.waiting or (self._reply is not None and self._reply.contended):
            self._bell.ring()
        else:
            self._bell.ring_soon()

    def _note_whether_exhausted(self, reply: Reply) -> None:
        if not (self._holdings.waiting and reply.quota > 0 and reply.left == 0):
            self._exhausted = False
        elif not self._exhausted:
            self._exhausted = True
            self._emit(QuotaExhausted(reply.quota, reply.reset_ms / 1000))

    def _emit(self, event: Event) -> None:
        if self._report is not None:
            self._report(event)

    # On our own.

    def _lose(self, kind: str) -> None:
        if self._is_lost or self._task is None:
            return
        now = self._loop.time()
        self._lost_since = now
        self._local.begin(now, self._roster.known(now))
        self._emit(SharedQuotaLost(self._local.share, kind))
        self._bell.ring()
        self._alone.grant()

    async def _connect(self) -> None:
        """Connect and tell what is held. Raises `LinkError`, with nothing left behind."""
        # From here on, for `close` to find it where closing it here is interrupted.
        self._link = link = self._new_link(self._key)
        try:
            await link.connect(
                Hearers(
                    granted=self._granted, joined=self._joined, alive=self._alive, lost=self._lose
                )
            )
            began_at = self._loop.time()
            ask = self._ask()
            told = self._holdings.take_done()
            try:
                reply = await link.call(ask)
            except LinkError:
                self._holdings.not_told(told)
                raise
        except BaseException:
            await link.aclose()
            raise
        self._alone.stop()
        lost_since, self._lost_since = self._lost_since, None
        if lost_since is not None:
            self._emit(SharedQuotaRegained(self._loop.time() - lost_since, reply.forgotten))
        self._take(reply, began_at, ask)
        if link.is_deaf:
            self._lose("ConnectionError")
        elif self._holdings.done or self._holdings.waiting:
            self._bell.ring()

    def _new_link(self, key: str) -> Link:
        return Link(self._options.url, key, self._process, self._options.timeout_s)

    async def _regain(self) -> None:
        # What was heard last of the others may not have been read yet.
        for _ in range(3):
            await asyncio.sleep(0)
        if self._link is not None:
            await self._link.aclose()
        while True:
            try:
                await self._connect()
            except LinkError:
                await asyncio.sleep(_RETRY_S)
            else:
                return


def _closed_error() -> StoreStateError:
    return StoreStateError("the Store is closed")
