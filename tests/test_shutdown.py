"""How a script ends: Ctrl-C, a loop that closes, a Store that was forgotten."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bc_attrvals import StoreStateError
from bc_attrvals.sandbox import Sandbox
from tests.conftest import make_store
from tests.probes import until, upserts

ROOT = Path(__file__).parents[1]
TOKEN = "s3cret-token"

_SCRIPT = """
import asyncio, itertools, sys
from bc_attrvals import AttributeValueUpsert, Store

async def main():
    # A busy machine makes slow steps, which the debug mode of asyncio reports on stderr.
    asyncio.get_running_loop().slow_callback_duration = 10
    async with Store("sandbox", "s3cret-token", base_url=sys.argv[1]) as store:
        values = store.attribute_values
        items = (AttributeValueUpsert(n, 1, "v") for n in itertools.count(1))
        {work}

for _ in range(2):
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        if sys.argv[2] == "once":
            raise
"""

WORK = {
    "upsert": "await values.upsert(items)",
    "upsert_stream": "[_ async for _ in values.upsert_stream(items)]",
    "stream": "[_ async for _ in values.stream()]",
    "sync": "await values.sync(itertools.islice(items, 20_000), journal=sys.argv[3])",
    "all": (
        "await asyncio.gather(values.upsert(items), values.get_page(),"
        " values.delete(itertools.count(1)))"
    ),
}


def start(sandbox: Sandbox, work: str, *arguments: object) -> subprocess.Popen[bytes]:
    script = _SCRIPT.replace("{work}", WORK[work])
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", script, sandbox.url]
    return subprocess.Popen(
        [*command, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


async def ended(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    return await asyncio.to_thread(process.communicate, timeout=20)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("work", WORK)
async def test_ctrl_c_ends_a_script_at_once_and_in_order(work: str, tmp_path: Path) -> None:
    async with Sandbox(quota=None, access_token=TOKEN, latency_ms=20) as sandbox:
        if work == "stream":
            await sandbox.seed((customer, 1, "v") for customer in range(1, 30_000))
        process = start(sandbox, work, "once", tmp_path / "journal.db")
        await until(lambda: len(sandbox.requests) > 5, 20)
        process.send_signal(signal.SIGINT)
        stdout, stderr = await ended(process)
        assert stdout == b"interrupted\n"
        # As Python ends by a KeyboardInterrupt that nobody caught.
        assert process.returncode == -signal.SIGINT
        assert stderr.rstrip().endswith(b"KeyboardInterrupt")
        for words in (b"Unclosed", b"destroyed", b"never retrieved", b"never awaited", b"Warning"):
            assert words not in stderr, stderr.decode()
        assert TOKEN.encode() not in stderr


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
async def test_after_ctrl_c_the_same_script_may_run_again(tmp_path: Path) -> None:
    async with Sandbox(quota=None, access_token=TOKEN, latency_ms=5) as sandbox:
        process = start(sandbox, "upsert", "twice", tmp_path)
        for _ in range(2):
            seen = len(sandbox.requests)
            await until(lambda: len(sandbox.requests) > seen + 5, 20)  # noqa: B023
            process.send_signal(signal.SIGINT)
            assert process.stdout is not None
            assert await asyncio.to_thread(process.stdout.readline) == b"interrupted\n"
        _, stderr = await ended(process)
        assert (process.returncode, stderr) == (0, b"")


@pytest.mark.usefixtures("quick_probes")
def test_work_left_when_a_loop_ends_is_over_and_the_store_can_be_closed() -> None:
    async def main() -> tuple[Any, Any]:
        async with Sandbox(quota=None) as sandbox:
            sandbox.faults.add("hang")
            store = make_store(sandbox)
            await store.__aenter__()
            values = store.attribute_values
            job = asyncio.create_task(values.upsert(upserts(50)))
            await until(lambda: sandbox.in_flight() == 3)
            return store, job

    store, job = asyncio.run(main())
    assert job.done()

    async def late() -> None:
        with pytest.raises(StoreStateError, match="another event loop"):
            await store.attribute_values.get_page()
        await store.aclose()
        with pytest.raises(StoreStateError, match="closed"):
            _ = store.attribute_values

    asyncio.run(late())
