"""OpenTelemetry: metrics and spans of a Store, looked at with the in-memory exporters."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import re
import socket
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from contextvars import ContextVar, Token
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from bc_attrvals import AttributeValueUpsert, AuthenticationError, Store
from bc_attrvals.core.requests import Operation
from bc_attrvals.events import EventBus, RequestAnswered
from bc_attrvals.sandbox import Sandbox
from tests.conftest import make_store
from tests.probes import upserts

pytest.importorskip("opentelemetry.sdk", reason="needs bc_attrvals[dev]")

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from bc_attrvals import otel
from bc_attrvals.otel import Telemetry


class Observed:
    """A Telemetry over exporters in memory."""

    def __init__(self) -> None:
        self._spans = InMemorySpanExporter()
        self.traces = TracerProvider(shutdown_on_exit=False)
        self.traces.add_span_processor(SimpleSpanProcessor(self._spans))
        self._reader = InMemoryMetricReader()
        self._meters = MeterProvider([self._reader], shutdown_on_exit=False)
        self.telemetry = Telemetry(
            meter_provider=self._meters,
            tracer_provider=self.traces,
            attributes={"store": "acme"},
        )

    def close(self) -> None:
        self.traces.shutdown()
        self._meters.shutdown()

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self._spans.get_finished_spans())

    def metrics(self) -> dict[str, Counter[tuple[str, ...]]]:
        """Return each metric's points: attribute values without the store, and value or count."""
        data = self._reader.get_metrics_data()
        found: dict[str, Counter[tuple[str, ...]]] = {}
        for metric in data.resource_metrics[0].scope_metrics[0].metrics if data else ():
            points: Counter[tuple[str, ...]] = Counter()
            for point in metric.data.data_points:
                labels = dict(point.attributes)
                assert labels.pop("store") == "acme"
                key = tuple(labels[name] for name in sorted(labels))
                points[key] = getattr(point, "value", None) or getattr(point, "count", 0)
            found[metric.name.removeprefix("bc_attrvals.")] = points
        return found


@pytest.fixture
def observed() -> Iterator[Observed]:
    one = Observed()
    yield one
    one.close()


def children(spans: list[ReadableSpan], parent: ReadableSpan) -> list[ReadableSpan]:
    return [one for one in spans if one.parent and one.parent.span_id == parent.context.span_id]


async def test_calls_are_the_children_of_their_job_and_siblings(
    sandbox: Sandbox, store: Store, observed: Observed
) -> None:
    store.subscribe(observed.telemetry)
    sandbox.faults.script(["503"], "upsert")
    tracer = observed.traces.get_tracer("test")
    with tracer.start_as_current_span("nightly"):
        await asyncio.gather(*(store.attribute_values.upsert(upserts(100)) for _ in range(2)))
        await store.attribute_values.get(1, 1)
    spans = observed.spans
    (nightly,) = [one for one in spans if one.name == "nightly"]
    jobs = [one for one in spans if one.name == "bc_attrvals upsert"]
    assert len(jobs) == 2
    of_nightly = children(spans, nightly)
    assert sorted(one.name for one in of_nightly) == ["GET", *["bc_attrvals upsert"] * 2]
    calls = [call for job in jobs for call in children(spans, job)]
    assert Counter(call.name for call in calls) == {"PUT": 21}
    # Nothing is nested any deeper: these are all spans there are.
    assert len(spans) == 1 + len(of_nightly) + len(calls)
    assert {call.kind for call in calls} == {SpanKind.CLIENT}
    assert sorted(job.attributes["bc_attrvals.stored"] for job in jobs) == [100, 100]
    (failed,) = [call for call in calls if call.status.status_code is StatusCode.ERROR]
    assert failed.attributes["http.response.status_code"] == 503
    (again,) = [call for call in calls if call.attributes["http.request.resend_count"]]
    assert again.attributes["bc_attrvals.request"] == failed.attributes["bc_attrvals.request"]
    assert again.start_time >= failed.end_time


async def test_metrics_count_requests_retries_waits_and_items(observed: Observed) -> None:
    async with Sandbox(quota=6, window_s=0.4) as sandbox, make_store(sandbox) as store:
        store.subscribe(observed.telemetry)
        sandbox.faults.script(["500", "drop_after"], "upsert")
        rows = upserts(60)
        await store.attribute_values.upsert([rows[0], *rows])
        sandbox.faults.script(["429"], "list")
        await store.attribute_values.get_page()
    found = observed.metrics()
    assert found["requests"] == {
        ("PUT", "write", "200"): 6,
        ("PUT", "write", "500"): 1,
        ("PUT", "write", "ConnectionLostError"): 1,
        ("GET", "read", "429"): 1,
        ("GET", "read", "200"): 1,
    }
    assert found["request.duration"] == {("write",): 8, ("read",): 2}
    assert found["retries"] == {("write", "ServerError"): 1, ("write", "ConnectionLostError"): 1}
    assert found["rate_limited"] == {("read",): 1}
    assert found["requests.in_flight"] == {("write",): 0, ("read",): 0}
    assert found["queue.wait"] == found["quota.wait"] == {("write",): 8, ("read",): 2}
    assert found["items"] == {("upsert", "stored"): 60, ("upsert", "superseded"): 1}


