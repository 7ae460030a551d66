"""How much does memory grow with the length of a job, and how long does importing take?

Each job runs in a process of its own: the growth of its peak from after a short job to after the
long one. Imports are CPU seconds of fresh interpreters, less those of an empty one, in turn.

    python -m benchmarks.memory [--quick] [--json FILE]
"""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.harness import dump, run_alone, show, take_turns
from benchmarks.page_server import PageServer, hash_of

_IMPORTS = {
    "import aiohttp": "import aiohttp",
    "import bc_attrvals": "import bc_attrvals",
    "from bc_attrvals import Store": "from bc_attrvals import Store",
}


def _peak_mib() -> float:
    # Linux hands ru_maxrss on to children, so a peak of the parent's would hide theirs.
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text(encoding="ascii").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _child(what: str, url: str, short: int, long: int) -> None:
    from benchmarks import cpu
    from benchmarks.rivals import Target

    job: Callable[[int], Any] = {
        "stream": lambda count: cpu.stream(Target(url, hash_of(count), "token")),
        "upsert": lambda count: cpu.upsert(Target(url, hash_of(0), "token"), count),
    }[what]
    assert asyncio.run(job(short)) == short
    before = _peak_mib()
    assert asyncio.run(job(long)) == long
    print(json.dumps(_peak_mib() - before))


def _import_cpu_s(statement: str) -> float:
    code = (
        f"import time; began = time.process_time(); {statement};print(time.process_time() - began)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return float(done.stdout)


def measure(*, quick: bool = False) -> dict[str, Any]:
    """Measure; see the module."""
    jobs = {"stream": (5_000, 500_000), "upsert": (2_000, 200_000)}
    growth: dict[str, Any] = {}
    with PageServer() as server:
        for what, (short, long) in jobs.items():
            sizes = [str(short // 10), str(long // 500)] if quick else [str(short), str(long)]
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.memory", what, server.url, *sizes],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            )
            growth[what] = {"values": int(sizes[1]), "peak_grew_mib": round(float(done.stdout), 1)}
            grew = growth[what]["peak_grew_mib"]
            print(f"{what} of {int(sizes[1]):,} values: the peak grew by {grew} MiB")
    contenders = {
        name: lambda statement=statement: _import_cpu_s(statement)
        for name, statement in _IMPORTS.items()
    }
    figures = take_turns(contenders, "import aiohttp", 1 if quick else 9)
    show("Importing", figures, "ms", 1e3)
    return {"growth": growth, "baseline": "import aiohttp", "figures": dump(figures)}


if __name__ == "__main__":
    if len(sys.argv) == 5:
        _child(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        run_alone("memory", measure, __doc__)
