"""Decides which requests go wrong, and how; the server carries the decision out.

A request is asked about once, after its token was found right and its quota unit was taken, so a
dropped request costs its unit as it does at the service.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Final

import attrs

from bc_attrvals.sandbox.operations import Operation


class FaultKind(StrEnum):
    """What goes wrong; equal to its plain string.

    The answers with an error status do not apply the request, unless the fault says `applied`.
    DROP_AFTER, CUT_BODY and HTML_BODY have applied it. HANG has not, and lasts until the client
    goes away or the sandbox closes.
    """

    INTERNAL_ERROR = "500"
    BAD_GATEWAY = "502"
    SERVICE_UNAVAILABLE = "503"
    GATEWAY_TIMEOUT = "504"
    STORE_UNDER_LOAD = "429"
    STORE_SUSPENDED = "suspended"
    DROP_BEFORE = "drop_before"
    DROP_AFTER = "drop_after"
    CUT_BODY = "cut_body"
    HTML_BODY = "html_body"
    HANG = "hang"
    SLOW = "slow"
    UNAUTHORIZED = "401"
    FORBIDDEN = "403"
    PROBLEM_JSON = "problem_json"


ERROR_ANSWER_KINDS: Final = frozenset(
    {
        FaultKind.INTERNAL_ERROR,
        FaultKind.BAD_GATEWAY,
        FaultKind.SERVICE_UNAVAILABLE,
        FaultKind.GATEWAY_TIMEOUT,
        FaultKind.STORE_UNDER_LOAD,
        FaultKind.STORE_SUSPENDED,
        FaultKind.UNAUTHORIZED,
        FaultKind.FORBIDDEN,
        FaultKind.PROBLEM_JSON,
    }
)


def _to_kind(kind: FaultKind | str) -> FaultKind:
    try:
        return FaultKind(kind)
    except ValueError:
        known = ", ".join(FaultKind)
        raise ValueError(f"unknown fault kind {kind!r}; one of {known}") from None


def _to_operation(operation: Operation | str | None) -> Operation | None:
    try:
        return None if operation is None else Operation(operation)
    except ValueError:
        known = ", ".join(Operation)
        raise ValueError(f"unknown operation {operation!r}; one of {known}") from None


@attrs.frozen
class Fault:
    """One way to go wrong, and which requests it meets.

    `probability` is tossed per matching request; `operation` None matches all. The first `after`
    matching requests are spared, and after `times` hits the fault is spent (None: never).
    `retry_after_s` goes into `Retry-After` and `X-Retry-After` of an error answer; `delay_s` passes
    before the fault shows; `applied` lets an error answer come after the request was applied, as
    502 and 504 may.
    """

    kind: FaultKind = attrs.field(converter=_to_kind)
    probability: float = attrs.field(default=1.0, kw_only=True)
    operation: Operation | None = attrs.field(default=None, converter=_to_operation, kw_only=True)
    times: int | None = attrs.field(default=None, kw_only=True)
    after: int = attrs.field(default=0, kw_only=True)
    retry_after_s: int | None = attrs.field(default=None, kw_only=True)
    delay_s: float = attrs.field(default=0.0, kw_only=True)
    applied: bool = attrs.field(default=False, kw_only=True)

    def __attrs_post_init__(self) -> None:
        """Refuse what could never work as meant."""
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability must be from 0 to 1, not {self.probability!r}")
        if self.times is not None and self.times < 1:
            raise ValueError(f"times must be at least 1 or None, not {self.times!r}")
        if self.after < 0:
            raise ValueError(f"after must not be negative, got {self.after!r}")
        if self.delay_s < 0:
            raise ValueError(f"delay_s must not be negative, got {self.delay_s!r}")
        if self.retry_after_s is not None and self.retry_after_s < 0:
            raise ValueError(f"retry_after_s must not be negative, got {self.retry_after_s!r}")
        only_answers = self.kind not in ERROR_ANSWER_KINDS
        if only_answers and self.retry_after_s is not None:
            raise ValueError(f"retry_after_s has no answer to stand in with {self.kind.value!r}")
        if only_answers and self.applied:
            raise ValueError(f"applied is already decided by {self.kind.value!r}")


@attrs.define
class _Active:
    fault: Fault
    seen: int = 0
    hits: int = 0

    @property
    def is_spent(self) -> bool:
        return self.fault.times is not None and self.hits >= self.fault.times


class Faults:
    """The faults in force: scripted ones first, then active ones in the order of adding.

    Change it at any time; the next request sees the change. Iterating gives the faults that can
    still hit.
    """

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        """Begin with these faults active."""
        self._active: list[_Active] = []
        self._scripts: dict[Operation | None, deque[Fault | None]] = {}
        for fault in faults:
            self.add(fault)

    def __iter__(self) -> Iterator[Fault]:
        """Iterate over a snapshot of the active faults."""
        return iter([active.fault for active in self._active if not active.is_spent])

    def __len__(self) -> int:
        """Return how many faults can still hit, scripts apart."""
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        """Show counts."""
        return f"<Faults active={len(self)} scripted={self.scripted}>"

    @property
    def scripted(self) -> int:
        """How many requests the scripts still speak for."""
        return sum(map(len, self._scripts.values()))

    def add(self, fault: Fault | FaultKind | str) -> None:
        """Put a fault in force; a bare kind hits every request."""
        self._active.append(_Active(fault if isinstance(fault, Fault) else Fault(fault)))

    def clear(self) -> None:
        """End all faults and scripts."""
        self._active.clear()
        self._scripts.clear()

    def script(
        self,
        kinds: Iterable[Fault | FaultKind | str | None],
        operation: Operation | str | None = None,
    ) -> None:
        """Give the next requests exactly these faults in order, None for a healthy one.

        A script for an operation goes before one for all. A Fault's own `probability`, `times`,
        `after` and `operation` do not matter here.
        """
        steps = [one if one is None or isinstance(one, Fault) else Fault(one) for one in kinds]
        self._scripts.setdefault(_to_operation(operation), deque()).extend(steps)

    def next_for(self, operation: Operation, rng: random.Random) -> Fault | None:
        """Return what shall happen to a request that arrives now, and count it."""
        for scope in (operation, None):
            script = self._scripts.get(scope)
            if script:
                return script.popleft()
        for active in self._active:
            fault = active.fault
            if fault.operation not in (None, operation) or active.is_spent:
                continue
            active.seen += 1
            # Tossed for certain ones too, so that lowering a probability does not shift the later
            # tosses.
            hit = rng.random() < fault.probability
            if active.seen > fault.after and hit:
                active.hits += 1
                return fault
        return None
