"""Do ten times the values cost ten times the time, and how much does memory grow with them?

A listing of a million values, an upsert of half a million, a sync of half a million of which every
tenth is written. Each runs in a process of its own: CPU, and how much higher the peak of memory is
after the long job than after one of a tenth.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks import cpu
from benchmarks.harness import Child, answer_all, cpu_s
from benchmarks.page_server import PageServer, hash_of
from benchmarks.rivals import Target

#: Values, and how often each is measured; the listing takes only a second or two.
_SIZES = {"stream": (1_000_000, 3), "upsert": (500_000, 2), "sync": (500_000, 2)}


def _peak_mib() -> float:
    # On Linux a child inherits ru_maxrss, so a peak of the parent's would hide its own.
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text(encoding="ascii").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _grow(name: str, url: str, most: int, times: int) -> dict[str, Any]:
    def seconds(count: int) -> float:
        target = Target(url, hash_of(0 if name == "upsert" else count), "token")
        jobs = {
            "stream": lambda: cpu.stream(target),
            "upsert": lambda: cpu.upsert(target, count),
            "sync": lambda: cpu.sync(target, count),
        }

        def run() -> None:
            if asyncio.run(jobs[name]()) != count:
                raise RuntimeError("values are missing")

        gc.collect()
        return cpu_s(run)

    seconds(most // 20)
    factors, longs, grew_mib = [], [], 0.0
    for _ in range(times):
        # Short ones before and after the long one, because the speed of the machine drifts.
        shorts = [seconds(most // 10) for _ in range(2)]
        before_mib = _peak_mib()
        longs.append(seconds(most))
        grew_mib = max(grew_mib, _peak_mib() - before_mib)
        shorts += [seconds(most // 10) for _ in range(2)]
        factors += [longs[-1] / short / 10 for short in shorts]
    low, middle, high = statistics.quantiles(factors, n=4)
    return {
        "values": most,
        "seconds": round(statistics.median(longs), 3),
        "of_ten_times_the_tenth": round(middle, 3),
        "low": round(low, 3),
        "high": round(high, 3),
        "peak_grew_mib": round(grew_mib, 1),
    }


def measure(*, quick: bool = False) -> dict[str, Any]:
    """Measure; see the module."""
    result: dict[str, Any] = {}
    with PageServer() as server:
        for name, (most, times) in _SIZES.items():
            size = (2_000, 1) if quick else (most, times)
            with Child("benchmarks.growth") as child:
                one = result[name] = child.ask(name, server.url, *size)
            print(
                f"{name:8} {size[0]:9,} values {one['seconds']:7.2f} s CPU, "
                f"{one['of_ten_times_the_tenth']:.2f} of ten times a tenth "
                f"({one['low']:.2f} - {one['high']:.2f}), peak + {one['peak_grew_mib']} MiB",
                flush=True,
            )
    return result


if __name__ == "__main__":
    answer_all(_grow)
