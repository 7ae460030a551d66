"""One bulk job in logs and events: its number, its start, and its end with sums.

Between the resources above, which do the work, and `Calls` below, which number each request's job.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

import attrs

from bc_attrvals.events import JobEnded, JobKindName, JobStarted
from bc_attrvals.scheduling.calls import Calls

_logger = logging.getLogger(__name__)

#: Counts of a report that have their own fields in `JobEnded`, or that do not count items.
_NOT_ITEMS: Final = frozenset({"calls", "retries", "anew_calls"})


class BulkJob:
    """A context manager around the work of one job, whose `calls` it makes.

    Set `sums` to a function that returns the report, or `rows` to how many rows were read. Without
    `sums`, the `.report` of the error that ends the job is used.
    """

    __slots__ = ("_began_at", "_kind", "_loop", "calls", "rows", "sums")

    def __init__(self, calls: Calls, kind: JobKindName) -> None:
        self._kind = kind
        self.calls = calls.for_job(number=calls.next_job())
        self.sums: Callable[[], object] | None = None
        self.rows = 0

    def __enter__(self) -> Self:
        # Kept, because a generator that is garbage-collected ends without a running loop.
        self._loop = asyncio.get_running_loop()
        self._began_at = self._loop.time()
        if self.calls.events:
            self.calls.events.emit(JobStarted(self.calls.job, self._kind))
        _logger.info("%s %d started", self._kind, self.calls.job)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        calls, events = self.calls, self.calls.events
        if not events and not _logger.isEnabledFor(logging.INFO):
            return
        report = getattr(exc, "report", None) if self.sums is None else self.sums()
        ended = JobEnded(
            calls.job,
            self._kind,
            seconds=self._loop.time() - self._began_at,
            calls=getattr(report, "calls", calls.calls),
            retries=getattr(report, "retries", calls.retries),
            counts=_counts(report) or ((("rows", self.rows),) if self.rows else ()),
            error=None if exc is None else type(exc).__name__,
        )
        if events:
            events.emit(ended)
        _logger.info(
            "%s %d ended%s: %s; calls: %d, of them retries: %d, %.3f s",
            ended.kind,
            ended.job,
            f" by {ended.error}" if ended.error else "",
            ", ".join(f"{count} {name}" for name, count in ended.counts) or "nothing done",
            ended.calls,
            ended.retries,
            ended.seconds,
        )


def _counts(report: object) -> tuple[tuple[str, int], ...]:
    """Return the counts of a report that are not zero, by the names of its fields."""
    cls = type(report)
    if not attrs.has(cls):
        return ()
    named = ((field.name, getattr(report, field.name)) for field in attrs.fields(cls))
    return tuple(
        (name, count)
        for name, count in named
        if type(count) is int and count and name not in _NOT_ITEMS
    )
