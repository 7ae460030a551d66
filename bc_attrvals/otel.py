"""Metrics and spans of a Store for OpenTelemetry: one subscriber of its events.

    from bc_attrvals.otel import Telemetry

    async with Store.from_env() as store:
        store.subscribe(Telemetry())

`pip install 'bc_attrvals[otel]'`. The providers of the process are used unless others are given. A
page for Prometheus, with `pip install opentelemetry-exporter-prometheus`:

    from opentelemetry.exporter.prometheus import PrometheusMetricReader
    from opentelemetry.sdk.metrics import MeterProvider
    from prometheus_client import start_http_server

    start_http_server(9464)
    telemetry = Telemetry(meter_provider=MeterProvider([PrometheusMetricReader()]))

    async with Store.from_env() as store:
        store.subscribe(telemetry)
        await store.attribute_values.upsert(items)

No metric or span holds the access token or a customer's value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from bc_attrvals.events import (
    Event,
    JobEnded,
    JobStarted,
    RequestAnswered,
    RequestRetrying,
    RequestSent,
)

try:
    from opentelemetry import context, metrics, trace
    from opentelemetry.trace import Span, SpanKind, StatusCode
except ModuleNotFoundError as error:
    message = "bc_attrvals.otel needs opentelemetry-api: pip install 'bc_attrvals[otel]'"
    raise ModuleNotFoundError(message, name=error.name) from error

_NAME: Final = "bc_attrvals"
#: Errors that end a job whose caller left it, which is no failure.
_LEFT: Final = frozenset({"GeneratorExit", "CancelledError"})


class Telemetry:
    """Makes metrics and spans of the events of one Store: `store.subscribe(Telemetry())`.

    Metrics, each with `attributes` and the operation ("read", "write", "delete"):

    - `bc_attrvals.requests`: tries, by method and by status or error, and their
      `bc_attrvals.request.duration` in seconds. `bc_attrvals.rate_limited`: those answered 429.
    - `bc_attrvals.retries`: by the error that caused them.
    - `bc_attrvals.queue.wait` and `bc_attrvals.quota.wait`: seconds that a try waited before, for
      a slot and for quota.
    - `bc_attrvals.requests.in_flight`.
    - `bc_attrvals.items`: by job ("upsert", "sync" …) and outcome ("stored", "failed" …), when the
      job ends. A resumed sync counts what its earlier runs did, too.

    A span for each bulk job, with its sums, is a child of the caller's span. A span for each try is
    a child of its job's, or of the caller's span where it is a single call. One object is for one
    Store: it pairs events by their numbers.
    """

    def __init__(
        self,
        *,
        meter_provider: metrics.MeterProvider | None = None,
        tracer_provider: trace.TracerProvider | None = None,
        attributes: Mapping[str, str] | None = None,
    ) -> None:
        meter = metrics.get_meter(_NAME, meter_provider=meter_provider)
        self._tracer = trace.get_tracer(_NAME, tracer_provider=tracer_provider)
        self._attributes = dict(attributes or {})
        self._requests = meter.create_counter(f"{_NAME}.requests", "{request}")
        self._duration = meter.create_histogram(f"{_NAME}.request.duration", "s")
        self._rate_limited = meter.create_counter(f"{_NAME}.rate_limited", "{request}")
        self._retries = meter.create_counter(f"{_NAME}.retries", "{request}")
        self._queue_wait = meter.create_histogram(f"{_NAME}.queue.wait", "s")
        self._quota_wait = meter.create_histogram(f"{_NAME}.quota.wait", "s")
        self._in_flight = meter.create_up_down_counter(f"{_NAME}.requests.in_flight", "{request}")
        self._items = meter.create_counter(f"{_NAME}.items", "{item}")
        self._jobs: dict[int, Span] = {}
        # Tries on the wire, by the numbers of request and try.
        self._tries: dict[tuple[int, int], Span] = {}

    def __call__(self, event: Event) -> None:
        """Take an event."""
        if isinstance(event, RequestSent):
            self._sent(event)
        elif isinstance(event, RequestAnswered):
            self._answered(event)
        elif isinstance(event, RequestRetrying):
            operation = {"operation": event.operation.value, "reason": event.reason}
            self._retries.add(1, self._attributes | operation)
        elif isinstance(event, JobStarted):
            name = f"{_NAME} {event.kind}"
            self._jobs[event.job] = self._tracer.start_span(name, attributes=self._attributes)
        elif isinstance(event, JobEnded):
            self._ended(event)

    def _sent(self, event: RequestSent) -> None:
        job = None if event.job is None else self._jobs.get(event.job)
        parent = context.get_current() if job is None else trace.set_span_in_context(job)
        self._tries[event.request, event.attempt] = self._tracer.start_span(
            event.method,
            parent,
            SpanKind.CLIENT,
            {
                **self._attributes,
                "http.request.method": event.method,
                "http.request.resend_count": event.attempt - 1,
                "bc_attrvals.request": event.request,
                "bc_attrvals.queue_wait_s": event.queue_wait_s,
                "bc_attrvals.quota_wait_s": event.quota_wait_s,
            },
        )
        operation = self._attributes | {"operation": event.operation.value}
        self._in_flight.add(1, operation)
        self._queue_wait.record(event.queue_wait_s, operation)
        self._quota_wait.record(event.quota_wait_s, operation)

    def _answered(self, event: RequestAnswered) -> None:
        span = self._tries.pop((event.request, event.attempt), None)
        if span is None:
            # Sent before this subscribed.
            return
        operation = self._attributes | {"operation": event.operation.value}
        self._in_flight.add(-1, operation)
        status = event.error if event.status is None else str(event.status)
        self._requests.add(1, operation | {"method": event.method, "status": status or ""})
        self._duration.record(event.seconds, operation)
        if event.status is not None:
            span.set_attribute("http.response.status_code", event.status)
        if event.status == 429:
            self._rate_limited.add(1, operation)
        if event.request_id is not None:
            span.set_attribute("bc_attrvals.request_id", event.request_id)
        if event.status is None or event.status >= 400:
            _fail(span, status or "")
        span.end()

    def _ended(self, event: JobEnded) -> None:
        for outcome, count in event.counts:
            self._items.add(count, self._attributes | {"job": event.kind, "outcome": outcome})
        span = self._jobs.pop(event.job, None)
        if span is None:
            return
        span.set_attributes({f"bc_attrvals.{name}": count for name, count in event.counts})
        span.set_attributes(
            {"bc_attrvals.calls": event.calls, "bc_attrvals.retries": event.retries}
        )
        if event.error is not None and event.error not in _LEFT:
            _fail(span, event.error)
        span.end()


def _fail(span: Span, error: str) -> None:
    span.set_attribute("error.type", error)
    span.set_status(StatusCode.ERROR)
