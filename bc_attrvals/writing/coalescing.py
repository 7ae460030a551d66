"""Lets concurrent upserts of a few items share calls, such as those of web requests.

Between the resource above and `UpsertJob` below. A single upsert is a job of its own and does not
wait. One that comes while another is under way waits for more of them, at most
`Limits.coalesce_ms` if a write slot is free. They are then the input of one job. Each has its own
outcomes, and ends when the last of its items has one.

Upserts share a call only if their options are the same and they have no key in common. Upserts of
one key go one after the other, in the order they came.
"""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context, copy_context
from functools import partial
from typing import TypeAlias

import attrs

from bc_attrvals.core.models import AttributeValueUpsert
from bc_attrvals.core.named_value import Item, NamedValue, address_key
from bc_attrvals.core.outcomes import UpsertOutcome, UpsertReport, attach_report
from bc_attrvals.errors import BCAttrValsError
from bc_attrvals.scheduling.calls import Calls
from bc_attrvals.scheduling.exchange import CallOptions
from bc_attrvals.writing.outcomes import Outcomes
from bc_attrvals.writing.sources import COLLECTIONS, Items, check_item
from bc_attrvals.writing.upsert_job import UpsertJob

#: Makes the job that stores items.
MakeJob: TypeAlias = Callable[[Sequence[Item], Outcomes, Calls], UpsertJob]

#: The options, and whether names have to be looked up: a failed look-up must not fail upserts that
#: need none.
_Kind: TypeAlias = tuple[CallOptions, bool]


@attrs.define(eq=False)
class _Share:
    """One upsert that shares calls with others."""

    items: list[Item]
    keys: frozenset[object]
    calls: Calls
    make_job: MakeJob
    outcomes: Outcomes
    done: asyncio.Future[UpsertReport]
    context: Context
    began_at: float
    left: int
    # The group whose job stores its items, once there is one.
    group: _Group | None = None

    def note(self, outcome: UpsertOutcome, error: BaseException | None, calls: Calls) -> None:
        """Note the outcome of an item; the last one ends the upsert."""
        self.outcomes.note(outcome)
        self.left -= 1
        if not self.left:
            self.end(error, calls)

    def end(self, error: BaseException | None, calls: Calls) -> None:
        """End the upsert unless it has ended, with its report or its own copy of an error."""
        if self.done.done():
            return
        seconds = asyncio.get_running_loop().time() - self.began_at
        report = self.outcomes.report(calls.calls, calls.retries, seconds)
        if not self.left and (error is None or report.ok):
            self.done.set_result(report)
        elif error is None:
            self.done.cancel()
        else:
            self.done.set_exception(_own(error, report))


@attrs.define(eq=False)
class _Group:
    """Upserts whose items one job stores, with the `Calls` of the first upsert."""

    shares: list[_Share]
    job: UpsertJob | None = None
    task: asyncio.Task[None] | None = None

    @property
    def calls(self) -> Calls:
        return self.shares[0].calls

    async def run(self) -> None:
        """Store the items; each upsert ends when all its items have outcomes."""
        owners = {id(item): share for share in self.shares for item in share.items}
        items = [item for share in self.shares for item in share.items]
        ready: deque[UpsertOutcome] = deque()
        outcomes = Outcomes(0, ready, most_untaken=len(items))
        self.job = job = self.shares[0].make_job(items, outcomes, self.calls)

        async def settle() -> None:
            while ready:
                outcome = ready.popleft()
                owners[id(outcome.item)].note(outcome, job.error, self.calls)

        await job.run(settle)
        await settle()


