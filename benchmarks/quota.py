"""How much of a store's quota is used, and how many 429s does that cost?

The same PUTs of ten values under the same quota, by the library and by what one would write by
hand, one after the other against a Sandbox in another process. Seconds are set against the ideal:
what the quota's windows and three PUTs at once allow at best, from the moment the run began.

    python -m benchmarks.quota [--quota 40] [--window 2] [--latency 20] [--values 3000]
                               [--json FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import attrs

from bc_attrvals import AttributeValueUpsert, Store
from benchmarks.harness import environment, installed
from benchmarks.rivals import Target, aiolimiter_rate, put_all
from benchmarks.sandbox_process import SandboxProcess

Items = Sequence[AttributeValueUpsert]

#: PUTs at once per store (the service's reference).
PUTS_AT_ONCE = 3
BATCH_SIZE = 10


@attrs.frozen
class Conditions:
    """What the store allows, and how much there is to do."""

    quota: int
    window_s: float
    latency_ms: float
    values: int

    @property
    def calls(self) -> int:
        """PUTs it takes when none is refused."""
        return -(-self.values // BATCH_SIZE)

    def ideal_s(self, began_in_window_s: float) -> float:
        """Return the least seconds from `began_in_window_s` into the first window on."""
        round_s = self.latency_ms / 1000

        def at_best_s(calls: int) -> float:
            return -(-calls // PUTS_AT_ONCE) * round_s

        if at_best_s(self.quota) > self.window_s:
            # The latency limits, not the quota.
            return at_best_s(self.calls)
        full_windows = (self.calls - 1) // self.quota
        rest = self.calls - full_windows * self.quota
        if not full_windows:
            return at_best_s(rest)
        return full_windows * self.window_s - began_in_window_s + at_best_s(rest)


@attrs.frozen
class Result:
    """One contender's run."""

    name: str
    seconds: float
    ideal_seconds: float
    calls: int
    calls_429: int
    most_puts_at_once: int
    #: Shares of the quota granted, in each window that was ours from end to end.
    full_windows: list[float]
    stored: int


async def ours(target: Target, items: Items, _: Conditions) -> None:
    async with Store(target.store_hash, target.access_token, base_url=target.url) as store:
        await store.attribute_values.upsert(items)


async def by_hand(target: Target, items: Items, _: Conditions) -> None:
    await put_all(target, items, at_once=PUTS_AT_ONCE)


async def with_aiolimiter(target: Target, items: Items, conditions: Conditions) -> None:
    rate = aiolimiter_rate(conditions.quota, conditions.window_s)
    await put_all(target, items, at_once=PUTS_AT_ONCE, rate=rate)


async def by_hand_ten_at_once(target: Target, items: Items, _: Conditions) -> None:
    await put_all(target, items, at_once=10)


CONTENDERS: dict[str, Callable[[Target, Items, Conditions], Awaitable[None]]] = {
    "ours": ours,
    "aiohttp, semaphore 3": by_hand,
    "aiolimiter, semaphore 3": with_aiolimiter,
    "aiohttp, semaphore 10": by_hand_ten_at_once,
}


async def _measure_one(
    name: str, sandbox: SandboxProcess, items: Items, conditions: Conditions
) -> Result:
    """Run one contender on an empty store whose first window begins now."""
    target = Target(sandbox.url, sandbox.store_hash, sandbox.access_token)
    asked_at = time.perf_counter()
    await sandbox.reset()
    began_at = time.perf_counter()
    await CONTENDERS[name](target, items, conditions)
    seconds = time.perf_counter() - began_at
    facts = await sandbox.facts()
    windows = facts["windows"]
    # In the last window there is less to do than the quota allows.
    full = [granted / conditions.quota for _, granted, *_ in windows[:-1]]
    return Result(
        name=name,
        seconds=seconds,
        # The window began between question and answer: the earliest makes the ideal the least.
        ideal_seconds=conditions.ideal_s(began_at - asked_at),
        calls=facts["calls"].get("upsert", 0),
        calls_429=facts["statuses"].get("429", 0),
        most_puts_at_once=facts["most_puts_at_once"],
        full_windows=full,
        stored=facts["rows"],
    )


def show(result: Result, baseline: Result) -> None:
    shares = result.full_windows
    use = f"{min(shares):4.0%} {sum(shares) / len(shares):5.0%}" if shares else "   -     -"
    print(
        f"{result.name:<24} {result.seconds:7.2f} {result.ideal_seconds:7.2f}"
        f" {result.seconds / result.ideal_seconds:7.2f} {result.seconds / baseline.seconds:7.2f}"
        f" {result.calls:6} {result.calls_429:6}  {use:>11}",
        flush=True,
    )


async def run(conditions: Conditions) -> list[Result]:
    print(
        f"{conditions.calls} PUTs, {conditions.values} values, {conditions.quota} calls per "
        f"{conditions.window_s:g} s, {conditions.latency_ms:g} ms"
    )
    items = [AttributeValueUpsert(n, 1, f"value {n}") for n in range(1, conditions.values + 1)]
    options = {
        "quota": conditions.quota,
        "window_s": conditions.window_s,
        "latency_ms": conditions.latency_ms,
    }
    print(
        f"{'':24} {'seconds':>7} {'ideal':>7} {'/ideal':>7} {'/ours':>7} {'calls':>6}"
        f" {'429s':>6}  {'use min avg':>11}"
    )
    results: list[Result] = []
    async with SandboxProcess(**options) as sandbox:
        for name, contender in CONTENDERS.items():
            if contender is with_aiolimiter and not installed("aiolimiter"):
                continue
            result = await _measure_one(name, sandbox, items, conditions)
            results.append(result)
            show(result, results[0])
            if result.stored != conditions.values:
                message = f"{name} stored {result.stored} of {conditions.values} values"
                raise RuntimeError(message)
    return results


def measure(*, quick: bool = False) -> dict[str, Any]:
    """Measure in half the time that `main` takes by default; see the module."""
    conditions = Conditions(40, 1.0, 20.0, 100 if quick else 1_500)
    return _dump(conditions, asyncio.run(run(conditions)))


def _dump(conditions: Conditions, results: list[Result]) -> dict[str, Any]:
    return {
        "conditions": attrs.asdict(conditions),
        "results": [attrs.asdict(result) for result in results],
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quota", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--quota", type=int, default=40, help="calls in a window (40)")
    parser.add_argument("--window", type=float, default=2.0, help="seconds of a window (2)")
    parser.add_argument("--latency", type=float, default=20.0, help="milliseconds of a call (20)")
    parser.add_argument("--values", type=int, default=3_000, help="values to store (3000)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    given = parser.parse_args()
    conditions = Conditions(given.quota, given.window, given.latency, given.values)
    surroundings = environment()
    print(", ".join(f"{name} {value}" for name, value in surroundings.items() if value), "\n")
    results = asyncio.run(run(conditions))
    if given.json is not None:
        figures = {"environment": surroundings, "quota": _dump(conditions, results)}
        given.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
