"""What do reading and writing cost? Client CPU of a page of 250 and of a PUT of ten.

Over TLS, as every store speaks, and plain beside it, to see what is the cipher's. `stream` hands
out typed values, the loop by hand untyped dicts. `upsert` pairs each answer with what was sent,
keeps equal keys apart and accounts for every item; the loop by hand counts rows. Where valgrind is
installed, its counts of instructions stand beside the seconds: they do not depend on the machine's
load. And what does one request cost the scheduler when 10 or 10,000 others wait?

    python -m benchmarks.cpu [--quick] [--json FILE]
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from multidict import CIMultiDict, CIMultiDictProxy

from bc_attrvals import AttributeValueUpsert, Limits, RetryPolicy, Store
from bc_attrvals.core.requests import Operation, Request
from bc_attrvals.core.responses import Response
from bc_attrvals.events import EventBus
from bc_attrvals.scheduling.exchange import CallOptions, Exchange
from bc_attrvals.scheduling.quota import Priority
from bc_attrvals.scheduling.scheduler import Scheduler
from benchmarks import rivals
from benchmarks.harness import (
    child_environment,
    cpu_s,
    dump,
    in_child,
    installed,
    run_alone,
    show,
    take_turns,
    trusting,
)
from benchmarks.page_server import PageServer, hash_of
from benchmarks.rivals import Target

PAGE, BATCH = 250, 10
BY_HAND = "aiohttp + orjson by hand"
STREAM, PAGES = "bc_attrvals, stream()", "bc_attrvals, pages()"
UPSERT, UPSERT_STREAM = "bc_attrvals, upsert()", "bc_attrvals, upsert_stream()"

Job = Callable[[], Coroutine[Any, Any, int]]


async def stream(target: Target) -> int:
    count = 0
    async with Store(target.store_hash, target.access_token, base_url=target.url) as store:
        async for _ in store.attribute_values.stream():
            count += 1
    return count


async def pages(target: Target) -> int:
    count = 0
    async with Store(target.store_hash, target.access_token, base_url=target.url) as store:
        async for page in store.attribute_values.pages():
            for _ in page.data:
                count += 1
    return count


def lazily(count: int) -> Iterator[AttributeValueUpsert]:
    """Yield so many items; all contenders pay for making them."""
    for number in range(1, count + 1):
        yield AttributeValueUpsert(number, 1, "a value")


async def upsert(target: Target, count: int) -> int:
    async with Store(target.store_hash, target.access_token, base_url=target.url) as store:
        report = await store.attribute_values.upsert(lazily(count))
    return report.stored


async def upsert_stream(target: Target, count: int) -> int:
    stored = 0
    async with Store(target.store_hash, target.access_token, base_url=target.url) as store:
        async for outcome in store.attribute_values.upsert_stream(lazily(count)):
            stored += outcome.ok
    return stored


async def _count(rows: AsyncIterator[object]) -> int:
    count = 0
    async for _ in rows:
        count += 1
    return count


def _timed(run: Callable[[], int], values: int) -> Callable[[], float]:
    def checked() -> None:
        count = run()
        if count != values:
            raise RuntimeError(f"{count} of {values} values came")

    return lambda: cpu_s(checked)


def _on_loop(job: Job) -> Callable[[], int]:
    return lambda: asyncio.run(job())


def _reading(url: str, rows: int) -> dict[str, Callable[[], int]]:
    target = Target(url, hash_of(rows, prebuilt=True), "token")
    return {
        BY_HAND: _on_loop(lambda: _count(rivals.stream_by_hand(target))),
        STREAM: _on_loop(lambda: stream(target)),
        PAGES: _on_loop(lambda: pages(target)),
    }


def _writing(url: str, values: int) -> dict[str, Callable[[], int]]:
    target = Target(url, hash_of(0), "token")
    return {
        BY_HAND: _on_loop(lambda: rivals.put_by_hand(target, lazily(values))),
        UPSERT: _on_loop(lambda: upsert(target, values)),
        UPSERT_STREAM: _on_loop(lambda: upsert_stream(target, values)),
    }


def _on_uvloop(url: str, rows: int, values: int) -> tuple[dict[str, Callable[[], int]], ...]:
    if not installed("uvloop"):
        return {}, {}
    import uvloop

    read, written = Target(url, hash_of(rows, prebuilt=True), "token"), Target(url, hash_of(0), "t")
    return (
        {f"{STREAM}, uvloop": lambda: uvloop.run(stream(read))},
        {f"{UPSERT}, uvloop": lambda: uvloop.run(upsert(written, values))},
    )


def _others(url: str, rows: int, values: int) -> tuple[dict[str, Callable[[], int]], ...]:
    """Many times slower: fewer turns are enough."""
    read, written = Target(url, hash_of(rows, prebuilt=True), "token"), Target(url, hash_of(0), "t")
    reading, writing = {}, {}
    if installed("httpx"):
        reading["httpx"] = _on_loop(lambda: _count(rivals.stream_httpx(read)))
        writing["httpx"] = _on_loop(lambda: rivals.put_httpx(written, lazily(values)))
    for name in ("bigc", "bigcommerce"):
        if installed(name):
            listed, put = getattr(rivals, f"stream_{name}"), getattr(rivals, f"put_{name}")
            reading[name] = lambda listed=listed: sum(1 for _ in listed(read))
            writing[name] = lambda put=put: put(written, lazily(values))
    return reading, writing


def _compare(
    title: str, unit: str, size: int, values: int, runs: dict[str, Callable[[], int]], turns: int
) -> list[dict[str, Any]]:
    contenders = {name: _timed(run, values) for name, run in runs.items()}
    figures = take_turns(contenders, BY_HAND, turns)
    show(title, figures, unit, 1e6 * size / values)
    return dump(figures)


def _child(url: str, turns: int, rows: int, values: int) -> dict[str, Any]:
    """Measure one server; in a process that trusts it."""
    is_tls = url.startswith("https:")
    how = "TLS" if is_tls else "plain"
    few = min(rows, 20 * PAGE)
    reading, writing, short = _reading(url, rows), _writing(url, values), _reading(url, few)
    if is_tls:
        for runs, more in zip((reading, writing), _on_uvloop(url, rows, values), strict=True):
            runs.update(more)
    else:
        del reading[PAGES], writing[UPSERT_STREAM]
    del short[PAGES]
    found = {
        "page": _compare(f"Reading, {how}", "us a page", PAGE, rows, reading, turns),
        "short": _compare(f"Reading 20 pages, {how}", "us a page", PAGE, few, short, turns),
        "put": _compare(f"Writing, {how}", "us a PUT", BATCH, values, writing, turns),
    }
    if is_tls:
        slow_reading, slow_writing = _others(url, rows // 5, values // 5)
        slow_reading[BY_HAND] = _reading(url, rows // 5)[BY_HAND]
        slow_writing[BY_HAND] = _writing(url, values // 5)[BY_HAND]
        few = min(turns, 3)
        found["page"] += _compare(
            f"Reading, {how}", "us a page", PAGE, rows // 5, slow_reading, few
        )[:-1]
        found["put"] += _compare(
            f"Writing, {how}", "us a PUT", BATCH, values // 5, slow_writing, few
        )[:-1]
    return found


def _instructions(url: str, ca_file: str) -> dict[str, Any]:
    """Return thousands of instructions of a page and a PUT: a long run less a short one."""

    def count(kind: str, name: str, calls: int) -> int:
        # Imports run at full speed: counting begins when the child says that it is ready.
        child = subprocess.Popen(
            [
                *("valgrind", "--tool=callgrind", "--instr-atstart=no"),
                *("--callgrind-out-file=/dev/null", sys.executable, "-m", "benchmarks.cpu"),
                *map(json.dumps, ("once", url, kind, name, calls)),
            ],
            env=child_environment(PYTHONHASHSEED="0", **trusting(ca_file)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        child.stdout.readline()
        switch = ["vgdb", f"--pid={child.pid}", "instrumentation", "on"]
        subprocess.run(switch, check=True, capture_output=True)
        told = child.communicate("\n")[1]
        found = re.search(r"Collected : (\d+)", told)
        assert found is not None, told
        return int(found[1])

    sizes = {("page", BY_HAND): (10, 60), ("page", STREAM): (10, 60)}
    sizes |= {("put", BY_HAND): (30, 130), ("put", UPSERT): (30, 130)}
    with ThreadPoolExecutor(2) as pool:
        counts = {
            key: [pool.submit(count, *key, calls) for calls in both] for key, both in sizes.items()
        }
        each = {
            key: (counts[key][1].result() - counts[key][0].result()) / (both[1] - both[0])
            for key, both in sizes.items()
        }
    result = {}
    for kind, ours in (("page", STREAM), ("put", UPSERT)):
        by_hand, own = each[kind, BY_HAND], each[kind, ours]
        result[kind] = {"by_hand": round(by_hand), "ours": round(own), "ratio": own / by_hand}
        print(
            f"instructions a {kind}: {own / 1e3:,.0f} k, {own / by_hand:.2f} of by hand", flush=True
        )
    return result


def _once(url: str, kind: str, name: str, calls: int) -> None:
    runs, size = (_reading, PAGE) if kind == "page" else (_writing, BATCH)
    # What is imported on first need is here by then.
    runs(url, size)[name]()
    print("ready", flush=True)
    sys.stdin.readline()
    runs(url, size * calls)[name]()
    # The interpreter's own end is not what is counted.
    os._exit(0)


class _Transport:
    """Answers after one turn of the loop."""

    def __init__(self) -> None:
        self._answer = Response(200, CIMultiDictProxy(CIMultiDict()), b"")

    async def send(self, request: Request, timeout_s: float) -> Response:
        await asyncio.sleep(0)
        return self._answer


async def _queue_us(queued: int, requests: int) -> float:
    """CPU microseconds of a request while so many wait: what ends is replaced."""
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


def measure(*, quick: bool = False) -> dict[str, Any]:
    """Measure; see the module."""
    rows, values, turns = (5_000, 300, 1) if quick else (50_000, 4_000, 11)
    with PageServer() as server:
        result: dict[str, Any] = {"rows": rows, "values": values, "turns": turns}
        for name, url, share in (("tls", server.tls_url, 1), ("plain", server.url, 2)):
            arguments = (url, -(-turns // share), rows, values)
            result[name] = in_child("benchmarks.cpu", *arguments, trust=server.ca_file)
        if not quick and shutil.which("vgdb"):
            result["instructions"] = _instructions(server.tls_url, server.ca_file)
    requests = 1_000 if quick else 10_000
    queue = result["scheduler_us_by_queued"] = {}
    for queued in (10, 100) if quick else (10, 10_000):
        costs = [asyncio.run(_queue_us(queued, requests + queued)) for _ in range(3)]
        queue[str(queued)] = round(min(costs), 1)
        print(f"{queued:6} queued: {queue[str(queued)]:6.1f} us a request")
    return result


if __name__ == "__main__":
    given = [one for one in sys.argv[1:] if not one.startswith("--")]
    if given and given[0] == '"once"':
        _once(*map(json.loads, given[1:]))
    elif len(given) == 4:
        print(json.dumps(_child(*map(json.loads, given))))
    else:
        run_alone("cpu", measure, __doc__)
