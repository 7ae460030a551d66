"""What does writing cost? Client CPU for a PUT of ten, from a lazy input, three calls at once.

The library pairs each answer with what was sent, keeps equal keys apart and accounts for every
item; the loop by hand counts rows.

    python -m benchmarks.upsert [--quick] [--json FILE]
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

from bc_attrvals import AttributeValueUpsert, Store
from benchmarks import rivals
from benchmarks.harness import cpu_s, dump, installed, run_alone, show, take_turns
from benchmarks.page_server import PageServer, hash_of
from benchmarks.rivals import Target

BATCH = 10
BASELINE = "aiohttp + orjson, 3 workers"
OURS = "bc_attrvals, upsert()"
OURS_WITH_OUTCOMES = "bc_attrvals, upsert_stream()"


def lazily(count: int) -> Iterator[AttributeValueUpsert]:
    """Yield so many items; all contenders pay for making them."""
    for number in range(1, count + 1):
        yield AttributeValueUpsert(number, 1, "a value")


async def _ours(target: Target, count: int) -> int:
    async with Store(target.store_hash, target.access_token, base_url=target.url) as store:
        report = await store.attribute_values.upsert(lazily(count))
    return report.stored


async def _ours_with_outcomes(target: Target, count: int) -> int:
    stored = 0
    async with Store(target.store_hash, target.access_token, base_url=target.url) as store:
        async for outcome in store.attribute_values.upsert_stream(lazily(count)):
            stored += outcome.ok
    return stored


def measure(*, quick: bool = False, values: int = 10_000, turns: int = 21) -> dict[str, Any]:
    """Measure; see the module."""
    values, turns = (300, 1) if quick else (values, turns)
    with PageServer() as server:
        target = Target(server.url, hash_of(0), "token")

        def timed(run: Callable[[], int]) -> Callable[[], float]:
            def checked() -> None:
                stored = run()
                if stored != values:
                    message = f"{stored} of {values} values were stored"
                    raise RuntimeError(message)

            return lambda: cpu_s(checked)

        contenders: dict[str, Callable[[], float]] = {
            BASELINE: timed(lambda: asyncio.run(rivals.put_by_hand(target, lazily(values)))),
            OURS: timed(lambda: asyncio.run(_ours(target, values))),
            OURS_WITH_OUTCOMES: timed(lambda: asyncio.run(_ours_with_outcomes(target, values))),
        }
        if installed("uvloop"):
            import uvloop

            contenders[f"{BASELINE}, uvloop"] = timed(
                lambda: uvloop.run(rivals.put_by_hand(target, lazily(values)))
            )
            contenders[f"{OURS}, uvloop"] = timed(lambda: uvloop.run(_ours(target, values)))
        figures = take_turns(contenders, BASELINE, turns)
        slow: dict[str, Callable[[], float]] = {BASELINE: contenders[BASELINE]}
        if installed("httpx"):
            slow["httpx"] = timed(lambda: asyncio.run(rivals.put_httpx(target, lazily(values))))
        if installed("bigc"):
            slow["bigc (sync)"] = timed(lambda: rivals.put_bigc(target, lazily(values)))
        if installed("bigcommerce"):
            slow["bigcommerce (sync)"] = timed(
                lambda: rivals.put_bigcommerce(target, lazily(values))
            )
        figures += take_turns(slow, BASELINE, min(turns, 3))[1:]
    show(f"Writing {values:,} values", figures, "us a PUT", 1e6 * BATCH / values)
    return {"values": values, "turns": turns, "baseline": BASELINE, "figures": dump(figures)}


if __name__ == "__main__":
    run_alone("upsert", measure, __doc__)
