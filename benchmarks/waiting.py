"""Are the slots kept busy, and what does a long queue cost?

With 100 ms of latency, three PUTs at once can be 30 calls a second, and ten reads at once 100: how
much of that is reached, counted by the wall clock, and how much by hand? (A server's timers are
late by up to a millisecond, and ten pages answered at once are worked on one by one.) And what does
one request cost the scheduler (CPU, over a transport that answers at once) when 10 or 10,000 others
wait?

    python -m benchmarks.waiting [--quick] [--json FILE]
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from multidict import CIMultiDict, CIMultiDictProxy

from bc_attrvals import Limits, RetryPolicy, Store
from bc_attrvals.core.requests import Operation, Request
from bc_attrvals.events import EventBus
from bc_attrvals.gate import Priority
from bc_attrvals.scheduler import Call, Options, Scheduler
from bc_attrvals.session import Answer
from benchmarks import rivals
from benchmarks.harness import run_alone
from benchmarks.page_server import PageServer, hash_of
from benchmarks.rivals import Target
from benchmarks.upsert import lazily

LATENCY_MS = 100


async def _puts(url: str, calls: int) -> float:
    async with Store(hash_of(0, LATENCY_MS), "token", base_url=url) as store:
        await store.attribute_values.upsert(lazily(30))
        began_at = time.perf_counter()
        await store.attribute_values.upsert(lazily(10 * calls))
        seconds = time.perf_counter() - began_at
    return -(-calls // 3) * LATENCY_MS / 1000 / seconds


async def _reads(url: str, calls: int) -> float:
    # The first page comes alone, for it says how many there are.
    rounds = 1 + -(-(calls - 1) // 10)
    async with Store(
        hash_of(250 * calls, LATENCY_MS, prebuilt=True), "token", base_url=url
    ) as store:
        began_at = time.perf_counter()
        pages = 0
        async for _ in store.attribute_values.pages():
            pages += 1
        seconds = time.perf_counter() - began_at
    assert pages == calls
    return rounds * LATENCY_MS / 1000 / seconds


async def _puts_by_hand(url: str, calls: int) -> float:
    target = Target(url, hash_of(0, LATENCY_MS), "token")
    began_at = time.perf_counter()
    await rivals.put_by_hand(target, lazily(10 * calls))
    seconds = time.perf_counter() - began_at
    return -(-calls // 3) * LATENCY_MS / 1000 / seconds


async def _reads_by_hand(url: str, calls: int) -> float:
    rounds = 1 + -(-(calls - 1) // 10)
    target = Target(url, hash_of(250 * calls, LATENCY_MS, prebuilt=True), "token")
    began_at = time.perf_counter()
    async for _ in rivals.stream_by_hand_ahead(target):
        pass
    seconds = time.perf_counter() - began_at
    return rounds * LATENCY_MS / 1000 / seconds


class _Transport:
    """Answers after one turn of the loop."""

    def __init__(self) -> None:
        self._answer = Answer(200, CIMultiDictProxy(CIMultiDict()), b"")

    async def send(self, request: Request, timeout_s: float) -> Answer:
        await asyncio.sleep(0)
        return self._answer


async def _queue_us(queued: int, requests: int) -> float:
    """CPU microseconds of a request while so many wait: what ends is replaced."""
    scheduler = Scheduler(_Transport(), limits=Limits(), retry=RetryPolicy(), events=EventBus())
    await scheduler.open("hash")
    request = Request(Operation.WRITE, "PUT", "/values", b"[]")
    options = Options()
    left = requests

    async def send() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await scheduler.send(request, lambda _: None, options, Priority.BULK, Call())

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
    calls = 9 if quick else 150
    with PageServer() as server:
        puts = asyncio.run(_puts(server.url, calls))
        asyncio.run(_reads(server.url, calls + 1))  # has the pages built
        reads = asyncio.run(_reads(server.url, calls + 1))
        puts_by_hand = asyncio.run(_puts_by_hand(server.url, calls))
        reads_by_hand = asyncio.run(_reads_by_hand(server.url, calls + 1))
    print(f"of the ideal: PUTs {puts:.1%}, reads {reads:.1%} ({LATENCY_MS} ms)")
    print(f"     by hand: PUTs {puts_by_hand:.1%}, reads {reads_by_hand:.1%}")
    requests = 1_000 if quick else 10_000
    waiting: dict[str, float] = {}
    for queued in (10, 100) if quick else (10, 100, 1_000, 10_000):
        costs = [asyncio.run(_queue_us(queued, requests + queued)) for _ in range(3)]
        waiting[str(queued)] = round(min(costs), 1)
        print(f"{queued:6} queued: {waiting[str(queued)]:6.1f} us a request")
    return {
        "latency_ms": LATENCY_MS,
        "puts_of_ideal": round(puts, 4),
        "reads_of_ideal": round(reads, 4),
        "puts_by_hand_of_ideal": round(puts_by_hand, 4),
        "reads_by_hand_of_ideal": round(reads_by_hand, 4),
        "scheduler_us_by_queued": waiting,
    }


if __name__ == "__main__":
    run_alone("waiting", measure, __doc__)
