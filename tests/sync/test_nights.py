"""A nightly sync of a file that changes, over one journal: the store is the file each morning."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random

import pytest

from bc_attrvals import AttributeValueFilter, AttributeValueUpsert, JournalError, SyncReport
from bc_attrvals.sandbox import Sandbox
from tests.conftest import make_store
from tests.probes import at_rest, until

FIRST = AttributeValueFilter(attribute_id_in=[1])


def changed(values: dict[int, str], random: Random) -> dict[int, str]:
    """Return tomorrow's file: some values are new, some differ, some are gone."""
    kept = {key: value for key, value in values.items() if random.random() > 0.05}
    for _ in range(40):
        kept[random.randrange(1, 600)] = f"v{random.randrange(1_000)}"
    return kept


async def night(sandbox: Sandbox, path: Path, file: dict[int, str]) -> SyncReport:
    """Do what a scheduler does: the sync, and the remedy where it is refused."""
    items = [AttributeValueUpsert(key, 1, value) for key, value in file.items()]
    async with make_store(sandbox) as store:
        sync = store.attribute_values.sync
        try:
            return await sync(items, scope=FIRST, prune=True, journal=path)
        except JournalError:
            return await sync(items, scope=FIRST, prune=True, journal=path, restart=True)


@pytest.mark.parametrize("same_file_after_the_kill", [True, False])
async def test_the_store_is_the_file_each_morning(
    sandbox: Sandbox, tmp_path: Path, same_file_after_the_kill: bool
) -> None:
    random, path = Random(7), tmp_path / "crm.db"
    file = {key: f"v{key}" for key in range(1, 400)}
    await sandbox.seed((key, 2, "another attribute") for key in range(1, 50))
    for number in range(5):
        if number == 2:
            sandbox.latency_ms = 5
            before = sandbox.calls["upsert"]
            killed = asyncio.create_task(night(sandbox, path, changed(file, Random(1))))
            await until(lambda: sandbox.calls["upsert"] > before + 1)  # noqa: B023
            killed.cancel()
            with pytest.raises(asyncio.CancelledError):
                await killed
            sandbox.latency_ms = 0
        tonight = changed(file, Random(1) if number == 2 and same_file_after_the_kill else random)
        report = await night(sandbox, path, tonight)
        assert report.ok
        assert report.resumed is (number == 2 and same_file_after_the_kill)
        assert SyncReport.from_journal(path) == report
        stored = await sandbox.values()
        assert {key: value for (key, one), value in stored.items() if one == 1} == tonight
        assert sum(one == 2 for _, one in stored) == 49
        file = tonight
        # By day others write.
        await sandbox.seed([(700 + number, 1, "foreign"), (random.choice(list(file)), 1, "drift")])
    async with make_store(sandbox) as store:
        await at_rest(store)
