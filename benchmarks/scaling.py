"""Do ten times the values cost ten times the time? CPU of stream, upsert and sync.

The sync lists what the store holds and writes every tenth value. By default the long jobs are of
100,000 values (a million for stream); with `--million` all are of a million, which takes minutes.

    python -m benchmarks.scaling [--million] [--quick] [--json FILE]
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import sys
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from bc_attrvals import AttributeValueFilter, AttributeValueUpsert, Store
from benchmarks import stream, upsert
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


def measure(*, quick: bool = False, million: bool = False, turns: int = 3) -> dict[str, Any]:
    """Measure; see the module."""
    result: dict[str, Any] = {}
    with PageServer() as server:
        url = server.url
        jobs: dict[str, Callable[[int], Coroutine[Any, Any, int]]] = {
            "stream": lambda count: stream._ours(Target(url, hash_of(count), "token")),
            "upsert": lambda count: upsert._ours(Target(url, hash_of(0), "token"), count),
            "sync": lambda count: _sync(url, count),
        }
        for name, job in jobs.items():
            most = 1_000_000 if million or name == "stream" else 100_000
            most = most // 500 if quick else most
            factors, longs = [], []
            _seconds(job, most // 20)
            for _ in range(1 if quick else turns):
                # The short job on both sides of the long one, for the machine drifts.
                short = [_seconds(job, most // 10) for _ in range(2)]
                longs.append(_seconds(job, most))
                short += [_seconds(job, most // 10) for _ in range(2)]
                factors.append(longs[-1] / statistics.median(short) / 10)
            result[name] = {
                "values": most,
                "seconds": round(statistics.median(longs), 3),
                "of_ten_times_the_tenth": round(statistics.median(factors), 3),
                "low": round(min(factors), 3),
                "high": round(max(factors), 3),
            }
            one = result[name]
            print(
                f"{name:8} {most:9,} values {one['seconds']:7.2f} s CPU, "
                f"{one['of_ten_times_the_tenth']:.2f} of ten times a tenth "
                f"({one['low']:.2f} - {one['high']:.2f})",
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
    if "--million" in sys.argv:
        sys.argv.remove("--million")
        run_alone("scaling", lambda *, quick: measure(quick=quick, million=True), __doc__)
    else:
        run_alone("scaling", measure, __doc__)
