"""The database file: kept for the next sandbox, and a foreign one refused."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import threading
from pathlib import Path

import pytest

from bc_attrvals.sandbox import Quirks, Sandbox
from bc_attrvals.sandbox.database import Database
from tests.sandbox.api import item, running


def database_threads() -> list[str]:
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith("bc-attrvals")]


async def test_a_file_keeps_the_rows_for_the_next_sandbox(tmp_path: Path) -> None:
    database = tmp_path / "store.db"
    before = os.umask(0)
    try:
        async with running(database) as (sandbox, api):
            await api.put(item(1, 1, "a"), item(2, 1, "b"))
            await api.delete("id:in=2")
            kept = await sandbox.rows()
    finally:
        os.umask(before)
    assert stat.S_IMODE(database.stat().st_mode) == 0o600
    async with running(database) as (sandbox, api):
        assert await sandbox.rows() == kept
        assert (await api.put(item(3))).data[0]["id"] == 3
    async with running(database, quirks=Quirks(order="shuffled")) as (_, api):
        assert len((await api.get()).data) == 2


async def test_a_foreign_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    database = tmp_path / "foreign.db"
    connection = sqlite3.connect(database)
    connection.execute("CREATE TABLE mine (x)")
    connection.close()
    content = database.read_bytes()
    with pytest.raises(ValueError, match="not a sandbox's"):
        await Sandbox(database).start()
    assert database.read_bytes() == content
    assert not database_threads()


async def test_an_index_is_made_when_a_listing_first_needs_it(tmp_path: Path) -> None:
    database = tmp_path / "store.db"

    def indexes() -> set[str]:
        connection = sqlite3.connect(database)
        statement = "SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
        found = {row[0] for row in connection.execute(statement)}
        connection.close()
        return found

    async with running(database) as (_, api):
        await api.put(item(1), item(2))
        await api.get("customer_id:in=1")
        assert indexes() == set()
        assert len((await api.get("attribute_id:in=1")).data) == 2
        assert len((await api.get("date_modified:min=2020-01-01")).data) == 2
        assert indexes() == {"by_attribute", "by_date_modified"}
    async with running(database) as (_, api):
        assert len((await api.get("date_created:min=2020-01-01&attribute_id:in=1")).data) == 2
        assert indexes() == {"by_attribute", "by_date_created", "by_date_modified"}


async def test_upserts_that_arrive_together_are_all_kept_in_a_file(tmp_path: Path) -> None:
    database = tmp_path / "store.db"
    async with running(database, max_concurrent_puts=None) as (sandbox, api):
        bad = {"customer_id": 3, "attribute_id": 1}
        bodies = [(item(1), item(2)), (item(3), bad), (item(1, value="w"),), (item(4),)]
        replies = await asyncio.gather(*(api.put(*items) for items in bodies))
        assert [reply.status for reply in replies] == [200, 422, 200, 200]
        kept = await sandbox.values()
    assert set(kept) == {(1, 1), (2, 1), (4, 1)}
    async with running(database) as (sandbox, api):
        assert await sandbox.values() == kept
        assert (await api.put(item(5))).data[0]["id"] == 4


def test_a_failed_transaction_leaves_nothing_and_the_next_one_works(tmp_path: Path) -> None:
    database = Database(str(tmp_path / "store.db"))
    insert = "INSERT INTO attributes VALUES (NULL, 'a', 'string', 0, 0)"

    def fail() -> None:
        with database.transaction():
            database.connection.execute(insert)
            assert database.last_ids() == {"attributes": 1}
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (database.count("attributes"), database.last_ids()) == (0, {})
    with database.transaction():
        database.connection.execute(insert)
    assert (database.count("attributes"), database.last_ids()) == (1, {"attributes": 1})
    database.close()
