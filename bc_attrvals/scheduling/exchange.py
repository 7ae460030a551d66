"""One request and the state of its tries.

Between the jobs above, which wait for it, and the scheduler, which sends it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from bc_attrvals.core.requests import Request
from bc_attrvals.core.retry import RetryPolicy
from bc_attrvals.errors import BCAttrValsError
from bc_attrvals.scheduling.quota import Flow, Priority


class CallOptions(msgspec.Struct, frozen=True):
    """The options of a view of a Store. With a priority of None, bulk jobs alone are bulk."""

    timeout_s: float = 30.0
    retry: RetryPolicy = msgspec.field(default_factory=RetryPolicy)
    priority: Priority | None = None


class Tally:
    """Counts of the requests of one job: all tries sent, and those sent again.

    `job` is the job's number; None for single calls.
    """

    __slots__ = ("calls", "job", "retries")

    def __init__(self, job: int | None = None) -> None:
        self.job = job
        self.calls = 0
        self.retries = 0

    def __repr__(self) -> str:
        return f"<Tally {self.calls} calls, {self.retries} retries>"


class OutdatedError(Exception):
    """The size of calls was lowered while a request waited for its slot; it was not sent."""


class Worker(msgspec.Struct, eq=False):
    """A task that makes calls one after the other, and the state of its present call.

    Cancelling a write on the wire does not stop it: its slot would be free while the service still
    works on it. So a worker is never just cancelled; see `abandon` and `finish`.
    """

    # Called when the call begins to wait for its next try.
    on_pause: Callable[[], None] | None = None
    # Called when a call gets its slot after a wait: whether it is now larger than the Store's size.
    is_outdated: Callable[[], bool] | None = None
    task: asyncio.Task[Any] | None = None
    on_wire: bool = False
    # Whether the present call waits for its next try, or for its slot after a failed one.
    has_failed: bool = False
    # Whether the present call, or the last one, was ever sent.
    was_sent: bool = False
    is_abandoned: bool = False
    is_finishing: bool = False

    def abandon(self) -> None:
        """Stop waiting for it: a call on the wire ends by itself, a call not sent ends now."""
        self.is_abandoned = True
        if not self.on_wire and self.task is not None:
            self.task.cancel()

    def finish(self) -> None:
        """End it because its job ends: a call on the wire is waited for and not sent again."""
        if self.on_wire:
            self.is_finishing = True
        elif self.task is not None:
            self.task.cancel()


class Exchange(msgspec.Struct, eq=False):
    """One request and the state of its tries."""

    request: Request
    options: CallOptions
    priority: Priority
    flow: Flow | None = None
    tally: Tally = msgspec.field(default_factory=Tally)
    worker: Worker | None = None
    # Its number in events and log lines, 0 before the first of them; and how often it was sent.
    number: int = 0
    sent: int = 0
    # Tries that ended in an error, as the retry policy counts them.
    failures: int = 0
    waited_s: float = 0.0
    refusals: int = 0
    quota_refusals: int = 0
    # The error of the last try.
    error: BCAttrValsError | None = None
    # Whether it was sent again at once because a kept connection was lost.
    has_reconnected: bool = False
    # Whether it was cancelled on the wire, and whether closing the Store cancelled it.
    was_cut_off: bool = False
    was_closed: bool = False

    @property
    def job(self) -> int | None:
        """The number of the job it belongs to; None for a single call."""
        return self.tally.job

    def fail(self, error: BCAttrValsError) -> None:
        """Note the error of a try."""
        self.error = error
        if self.worker is not None:
            self.worker.has_failed = True

    @property
    def is_last_try(self) -> bool:
        """Whether another call has ended the job, so that this one is not sent again."""
        return self.worker is not None and self.worker.is_finishing
