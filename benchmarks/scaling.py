"""Do ten times the values cost ten times the time? CPU of stream, upsert and sync.

The long jobs are of a million values, the upsert of half a million. The sync lists what the store
holds and writes every tenth.

    python -m benchmarks.scaling [--quick] [--json FILE]
"""

from __future__ import annotations

import asyncio
import gc
import statistics
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from bc_attrvals import AttributeValueFilter, AttributeValueUpsert, Store
from benchmarks import cpu
from benchmarks.harness import cpu_s, run_alone
from benchmarks.page_server import PageServer, hash_of, value_of
from benchmarks.rivals import Target


def _desired(count: int) -> Iterator[AttributeValueUpsert]:
    for number in range(1, count + 1):
        value = value_of(number) if number % 10 else "another"
        yield AttributeValueUpsert(number, 1, value)


async def _sync(url: str, count: int) -> int:
    async with Store(hash_of(count), "token", base_url=url) as store:
        report = await store.attribute_values.sync(
            _desired(count), scope=AttributeValueFilter(attribute_id_in=[1])
        )
    # A short one is written without reading.
    return report.updated + report.unchanged + report.written


def measure(*, quick: bool = False) -> dict[str, Any]:
    """Measure; see the module."""
    whole = 2_000 if quick else 1_000_000
    result: dict[str, Any] = {}
    with PageServer() as server:
        url = server.url
        jobs: dict[str, Callable[[int], Coroutine[Any, Any, int]]] = {
            "stream": lambda count: cpu.stream(Target(url, hash_of(count), "token")),
            "upsert": lambda count: cpu.upsert(Target(url, hash_of(0), "token"), count),
            "sync": lambda count: _sync(url, count),
        }
        for name, job in jobs.items():
            most = whole // 2 if name == "upsert" else whole
            _seconds(job, most // 20)
            factors: list[float] = []
            longs: list[float] = []
            # Seconds of stream are soon over; the others take a good while.
            for _ in range(3 if name == "stream" and not quick else 1):
                # Short ones on both sides of the long one, for the machine drifts.
                shorts = [_seconds(job, most // 10) for _ in range(2)]
                longs.append(_seconds(job, most))
                shorts += [_seconds(job, most // 10) for _ in range(2)]
                factors += [longs[-1] / short / 10 for short in shorts]
            low, middle, high = statistics.quantiles(factors, n=4)
            result[name] = {
                "values": most,
                "seconds": round(statistics.median(longs), 3),
                "of_ten_times_the_tenth": round(middle, 3),
                "low": round(low, 3),
                "high": round(high, 3),
            }
            print(
                f"{name:8} {most:9,} values {statistics.median(longs):7.2f} s CPU, "
                f"{middle:.2f} of ten times a tenth ({low:.2f} - {high:.2f})",
                flush=True,
            )
    return result


def _seconds(job: Callable[[int], Coroutine[Any, Any, int]], count: int) -> float:
    def run() -> None:
        if asyncio.run(job(count)) != count:
            raise RuntimeError("values are missing")

    gc.collect()
    return cpu_s(run)


if __name__ == "__main__":
    run_alone("scaling", measure, __doc__)
