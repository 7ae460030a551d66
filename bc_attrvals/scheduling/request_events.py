"""Reports the tries of requests as events and log lines, if these are wanted."""

from __future__ import annotations

import logging
from typing import Any

from bc_attrvals.core.responses import Response
from bc_attrvals.errors import BCAttrValsError
from bc_attrvals.events import EventBus, RequestAnswered, RequestRetrying, RequestSent
from bc_attrvals.scheduling.exchange import Exchange
from bc_attrvals.scheduling.leases import Lease

_logger = logging.getLogger(__name__)
#: Whether log lines of a level are wanted.
is_logged = _logger.isEnabledFor


class TryReports:
    """The reports of one Store: DEBUG for each try, INFO for each that is sent again.

    A request gets its number with its first report.
    """

    __slots__ = ("_count", "_events")

    def __init__(self, events: EventBus) -> None:
        self._events = events
        self._count = 0

    def sent(self, exchange: Exchange, lease: Lease) -> None:
        """Report that a try is about to be sent."""
        request = exchange.request
        self._events.emit(
            RequestSent(
                request.operation,
                exchange.sent,
                **self._named(exchange),
                queue_wait_s=lease.slot_wait_s,
                quota_wait_s=lease.quota_wait_s,
            )
        )

    def ended(self, exchange: Exchange, seconds: float, outcome: Response | BaseException) -> None:
        """Report that a try was answered or ended by an error."""
        request = exchange.request
        answer = outcome if isinstance(outcome, Response) else None
        ended = RequestAnswered(
            request.operation,
            None if answer is None else answer.status,
            seconds,
            0 if answer is None else len(answer.body),
            None if answer is None else answer.request_id,
            attempt=exchange.sent,
            **self._named(exchange),
            error=type(outcome).__name__ if answer is None else None,
        )
        if self._events:
            self._events.emit(ended)
        _logger.debug(
            "request %d: %s %s, try %d: %s after %.3f s, %d bytes, request id %s",
            ended.request,
            request.method,
            request.resource,
            ended.attempt,
            ended.error if answer is None else answer.status,
            ended.seconds,
            ended.bytes,
            ended.request_id,
        )

    def retrying(self, exchange: Exchange, error: BCAttrValsError, delay_s: float) -> None:
        """Report that a request is sent again after a failed try."""
        if not self._events and not _logger.isEnabledFor(logging.INFO):
            return
        request = exchange.request
        retrying = RequestRetrying(
            request.operation,
            exchange.sent,
            delay_s,
            type(error).__name__,
            **self._named(exchange),
        )
        if self._events:
            self._events.emit(retrying)
        _logger.info(
            "request %d: %s failed on try %d with %s, sent again in %.3f s",
            retrying.request,
            retrying.operation,
            retrying.attempt,
            retrying.reason,
            delay_s,
        )

    def refused(self, exchange: Exchange, wait_s: float | None) -> None:
        """Log a 429, which is not a failed try; `wait_s` is the wait the service asked for."""
        if _logger.isEnabledFor(logging.INFO):
            _logger.info(
                "request %d: %s refused with 429 on try %d, sent again %s",
                self._number(exchange),
                exchange.request.operation,
                exchange.sent,
                "when the quota allows" if wait_s is None else f"in {wait_s:.3f} s",
            )

    def _named(self, exchange: Exchange) -> dict[str, Any]:
        """Return the fields of an event that identify its request."""
        request = exchange.request
        return {
            "request": self._number(exchange),
            "method": request.method,
            "job": exchange.job,
            "resource": request.kind,
        }

    def _number(self, exchange: Exchange) -> int:
        if not exchange.number:
            self._count += 1
            exchange.number = self._count
        return exchange.number
