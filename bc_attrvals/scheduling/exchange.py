"""One request on its way through its tries: what it was given, and how far it has come.

Between the jobs above, which wait for it, and the scheduler, which moves it on.
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
    """The options of a view of a Store; a priority of None leaves the choice to the operation."""

    timeout_s: float = 30.0
    retry: RetryPolicy = msgspec.field(default_factory=RetryPolicy)
    priority: Priority | None = None


class Tally:
    """Requests of one job that were put on the wire, and those of them that were sent again.

    `job` is the job's number; None for single calls.
    """

    __slots__ = ("calls", "job", "retries")

    def __init__(self, job: int | None = None) -> None:
        self.job = job
        self.calls = 0
        self.retries = 0

    def __repr__(self) -> str:
        return f"<Tally {self.calls} calls, {self.retries} retries>"


class Worker(msgspec.Struct, eq=False):
    """A task that makes calls one after the other, and how far its present call is.

    A write on the wire can't be called back: closing its connection would free its slot while the
    service still works on it. So a worker is never just cancelled: see `abandon` and `finish`.
    """

    # Called when the call begins to wait for its next try.
    on_pause: Callable[[], None] | None = None
    task: asyncio.Task[Any] | None = None
    on_wire: bool = False
    # Whether the present call waits for its next try, or for its slot after a failed one.
    has_failed: bool = False
    # Whether the present call, or the last one, was ever sent.
    was_sent: bool = False
    is_abandoned: bool = False
    is_finishing: bool = False

    def abandon(self) -> None:
        """Stop waiting for it: a call on the wire ends by itself, anything else ends now."""
        self.is_abandoned = True
        if not self.on_wire and self.task is not None:
            self.task.cancel()

    def finish(self) -> None:
        """End it because its job ends: a call on the wire is waited for, and is its last try."""
        if self.on_wire:
            self.is_finishing = True
        elif self.task is not None:
            self.task.cancel()


class Exchange(msgspec.Struct, eq=False):
    """One request on its way through its tries."""

    request: Request
    options: CallOptions
    priority: Priority
    flow: Flow | None = None
    tally: Tally | None = None
    worker: Worker | None = None
    # Its number in events and log lines, once there are any; and how often it was sent.
    number: int = 0
    sent: int = 0
    # Tries that ended in an error, as the retry policy counts them.
    failures: int = 0
    waited_s: float = 0.0
    refusals: int = 0
    quota_refusals: int = 0
    # What the last try ended with.
    error: BCAttrValsError | None = None
    # Whether it was sent again at once because a kept connection was lost.
    has_reconnected: bool = False
    # Whether it was cancelled on the wire, and whether the Store was closed underneath.
    was_cut_off: bool = False
    was_closed: bool = False

    @property
    def job(self) -> int | None:
        """The number of the job it belongs to; None for a single call."""
        return None if self.tally is None else self.tally.job

    def fail(self, error: BCAttrValsError) -> None:
        """Note what a try ended with."""
        self.error = error
        if self.worker is not None:
            self.worker.has_failed = True

    @property
    def is_last_try(self) -> bool:
        """Whether the job was ended by another call, so that this one is not sent again."""
        return self.worker is not None and self.worker.is_finishing
