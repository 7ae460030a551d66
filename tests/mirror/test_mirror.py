"""A mirror as users have it: over HTTP, in a file that one process holds."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bc_attrvals import (
    AttributeValueFilter,
    AttributeValueUpsert,
    Change,
    InvalidInputError,
    Mirror,
    MirrorError,
    NotFoundError,
    ServerError,
    Store,
    StoreStateError,
)
from bc_attrvals.sandbox import Quirks, Sandbox

from ..conftest import make_store
from .over_http import START, held, seed, stored


@pytest.mark.parametrize(
    "quirks",
    [
        Quirks(),
        Quirks(order="shuffled", date_bounds="exclusive"),
        Quirks(order="id_desc", max_limit=50),
        Quirks(total_pages="of_whole_store", current_page="always_1", clamp_pages=True),
    ],
    ids=["plain", "shuffled", "descending", "wrong pagination"],
)
async def test_a_mirror_is_the_stores_equal_over_http(quirks: Quirks, tmp_path: Path) -> None:
    rng = random.Random(2)
    async with Sandbox(quota=None, quirks=quirks) as sandbox, make_store(sandbox) as store:
        await seed(sandbox, 700)
        async with store.mirror(tmp_path / "mirror.db") as mirror:
            await mirror.refresh()
            assert await held(mirror) == await stored(sandbox)
            values = store.attribute_values
            await values.upsert(
                AttributeValueUpsert(rng.randrange(1, 300), rng.randrange(1, 5), "changed")
                for _ in range(40)
            )
            rows = await sandbox.rows()
            await values.delete([row.id for row in rng.sample(rows, 5)])
            report = await mirror.refresh()
            assert await held(mirror) == await stored(sandbox)
            assert report.removed in range(4, 6)
            assert report.ok
            assert report.to_dict()["calls"] == report.calls


async def test_a_refresh_that_fails_leaves_the_last_proven_state(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    await seed(sandbox, 700)
    async with make_store(sandbox) as store, store.mirror(tmp_path / "m.db") as mirror:
        await mirror.refresh()
        before = await held(mirror)
        await store.attribute_values.upsert([AttributeValueUpsert(1, 1, "changed")])
        await store.attribute_values.delete([600, 601])
        for healthy in range(4):
            sandbox.faults.clear()
            sandbox.faults.script([None] * healthy)
            sandbox.faults.add("500")
            with pytest.raises(ServerError):
                await mirror.refresh()
            assert await held(mirror) == before
        sandbox.faults.clear()
        await mirror.refresh()
        assert await held(mirror) == await stored(sandbox)


async def test_reading_makes_no_call(sandbox: Sandbox, store: Store, tmp_path: Path) -> None:
    await seed(sandbox, 40)
    async with store.mirror(tmp_path / "m.db") as mirror:
        await mirror.refresh()
        calls = len(sandbox.requests)
        row = await mirror.get(3, 2)
        assert row is not None
        assert row.value == "v9"
        assert await mirror.get(3, 9) is None
        assert await mirror.count() == 40
        ids = AttributeValueFilter(customer_id_in=[3, 5], attribute_id_in=[1, 2])
        assert [row.key async for row in mirror.rows(ids)] == [(3, 1), (3, 2), (5, 1), (5, 2)]
        assert await mirror.count(ids) == 4
        third = datetime.fromtimestamp(START + 2, UTC)
        since = AttributeValueFilter(date_created_min=third)
        assert await mirror.count(since) == 32
        until = AttributeValueFilter(date_modified_max=third)
        assert await mirror.count(until) == 12
        assert await mirror.count(AttributeValueFilter(date_created=third)) == 4
        assert await mirror.count(AttributeValueFilter(customer_id_in=[])) == 0
        assert len(sandbox.requests) == calls
        with pytest.raises(InvalidInputError, match="name"):
            await mirror.count(AttributeValueFilter(name="tier"))
        with pytest.raises(InvalidInputError, match="filter"):
            await mirror.count("everything")  # type: ignore[arg-type]
        with pytest.raises(InvalidInputError, match="after"):
            await anext(mirror.changes(-1))


async def test_changes_are_a_feed_with_deletions(
    sandbox: Sandbox, store: Store, tmp_path: Path
) -> None:
    await seed(sandbox, 1_200)
    warehouse: dict[int, str] = {}
    last = 0

    async def follow(mirror: Mirror) -> list[Change]:
        nonlocal last
        changes = [one async for one in mirror.changes(after=last)]
        for change in changes:
            assert change.sequence > last
            last = change.sequence
            if change.kind == "put":
                warehouse[change.row.id] = change.row.value
            else:
                del warehouse[change.row.id]
        return changes

    async with store.mirror(tmp_path / "m.db") as mirror:
        await mirror.refresh()
        assert len(await follow(mirror)) == 1_200
        assert await follow(mirror) == []
        values = store.attribute_values
        await values.upsert([AttributeValueUpsert(1, 1, "changed")])
        await values.delete([600, 601])
        await values.upsert([AttributeValueUpsert(150, 4, "anew")])
        await mirror.refresh()
        changes = await follow(mirror)
        assert sorted(one.kind for one in changes) == ["delete", "delete", "put", "put"]
        assert changes[0].to_dict().keys() >= {"sequence", "kind", "customer_id", "attribute_value"}
        assert warehouse == {row.id: row.value for row in await sandbox.rows()}
    # Opened again, the numbers go on.
    async with store.mirror(tmp_path / "m.db") as mirror:
        await store.attribute_values.delete([5])
        await mirror.refresh()
        assert [one.kind for one in await follow(mirror)] == ["delete"]


async def test_a_file_that_no_refresh_has_filled_is_bound_anew(
    sandbox: Sandbox, store: Store, tmp_path: Path
) -> None:
    path = tmp_path / "m.db"
    await sandbox.seed([(1, 1, "v")])
    url, token = sandbox.url, sandbox.access_token
    async with (
        Store("mistyped", token, base_url=url) as other,
        other.mirror(path, AttributeValueFilter(attribute_id_in=[7])) as mirror,
    ):
        with pytest.raises(NotFoundError):
            await mirror.refresh()
    async with store.mirror(path) as mirror:
        await mirror.refresh()
        assert [row.value async for row in mirror.rows()] == ["v"]
    async with Store("mistyped", token, base_url=url) as other:
        with pytest.raises(MirrorError, match="of another store"):
            await other.mirror(path).__aenter__()


async def test_a_mirror_is_bound_to_its_store_and_scope(
    sandbox: Sandbox, store: Store, tmp_path: Path
) -> None:
    path = tmp_path / "m.db"
    scope = AttributeValueFilter(attribute_id_in=[1])
    async with store.mirror(path, scope) as mirror:
        await mirror.refresh()
        with pytest.raises(MirrorError, match="held by another job"):
            await store.mirror(path, scope).__aenter__()
    with pytest.raises(MirrorError, match="of another scope"):
        await store.mirror(path).__aenter__()
    async with Sandbox(quota=None) as other, make_store(other) as other_store:
        with pytest.raises(MirrorError, match="of another store"):
            await other_store.mirror(path, scope).__aenter__()
    async with store.mirror(path, scope) as mirror:
        await mirror.refresh()


async def test_a_file_that_is_no_mirror_is_refused(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("these are my notes, and not to be overwritten by anybody" * 40)
    with pytest.raises(MirrorError, match="no SQLite database"):
        await store.mirror(path).__aenter__()
    assert path.read_text().startswith("these are my notes")
    journal = tmp_path / "journal.db"
    await store.attribute_values.sync([AttributeValueUpsert(1, 1, "x")], journal=journal)
    with pytest.raises(MirrorError, match="is no mirror"):
        await store.mirror(journal).__aenter__()


async def test_arguments_are_checked_at_once(store: Store, tmp_path: Path) -> None:
    for field, make in (
        ("path", lambda: store.mirror(3)),  # type: ignore[arg-type]
        (
            "date_created_min",
            lambda: store.mirror(
                "x", AttributeValueFilter(date_created_min=datetime(2024, 1, 1, tzinfo=UTC))
            ),
        ),
        ("verify_every", lambda: store.mirror("x", verify_every=timedelta(days=-1))),
        ("verify_every", lambda: store.mirror("x", verify_every=30)),  # type: ignore[arg-type]
    ):
        with pytest.raises(InvalidInputError) as caught:
            make()
        assert caught.value.field == field
    mirror = store.mirror(tmp_path / "m.db")
    with pytest.raises(StoreStateError, match="entered first"):
        await mirror.refresh()


async def test_a_cancelled_refresh_changes_nothing_and_the_next_one_works(
    sandbox: Sandbox, store: Store, tmp_path: Path
) -> None:
    await seed(sandbox, 700)
    async with store.mirror(tmp_path / "m.db") as mirror:
        await mirror.refresh()
        before = await held(mirror)
        await store.attribute_values.upsert([AttributeValueUpsert(1, 1, "changed")])
        sandbox.latency_ms = 30
        for turns in range(0, 40, 3):
            refresh = asyncio.ensure_future(mirror.refresh())
            for _ in range(turns):
                await asyncio.sleep(0.001)
            refresh.cancel()
            await asyncio.gather(refresh, return_exceptions=True)
            after = await held(mirror)
            if after != before:
                assert after == await stored(sandbox)
                break
        sandbox.latency_ms = 0
        await mirror.refresh()
        assert await held(mirror) == await stored(sandbox)
        assert "open" in repr(mirror)


async def test_reading_waits_for_a_refresh(sandbox: Sandbox, store: Store, tmp_path: Path) -> None:
    await seed(sandbox, 300)
    sandbox.latency_ms = 20
    async with store.mirror(tmp_path / "m.db") as mirror:
        refresh = asyncio.ensure_future(mirror.refresh())
        await asyncio.sleep(0.01)
        assert await mirror.count() == 300
        assert refresh.done()
