"""What do reading and writing cost? Client CPU of a page of 250, a PUT of ten, a value of a sync.

Over TLS, as with every store, and over plain HTTP, to see the share of TLS. `stream` yields typed
values, the loop by hand untyped dicts. `upsert` pairs each answer with what was sent,
keeps equal keys apart and accounts for every item; the loop by hand counts rows. Then: what does
one request cost the scheduler when 10 or 10,000 others wait, and how long does importing take?
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from tempfile import TemporaryDirectory
from typing import Any

import attrs
from multidict import CIMultiDict, CIMultiDictProxy

from bc_attrvals import AttributeValueFilter, AttributeValueUpsert, Limits, RetryPolicy, Store
from bc_attrvals.core.requests import Operation, Request
from bc_attrvals.core.responses import Response
from bc_attrvals.events import EventBus
from bc_attrvals.scheduling.exchange import CallOptions, Exchange
from bc_attrvals.scheduling.quota import Priority
from bc_attrvals.scheduling.scheduler import Scheduler
from benchmarks import rivals
from benchmarks.harness import (
    Child,
    Figure,
    answer_all,
    cpu_s,
    installed,
    show,
    take_turns,
    trusting,
)
from benchmarks.page_server import PageServer, hash_of, value_of
from benchmarks.rivals import Target

#: Values of a page, of a PUT and of the unit of a sync, by the kind of work.
SIZES = {"page": 250, "short": 250, "put": 10, "sync": 1}
BY_HAND = "aiohttp + orjson by hand"
STREAM, PAGES = "bc_attrvals, stream()", "bc_attrvals, pages()"
UPSERT, UPSERT_STREAM = "bc_attrvals, upsert()", "bc_attrvals, upsert_stream()"
SYNC, JOURNALLED = "bc_attrvals, sync()", "bc_attrvals, sync(journal=…)"
OTHERS = ("httpx", "bigc", "bigcommerce")
_IMPORTS = ("import aiohttp", "import bc_attrvals", "from bc_attrvals import Store")

Run = Callable[[], int]


def _store(target: Target) -> Store:
    return Store(target.store_hash, target.access_token, base_url=target.url)


async def stream(target: Target) -> int:
    async with _store(target) as store:
        return await _count(store.attribute_values.stream())


async def pages(target: Target) -> int:
    count = 0
    async with _store(target) as store:
        async for page in store.attribute_values.pages():
            for _ in page.data:
                count += 1
    return count


def lazily(count: int) -> Iterator[AttributeValueUpsert]:
    """Yield so many items; their cost is the same for all contenders."""
    for number in range(1, count + 1):
        yield AttributeValueUpsert(number, 1, "a value")


async def upsert(target: Target, count: int) -> int:
    async with _store(target) as store:
        report = await store.attribute_values.upsert(lazily(count))
    return report.stored


async def upsert_stream(target: Target, count: int) -> int:
    stored = 0
    async with _store(target) as store:
        async for outcome in store.attribute_values.upsert_stream(lazily(count)):
            stored += outcome.ok
    return stored


async def sync(target: Target, count: int, journal: str | None = None) -> int:
    """List what the store holds, of which every tenth value differs from what is desired."""
    desired = (
        AttributeValueUpsert(number, 1, value_of(number) if number % 10 else "another")
        for number in range(1, count + 1)
    )
    scope = AttributeValueFilter(attribute_id_in=[1])
    async with _store(target) as store:
        report = await store.attribute_values.sync(desired, scope=scope, journal=journal)
    # A short one is written without reading.
    return report.updated + report.unchanged + report.written


async def _journalled(target: Target, count: int) -> int:
    with TemporaryDirectory() as folder:
        return await sync(target, count, f"{folder}/journal.db")


async def _count(rows: AsyncIterator[object]) -> int:
    count = 0
    async for _ in rows:
        count += 1
    return count


# --- in a process that trusts the server ---------------------------------------------------------


def contenders(url: str, kind: str, calls: int) -> dict[str, Run]:
    """Return by name the runs of so many calls or synced values; each counts its values."""
    values = SIZES[kind] * calls
    target = Target(url, hash_of(0 if kind == "put" else values, prebuilt=True), "token")
    on_loop: dict[str, Callable[[], Coroutine[Any, Any, int]]]
    if kind == "sync":
        on_loop = {
            SYNC: lambda: sync(target, values),
            JOURNALLED: lambda: _journalled(target, values),
        }
    elif kind == "put":
        on_loop = {
            BY_HAND: lambda: rivals.put_by_hand(target, lazily(values)),
            UPSERT: lambda: upsert(target, values),
            UPSERT_STREAM: lambda: upsert_stream(target, values),
            "httpx": lambda: rivals.put_httpx(target, lazily(values)),
        }
    else:
        on_loop = {
            BY_HAND: lambda: _count(rivals.stream_by_hand(target)),
            STREAM: lambda: stream(target),
            PAGES: lambda: pages(target),
            "httpx": lambda: _count(rivals.stream_httpx(target)),
        }
    runs: dict[str, Run] = {
        name: lambda job=job: asyncio.run(job())  # type: ignore[misc]
        for name, job in on_loop.items()
    }
    runs["bigc"], runs["bigcommerce"] = (
        (lambda: rivals.put_bigc(target, lazily(values)))
        if kind == "put"
        else (lambda: sum(1 for _ in rivals.stream_bigc(target))),
        (lambda: rivals.put_bigcommerce(target, lazily(values)))
        if kind == "put"
        else (lambda: sum(1 for _ in rivals.stream_bigcommerce(target))),
    )
    for name, job in list(on_loop.items()):
        runs[f"{name}, uvloop"] = lambda job=job: _on_uvloop(job())  # type: ignore[misc]
    return runs


def _on_uvloop(job: Coroutine[Any, Any, int]) -> int:
    import uvloop

    return uvloop.run(job)


def _compare(url: str, kind: str, names: list[str], calls: int, turns: int) -> object:
    """Measure contenders; the first is the baseline."""
    runs, values = contenders(url, kind, calls), SIZES[kind] * calls

    def timed(run: Run) -> float:
        def checked() -> None:
            count = run()
            if count != values:
                raise RuntimeError(f"{count} of {values} values came")

        return cpu_s(checked)

    chosen = {name: lambda run=runs[name]: timed(run) for name in names}  # type: ignore[misc]
    figures = take_turns(chosen, names[0], turns)
    return [attrs.asdict(attrs.evolve(one, us=one.us / calls)) for one in figures]


# --- in the process that measures ----------------------------------------------------------------


def _calls(server: PageServer, *, quick: bool) -> dict[str, Any]:
    """Return the figures of calls, over TLS and plain."""
    uvloop = [", uvloop"] if installed("uvloop") else []
    others = [name for name in OTHERS if installed(name)]
    # Others are many times slower: fewer calls and turns are enough.
    tls: list[tuple[str, list[str], int, int]] = [
        ("page", [BY_HAND, STREAM, PAGES, *(STREAM + one for one in uvloop)], 200, 25),
        ("page", [BY_HAND, *others], 40, 3),
        ("short", [BY_HAND, STREAM], 20, 51),
        ("put", [BY_HAND, UPSERT, UPSERT_STREAM, *(UPSERT + one for one in uvloop)], 400, 25),
        ("put", [BY_HAND, *others], 80, 3),
        ("sync", [SYNC, JOURNALLED], 20_000, 7),
    ]
    plain = [
        ("page", [BY_HAND, STREAM], 200, 6),
        ("short", [BY_HAND, STREAM], 20, 6),
        ("put", [BY_HAND, UPSERT], 400, 6),
    ]
    result: dict[str, Any] = {}
    for how, url, comparisons in (("tls", server.tls_url, tls), ("plain", server.url, plain)):
        with Child("benchmarks.cpu", **trusting(server.ca_file)) as child:
            found = result[how] = {}
            for kind, names, calls, turns in comparisons:
                size = (-(-calls // 10), 1) if quick else (calls, turns)
                figures = [Figure(**one) for one in child.ask(url, kind, names, *size)]
                unit = {"put": "us a PUT", "sync": "us a value"}.get(kind, "us a page")
                show(f"{kind}, {how}, {size[0]} calls", figures, unit)
                # The baseline is there already.
                found.setdefault(kind, []).extend(
                    attrs.asdict(one) for one in figures[1 if kind in found else 0 :]
                )
    return result


class _Transport:
    """Answers after one turn of the loop."""

    def __init__(self) -> None:
        self._answer = Response(200, CIMultiDictProxy(CIMultiDict()), b"")

    async def send(self, request: Request, timeout_s: float) -> Response:
        await asyncio.sleep(0)
        return self._answer


async def _queue_us(queued: int, requests: int) -> float:
    """Return the CPU microseconds of a request while `queued` wait; each that ends is replaced."""
    scheduler = Scheduler(_Transport(), limits=Limits(), retry=RetryPolicy(), events=EventBus())
    await scheduler.open("hash")
    request = Request(Operation.WRITE, "PUT", "/values", b"[]")
    options = CallOptions()
    left = requests

    async def send() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await scheduler.send(Exchange(request, options, Priority.BULK))

    tasks = [asyncio.create_task(send()) for _ in range(queued)]
    await asyncio.sleep(0)
    before, began_at = left, time.process_time()
    await asyncio.gather(*tasks)
    seconds = time.process_time() - began_at
    await scheduler.close()
    # What waited at the beginning was sent as well.
    return 1e6 * seconds / (before + queued)


def _import_cpu_s(statement: str) -> float:
    """Return the CPU seconds of a statement in a fresh interpreter."""
    code = (
        f"import time; began = time.process_time(); {statement}; print(time.process_time() - began)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return float(done.stdout)


def measure(*, quick: bool = False) -> dict[str, Any]:
    """Measure; see the module."""
    with PageServer() as server:
        result = _calls(server, quick=quick)
    queue = result["scheduler_us_by_queued"] = {}
    for queued in (10, 100) if quick else (10, 10_000):
        requests = 1_000 if quick else 10_000
        costs = [asyncio.run(_queue_us(queued, requests + queued)) for _ in range(3)]
        queue[str(queued)] = round(min(costs), 1)
        print(f"{queued:6} queued: {queue[str(queued)]:6.1f} us a request")
    statements = {one: lambda one=one: _import_cpu_s(one) for one in _IMPORTS}  # type: ignore[misc]
    figures = take_turns(statements, _IMPORTS[0], 1 if quick else 21)
    show("Importing", figures, "us")
    result["imports"] = [attrs.asdict(one) for one in figures]
    return result


if __name__ == "__main__":
    answer_all(_compare)
