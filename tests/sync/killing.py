"""Jobs over a journal in a process of their own, which is killed."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from bc_attrvals import JournalError, SyncReport
from bc_attrvals.sandbox import Sandbox
from tests.probes import until

_SCRIPT = """
import asyncio, sys
from bc_attrvals import AttributeValueFilter, AttributeValueUpsert, Store

FIRST = AttributeValueFilter(attribute_id_in=[1])

async def main(url, path):
    desired = (AttributeValueUpsert(c, 1, f"v{{c}}") for c in range(1, 3001))
    async with Store("sandbox", "sandbox-token", base_url=url) as store:
        await store.attribute_values.{call}

asyncio.run(main(*sys.argv[1:]))
"""

SYNC = "sync(desired, scope=FIRST, prune=True, journal=path)"
UPSERT = "upsert(desired, journal=path)"


async def process(call: str, url: str, path: Path) -> asyncio.subprocess.Process:
    """Begin a job of 3,000 values, the same each time."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _SCRIPT.format(call=call), url, os.fspath(path)),
        cwd=Path.cwd(),
        stderr=asyncio.subprocess.PIPE,
    )


async def kill_three_times(call: str, sandbox: Sandbox, path: Path) -> None:
    """Kill a job after each 70 of its upserts, and wait until nothing of it is on its way."""
    sandbox.latency_ms = 3
    for most in (70, 140, 210):
        job = await process(call, sandbox.url, path)
        await until(lambda: sandbox.calls["upsert"] >= most, 20)  # noqa: B023
        job.kill()
        assert await job.wait() < 0
        await until(lambda: not sandbox.in_flight())
        with pytest.raises(JournalError, match="not finished"):
            SyncReport.from_journal(path)
    sandbox.latency_ms = 0
