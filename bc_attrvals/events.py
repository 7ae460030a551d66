"""What happens underneath, as frozen events for progress bars, metrics and logs.

`Store.subscribe` delivers them in the order things happen, on the event loop's thread. None holds
the access token or a customer's value.

`request` numbers the requests of a Store whose events are made, from 1; the number and `attempt`
pair the events of a try. `job` is the number of the bulk job a request belongs to; None for a
single call. `resource` is the path under a store's `/v3/`: "customers/attribute-values",
"customers/attributes" or "customers".
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Literal, TypeAlias

import attrs

from bc_attrvals.core.requests import Operation
from bc_attrvals.core.sync_states import Phase

_logger = logging.getLogger(__name__)


@attrs.frozen
class RequestSent:
    """A request goes out; `attempt` counts its tries from 1.

    Before this try it waited `queue_wait_s` for a slot and `quota_wait_s` for quota.
    """

    operation: Operation
    attempt: int
    request: int = 0
    method: str = ""
    job: int | None = None
    resource: str = ""
    queue_wait_s: float = 0.0
    quota_wait_s: float = 0.0


@attrs.frozen
class RequestAnswered:
    """A try was answered, or ended without an answer: `status` is None, `error` a class name."""

    operation: Operation
    status: int | None
    seconds: float
    bytes: int
    request_id: str | None
    attempt: int = 1
    request: int = 0
    method: str = ""
    job: int | None = None
    resource: str = ""
    error: str | None = None


@attrs.frozen
class RequestRetrying:
    """A request will be sent again after `delay_s`, because its try `attempt` failed.

    `reason` is the error's class name. A 429 is no failed try: it shows in `RequestAnswered`.
    """

    operation: Operation
    attempt: int
    delay_s: float
    reason: str
    request: int = 0
    method: str = ""
    job: int | None = None
    resource: str = ""


@attrs.frozen
class QuotaExhausted:
    """All calls of the window are used; requests wait `resets_in_s` for the next one."""

    quota: int | None
    resets_in_s: float


#: The kinds of bulk jobs.
JobKindName: TypeAlias = Literal["upsert", "sync", "delete", "list", "refresh"]


@attrs.frozen
class JobStarted:
    """A bulk job begins; `job` numbers the jobs of a Store from 1."""

    job: int
    kind: JobKindName


@attrs.frozen
class JobEnded:
    """A bulk job has ended: by `error`, the name of a class, or by itself (None).

    `counts` are what its report counts and is not zero, as pairs of a field's name and a number
    ("stored", "failed", "deleted" …), or the "rows" that a listing gave. `calls` counts requests
    sent, `retries` those of them sent again.
    """

    job: int
    kind: JobKindName
    seconds: float
    calls: int
    retries: int
    counts: tuple[tuple[str, int], ...] = ()
    error: str | None = None


@attrs.frozen
class ListingDriftSeen:
    """A listing changed while it was read: `total` rows before, `new_total` now."""

    page: int
    total: int
    new_total: int


@attrs.frozen
class SharedQuotaLost:
    """The server of the shared quota is out of reach; this process goes on with a share.

    `share` is the part of each window it keeps to (0.0: one call a window, because it does not know
    how many others there are), `reason` the class of what went wrong.
    """

    share: float
    reason: str


@attrs.frozen
class SharedQuotaRegained:
    """The shared quota is back, after `lost_s` without; `forgotten` if the server knew nothing."""

    lost_s: float
    forgotten: bool


@attrs.frozen
class SyncProgressed:
    """A sync has come further.

    `phase` is "loading" (desired values read), "reading" (rows of the store read), "writing" or
    "deleting". `done` and `failed` count values since the phase began, those of earlier runs of a
    journal included; `total` is how many there are in all, None while that is unknown.
    `unanswered` counts those of the failed ones, by this run, that no answer came for after all
    tries.
    """

    phase: Phase
    done: int
    failed: int = 0
    unanswered: int = 0
    total: int | None = None


@attrs.frozen
class MirrorProgressed:
    """A mirror's refresh has come further: `listed` rows were shown by answers so far."""

    listed: int


@attrs.frozen
class MirrorFoundWrong:
    """Rows of a mirror were wrong, and are repaired; see `RefreshReport` for the counts."""

    stale: int
    missing: int
    surplus: int
    uncounted: int


Event: TypeAlias = (
    RequestSent
    | RequestAnswered
    | RequestRetrying
    | QuotaExhausted
    | JobStarted
    | JobEnded
    | ListingDriftSeen
    | SharedQuotaLost
    | SharedQuotaRegained
    | SyncProgressed
    | MirrorProgressed
    | MirrorFoundWrong
)


class EventBus:
    """Delivers each event to all subscribers, also where one of them raises."""

    __slots__ = ("callbacks",)

    def __init__(self) -> None:
        #: Read only. Its truth is that of the bus, without a call; asked for each try of a request.
        self.callbacks: tuple[Callable[[Event], object], ...] = ()

    def __bool__(self) -> bool:
        """Return whether there is a subscriber; without one no events are made."""
        return bool(self.callbacks)

    def subscribe(self, callback: Callable[[Event], object]) -> Callable[[], None]:
        """Add a callback; the function returned takes it out again (twice is harmless)."""

        # An entry of its own, so that one callback subscribed twice can be taken out once.
        def entry(event: Event) -> object:
            return callback(event)

        self.callbacks = (*self.callbacks, entry)

        def unsubscribe() -> None:
            self.callbacks = tuple(one for one in self.callbacks if one is not entry)

        return unsubscribe

    def emit(self, event: Event) -> None:
        """Deliver an event. What a callback raises is logged, and goes no further.

        That holds for `CancelledError`, `SystemExit` and every other `BaseException` too. A
        `KeyboardInterrupt` is the user's: the event loop raises it in its next turn, after the code
        that emits the event has finished its step.
        """
        for callback in self.callbacks:
            try:
                callback(event)
            except KeyboardInterrupt as interrupt:
                asyncio.get_running_loop().call_soon(_raise, interrupt)
            except BaseException:
                _logger.exception("a subscriber failed on %s", type(event).__name__)


def _raise(error: BaseException) -> None:
    raise error
