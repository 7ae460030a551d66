"""Are the slots kept busy, and what does a long queue cost?

With 100 ms of latency, three PUTs at once can be 30 calls a second, and ten reads at once 100: how
much of that is reached, counted by the wall clock, and how much by hand? Connecting is part of it.
Ours and the loop by hand take turns, and medians are told. And what does one request cost the
scheduler (CPU, over a transport that answers at once) when 10 or 10,000 others wait?

    python -m benchmarks.waiting [--quick] [--json FILE]
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Coroutine
from typing import Any

from multidict import CIMultiDict, CIMultiDictProxy

from bc_attrvals import Limits, RetryPolicy
from bc_attrvals.core.requests import Operation, Request
from bc_attrvals.core.responses import Response
from bc_attrvals.events import EventBus
from bc_attrvals.scheduling.exchange import CallOptions, Exchange
from bc_attrvals.scheduling.quota import Priority
from bc_attrvals.scheduling.scheduler import Scheduler
from benchmarks import rivals, stream, upsert
from benchmarks.harness import run_alone
from benchmarks.page_server import PageServer, hash_of
from benchmarks.rivals import Target

LATENCY_MS = 100


def _target(url: str, rows: int = 0) -> Target:
    return Target(url, hash_of(rows, LATENCY_MS, prebuilt=True), "token")


async def _puts(url: str, calls: int) -> int:
    return await upsert._ours(_target(url), 10 * calls)


async def _puts_by_hand(url: str, calls: int) -> int:
    return await rivals.put_by_hand(_target(url), upsert.lazily(10 * calls))


async def _reads(url: str, calls: int) -> int:
    return await stream._ours(_target(url, 250 * calls))


async def _reads_by_hand(url: str, calls: int) -> int:
    return await stream._count(rivals.stream_by_hand_ahead(_target(url, 250 * calls)))


def _of_ideal(job: Callable[[str, int], Coroutine[Any, Any, int]], url: str, calls: int) -> float:
    """Return the share of the ideal rate that a job reaches, which moves so many calls' values."""
    writes = job in {_puts, _puts_by_hand}
    # The first page comes alone, for it says how many there are.
    rounds = -(-calls // 3) if writes else 1 + -(-(calls - 1) // 10)
    began_at = time.perf_counter()
    values = asyncio.run(job(url, calls))
    seconds = time.perf_counter() - began_at
    if values != calls * (10 if writes else 250):
        raise RuntimeError("values are missing")
    return rounds * LATENCY_MS / 1000 / seconds


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


def measure(*, quick: bool = False, turns: int = 3) -> dict[str, Any]:
    """Measure; see the module."""
    jobs = {
        "puts_of_ideal": (_puts, 6 if quick else 90),
        "puts_by_hand_of_ideal": (_puts_by_hand, 6 if quick else 90),
        "reads_of_ideal": (_reads, 11 if quick else 301),
        "reads_by_hand_of_ideal": (_reads_by_hand, 11 if quick else 301),
    }
    shares: dict[str, list[float]] = {name: [] for name in jobs}
    with PageServer() as server:
        asyncio.run(_reads(server.url, 11 if quick else 301))  # has the pages built
        for _ in range(1 if quick else turns):
            for name, (job, calls) in jobs.items():
                shares[name].append(_of_ideal(job, server.url, calls))
    of_ideal = {name: statistics.median(found) for name, found in shares.items()}
    for kind in ("puts", "reads"):
        ours, by_hand = of_ideal[f"{kind}_of_ideal"], of_ideal[f"{kind}_by_hand_of_ideal"]
        print(f"of the ideal at {LATENCY_MS} ms: {kind:5} {ours:.1%}, by hand {by_hand:.1%}")
    requests = 1_000 if quick else 10_000
    waiting: dict[str, float] = {}
    for queued in (10, 100) if quick else (10, 100, 1_000, 10_000):
        costs = [asyncio.run(_queue_us(queued, requests + queued)) for _ in range(3)]
        waiting[str(queued)] = round(min(costs), 1)
        print(f"{queued:6} queued: {waiting[str(queued)]:6.1f} us a request")
    return {
        "latency_ms": LATENCY_MS,
        **{name: round(share, 4) for name, share in of_ideal.items()},
        "scheduler_us_by_queued": waiting,
    }


if __name__ == "__main__":
    run_alone("waiting", measure, __doc__)
