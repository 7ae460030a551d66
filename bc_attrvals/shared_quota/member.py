"""One process as a member of a shared quota: calls the server, and works without it if it is lost.

Under `quota.py`. Requests queue in `leases.py`; one task makes all calls: what ended, what is held
and what waits go out together in one, and grants come back in its answer or, given by another
process's call, over a channel. So nobody polls: a process calls when it has something to report, or
at the time that the server named. While the server is out of reach, `degraded.py` grants.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
from collections.abc import Callable, Coroutine
from typing import Any, Final

from bc_attrvals.core.limits import Limits
from bc_attrvals.core.rate_limit import QuotaHeaders, QuotaSnapshot
from bc_attrvals.core.requests import Operation
from bc_attrvals.errors import StoreStateError
from bc_attrvals.events import Event, QuotaExhausted, SharedQuotaLost, SharedQuotaRegained
from bc_attrvals.scheduling.quota import Priority
from bc_attrvals.shared_quota.degraded import DegradedMode
from bc_attrvals.shared_quota.leases import OPERATIONS, PRIORITIES, UNSENT, Lease, Leases
from bc_attrvals.shared_quota.membership import Membership
from bc_attrvals.shared_quota.options import QuotaOptions
from bc_attrvals.shared_quota.server_link import (
    PING_S,
    Ask,
    Callbacks,
    Grant,
    Joined,
    Link,
    LinkError,
    Reply,
)
from bc_attrvals.shared_quota.wake_up import WakeUp

_logger = logging.getLogger(__name__)

#: Renewals of a lease before the server would end it.
_RENEWALS: Final = 3
#: Seconds between two tries of the server while it is out of reach.
_RETRY_S: Final = 0.5
#: A grant of this age ought to have come over the channel.
_MISSED_MS: Final = 250.0
#: After this long without a confirmation, what is known of the others is old.
_FRESH_S: Final = 2 * PING_S


class Member:
    """One process's part in a shared quota. Bound to the running loop."""

    def __init__(
        self,
        options: QuotaOptions,
        limits: Limits,
        store_hash: str,
        emit: Callable[[Event], object] | None,
    ) -> None:
        self._options = options
        self._limits = limits
        self._emit_to = emit
        # The braces put all keys of a store in one slot (Redis cluster specification, Hash tags).
        self._key = f"{options.namespace}:{{{store_hash}}}"
        self._process = self.new_id()
        self._loop = asyncio.get_running_loop()
        self._leases = leases = Leases()
        self._degraded = DegradedMode(limits, options.fallback_share, leases)
        self._wake_up = WakeUp(lambda: leases.ended)
        self._membership = Membership(
            hold_s=options.lease_s, fresh_s=_FRESH_S + 2 * options.timeout_s
        )
        self._was_forgotten = False
        self._link: Link | None = None
        self._task: asyncio.Task[None] | None = None
        self._seen = 0
        self._reply: Reply | None = None
        self._replied_at = -math.inf
        self._confirmed_at = -math.inf
        self._slack_s = 0.0
        self._lost_since: float | None = None
        self._exhausted = False
        # The last refusal that was logged.
        self._refusal: str | None = None

    @property
    def is_lost(self) -> bool:
        """Whether the server is out of reach, so that this process grants by itself."""
        return self._lost_since is not None

    @staticmethod
    def new_id() -> str:
        """Return an id for a process."""
        return os.urandom(8).hex()

    @property
    def held(self) -> int:
        """Leases under way."""
        return len(self._leases.held)

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return self._leases.waiting

    async def start(self) -> str | None:
        """Connect, or start in degraded mode; return the reason if another try is of no use."""
        failed: LinkError | None = None
        try:
            await self._connect()
        except LinkError as error:
            failed = error
        if failed is not None and failed.refusal is not None:
            return failed.refusal
        self._task = self._loop.create_task(self._run())
        if failed is not None:
            self._lose(failed.kind)
        elif self._link is not None and self._link.has_lost_channels:
            self._lose("ConnectionError")
        return None

    def snapshot(self) -> QuotaSnapshot:
        """Return what is known of the quota now, all processes taken together."""
        now = self._loop.time()
        reply = self._reply
        own = self._degraded.state.snapshot(now)
        if reply is None or reply.quota < 0 or self.is_lost:
            return own
        resets_in_s = reply.reset_ms / 1000 - (now - self._replied_at)
        if resets_in_s < 0:
            return own
        return QuotaSnapshot(reply.quota, reply.left, resets_in_s, own.window_s)

    async def acquire(self, operation: Operation, priority: Priority) -> Lease:
        """Wait for a lease. Cancelled, it leaves nothing taken."""
        future: asyncio.Future[Lease] = self._loop.create_future()
        self._leases.wait(future, operation, priority)
        if self.is_lost:
            self._degraded.grant()
        else:
            self._wake_up.wake()
        try:
            return await future
        except asyncio.CancelledError:
            if future.cancelled():
                self._leases.remove(future, operation, priority)
                if not self.is_lost:
                    self._call_soon()
            elif future.exception() is None:
                # Granted and cancelled in one step of the loop.
                self.end(future.result(), UNSENT, None)
            raise

    def note_flows(self, operation: Operation, flows: int) -> None:
        """Note how many bulk jobs wait; the next call reports it."""
        self._leases.flows[operation] = flows

    def end(
        self, lease: Lease, kind: int, headers: QuotaHeaders | None, retry_after_s: float = 0.0
    ) -> None:
        """End a lease, and report it with the next call."""
        if self._task is None:
            return
        now = self._loop.time()
        ended = self._leases.end(lease, kind, now, headers, retry_after_s)
        if ended is None:
            return
        self._degraded.ended(ended)
        if self.is_lost:
            self._degraded.grant()
        else:
            self._call_soon()

    def stop(self) -> Coroutine[Any, Any, None]:
        """Raise `StoreStateError` for all that wait; return the rest of the closing, to await."""
        task, self._task = self._task, None
        self._wake_up.close()
        self._degraded.stop()
        if self._loop.is_closed() or task is None:
            # Nobody waits any more: the loop has ended, and its tasks with it.
            return self._disconnect()
        task.cancel()
        self._leases.fail_all(StoreStateError("the Store is closed"))
        return self._leave(task)

    async def _leave(self, task: asyncio.Task[None]) -> None:
        try:
            await asyncio.gather(task, return_exceptions=True)
            if self._link is not None and not self.is_lost:
                await self._link.call(self._ask(leave=True))
        except LinkError:
            # The lease then ends by itself.
            return
        finally:
            await self._disconnect()

    async def _disconnect(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.aclose()

    async def _run(self) -> None:
        while True:
            try:
                await self._step()
            except asyncio.CancelledError:
                if self._task is not None and self._link is not None:
                    # The loop ends and the quota was not closed: later is too late to disconnect.
                    await self._link.aclose()
                raise
            except Exception as error:  # noqa: BLE001 - requests continue in degraded mode
                # Its message and its frames may hold the URL.
                _logger.error(  # noqa: TRY400
                    "the shared quota failed: %s", type(error).__name__
                )
                self._lose(type(error).__name__)
                await asyncio.sleep(_RETRY_S)

    async def _step(self) -> None:
        if self.is_lost:
            await self._regain()
        await self._wake_up.wait()
        if not self.is_lost:
            await self._call()

    async def _call(self) -> None:
        assert self._link is not None
        try:
            reply, ask, began_at = await self._report(self._link)
        except LinkError as error:
            self._lose(error.kind)
            return
        self._was_forgotten = reply.forgotten and ask.back
        if self._was_forgotten:
            # The server was emptied while this process ran. What is held was reported just now;
            # what is known of the quota is reported next.
            self._emit(SharedQuotaRegained(0.0, forgotten=True))
            self._wake_up.wake()
        self._take(reply, ask, began_at)

    async def _report(self, link: Link) -> tuple[Reply, Ask, float]:
        """Call the server; return its answer, what it was asked, and when that began."""
        began_at, ask = self._loop.time(), self._ask()
        reported, self._leases.ended = self._leases.ended, []
        try:
            return await link.call(ask), ask, began_at
        except LinkError:
            # They may have been reported; reporting them twice is harmless.
            self._leases.ended = reported + self._leases.ended
            raise

    def _ask(self, *, leave: bool = False) -> Ask:
        now = self._loop.time()
        limits = self._limits
        leases = self._leases
        wanted = leases.wanted()
        is_known = now - self._confirmed_at < self._options.ttl_s
        # The server may have forgotten the quota too: the newest answer is reported again.
        may_not_know = self.is_lost or self._was_forgotten or not is_known
        return Ask(
            id=self._process,
            seen=self._seen,
            held=leases.as_held(),
            done=leases.entries(now, with_newest=may_not_know),
            want=[0] * len(wanted) if leave else wanted,
            flows=list(leases.flows.values()),
            limits=(limits.reads, limits.writes, limits.deletes, limits.reserve),
            ttl=self._options.ttl_s * 1000,
            slack=self._slack_s * 1000,
            back=self.is_lost or is_known,
            lost=self.is_lost,
            leave=leave,
            # The server that returns may be another one, with another clock.
            at=0.0 if self.is_lost else self._membership.server_s(now) * 1000,
        )

    def _take(self, reply: Reply, ask: Ask, began_at: float) -> None:
        now = self._loop.time()
        self._reply, self._replied_at, self._confirmed_at = reply, now, began_at
        # The way there took less than the round trip. The slack is the longest recent one, and
        # decays. Time in which the call waited unread is left out: the server measures it itself.
        way_s = now - began_at - ask.unread_ms(reply.now_ms) / 1000
        self._slack_s = max(way_s, self._slack_s * 0.9)
        self._membership.update(reply.processes, reply.rank, reply.now_ms / 1000, now)
        for grant in reply.grants:
            if grant.seq > self._seen and grant.age_ms > _MISSED_MS:
                self._check_channels()
            self._granted(grant)
        renewal_s = self._options.ttl_s / _RENEWALS
        if self._leases.waiting:
            self._wake_up.wake_at(now + min(renewal_s, reply.wait_ms / 1000))
        elif self._leases.held:
            self._wake_up.wake_at(now + renewal_s)
        else:
            # Nothing to renew: an idle process makes no calls, and may be forgotten.
            self._wake_up.wake_at(None)
        self._note_whether_exhausted(reply)
        if self._leases.ended and reply.contended:
            self._wake_up.wake()

    def _granted(self, grant: Grant) -> None:
        """Take a grant, from an answer or from the channel; each counts once, in order."""
        if self.is_lost or self._task is None or grant.seq <= self._seen:
            return
        now = self._loop.time()
        if grant.seq > self._seen + 1 or now - self._confirmed_at > self._options.ttl_s:
            # A grant was missed, or this process was asleep for longer than a lease lasts: ask.
            self._check_channels()
            self._wake_up.wake()
            return
        self._seen = grant.seq
        operation = OPERATIONS[grant.operation - 1]
        priority = PRIORITIES[grant.priority - 1]
        self._degraded.state.take()
        lease = self._leases.begin(grant.seq, operation, priority, now)
        future = self._leases.next_waiter(operation, priority)
        if future is None:
            self.end(lease, UNSENT, None)
        else:
            future.set_result(lease)
            # What this process waited for has happened: the time named by the server is over.
            self._wake_up.wake_at(self._confirmed_at + self._options.ttl_s / _RENEWALS)

    def _joined(self, joined: Joined) -> None:
        """Take a report of the members, from the channel."""
        if self._process not in joined.ids:
            # The server has forgotten this process: call it.
            self._membership.confirmed(self._loop.time())
            self._wake_up.wake()
            return
        now, rank = self._loop.time(), joined.ids.index(self._process)
        self._membership.update(len(joined.ids), rank, joined.now_ms / 1000, now, is_delayed=True)
        if self.is_lost:
            self._degraded.set_members(self._membership.known(now))

    def _check_channels(self) -> None:
        if self._link is not None:
            self._link.check_channels()

    def _call_soon(self) -> None:
        """Report what ended: at once if anybody waits, else with the next call."""
        if self._leases.waiting or (self._reply is not None and self._reply.contended):
            self._wake_up.wake()
        else:
            self._wake_up.wake_soon()

    def _note_whether_exhausted(self, reply: Reply) -> None:
        if not (self._leases.waiting and reply.quota > 0 and reply.left == 0):
            self._exhausted = False
        elif not self._exhausted:
            self._exhausted = True
            self._emit(QuotaExhausted(reply.quota, reply.reset_ms / 1000))

    def _emit(self, event: Event) -> None:
        if self._emit_to is not None:
            self._emit_to(event)

    def _lose(self, kind: str) -> None:
        if self.is_lost or self._task is None:
            return
        now = self._loop.time()
        self._lost_since = now
        self._degraded.start(now, self._membership.known(now))
        self._emit(SharedQuotaLost(self._degraded.share, kind))
        self._wake_up.wake()
        self._degraded.grant()

    async def _connect(self) -> None:
        """Connect and report what is held. Raises `LinkError`, with nothing left behind."""
        # Set before it connects, so that `stop` finds it if this is interrupted.
        self._link = link = Link(
            self._options.url, self._key, self._process, self._options.timeout_s
        )
        try:
            await link.connect(
                Callbacks(
                    granted=self._granted,
                    joined=self._joined,
                    alive=lambda: self._membership.confirmed(self._loop.time()),
                    lost=self._lose,
                )
            )
            reply, ask, began_at = await self._report(link)
        except BaseException:
            await link.aclose()
            raise
        self._degraded.stop()
        lost_since, self._lost_since = self._lost_since, None
        if lost_since is not None:
            self._emit(SharedQuotaRegained(self._loop.time() - lost_since, reply.forgotten))
        self._take(reply, ask, began_at)
        if link.has_lost_channels:
            self._lose("ConnectionError")
        elif self._leases.ended or self._leases.waiting:
            self._wake_up.wake()

    async def _regain(self) -> None:
        # The last report of the members may not have been read yet.
        for _ in range(3):
            await asyncio.sleep(0)
        if self._link is not None:
            await self._link.aclose()
        while True:
            try:
                await self._connect()
            except LinkError as error:
                if error.refusal is not None and error.refusal != self._refusal:
                    self._refusal = error.refusal
                    _logger.warning("the shared quota: %s", error.refusal)
                await asyncio.sleep(_RETRY_S)
            else:
                return
