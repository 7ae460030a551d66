"""Run the benchmarks and keep the figures.

    python -m benchmarks [--quick] [--keep] [NAME ...]

Without names all are run: jobs, cpu, instructions, growth. With `--keep`, writes what was measured
to `benchmarks/results-3.11.json` (by the interpreter's version), and keeps there the figures of the
questions that were not run. From all such files it draws `benchmarks/speed.svg`, and fills in the
text between the markers of `benchmarks/README.md` and `README.md`.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from benchmarks import cpu, growth, instructions, jobs, kept
from benchmarks.harness import environment

_QUESTIONS = {"jobs": jobs, "cpu": cpu, "instructions": instructions, "growth": growth}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(_QUESTIONS))
    parser.add_argument("--quick", action="store_true", help="tiny, to see that all run")
    parser.add_argument("--keep", action="store_true", help="write results, tables and plot")
    given = parser.parse_args()
    if unknown := set(given.names) - set(_QUESTIONS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    took_s: dict[str, int] = {}
    results: dict[str, object] = {"environment": environment(), "took_s": took_s}
    for name in given.names or _QUESTIONS:
        began_at = time.perf_counter()
        results[name] = _QUESTIONS[name].measure(quick=given.quick)
        took_s[name] = round(time.perf_counter() - began_at)
        print(f"-- {name} took {took_s[name]} s\n", flush=True)
    print(f"all took {sum(took_s.values())} s")
    if given.keep:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        kept.put(Path(__file__).parent, version, results)


if __name__ == "__main__":
    main()
