"""Logs the requests that the sandbox received: one record per request, in order of arrival.

A request is logged when its head has arrived, so a hanging one is logged too. `request_handler`
fills an entry in place; callers get a frozen copy. The access token is never logged.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final, overload

import attrs
from multidict import CIMultiDictProxy

from bc_attrvals.sandbox.faults import FaultKind
from bc_attrvals.sandbox.heads import Head
from bc_attrvals.sandbox.operations import Operation


@attrs.define(eq=False)
class LogEntry:
    """The entry behind a record, filled while the request is handled. Private to the sandbox."""

    sequence: int
    method: str
    operation: Operation
    path: str
    query_string: str
    headers: CIMultiDictProxy[str] = attrs.field(eq=False, repr=False)
    started_at_s: float
    request_id: str
    body: bytes = attrs.field(default=b"", repr=False)
    ended_at_s: float | None = None
    status: int | None = None
    fault: FaultKind | None = None
    item_count: int = 0
    in_flight: int = 0

    def freeze(self) -> RecordedRequest:
        """Return the record as it is now."""
        return RecordedRequest(*[getattr(self, name) for name in _FIELDS])


@attrs.frozen
class RecordedRequest(LogEntry):
    """One request as it arrived, and its result.

    `sequence` counts from 1. `query_string` is raw, as on the wire. The times are the sandbox's
    monotonic clock; `ended_at_s` None is still open. `status` None was not answered, or not yet.
    `item_count` counts the items of a write, the ids of a delete, or the rows that a listing
    answered; 0 if the request was not applied. `in_flight` counts the same operation at
    arrival, itself included.
    """


_FIELDS: Final = tuple(field.name for field in attrs.fields(LogEntry))


class RequestLog(Sequence[RecordedRequest]):
    """The newest requests, oldest first, at most `capacity` of them."""

    def __init__(self, capacity: int) -> None:
        if capacity < 0:
            raise ValueError(f"capacity must not be negative, got {capacity}")
        self._entries: deque[LogEntry] = deque(maxlen=capacity)
        self._sequence = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[RecordedRequest]:
        return iter([entry.freeze() for entry in self._entries])

    @overload
    def __getitem__(self, index: int) -> RecordedRequest: ...

    @overload
    def __getitem__(self, index: slice) -> list[RecordedRequest]: ...

    def __getitem__(self, index: int | slice) -> RecordedRequest | list[RecordedRequest]:
        """Return one record, or a list of them for a slice."""
        if isinstance(index, slice):
            return [entry.freeze() for entry in list(self._entries)[index]]
        return self._entries[index].freeze()

    def __repr__(self) -> str:
        return f"<RequestLog kept={len(self)} seen={self._sequence}>"

    @property
    def seen(self) -> int:
        """How many requests arrived in all, dropped records included."""
        return self._sequence

    def of(self, operation: Operation | str) -> list[RecordedRequest]:
        """Return the kept records of one operation."""
        wanted = Operation(operation)
        return [entry.freeze() for entry in self._entries if entry.operation is wanted]

    def newest(
        self, limit: int, *, after: int = 0, operation: Operation | None = None
    ) -> list[RecordedRequest]:
        """Return the newest `limit` records after a sequence number, oldest first."""
        kept = len(self._entries)
        # Sequences have no gaps, so the number of records after one is known.
        wanted = islice(reversed(self._entries), max(0, min(kept, self._sequence - after)))
        matching = (entry for entry in wanted if operation in (None, entry.operation))
        return [entry.freeze() for entry in islice(matching, limit)][::-1]

    def clear(self) -> None:
        """Delete the records; sequence numbers continue."""
        self._entries.clear()

    def begin(
        self,
        head: Head,
        operation: Operation,
        path: str,
        query_string: str,
        now_s: float,
    ) -> LogEntry:
        """Log a request whose head has arrived."""
        self._sequence += 1
        entry = LogEntry(
            self._sequence,
            head.method,
            operation,
            path,
            query_string,
            head.shown,
            now_s,
            f"{self._sequence:032x}",
        )
        self._entries.append(entry)
        return entry
