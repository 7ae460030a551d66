"""Decides which requests go wrong, and how; `request_handler` carries the decision out.

Each request is decided once, after its token was checked and its quota unit was taken. So a dropped
request costs its unit, as it does at the service.
"""

from __future__ import annotations

import difflib
import math
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from typing import Any, Final, Self, TypeVar

import attrs

from bc_attrvals.sandbox.operations import Operation

E = TypeVar("E", bound=StrEnum)


class FaultKind(StrEnum):
    """What goes wrong; equal to its plain string.

    Error answers do not apply the request and misleading answers do, unless the fault's `applied`
    says otherwise. DROP_AFTER and CUT_BODY have applied it, DROP_BEFORE and HANG have not. HANG
    lasts until the client goes away or the sandbox closes.
    """

    BAD_REQUEST = "400"
    UNAUTHORIZED = "401"
    FORBIDDEN = "403"
    CONFLICT = "409"
    TOO_LARGE = "413"
    LOCKED = "423"
    STORE_UNDER_LOAD = "429"
    INTERNAL_ERROR = "500"
    BAD_GATEWAY = "502"
    SERVICE_UNAVAILABLE = "503"
    GATEWAY_TIMEOUT = "504"
    STORE_SUSPENDED = "suspended"
    PROBLEM_JSON = "problem_json"
    HTML_BODY = "html_body"
    ERRORS_BODY = "errors_body"
    EMPTY_OBJECT = "200"
    ACCEPTED = "202"
    NO_CONTENT = "204"
    MULTI_STATUS = "207"
    NULL_DATA = "null_data"
    ROWS_WITHOUT_ID = "rows_without_id"
    ROWS_WITHOUT_DATES = "rows_without_dates"
    DROP_BEFORE = "drop_before"
    DROP_AFTER = "drop_after"
    CUT_BODY = "cut_body"
    HANG = "hang"
    SLOW = "slow"


_DROPS: Final = frozenset(map(FaultKind, ("drop_before", "drop_after", "cut_body", "hang", "slow")))
_MISLEADING: Final = (
    "html_body errors_body 200 202 204 207 null_data rows_without_id rows_without_dates"
)
#: A success status with another content than the service's own.
MISLEADING_KINDS: Final = frozenset(map(FaultKind, _MISLEADING.split()))
ERROR_ANSWER_KINDS: Final = frozenset(FaultKind) - _DROPS - MISLEADING_KINDS

#: The longest delay of a fault, and the largest latency.
MAX_DELAY_S: Final = 3_600
_MOST_DIGITS: Final = 9


def _to_kind(kind: FaultKind | str) -> FaultKind:
    return _member("fault kind", FaultKind, kind)


def _to_operation(operation: Operation | str | None) -> Operation | None:
    return None if operation is None else _member("operation", Operation, operation)


def _member(what: str, names: type[E], given: str) -> E:
    try:
        return names(given)
    except ValueError:
        raise ValueError(_unknown(what, given, names)) from None


def _unknown(what: str, given: object, names: Iterable[str]) -> str:
    """Return a message with the known names and the nearest one."""
    known = list(names)
    # Another status is no typing error.
    close = [] if str(given).isdigit() else difflib.get_close_matches(str(given), known, n=1)
    meant = f" (did you mean {close[0]}?)" if close else ""
    return f"unknown {what} {given!r}{meant}; one of {', '.join(known)}"


@attrs.frozen
class Fault:
    """One way to go wrong, and which requests it hits.

    `probability` is drawn per matching request; `operation` None matches all. The first `after`
    matching requests are spared, and after `times` hits the fault is spent (None: never).
    `retry_after_s` goes into `Retry-After` and `X-Retry-After` of an error answer. `delay_s` passes
    before the fault shows. `applied` decides whether an error answer or a misleading one comes
    after the request was applied, as 502 and 504 may; None leaves it to the kind.
    """

    kind: FaultKind = attrs.field(converter=_to_kind)
    probability: float = attrs.field(default=1.0, kw_only=True)
    operation: Operation | None = attrs.field(default=None, converter=_to_operation, kw_only=True)
    times: int | None = attrs.field(default=None, kw_only=True)
    after: int = attrs.field(default=0, kw_only=True)
    retry_after_s: int | None = attrs.field(default=None, kw_only=True)
    delay_s: float = attrs.field(default=0.0, kw_only=True)
    applied: bool | None = attrs.field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        """Refuse settings that contradict each other."""
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability must be from 0 to 1, not {self.probability!r}")
        if self.times is not None and self.times < 1:
            raise ValueError(f"times must be at least 1 or None, not {self.times!r}")
        if self.after < 0:
            raise ValueError(f"after must not be negative, got {self.after!r}")
        if not 0 <= self.delay_s <= MAX_DELAY_S:
            message = f"delay_s must be from 0 to {MAX_DELAY_S:,} seconds, not {self.delay_s!r}"
            raise ValueError(message)
        if self.retry_after_s is not None and self.retry_after_s < 0:
            raise ValueError(f"retry_after_s must not be negative, got {self.retry_after_s!r}")
        if self.kind not in ERROR_ANSWER_KINDS and self.retry_after_s is not None:
            raise ValueError(f"retry_after_s needs an error answer, not {self.kind.value!r}")
        if self.kind in _DROPS and self.applied is not None:
            raise ValueError(f"applied is already decided by {self.kind.value!r}")

    @property
    def is_applied(self) -> bool:
        """Whether the request is applied before its wrong answer."""
        return self.kind in MISLEADING_KINDS if self.applied is None else self.applied

    @classmethod
    def parse(cls, spec: str) -> Self:
        """Read one line: `KIND[=PROBABILITY][,FIELD=VALUE]…`, such as `503=5%,operation=list`.

        KIND is a FaultKind, PROBABILITY a number from 0 to 1 or a percentage, FIELD one of
        operation, times, after, retry_after_s, delay_s and applied (yes or no). Raises ValueError
        that says what is wrong, and which name was likely meant.
        """
        head, *rest = [part.strip() for part in spec.split(",")]
        kind, equals, probability = (part.strip() for part in head.partition("="))
        checked_kind = _to_kind(kind)
        fields: dict[str, str] = {}
        for part in rest:
            name, has_value, text = (piece.strip() for piece in part.partition("="))
            if name not in _SPEC_FIELDS:
                raise ValueError(_unknown("field of a fault", name, _SPEC_FIELDS))
            if name in fields:
                raise ValueError(f"{name} is given twice")
            if not has_value or not text:
                raise ValueError(f"{name} needs a value, as in {name}={_SPEC_FIELDS[name][1]}")
            fields[name] = text
        return cls(
            checked_kind,
            probability=_share(probability) if equals else 1.0,
            **{name: _SPEC_FIELDS[name][0](name, text) for name, text in fields.items()},
        )


