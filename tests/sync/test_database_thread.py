"""A database's own thread: jobs run one by one, and a cancelled caller leaves it usable."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path

import pytest

from bc_attrvals.sync.database_thread import DatabaseThread
from tests.sync.test_database import LEDGERS, Ledger, LedgerError, amounts


def note(ledger: Ledger, amount: int) -> int:
    ledger.connection.execute("INSERT INTO entries VALUES (?)", (amount,))
    return threading.get_ident()


async def test_all_jobs_run_in_one_thread_that_is_not_the_loop_s(tmp_path: Path) -> None:
    thread = DatabaseThread(LEDGERS, tmp_path / "ledger.db", field="path")
    await thread.open()
    assert thread.is_file
    found = await asyncio.gather(*(thread.run(note, one) for one in range(20)))
    assert len(set(found)) == 1
    assert set(found) != {threading.get_ident()}
    assert await thread.run(amounts) == list(range(20))
    (own,) = (one for one in threading.enumerate() if one.ident == found[0])
    await thread.aclose()
    # It ends by itself, a moment after the file is closed.
    own.join(timeout=10)
    assert not own.is_alive()
    again = DatabaseThread(LEDGERS, tmp_path / "ledger.db", field="path")
    await again.open()
    assert await again.run(amounts) == list(range(20))
    await again.aclose()


async def test_errors_of_sqlite_are_the_kind_s_own(tmp_path: Path) -> None:
    thread = DatabaseThread(LEDGERS, tmp_path / "ledger.db", field="path")
    await thread.open()

    def fail(ledger: Ledger) -> None:
        ledger.connection.execute("SELECT * FROM nowhere")

    with pytest.raises(LedgerError, match=r"the ledger '.*ledger.db' failed: no such table"):
        await thread.run(fail)
    await thread.aclose()


async def test_a_cancelled_job_that_has_begun_ends_and_is_kept(tmp_path: Path) -> None:
    thread = DatabaseThread(LEDGERS, tmp_path / "ledger.db", field="path")
    await thread.open()
    begun, go_on = threading.Event(), threading.Event()

    def slow(ledger: Ledger) -> None:
        begun.set()
        go_on.wait(5)
        note(ledger, 7)

    job = asyncio.create_task(thread.run(slow))
    await asyncio.to_thread(begun.wait, 5)
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    go_on.set()
    assert await thread.run(amounts) == [7]
    await thread.aclose()


async def test_closing_stops_a_long_query_whose_caller_is_gone() -> None:
    thread = DatabaseThread(LEDGERS, None, field="path")
    await thread.open()
    assert not thread.is_file
    ended: list[str] = []

    def endless(ledger: Ledger) -> None:
        try:
            ledger.connection.execute(
                "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) "
                "SELECT count(*) FROM n"
            ).fetchall()
        except sqlite3.OperationalError as error:
            ended.append(str(error))
            raise

    job = asyncio.create_task(thread.run(endless))
    await asyncio.sleep(0.05)
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    async with asyncio.timeout(5):
        await thread.aclose()
    assert ended == ["interrupted"]


async def test_one_that_could_not_be_opened_is_closed_without_a_fuss(tmp_path: Path) -> None:
    thread = DatabaseThread(LEDGERS, tmp_path, field="path")
    with pytest.raises(LedgerError, match="no regular file"):
        await thread.open()
    await thread.aclose()
