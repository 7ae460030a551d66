"""A process that is killed in the middle of a refresh leaves the last proven state."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from pathlib import Path

from bc_attrvals import AttributeValueUpsert
from bc_attrvals.sandbox import Sandbox

from ..conftest import make_store
from .over_http import held, seed, stored

KILLS = 3
REFRESH = """
import asyncio, sys
from bc_attrvals import Store

async def main():
    async with Store("sandbox", "sandbox-token", base_url=sys.argv[1]) as store:
        async with store.mirror(sys.argv[2]) as mirror:
            print("begun", flush=True)
            await mirror.refresh()

asyncio.run(main())
"""


async def killed_refresh(sandbox: Sandbox, path: Path, after_s: float) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", REFRESH, sandbox.url, str(path), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"begun\n"
    await asyncio.sleep(after_s)
    if process.returncode is None:
        process.send_signal(signal.SIGKILL)
    await process.wait()


async def test_a_killed_refresh_leaves_the_last_proven_state(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    rng = random.Random(7)
    path = tmp_path / "mirror.db"
    await seed(sandbox, 2_000)
    sandbox.latency_ms = 3
    async with make_store(sandbox) as store:
        for _ in range(KILLS):
            async with store.mirror(path) as mirror:
                before = await held(mirror)
            await store.attribute_values.upsert(
                AttributeValueUpsert(rng.randrange(1, 500), 1, str(rng.random())) for _ in range(5)
            )
            await sandbox.delete_rows(row.id for row in rng.sample(await sandbox.rows(), 3))
            await killed_refresh(sandbox, path, rng.uniform(0, 0.15))
            async with store.mirror(path) as mirror:
                assert await held(mirror) in (before, await stored(sandbox))
                if rng.random() < 0.5:
                    await mirror.refresh()
                    assert await held(mirror) == await stored(sandbox)
        async with store.mirror(path) as mirror:
            await mirror.refresh()
            assert await held(mirror) == await stored(sandbox)
