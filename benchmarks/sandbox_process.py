"""A Sandbox in a process of its own, so that what is measured is the client."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from bc_attrvals.sandbox import Sandbox
from benchmarks.harness import Child, say


class SandboxProcess(Child):
    """`with SandboxProcess(quota=40, window_s=2) as sandbox:`; options are the Sandbox's.

    `ask` takes a command of `_COMMANDS` and its arguments.
    """

    def __init__(self, **options: object) -> None:
        """Start the process and wait until it serves."""
        super().__init__("benchmarks.sandbox_process", options)
        served = self.answer()
        self.url, self.store_hash = served["url"], served["store_hash"]
        self.access_token = served["access_token"]
        #: The variables that lead a client here, with the certificate to trust for `https`.
        self.environment: dict[str, str] = served["environment"]


async def _reset(sandbox: Sandbox) -> None:
    await sandbox.reset(["rows", "log", "faults", "quota"])


async def _seed(sandbox: Sandbox, rows: int, first: int = 1, attribute_id: int = 1) -> None:
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


async def _serve(options: dict[str, Any]) -> None:
    async with Sandbox(**options) as sandbox:
        say(
            {
                "url": sandbox.url,
                "store_hash": sandbox.store_hash,
                "access_token": sandbox.access_token,
                "environment": sandbox.environment,
            }
        )
        while line := await asyncio.to_thread(sys.stdin.readline):
            command, *arguments = json.loads(line)
            say(await _COMMANDS[command](sandbox, *arguments))


if __name__ == "__main__":
    asyncio.run(_serve(json.loads(sys.argv[1])))