class Coalescer:
    """The upserts of a few items of one Store."""

    __slots__ = ("_kinds", "_tasks", "most_running", "window_s")

    def __init__(self, *, coalesce_ms: float, writes: int) -> None:
        self.window_s = coalesce_ms / 1000
        self.most_running = writes
        self._kinds: dict[_Kind, SmallUpserts] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def others(self, items: Items, calls: Calls) -> SmallUpserts | None:
        """Return the upserts that these items may share calls with; None for a batch or more."""
        if not self.window_s or not isinstance(items, COLLECTIONS):
            return None
        if not 0 < len(items) < calls.sizes.batch:
            return None
        kind = (calls.options, any(isinstance(item, NamedValue) for item in items))
        found = self._kinds.get(kind)
        if found is None:
            found = self._kinds[kind] = SmallUpserts(self, kind)
        return found

    def forget(self, kind: _Kind) -> None:
        """Forget a kind that has nothing under way."""
        self._kinds.pop(kind, None)

    def keep(self, task: asyncio.Task[None]) -> None:
        """Keep a task until it is done."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """Start all waiting upserts and wait for their ends. With a closed scheduler they fail."""
        for one in list(self._kinds.values()):
            one.flush(at_once=True)
        while self._tasks:
            await asyncio.wait(self._tasks)


class SmallUpserts:
    """The upserts of a few items with the same options.

    As a context manager it surrounds an upsert that runs as a job of its own.
    """

    __slots__ = ("_busy", "_count", "_kind", "_owner", "_running", "_timer", "_waiting")

    def __init__(self, owner: Coalescer, kind: _Kind) -> None:
        self._owner = owner
        self._kind = kind
        # The number of jobs under way, and the keys of the shared ones.
        self._running = 0
        self._busy: set[object] = set()
        self._waiting: deque[_Share] = deque()
        # The number of waiting items.
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_busy(self) -> bool:
        """Whether one of them is under way."""
        return self._running > 0

    def __enter__(self) -> None:
        self._running += 1

    def __exit__(self, *exc_info: object) -> None:
        self._leave()

    async def share(
        self, items: Items, calls: Calls, make_job: MakeJob, most_failures: int
    ) -> UpsertReport:
        """Store items in calls shared with other upserts, and return the report of these items.

        Raises the error that ends the job, with the report of these items, and `InvalidInputError`
        for an entry that is no item. Cancelled, it returns at once: items that wait are not sent,
        and a call shared with others goes on.
        """
        assert isinstance(items, COLLECTIONS)
        checked = [check_item(item, index) for index, item in enumerate(items)]
        loop = asyncio.get_running_loop()
        share = _Share(
            checked,
            frozenset(map(_key, checked)),
            calls,
            make_job,
            Outcomes(most_failures),
            loop.create_future(),
            copy_context(),
            loop.time(),
            len(checked),
        )
        self._waiting.append(share)
        self._count += len(checked)
        self.flush()
        try:
            return await share.done
        except asyncio.CancelledError:
            self._give_up(share)
            raise

    def flush(self, *, at_once: bool = False) -> None:
        """Start the upserts that may start now; `at_once` starts all."""
        loop = asyncio.get_running_loop()
        while self._waiting:
            share = self._waiting[0]
            due_at = share.began_at + self._owner.window_s
            is_due = not self._running or loop.time() >= due_at
            is_due = is_due or self._count >= share.calls.sizes.batch
            if not at_once and (self._running >= self._owner.most_running or not is_due):
                if not is_due and self._timer is None:
                    self._timer = loop.call_at(due_at, self._wake)
                return
            shares = self._take(at_once=at_once)
            if not shares:
                # Each has a key that is under way, and starts when that call has ended.
                return
            self._running += 1
            group = _Group(shares)
            for one in shares:
                one.group = group
            group.task = loop.create_task(group.run(), context=share.context)
            self._owner.keep(group.task)
            group.task.add_done_callback(partial(self._end, group))

    def _wake(self) -> None:
        self._timer = None
        self.flush()

    def _take(self, *, at_once: bool) -> list[_Share]:
        """Take the upserts of one call: no key twice, and the upserts of one key in their order."""
        taken: list[_Share] = []
        passed: list[_Share] = []
        keys = set() if at_once else set(self._busy)
        room = self._waiting[0].calls.sizes.batch
        while self._waiting and room:
            share = self._waiting.popleft()
            if len(share.items) <= room and keys.isdisjoint(share.keys):
                taken.append(share)
                room -= len(share.items)
            else:
                passed.append(share)
            keys |= share.keys
        self._waiting.extendleft(reversed(passed))
        for share in taken:
            self._count -= len(share.items)
            self._busy |= share.keys
        return taken

    def _end(self, group: _Group, task: asyncio.Task[None]) -> None:
        """Note that a job has ended; called even if it was cancelled before it began."""
        error = None if group.job is None else group.job.error
        if error is None and not task.cancelled():
            error = task.exception()
        for share in group.shares:
            share.end(error, group.calls)
            self._busy -= share.keys
        self._leave()

    def _leave(self) -> None:
        self._running -= 1
        self.flush()
        if not self._running:
            self._owner.forget(self._kind)

    def _give_up(self, share: _Share) -> None:
        """Drop an upsert whose caller was cancelled; cancel its job if no caller is left."""
        group = share.group
        if group is None:
            self._waiting.remove(share)
            self._count -= len(share.items)
        elif group.task is not None and all(one.done.done() for one in group.shares):
            group.task.cancel()


def _key(item: Item) -> object:
    """Return the key that distinguishes items before names are looked up."""
    if isinstance(item, AttributeValueUpsert):
        return item.key
    customer = item.customer
    return address_key(customer) if isinstance(customer, str) else customer, item.attribute


def _own(error: BaseException, report: UpsertReport) -> BaseException:
    """Return a copy of a shared error, with the report of one upsert."""
    own = copy.copy(error).with_traceback(error.__traceback__)
    own.__cause__, own.__context__ = error.__cause__, error.__context__
    if isinstance(own, BCAttrValsError):
        attach_report(own, report)
    return own