def _number(name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{name} must be a number, not {text!r}")
    return number


def _share(text: str) -> float:
    if text.endswith("%"):
        return _number("probability", text[:-1]) / 100
    return _number("probability", text)


def _whole(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS):
        raise ValueError(f"{name} must be a whole number, not {text!r}")
    return int(text)


def _yes(name: str, text: str) -> bool:
    if text.lower() in ("yes", "true", "1"):
        return True
    if text.lower() in ("no", "false", "0"):
        return False
    raise ValueError(f"{name} must be yes or no, not {text!r}")


# The fields of a line after the kind: how each is read, and an example of it.
_SPEC_FIELDS: Final[dict[str, tuple[Callable[[str, str], Any], str]]] = {
    "operation": (lambda _, text: text, "upsert"),
    "times": (_whole, "3"),
    "after": (_whole, "10"),
    "retry_after_s": (_whole, "2"),
    "delay_s": (_number, "0.5"),
    "applied": (_yes, "yes"),
}


@attrs.define
class ActiveFault:
    """A fault in force: its `number`, the matching requests it has `seen`, and its `hits`."""

    number: int
    fault: Fault
    seen: int = 0
    hits: int = 0

    @property
    def is_spent(self) -> bool:
        """Whether it has hit as often as it may."""
        return self.fault.times is not None and self.hits >= self.fault.times


class Faults:
    """The faults in force: scripted ones first, then active ones in the order of adding.

    Change it at any time; the next request sees the change. Iterating gives the faults that can
    still hit.
    """

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._active: list[ActiveFault] = []
        self._added = 0
        self._scripts: dict[Operation | None, deque[Fault | None]] = {}
        for fault in faults:
            self.add(fault)

    def __iter__(self) -> Iterator[Fault]:
        """Iterate over a snapshot of the active faults."""
        return iter([active.fault for active in self._active])

    def __len__(self) -> int:
        """Return how many faults can still hit, without scripts."""
        return len(self._active)

    def __repr__(self) -> str:
        return f"<Faults active={len(self)} scripted={self.scripted}>"

    @property
    def scripted(self) -> int:
        """How many requests the scripts still decide."""
        return sum(map(len, self._scripts.values()))

    @property
    def are_over(self) -> bool:
        """Whether no fault and no script decides a request any more."""
        return not self._active and not any(self._scripts.values())

    @property
    def active(self) -> list[ActiveFault]:
        """The faults that can still hit, with their numbers and counts, as a copy."""
        return [attrs.evolve(active) for active in self._active]

    def add(self, fault: Fault | FaultKind | str) -> int:
        """Add a fault, a kind or a line for `Fault.parse`; returns its number."""
        checked = to_fault(fault)
        self._added += 1
        self._active.append(ActiveFault(self._added, checked))
        return self._added

    def remove(self, number: int) -> bool:
        """End the fault of this number; False if none in force has it."""
        before = len(self)
        self._active = [active for active in self._active if active.number != number]
        return len(self) < before

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
        `after` and `operation` are ignored here.
        """
        steps = [None if one is None else to_fault(one) for one in kinds]
        self._scripts.setdefault(_to_operation(operation), deque()).extend(steps)

    def next_for(self, operation: Operation, rng: random.Random) -> Fault | None:
        """Return the fault of a request that arrives now, and count it."""
        for scope in (operation, None) if self._scripts else ():
            script = self._scripts.get(scope)
            if script:
                return script.popleft()
        for active in self._active:
            fault = active.fault
            if fault.operation not in (None, operation):
                continue
            active.seen += 1
            # Drawn for probability 1, too, so that a lower one does not shift later draws.
            hit = rng.random() < fault.probability
            if active.seen > fault.after and hit:
                active.hits += 1
                if active.is_spent:
                    self._active.remove(active)
                return fault
        return None


def to_fault(given: Fault | FaultKind | str) -> Fault:
    """Return the fault itself, or the one of a kind or line."""
    if isinstance(given, Fault):
        return given
    return Fault(given) if isinstance(given, FaultKind) else Fault.parse(given)
