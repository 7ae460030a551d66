"""Several processes of `quota_worker.py`, started together and waited for."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from bc_attrvals.sandbox import Sandbox

ROOT = Path(__file__).parents[1]


class Worker:
    """One process; `go` has it begin, `result` is what it printed in the end."""

    def __init__(self, sandbox: Sandbox, redis: str, **work: Any) -> None:
        self._work = {
            "redis": redis,
            "url": sandbox.url,
            "store_hash": sandbox.store_hash,
            "access_token": sandbox.access_token,
            **work,
        }
        self.process: asyncio.subprocess.Process

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", "-m", "tests.quota_worker"),
            json.dumps(self._work),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
        )
        assert self.process.stdout is not None
        assert await self.process.stdout.readline() == b"ready\n"

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")

    async def result(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        assert await self.process.wait() == 0
        found: dict[str, Any] = json.loads(line)
        return found

    async def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


async def started(*workers: Worker) -> None:
    """Start all, and have them begin together."""
    await asyncio.gather(*(one.start() for one in workers))
    for one in workers:
        one.go()
