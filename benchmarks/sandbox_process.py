"""A Sandbox in a process of its own, so that what is measured is the client.

`SandboxProcess` starts `python -m benchmarks.sandbox_process OPTIONS` and speaks JSON lines with it
over its standard streams. The process ends when its input does, so none outlives who started it.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bc_attrvals.sandbox import Sandbox

_ROOT = Path(__file__).resolve().parent.parent


class SandboxProcess:
    """`async with SandboxProcess(quota=40, window_s=2) as sandbox:`; options are the Sandbox's."""

    def __init__(self, **options: object) -> None:
        self._options = options
        self._process: asyncio.subprocess.Process | None = None
        self.url = self.store_hash = self.access_token = ""
        #: The variables that lead a client here, with the certificate to trust for `https`.
        self.environment: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        """Start the process and wait until it serves."""
        paths = [str(_ROOT), os.environ.get("PYTHONPATH", "")]
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "benchmarks.sandbox_process",
            json.dumps(self._options),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        )
        try:
            served = await self._answer()
        except BaseException:
            await self.aclose()
            raise
        self.url, self.store_hash = served["url"], served["store_hash"]
        self.access_token, self.environment = served["access_token"], served["environment"]
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the process."""
        await self.aclose()

    async def aclose(self) -> None:
        """End the process and wait until it is gone."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
            await process.wait()

    async def reset(self) -> None:
        """Empty the store of values, and its counts, and begin a first window now."""
        await self._ask("reset")

    async def begin_window(self) -> None:
        """Begin a window now; rows and counts stay."""
        await self._ask("begin_window")

    async def seed(self, rows: int, *, first: int = 1, attribute_id: int = 1) -> None:
        """Put the values of so many customers straight into the store."""
        await self._ask("seed", rows, first, attribute_id)

    async def set_latency(self, latency_ms: float) -> None:
        """Change the latency."""
        await self._ask("set_latency", latency_ms)

    async def facts(self) -> dict[str, Any]:
        """Return what the store saw.

        Values, calls per operation, answers per status, the most at once.
        """
        return dict(await self._ask("facts"))

    async def _ask(self, command: str, *arguments: object) -> Any:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([command, *arguments]).encode() + b"\n")
        return await self._answer()

    async def _answer(self) -> Any:
        assert self._process is not None
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("the process of the Sandbox has ended; see its error above")
        return json.loads(line)


async def _reset(sandbox: Sandbox) -> None:
    await sandbox.reset(["rows", "log", "faults", "quota"])


async def _seed(sandbox: Sandbox, rows: int, first: int, attribute_id: int) -> None:
    customers = range(first, first + rows)
    await sandbox.seed((customer, attribute_id, f"v{customer}") for customer in customers)


async def _begin_window(sandbox: Sandbox) -> None:
    await sandbox.reset(["quota"])


async def _set_latency(sandbox: Sandbox, latency_ms: float) -> None:
    sandbox.latency_ms = latency_ms


async def _facts(sandbox: Sandbox) -> dict[str, object]:
    return {
        "values": list((await sandbox.values()).values()),
        "calls": {str(operation): count for operation, count in sandbox.calls.items()},
        "statuses": {str(status): count for status, count in sandbox.statuses.items()},
        "most_puts_at_once": sandbox.peak_in_flight("upsert"),
    }


_COMMANDS = {
    "reset": _reset,
    "begin_window": _begin_window,
    "seed": _seed,
    "set_latency": _set_latency,
    "facts": _facts,
}


def _say(answer: object) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


async def _serve(options: dict[str, Any]) -> None:
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    async with Sandbox(**options) as sandbox:
        _say(
            {
                "url": sandbox.url,
                "store_hash": sandbox.store_hash,
                "access_token": sandbox.access_token,
                "environment": sandbox.environment,
            }
        )
        while line := await commands.readline():
            command, *arguments = json.loads(line)
            _say(await _COMMANDS[command](sandbox, *arguments))


if __name__ == "__main__":
    asyncio.run(_serve(json.loads(sys.argv[1])))
