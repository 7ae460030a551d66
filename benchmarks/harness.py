"""What all benchmarks share: turns, medians, ratios, spread, surroundings, JSON.

Contenders take turns (ABAB...), for a shared machine slows down and speeds up in the course of a
run; each turn's ratio is to the baseline's time in the same turn. What is timed is the CPU time of
this process, threads included, unless a benchmark says otherwise: the server is another process.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import attrs

PACKAGES = (
    "bc_attrvals",
    "aiohttp",
    "attrs",
    "msgspec",
    "orjson",
    "uvloop",
    "httpx",
    "bigc",
    "bigcommerce",
    "aiohttp-retry",
    "aiolimiter",
)

_ROOT = Path(__file__).resolve().parent.parent


@attrs.frozen
class Figure:
    """One contender: median seconds of a run, and the ratio to the baseline, turn by turn."""

    name: str
    seconds: float
    ratio: float
    low: float
    high: float


def take_turns(
    contenders: Mapping[str, Callable[[], float]], baseline: str, turns: int
) -> list[Figure]:
    """Run all contenders `turns` times, after once for warmth; each returns its seconds.

    `low` and `high` are the quartiles of the ratio.
    """
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(turns + 1):
        # In turn from both ends, so that none always follows the same one.
        names = list(contenders) if turn % 2 else list(reversed(contenders))
        for name in names:
            gc.collect()
            seconds = contenders[name]()
            if turn:
                taken[name].append(seconds)
    figures = []
    for name, seconds in taken.items():
        ratios = [own / other for own, other in zip(seconds, taken[baseline], strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4) if turns > 1 else [ratios[0]] * 3
        median = statistics.median
        figures.append(Figure(name, median(seconds), median(ratios), low, high))
    return figures


def cpu_s(run: Callable[[], object]) -> float:
    """Return the CPU seconds of a call."""
    began_at = time.process_time()
    run()
    return time.process_time() - began_at


def trusting(ca_file: str) -> dict[str, str]:
    """Return the variables that make any client trust a certificate, if set before it is loaded."""
    return dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"), ca_file)


def child_environment(**variables: str) -> dict[str, str]:
    """Return the environment of a process that imports the benchmarks."""
    paths = filter(None, [str(_ROOT), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **variables}


def in_child(module: str, *arguments: object, trust: str | None = None) -> Any:
    """Run a module with arguments of JSON; return the JSON of its last line, print the others."""
    variables = {} if trust is None else trusting(trust)
    process = subprocess.Popen(
        [sys.executable, "-m", module, *map(json.dumps, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env=child_environment(**variables),
    )
    assert process.stdout is not None
    last = ""
    with process.stdout:
        for line in process.stdout:
            if last:
                print(last, end="", flush=True)
            last = line
    if process.wait():
        raise RuntimeError(f"{module} failed; see its error above")
    return json.loads(last)


def installed(*names: str) -> bool:
    """Return whether all these can be imported; say so if not."""
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        print(f"  (left out: {', '.join(missing)} not installed)")
    return not missing


def environment() -> dict[str, Any]:
    """Return what the figures depend on: machine and versions."""
    return {
        "machine": _processor(),
        "processors": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": platform.platform(terse=True),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        **{name: _version(name) for name in PACKAGES},
    }


def _processor() -> str:
    # platform.processor() is empty or just the architecture on Linux.
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def show(title: str, figures: list[Figure], unit: str, scale: float) -> None:
    """Print figures; `scale` turns seconds of a run into the unit."""
    print(f"{title:<44} {unit:>12} {'ratio':>6}   {'quartiles':>12}")
    for one in figures:
        print(
            f"  {one.name:<42} {one.seconds * scale:12.1f} {one.ratio:6.2f}"
            f"   {one.low:5.2f} - {one.high:4.2f}",
            flush=True,
        )


def dump(figures: list[Figure]) -> list[dict[str, Any]]:
    """Return figures as JSON holds them."""
    return [
        {key: round(value, 6) if isinstance(value, float) else value for key, value in one.items()}
        for one in map(attrs.asdict, figures)
    ]


def run_alone(question: str, measure: Callable[..., dict[str, Any]], doc: str | None) -> None:
    """Run one benchmark from the command line: `--quick` for a look, `--json` for a file."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{question}", description=doc)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--quick", action="store_true", help="tiny, to see that it runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    given = parser.parse_args()
    figures = {"environment": environment(), question: measure(quick=given.quick)}
    if given.json is not None:
        given.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    sys.stdout.flush()