async def test_a_wait_for_quota_is_measured_apart_from_one_for_a_slot(observed: Observed) -> None:
    async with Sandbox(quota=3, window_s=0.4, latency_ms=10) as sandbox, make_store(sandbox) as one:
        one.subscribe(observed.telemetry)
        await one.attribute_values.upsert(upserts(60))
    (job,) = [span for span in observed.spans if span.kind is SpanKind.INTERNAL]
    calls = children(observed.spans, job)
    for_quota = [call.attributes["bc_attrvals.quota_wait_s"] for call in calls]
    assert sum(wait_s > 0.1 for wait_s in for_quota) >= 3
    assert max(call.attributes["bc_attrvals.queue_wait_s"] for call in calls) < 0.3


async def test_an_error_that_ends_a_job_marks_its_span_and_leaving_a_listing_does_not(
    sandbox: Sandbox, store: Store, observed: Observed
) -> None:
    await store.attribute_values.upsert(upserts(10))
    store.subscribe(observed.telemetry)
    rows = store.attribute_values.stream()
    await anext(rows)
    await rows.aclose()
    sandbox.faults.script(["401"] * 3, "upsert")
    with pytest.raises(AuthenticationError):
        await store.attribute_values.upsert(upserts(10))
    jobs = {one.name: one for one in observed.spans if one.kind is SpanKind.INTERNAL}
    assert jobs["bc_attrvals list"].status.status_code is StatusCode.UNSET
    assert jobs["bc_attrvals upsert"].status.status_code is StatusCode.ERROR
    assert jobs["bc_attrvals upsert"].attributes["error.type"] == "AuthenticationError"


def test_the_answer_to_a_request_sent_before_is_not_counted(observed: Observed) -> None:
    bus = EventBus()
    bus.subscribe(observed.telemetry)
    bus.emit(RequestAnswered(Operation.READ, 200, 0.1, 10, "r", request=7, method="GET"))
    assert observed.metrics() == {}
    assert observed.spans == []


async def test_no_token_and_no_value_is_in_spans_and_metrics(
    store: Store, sandbox: Sandbox, observed: Observed
) -> None:
    store.subscribe(observed.telemetry)
    items = [AttributeValueUpsert(1, 1, "private-value")]
    await store.attribute_values.upsert(items)
    shown = "".join(one.to_json() for one in observed.spans) + repr(observed.metrics())
    assert "PUT" in shown
    assert sandbox.access_token not in shown
    assert "private-value" not in shown


async def test_the_prometheus_page_of_the_docstring_works(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("opentelemetry.exporter.prometheus", reason="needs bc_attrvals[dev]")
    blocks = re.findall(r"(?:^    .*\n|\n)+", inspect.getdoc(otel) or "", flags=re.MULTILINE)
    recipe = next(textwrap.dedent(block) for block in blocks if "prometheus_client" in block)
    assert len([line for line in recipe.splitlines() if line]) <= 10
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # On loopback, and its server kept to be ended.
    recipe = recipe.replace("start_http_server(9464)", "server = serve(PORT, '127.0.0.1')")
    recipe = recipe.replace("    await store.", "    report = await store.")
    body = textwrap.indent(recipe, "    ")
    code = f"async def run(items):\n{body}\n    return server, telemetry, report\n"
    from prometheus_client import start_http_server

    namespace: dict[str, Any] = {
        "Telemetry": Telemetry,
        "Store": SimpleNamespace(from_env=lambda: make_store(sandbox)),
        "PORT": port,
        "serve": start_http_server,
    }
    exec(compile(code, "recipe", "exec"), namespace)  # the module's own example
    (server, thread), _, report = await namespace["run"](upserts(25))
    try:
        assert report.stored == 25
        url = f"http://127.0.0.1:{port}/metrics"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            page = await answer.text()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert re.search(r'bc_attrvals_items_total\{job="upsert",.*outcome="stored".*\} 25\.0', page)
    assert re.search(r'bc_attrvals_requests_total\{.*status="200".*\} 3\.0', page)


_span: ContextVar[tuple[str, ...]] = ContextVar("_span", default=())


async def test_spans_that_a_trace_of_aiohttp_attaches_do_not_nest(sandbox: Sandbox) -> None:
    """As instrumentations do: the span is current from the start of a request to its end."""
    parents: list[tuple[str, ...]] = []

    async def started(_: object, call: SimpleNamespace, params: object) -> None:
        parents.append(_span.get())
        call.token = _span.set((*_span.get(), "PUT"))

    async def ended(_: object, call: SimpleNamespace, params: object) -> None:
        token: Token[tuple[str, ...]] = call.token
        _span.reset(token)

    trace_config = aiohttp.TraceConfig()
    trace_config.on_request_start.append(started)
    trace_config.on_request_end.append(ended)
    trace_config.on_request_exception.append(ended)
    sandbox.faults.script([None, "500", "drop_after", "500"], "upsert")
    async with make_store(sandbox, trace_configs=[trace_config]) as store:
        _span.set(("caller",))
        values = store.attribute_values
        await values.upsert(upserts(300))
        assert len([one async for one in values.upsert_stream(iter(upserts(300)))]) == 300
        assert len([row async for row in values.stream(exactly_once=True)]) == 300
        await values.delete(range(1, 301))
    assert len(parents) > 60
    assert set(parents) == {("caller",)}


def test_without_its_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "bc_attrvals.otel")
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'bc_attrvals\[otel\]'"):
        importlib.import_module("bc_attrvals.otel")
