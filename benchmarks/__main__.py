"""Run all benchmarks and keep the figures.

    python -m benchmarks [--quick] [--keep]

With `--keep`, writes `benchmarks/results-3.11.json` (by the interpreter's version), and of all such
files draws `benchmarks/speed.svg` and makes the tables of `benchmarks/README.md`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from benchmarks import cpu, jobs, memory, plot, scaling, table
from benchmarks.harness import environment

_HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--quick", action="store_true", help="tiny, to see that all run")
    parser.add_argument("--keep", action="store_true", help="write results and plot")
    given = parser.parse_args()
    began_at = time.perf_counter()
    surroundings = environment()
    print(", ".join(f"{name} {value}" for name, value in surroundings.items() if value), "\n")
    results: dict[str, object] = {"environment": surroundings}
    for module in (jobs, cpu, memory, scaling):
        results[module.__name__.rpartition(".")[2]] = module.measure(quick=given.quick)
        print(flush=True)
    print(f"took {time.perf_counter() - began_at:.0f} s")
    if given.keep:
        name = f"results-{sys.version_info.major}.{sys.version_info.minor}.json"
        (_HERE / name).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        kept = sorted(_HERE.glob("results-*.json"))
        plot.draw(kept, _HERE / "speed.svg")
        table.put_into(_HERE / "README.md", kept)


if __name__ == "__main__":
    main()
