"""What all benchmarks share: turns, medians, ratios, spread, environment, JSON.

Contenders take turns (ABAB...), because the speed of a shared machine changes in the course of a
run. Each turn's ratio is to the baseline's time in the same turn. The time is the CPU time of this
process, threads included, unless a benchmark says otherwise: the server is another process.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

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
    """One contender: median microseconds, and the ratio to the baseline, turn by turn.

    `low` and `high` are the quartiles of the ratio.
    """

    name: str
    us: float
    ratio: float
    low: float
    high: float


def take_turns(
    contenders: Mapping[str, Callable[[], float]], baseline: str, turns: int
) -> list[Figure]:
    """Run all contenders `turns` times after a first run to warm up; each returns its seconds."""
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
        measured = (1e6 * median(seconds), median(ratios), low, high)
        figures.append(Figure(name, *(round(one, 3) for one in measured)))
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


class Child:
    """A module in a process of its own, which reads and answers lines of JSON until its input ends.

    `under` is a command that runs the interpreter.
    """

    def __init__(
        self, module: str, *arguments: object, under: Sequence[str] = (), **variables: str
    ):
        self._module = module
        self.process = subprocess.Popen(
            [*under, sys.executable, "-m", module, *map(json.dumps, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=child_environment(**variables),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def ask(self, *message: Any) -> Any:
        """Send a message, and return the answer."""
        self.send(*message)
        return self.answer()

    def send(self, *message: Any) -> None:
        """Send a message."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        """Return the next answer."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._module} failed; see its error above")
        return json.loads(line)


def say(answer: object) -> None:
    """Send an answer to the process that started this one."""
    print(json.dumps(answer), flush=True)


def answer_all(answers: Callable[..., object]) -> None:
    """Answer all messages to this process until its input ends."""
    for line in sys.stdin:
        say(answers(*json.loads(line)))


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


def show(title: str, figures: list[Figure], unit: str) -> None:
    """Print figures."""
    print(f"{title:<44} {unit:>12} {'ratio':>6}   {'quartiles':>12}")
    for one in figures:
        print(
            f"  {one.name:<42} {one.us:12.1f} {one.ratio:6.2f}   {one.low:5.2f} - {one.high:4.2f}",
            flush=True,
        )
