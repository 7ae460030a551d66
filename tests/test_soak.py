"""A bounded load of everything at once in one Store under mixed faults: in = out, nothing grows.

The short form runs with the suite; `BC_SOAK_S=60 pytest tests/test_soak.py -s` runs a minute.
"""

# ruff: noqa: ASYNC240
from __future__ import annotations

import asyncio
import gc
import os
import random
import sys
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from bc_attrvals import (
    AttributeValueFilter,
    AttributeValueUpsert,
    BCAttrValsError,
    Limits,
    OutcomeStatus,
    RetryPolicy,
    Store,
)
from bc_attrvals.sandbox import Fault, Sandbox
from tests.conftest import make_store
from tests.probes import at_rest, check_writes

pytestmark = pytest.mark.usefixtures("no_task_left")

SECONDS = float(os.environ.get("BC_SOAK_S", "2"))
SHARE = 0.05
KINDS = ("500", "502", "503", "429", "drop_before", "drop_after", "cut_body", "html_body")
LISTED = 400
JOBS = 3


class Soak:
    """The load, and the books on it."""

    def __init__(self, store: Store, sandbox: Sandbox, seed: int) -> None:
        self.store = store
        self.sandbox = sandbox
        self.rng = random.Random(seed)
        self.ends_at = asyncio.get_running_loop().time() + SECONDS
        self.put_in = Counter[str]()
        self.came_out = Counter[str]()
        self.newest: dict[tuple[int, int], str] = {}
        self.failed = 0
        self.samples: list[tuple[int, int, int]] = []

    @property
    def goes_on(self) -> bool:
        return asyncio.get_running_loop().time() < self.ends_at

    async def upsert(self, job: int) -> None:
        """Write keys of its own without end, some of them again and again."""

        async def items() -> AsyncIterator[AttributeValueUpsert]:
            while self.goes_on:
                self.put_in[f"job {job}"] += 1
                customer = 1_000_000 * (job + 1) + self.rng.randint(1, 300)
                value = str(self.put_in[f"job {job}"])
                item = AttributeValueUpsert(customer, 1, value)
                self.newest[item.key] = value
                yield item

        async for outcome in self.store.attribute_values.upsert_stream(items()):
            self.came_out[f"job {job}"] += 1
            assert outcome.status in {OutcomeStatus.STORED, OutcomeStatus.SUPERSEDED}

    async def stream(self) -> None:
        """List rows that stand still, each time all of them."""
        wanted = AttributeValueFilter(attribute_id_in=[2])
        while self.goes_on:
            listing = self.store.attribute_values.stream(wanted)
            found = Counter([row.customer_id async for row in listing])
            assert found == Counter(range(1, LISTED + 1))
            self.came_out["listings"] += 1
            async with aclosing(self.store.attribute_values.stream()) as left_early:
                await anext(left_early)

    async def look(self) -> None:
        while self.goes_on:
            customer = self.rng.randint(1, LISTED)
            found = await self.store.attribute_values.get(customer, 2)
            assert found is not None
            assert found.value == f"still {customer}"
            self.came_out["reads"] += 1

    async def sync(self, folder: Path) -> None:
        scope = AttributeValueFilter(attribute_id_in=[3])
        while self.goes_on:
            desired = [
                AttributeValueUpsert(customer, 3, str(self.rng.random()))
                for customer in self.rng.sample(range(1, 500), 50)
            ]
            journal = folder / f"{self.came_out['syncs']}.db"
            report = await self.store.attribute_values.sync(
                desired, scope=scope, prune=True, journal=journal
            )
            assert report.ok
            assert report.created + report.updated + report.unchanged == 50
            journal.unlink()
            self.came_out["syncs"] += 1

    async def cancel(self) -> None:
        """Begin what is cancelled at any moment; its keys are its own, too."""
        while self.goes_on:
            keys = (AttributeValueUpsert(9_000_000 + n, 1, "x") for n in range(1, 200))
            job = asyncio.create_task(self.store.attribute_values.upsert(keys))
            await asyncio.sleep(self.rng.random() / 20)
            job.cancel()
            await asyncio.wait([job])
            if not job.cancelled():
                assert isinstance(job.exception(), BCAttrValsError | None)
            self.came_out["cancelled"] += job.cancelled()

    async def watch(self) -> None:
        """Take stock some times, after a while of warming up."""
        await asyncio.sleep(SECONDS * 0.2)
        for _ in range(9):
            self.sandbox.requests.clear()
            gc.collect()
            tasks = len(asyncio.all_tasks())
            fds = len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else 0
            self.samples.append((tracemalloc.get_traced_memory()[0], tasks, fds))
            await asyncio.sleep(SECONDS * 0.08)


async def test_a_store_under_all_kinds_of_load_and_faults_keeps_its_books(tmp_path: Path) -> None:
    faults = [Fault(kind, probability=SHARE / len(KINDS)) for kind in KINDS]
    retry = RetryPolicy(attempts=12, base_s=0.002, cap_s=0.02)
    async with (
        Sandbox(tmp_path / "sandbox.db", quota=None, seed=7) as sandbox,
        make_store(sandbox, retry=retry, limits=Limits(page_size=50)) as store,
    ):
        await sandbox.seed((n, 2, f"still {n}") for n in range(1, LISTED + 1))
        for fault in faults:
            sandbox.faults.add(fault)
        soak = Soak(store, sandbox, seed=7)
        tracemalloc.start()
        try:
            async with asyncio.timeout(SECONDS + 30), asyncio.TaskGroup() as group:
                for job in range(JOBS):
                    group.create_task(soak.upsert(job))
                for work in (soak.stream(), soak.look(), soak.sync(tmp_path), soak.cancel()):
                    group.create_task(work)
                group.create_task(soak.watch())
        finally:
            tracemalloc.stop()
        await at_rest(store)
        # In = out, and the last of each key is what the service holds.
        for job in range(JOBS):
            assert soak.put_in[f"job {job}"] == soak.came_out[f"job {job}"] > 100
        sandbox.faults.clear()
        held = await sandbox.values()
        assert {key: held.get(key) for key in soak.newest} == soak.newest
        assert sum(key[1] == 3 for key in held) == 50
        statistics = store.statistics()
        for name in ("listings", "reads", "syncs", "cancelled"):
            assert soak.came_out[name], name
        print(f"\n{dict(soak.put_in)} in, {dict(soak.came_out)} out")
        print(f"{statistics.requests} requests, {statistics.retries} retries,", end=" ")
        print(f"{statistics.rate_limited} refused; memory, tasks, descriptors: {soak.samples}")
        if len(sandbox.requests):
            check_writes(sandbox)
    memory, tasks, descriptors = zip(*soak.samples, strict=True)
    # Noise either way, but no slope: keys under way and read ahead are bounded.
    assert max(memory[-3:]) < max(memory[:3]) * 1.3 + 500_000
    assert max(tasks[-3:]) <= max(tasks[:6]) + 20
    assert max(descriptors[-3:]) <= max(descriptors[:6]) + 20
