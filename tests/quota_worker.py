"""One of several processes on one store, for tests and measurements.

Reads a JSON object with its work from its argument, waits for a line on stdin, works, and prints
what came of it as a line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from bc_attrvals import AttributeValueUpsert, Limits, Store
from bc_attrvals.events import Event, SharedQuotaLost, SharedQuotaRegained
from bc_attrvals.shared_quota import RedisQuota


async def work(options: dict[str, Any]) -> dict[str, Any]:
    quota = RedisQuota(options["redis"], **options.get("quota", {}))
    events: list[str] = []

    def note(event: Event) -> None:
        if isinstance(event, SharedQuotaLost | SharedQuotaRegained):
            events.append(type(event).__name__)

    store = Store(
        options["store_hash"],
        options["access_token"],
        base_url=options["url"],
        quota=quota,
        limits=Limits(**options.get("limits", {})),
    )
    first, count = options["first"], options["count"]
    done_at: list[float] = []
    waits: list[float] = []
    store.subscribe(note)
    async with store:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        items = (AttributeValueUpsert(first + i, 1, f"v{first + i}") for i in range(count))
        stored = 0
        if options.get("single"):
            for item in items:
                began_at = time.monotonic()
                await store.attribute_values.put_batch([item])
                waits.append(time.monotonic() - began_at)
                stored += 1
                await asyncio.sleep(options["single"])
        else:
            async for outcome in store.attribute_values.upsert_stream(items):
                stored += outcome.ok
                done_at.append(time.monotonic())
        statistics = store.statistics()
    return {
        "stored": stored,
        "requests": statistics.requests,
        "rate_limited": statistics.rate_limited,
        "events": events,
        "done_at": done_at[-1:],
        "waits": waits,
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(work(json.loads(sys.argv[1])))), flush=True)
