"""What does reading cost? Client CPU for a page of 250, typed values against untyped dicts.

python -m benchmarks.stream [--quick] [--json FILE]
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

from bc_attrvals import Store
from benchmarks import rivals
from benchmarks.harness import cpu_s, dump, installed, run_alone, show, take_turns
from benchmarks.page_server import PageServer, hash_of
from benchmarks.rivals import Target

PAGE = 250
BASELINE = "aiohttp + orjson, dicts"
OURS = "bc_attrvals, stream()"

Runner = Callable[[Coroutine[Any, Any, int]], int]


async def _ours(target: Target) -> int:
    count = 0
    async with Store(target.store_hash, target.access_token, base_url=target.url) as store:
        async for _ in store.attribute_values.stream():
            count += 1
    return count


async def _ours_by_pages(target: Target) -> int:
    count = 0
    async with Store(target.store_hash, target.access_token, base_url=target.url) as store:
        async for page in store.attribute_values.pages():
            for _ in page.data:
                count += 1
    return count


async def _count(rows: AsyncIterator[object]) -> int:
    count = 0
    async for _ in rows:
        count += 1
    return count


def _count_sync(rows: Iterator[object]) -> int:
    count = 0
    for _ in rows:
        count += 1
    return count


def measure(*, quick: bool = False, rows: int = 50_000, turns: int = 41) -> dict[str, Any]:
    """Measure; see the module."""
    rows, turns = (2_000, 1) if quick else (rows, turns)
    with PageServer() as server:
        target = Target(server.url, hash_of(rows, prebuilt=True), "token")

        def timed(run: Callable[[], int]) -> Callable[[], float]:
            def checked() -> None:
                count = run()
                if count != rows:
                    message = f"{count} of {rows} rows came"
                    raise RuntimeError(message)

            return lambda: cpu_s(checked)

        contenders: dict[str, Callable[[], float]] = {
            BASELINE: timed(lambda: asyncio.run(_count(rivals.stream_by_hand(target)))),
            "the same, 10 pages ahead": timed(
                lambda: asyncio.run(_count(rivals.stream_by_hand_ahead(target)))
            ),
            OURS: timed(lambda: asyncio.run(_ours(target))),
            "bc_attrvals, pages()": timed(lambda: asyncio.run(_ours_by_pages(target))),
        }
        if installed("uvloop"):
            import uvloop

            contenders[f"{BASELINE}, uvloop"] = timed(
                lambda: uvloop.run(_count(rivals.stream_by_hand(target)))
            )
            contenders[f"{OURS}, uvloop"] = timed(lambda: uvloop.run(_ours(target)))
        figures = take_turns(contenders, BASELINE, turns)
        # Many times slower: fewer turns tell as much.
        slow: dict[str, Callable[[], float]] = {BASELINE: contenders[BASELINE]}
        if installed("httpx"):
            slow["httpx, dicts"] = timed(lambda: asyncio.run(_count(rivals.stream_httpx(target))))
        if installed("bigc"):
            slow["bigc (sync), dicts"] = timed(lambda: _count_sync(rivals.stream_bigc(target)))
        if installed("bigcommerce"):
            slow["bigcommerce (sync), dicts"] = timed(
                lambda: _count_sync(rivals.stream_bigcommerce(target))
            )
        figures += take_turns(slow, BASELINE, min(turns, 3))[1:]
    show(f"Reading {rows:,} values", figures, "us a page", 1e6 * PAGE / rows)
    return {"rows": rows, "turns": turns, "baseline": BASELINE, "figures": dump(figures)}


if __name__ == "__main__":
    run_alone("stream", measure, __doc__)
