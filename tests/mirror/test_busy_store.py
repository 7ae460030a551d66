"""A mirror of a store that two clients write to over HTTP while it is refreshed."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from bc_attrvals import AttributeValueUpsert, Store
from bc_attrvals.sandbox import Quirks, Sandbox

from ..conftest import make_store
from .over_http import held, seed, stored


class Client:
    """Inserts, changes and deletes rows of its own half of the store, and knows what it did."""

    def __init__(self, store: Store, rng: random.Random, half: int) -> None:
        self.store = store
        self.rng = rng
        self.half = half
        self.values: dict[int, str] = {}
        self.touched: set[int] = set()
        self.ever: set[int] = set()

    async def run(self) -> None:
        api = self.store.attribute_values
        while True:
            if self.rng.random() < 0.7:
                items = [
                    AttributeValueUpsert(self.rng.randrange(1, 200) * 2 + self.half, 1, str(number))
                    for number in self.rng.sample(range(10**6), 3)
                ]
                items = list({item.key: item for item in items}.values())
                for row in await api.put_batch(items):
                    self.values[row.id] = row.value
                    self.touched.add(row.id)
                    self.ever.add(row.id)
            elif self.values:
                ids = self.rng.sample(sorted(self.values), min(2, len(self.values)))
                self.touched.update(ids)
                await api.delete_batch(ids)
                self.touched.update(ids)
                for one in ids:
                    del self.values[one]
            await asyncio.sleep(self.rng.uniform(0, 0.01))


@pytest.mark.parametrize("seeded", [1, 2])
async def test_what_nobody_touched_is_there_and_what_was_gone_before_is_not(
    seeded: int, tmp_path: Path
) -> None:
    rng = random.Random(seeded)
    quirks = Quirks(
        order=rng.choice(["id", "shuffled"]), date_bounds=rng.choice(["inclusive", "exclusive"])
    )
    async with (
        Sandbox(quota=None, quirks=quirks, latency_ms=3) as sandbox,
        make_store(sandbox) as store,
    ):
        await seed(sandbox, 900)
        async with store.mirror(tmp_path / "m.db") as mirror:
            await mirror.refresh()
            clients = [Client(store, random.Random(seeded + half), half) for half in (0, 1)]
            tasks = [asyncio.create_task(client.run()) for client in clients]
            for _ in range(5):
                await asyncio.sleep(0.1)
                for client in clients:
                    client.touched.clear()
                ever = {one for client in clients for one in client.ever}
                before = {one: text for client in clients for one, text in client.values.items()}
                await mirror.refresh()
                touched = {one for client in clients for one in client.touched}
                rows = await held(mirror)
                for row_id in ever - touched:
                    text = rows[row_id][2] if row_id in rows else None
                    assert text == before.get(row_id)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.sleep(0.1)
            await mirror.refresh()
            assert await held(mirror) == await stored(sandbox)
            assert (await mirror.refresh(verify=True)).ok
