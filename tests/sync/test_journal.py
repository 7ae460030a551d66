"""The journal: killed jobs go on, others' journals are refused, and no fault makes it lie."""

from __future__ import annotations

import asyncio
import os
import pickle
import sqlite3
import stat
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bc_attrvals import (
    AttributeValueFilter,
    AttributeValueUpsert,
    AuthenticationError,
    BCAttrValsError,
    ConnectionLostError,
    DecodeError,
    InvalidInputError,
    JournalError,
    ListingDriftError,
    OutcomeStatus,
    ServerError,
    Store,
    SyncPlan,
    SyncReport,
    UnconfirmedError,
    UnprocessableError,
)
from bc_attrvals.core.sync_states import State
from bc_attrvals.sandbox import Fault, FaultKind, Sandbox
from bc_attrvals.sync import database
from bc_attrvals.sync.report import dump_error, load_error
from tests.conftest import make_store
from tests.probes import Key, at_rest, keys_of, until, upserts
from tests.sync.killing import SYNC, kill_three_times, process

FIRST = AttributeValueFilter(attribute_id_in=[1])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "scores.db"


def times_applied(sandbox: Sandbox) -> Counter[Key]:
    """How often each key was in an upsert that reached the rows."""
    return Counter(
        key for put in sandbox.requests.of("upsert") if put.item_count for key in keys_of(put)
    )


def content(path: Path) -> bytes:
    return path.read_bytes()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def files(path: Path) -> list[str]:
    """What lies beside a file, itself included."""
    return sorted(one.name for one in path.parent.iterdir())


def link(path: Path, target: Path) -> None:
    path.symlink_to(target)


def remove(path: Path) -> None:
    path.unlink()


def replace(path: Path, new: bytes) -> None:
    path.write_bytes(new)


async def interrupted(
    sandbox: Sandbox, path: Path, desired: list[AttributeValueUpsert], *, after: int
) -> None:
    """Cancel a journalled sync when so many of its upserts have come in."""
    async with make_store(sandbox) as store:
        job = asyncio.create_task(
            store.attribute_values.sync(desired, scope=FIRST, prune=True, journal=path)
        )
        await until(lambda: job.done() or sandbox.calls["upsert"] >= after)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        await at_rest(store)


class TestResuming:
    async def test_killed_three_times_it_ends_complete(self, sandbox: Sandbox, path: Path) -> None:
        await sandbox.seed([(c, 1, "old") for c in range(2_000, 3_101)])
        await kill_three_times(SYNC, sandbox, path)
        async with make_store(sandbox) as store:
            report = await store.attribute_values.sync(
                upserts(3_000), scope=FIRST, prune=True, journal=path
            )
        assert await sandbox.values() == {(c, 1): f"v{c}" for c in range(1, 3_001)}
        applied = times_applied(sandbox)
        assert len(applied) == 3_000
        assert sum(applied.values()) - 3_000 <= 3 * 30
        assert len(sandbox.requests.of("delete")) == 2
        assert report == SyncReport.from_journal(path)
        assert (report.created, report.updated, report.deleted) == (1_999, 1_001, 100)
        assert (report.failed, report.not_sent, report.resumed) == (0, 0, True)
        assert sum(applied.values()) - 3_000 <= report.resent <= 3 * 30

    async def test_cancelled_it_goes_on_without_reading_again(
        self, sandbox: Sandbox, path: Path
    ) -> None:
        await interrupted(sandbox, path, upserts(300), after=12)
        reads = sandbox.calls["list"]
        async with make_store(sandbox) as store:
            report = await store.attribute_values.sync(
                upserts(300), scope=FIRST, prune=True, journal=path
            )
        assert sandbox.calls["list"] == reads
        assert (report.created, report.resumed) == (300, True)
        assert sum(times_applied(sandbox).values()) - 300 <= report.resent <= 30

    @pytest.mark.parametrize("operation", ["list", "upsert", "delete"])
    async def test_a_job_that_ended_with_an_error_is_taken_up(
        self, sandbox: Sandbox, path: Path, operation: str
    ) -> None:
        await sandbox.seed([(c, 1, "old") for c in range(200, 701)])
        sandbox.faults.add(Fault(FaultKind.UNAUTHORIZED, operation=operation, after=1))
        async with make_store(sandbox) as store:
            sync = store.attribute_values.sync
            with pytest.raises(AuthenticationError) as caught:
                await sync(upserts(300), scope=FIRST, prune=True, journal=path)
            assert isinstance(caught.value.report, SyncReport)
            refused = {"upsert": 10 * (sandbox.calls["upsert"] - 1)}.get(operation, 0)
            assert caught.value.report.failed == refused
            sandbox.faults.clear()
            report = await sync(upserts(300), scope=FIRST, prune=True, journal=path)
        assert (report.created, report.updated, report.deleted) == (199, 101, 400)
        assert (report.failed, report.not_sent, report.resumed) == (0, 0, True)
        assert report.calls == len(sandbox.requests)
        assert await sandbox.values() == {item.key: item.value for item in upserts(300)}

    async def test_a_store_closed_underneath_loses_nothing(
        self, sandbox: Sandbox, path: Path
    ) -> None:
        sandbox.latency_ms = 5
        store = make_store(sandbox)
        await store.__aenter__()
        job = asyncio.create_task(
            store.attribute_values.sync(upserts(300), scope=FIRST, prune=True, journal=path)
        )
        await until(lambda: sandbox.calls["upsert"] > 5)
        await store.aclose()
        with pytest.raises(BCAttrValsError):
            await job
        async with make_store(sandbox) as store:
            report = await store.attribute_values.sync(
                upserts(300), scope=FIRST, prune=True, journal=path
            )
        assert (report.created, report.failed) == (300, 0)
        assert await sandbox.count() == 300

    async def test_an_input_that_failed_is_loaded_anew(self, sandbox: Sandbox, path: Path) -> None:
        def broken() -> Iterator[AttributeValueUpsert]:
            yield from upserts(5_000)
            raise LookupError

        async with make_store(sandbox) as store:
            sync = store.attribute_values.sync
            with pytest.raises(LookupError):
                await sync(broken(), journal=path)
            report = await sync(upserts(50), scope=FIRST, journal=path)
        assert (report.created, report.superseded, report.resumed) == (50, 0, False)


class TestFinished:
    async def test_it_holds_the_report(self, sandbox: Sandbox, store: Store, path: Path) -> None:
        sandbox.reject_customers([3])
        first = await store.attribute_values.sync(upserts(40), scope=FIRST, journal=path)
        report = SyncReport.from_journal(os.fspath(path))
        assert report == first
        (failure,) = report.failures
        assert failure.status is OutcomeStatus.FAILED
        assert failure.item == AttributeValueUpsert(3, 1, "v3")
        assert isinstance(failure.error, UnprocessableError)
        assert failure.error.status == 422

    async def test_it_gives_way_to_a_job_that_reads_the_store_anew(
        self, sandbox: Sandbox, store: Store, path: Path
    ) -> None:
        async def sync(desired: list[AttributeValueUpsert], **options: Any) -> SyncReport:
            return await store.attribute_values.sync(
                desired, scope=FIRST, prune=True, journal=path, **options
            )

        await sync(upserts(40))
        await sandbox.seed([(7, 1, "drifted"), (99, 1, "foreign")])
        again = await sync(upserts(40))
        assert (again.updated, again.deleted, again.unchanged) == (1, 1, 39)
        assert not again.resumed
        other = await sync(upserts(30))
        assert (other.deleted, other.unchanged) == (10, 30)
        assert SyncReport.from_journal(path) == other
        # Another kind of job, scope and store, too.
        await store.attribute_values.sync(upserts(3), journal=path)
        report = await store.attribute_values.upsert(upserts(3), journal=path)
        assert report.stored == 3
        assert await sandbox.values() == {item.key: item.value for item in upserts(30)}

    async def test_its_report_stays_until_the_next_input_is_read_to_the_end(
        self, store: Store, path: Path
    ) -> None:
        first = await store.attribute_values.sync(upserts(40), journal=path)

        def broken() -> Iterator[AttributeValueUpsert]:
            yield from upserts(5_000)
            raise LookupError

        with pytest.raises(LookupError):
            await store.attribute_values.sync(broken(), journal=path)
        assert SyncReport.from_journal(path) == first

        async def refuse(_: SyncPlan) -> bool:
            return False

        await store.attribute_values.sync(upserts(50), journal=path, confirm=refuse)
        with pytest.raises(JournalError, match="not finished"):
            SyncReport.from_journal(path)

    async def test_it_is_one_file_for_its_owner_and_holds_no_token(
        self, sandbox: Sandbox, store: Store, path: Path
    ) -> None:
        sandbox.reject_customers([3])
        await store.attribute_values.sync(upserts(40), journal=path)
        assert files(path) == [path.name]
        assert mode(path) == 0o600
        assert sandbox.access_token.encode() not in content(path)

    async def test_failures_are_kept_up_to_a_bound(
        self, sandbox: Sandbox, store: Store, path: Path
    ) -> None:
        sandbox.reject_customers(range(1, 41))
        report = await store.attribute_values.sync(upserts(60), journal=path, max_failures=15)
        assert (report.created, report.failed) == (20, 40)
        assert len(report.failures) == len(SyncReport.from_journal(path).failures) == 15

    async def test_a_dry_run_leaves_the_journal_alone(self, store: Store, path: Path) -> None:
        await store.attribute_values.sync(upserts(40), journal=path, dry_run=True)
        assert not files(path)


class TestRefusals:
    @pytest.fixture
    async def begun(self, sandbox: Sandbox, path: Path) -> Path:
        await interrupted(sandbox, path, upserts(100), after=4)
        return path

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"scope": AttributeValueFilter()}, "another scope"),
            ({"scope": AttributeValueFilter(range(1, 1_000), [1])}, "another scope"),
            ({"prune": False}, "with prune"),
            ({"desired": upserts(99)}, "other desired values"),
            ({"desired": [*upserts(99), AttributeValueUpsert(100, 1, "w")]}, "other desired"),
            ({"desired": upserts(100)[::-1]}, "other desired"),
            ({"normalise": str.upper}, "other desired"),
        ],
    )
    async def test_another_job_is_refused_with_the_remedy(
        self, sandbox: Sandbox, begun: Path, change: dict[str, object], words: str
    ) -> None:
        before = len(sandbox.requests)
        asked = {"desired": upserts(100), "scope": FIRST, "prune": True, **change}
        async with make_store(sandbox) as store:
            with pytest.raises(JournalError, match=f"{words}.*restart=True.*--restart"):
                await store.attribute_values.sync(journal=begun, **asked)  # type: ignore[arg-type]
            assert len(sandbox.requests) == before
            report = await store.attribute_values.sync(journal=begun, restart=True, **asked)  # type: ignore[arg-type]
        assert (report.ok, report.resumed, report.resent) == (True, False, 0)
        assert SyncReport.from_journal(begun) == report

    async def test_another_store_is_refused(self, sandbox: Sandbox, begun: Path) -> None:
        async with Store("other", "token", base_url=sandbox.url) as store:
            with pytest.raises(JournalError, match=r"another store.*sandbox.*other.*restart"):
                await store.attribute_values.sync(
                    upserts(100), scope=FIRST, prune=True, journal=begun
                )

    async def test_the_same_store_hash_at_another_base_url_is_refused(
        self, sandbox: Sandbox, begun: Path
    ) -> None:
        async with Sandbox(quota=None) as other, make_store(other) as store:
            assert other.store_hash == sandbox.store_hash
            await other.seed((customer, 2, "theirs") for customer in range(1, 301))
            before = await other.rows()
            with pytest.raises(JournalError, match=r"another store.*restart"):
                await store.attribute_values.sync(
                    upserts(100), scope=FIRST, prune=True, journal=begun
                )
            assert not other.requests
            assert await other.rows() == before

    async def test_an_upsert_does_not_take_up_a_sync(self, sandbox: Sandbox, begun: Path) -> None:
        async with make_store(sandbox) as store:
            with pytest.raises(JournalError, match=r"of a sync.*restart"):
                await store.attribute_values.upsert(upserts(100), journal=begun)

    async def test_an_older_format_is_refused_with_the_remedy(
        self, sandbox: Sandbox, begun: Path
    ) -> None:
        with closing(sqlite3.connect(begun)) as connection:
            connection.execute("PRAGMA user_version = 1")
        before = len(sandbox.requests)
        async with make_store(sandbox) as store:
            with pytest.raises(JournalError, match=r"format 1.*format 2.*restart=True"):
                await store.attribute_values.sync(
                    upserts(100), scope=FIRST, prune=True, journal=begun
                )
            assert len(sandbox.requests) == before
            report = await store.attribute_values.sync(
                upserts(100), scope=FIRST, prune=True, journal=begun, restart=True
            )
        assert report.ok

    async def test_a_bad_item_in_the_input_read_again_is_refused(
        self, sandbox: Sandbox, begun: Path
    ) -> None:
        async with make_store(sandbox) as store:
            with pytest.raises(InvalidInputError):
                await store.attribute_values.sync([None], scope=FIRST, prune=True, journal=begun)  # type: ignore[list-item]

    async def test_one_that_is_held_is_refused_at_once(self, store: Store, path: Path) -> None:
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def items() -> AsyncIterator[AttributeValueUpsert]:
            begun.set()
            await go_on.wait()
            for item in upserts(60):
                yield item

        sync = store.attribute_values.sync
        first = asyncio.create_task(sync(items(), scope=FIRST, prune=True, journal=path))
        await begun.wait()
        with pytest.raises(JournalError, match="held by another"):
            await sync(upserts(60), scope=FIRST, prune=True, journal=path)
        # The attempt has not loosened the first one's hold on the file.
        other = await process(SYNC, "http://127.0.0.1:9", path)
        _, errors = await other.communicate()
        assert b"held by another" in errors.splitlines()[-1]
        with pytest.raises(JournalError, match="held by another"):
            await asyncio.to_thread(SyncReport.from_journal, path)
        go_on.set()
        assert (await first).created == 60

    async def test_a_symbolic_link_is_not_followed(
        self, sandbox: Sandbox, store: Store, path: Path
    ) -> None:
        target = path.with_name("target")
        for companion in ("", "-wal"):
            link(path.with_name(path.name + companion), target)
            for exists in (False, True):
                if exists:
                    replace(target, b"")
                with pytest.raises(JournalError, match="symbolic link"):
                    await store.attribute_values.sync(upserts(3), journal=path)
            assert content(target) == b""
            remove(target)
            remove(path.with_name(path.name + companion))
        assert not sandbox.requests

    async def test_a_directory_and_a_place_that_is_not_there_are_refused(
        self, store: Store, tmp_path: Path
    ) -> None:
        for bad in (tmp_path, tmp_path / "missing" / "scores.db"):
            with pytest.raises(JournalError):
                await store.attribute_values.sync(upserts(3), journal=bad)

    async def test_what_is_no_journal_is_refused_and_left_as_it_is(
        self, sandbox: Sandbox, store: Store, path: Path
    ) -> None:
        for text, words in ((b"customer_id,value\n" * 99, "no SQLite"), (None, "no journal")):
            if text is None:
                remove(path)
                with closing(sqlite3.connect(path)) as other:
                    other.execute("CREATE TABLE theirs (x)")
            else:
                replace(path, text)
            before = content(path)
            with pytest.raises(JournalError, match=words):
                await store.attribute_values.sync(upserts(3), journal=path)
            with pytest.raises(JournalError, match=words):
                SyncReport.from_journal(path)
            assert content(path) == before
        assert not sandbox.requests

    def test_a_report_of_nothing_is_refused(self, path: Path) -> None:
        with pytest.raises(JournalError, match="does not exist"):
            SyncReport.from_journal(path)
        assert not path.exists()

    async def test_a_format_of_another_version_is_refused(self, store: Store, path: Path) -> None:
        await store.attribute_values.sync(upserts(3), journal=path)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA user_version = 99")
        with pytest.raises(JournalError, match="format 99"):
            await store.attribute_values.sync(upserts(3), journal=path)


class TestRestart:
    async def test_it_discards_a_damaged_journal(self, sandbox: Sandbox, path: Path) -> None:
        await interrupted(sandbox, path, upserts(2_000), after=20)
        whole = bytearray(content(path))
        whole[4096 : len(whole)] = os.urandom(len(whole) - 4096)
        replace(path, bytes(whole))
        async with make_store(sandbox) as store:
            sync = store.attribute_values.sync
            with pytest.raises(JournalError, match="damaged"):
                await sync(upserts(50), scope=FIRST, journal=path)
            report = await sync(upserts(50), scope=FIRST, journal=path, restart=True)
        assert report.ok
        assert SyncReport.from_journal(path) == report
        assert files(path) == [path.name]

    async def test_it_makes_a_journal_where_there_is_none(self, store: Store, path: Path) -> None:
        report = await store.attribute_values.sync(upserts(5), journal=path, restart=True)
        assert SyncReport.from_journal(path) == report

    async def test_it_takes_no_file_that_is_no_journal(self, store: Store, path: Path) -> None:
        with closing(sqlite3.connect(path)) as other:
            other.execute("CREATE TABLE theirs (x)")
        before = content(path)
        with pytest.raises(JournalError, match="no journal"):
            await store.attribute_values.sync(upserts(3), journal=path, restart=True)
        assert content(path) == before

    async def test_it_takes_no_journal_that_another_job_holds(
        self, sandbox: Sandbox, store: Store, path: Path
    ) -> None:
        sandbox.latency_ms = 20
        first = asyncio.create_task(
            store.attribute_values.sync(upserts(60), scope=FIRST, prune=True, journal=path)
        )
        await until(lambda: sandbox.calls["upsert"] > 0)
        with pytest.raises(JournalError, match="held by another"):
            await store.attribute_values.sync(upserts(60), journal=path, restart=True)
        assert (await first).created == 60


class TestFaults:
    async def test_a_damaged_file_is_refused_whatever_was_hit(
        self, sandbox: Sandbox, path: Path
    ) -> None:
        await interrupted(sandbox, path, upserts(2_000), after=20)
        whole = content(path)
        before = len(sandbox.requests)
        async with make_store(sandbox) as store:
            for page in range(1, len(whole) // 4096):
                torn = bytearray(whole)
                torn[page * 4096 : page * 4096 + 200] = os.urandom(200)
                replace(path, bytes(torn))
                with pytest.raises(JournalError):
                    await store.attribute_values.sync(
                        upserts(2_000), scope=FIRST, prune=True, journal=path
                    )
            assert len(sandbox.requests) == before
            replace(path, whole)
            report = await store.attribute_values.sync(
                upserts(2_000), scope=FIRST, prune=True, journal=path
            )
        assert report.created == 2_000

    async def test_damage_to_what_should_be_text_is_refused(
        self, sandbox: Sandbox, store: Store, path: Path
    ) -> None:
        await store.attribute_values.sync(upserts(60), journal=path)
        whole = content(path)
        # In the schema, and in what is noted there.
        for text in (b"current_stagedcurrent", b"CREATE TABLE meta", b"finished", b"failures"):
            assert text in whole
            replace(path, whole.replace(text, b"\xff" + text[1:]))
            with pytest.raises(JournalError):
                SyncReport.from_journal(path)
            with pytest.raises(JournalError):
                await store.attribute_values.sync(upserts(60), journal=path)

    async def test_a_cut_off_file_is_refused(self, sandbox: Sandbox, path: Path) -> None:
        await interrupted(sandbox, path, upserts(1_000), after=20)
        replace(path, content(path)[: len(content(path)) // 2])
        async with make_store(sandbox) as store:
            with pytest.raises(JournalError):
                await store.attribute_values.sync(
                    upserts(1_000), scope=FIRST, prune=True, journal=path
                )

    @pytest.mark.parametrize("short_of", [1, 2, 3, 5, 8, 12])
    async def test_a_full_disk_stops_it_and_marks_nothing_falsely(
        self, sandbox: Sandbox, path: Path, monkeypatch: pytest.MonkeyPatch, short_of: int
    ) -> None:
        sandbox.reject_customers(range(1, 2_000, 7))
        desired = upserts(400)
        pages = await self._pages_needed(sandbox, path.with_name("enough.db"), desired) - short_of
        before = len(sandbox.requests)
        with monkeypatch.context() as full:
            full.setattr(
                database,
                "_FILE_PRAGMAS",
                f"{database._FILE_PRAGMAS}; PRAGMA max_page_count = {pages}",
            )
            async with make_store(sandbox) as store:
                with pytest.raises(JournalError, match="full") as caught:
                    await store.attribute_values.sync(
                        desired, scope=FIRST, prune=True, journal=path
                    )
                await at_rest(store)
        stored = await sandbox.values()
        so_far = caught.value.report
        assert isinstance(so_far, SyncReport)
        # The journal can be read still, so creates are told apart.
        assert (so_far.created <= len(stored), so_far.written) == (True, 0)
        assert so_far.calls == len(sandbox.requests) - before
        with closing(sqlite3.connect(path)) as connection:
            tables = connection.execute("SELECT name FROM sqlite_master").fetchall()
            done = (
                connection.execute(
                    "SELECT key >> 31 FROM upserts WHERE state = ?", (State.DONE,)
                ).fetchall()
                if ("upserts",) in tables
                else []
            )
        assert {(customer, 1) for (customer,) in done} <= stored.keys()
        async with make_store(sandbox) as store:
            report = await store.attribute_values.sync(
                desired, scope=FIRST, prune=True, journal=path
            )
        assert (report.created, report.failed) == (342, 58)
        assert report.created == await sandbox.count()

    async def _pages_needed(
        self, sandbox: Sandbox, path: Path, desired: list[AttributeValueUpsert]
    ) -> int:
        async with make_store(sandbox) as store:
            await store.attribute_values.sync(desired, scope=FIRST, prune=True, journal=path)
        await sandbox.delete_rows(row.id for row in await sandbox.rows())
        with closing(sqlite3.connect(path)) as connection:
            return int(connection.execute("PRAGMA page_count").fetchone()[0])

    async def test_values_that_failed_stay_failed_when_it_goes_on(
        self, sandbox: Sandbox, path: Path
    ) -> None:
        sandbox.reject_customers([1, 2])
        sandbox.latency_ms = 1
        await interrupted(sandbox, path, upserts(200), after=12)
        async with make_store(sandbox) as store:
            report = await store.attribute_values.sync(
                upserts(200), scope=FIRST, prune=True, journal=path
            )
        assert (report.created, report.failed) == (198, 2)
        assert sorted(one.item.customer_id for one in report.failures) == [1, 2]


_ERRORS = [
    UnprocessableError(422, "no", {"0.data": "missing"}, "r1", "PUT", "/x"),
    ServerError(503, "busy"),
    ConnectionLostError("gone", method="PUT", path="/x", may_have_been_applied=True),
    DecodeError("not JSON", place="$.data[3].id", status=200),
    UnconfirmedError("sent twice"),
    InvalidInputError("bad", field="value", place="items[3]"),
    ListingDriftError("moved", passes=3),
    BCAttrValsError("plain"),
]


@pytest.mark.parametrize("error", _ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_survives_the_journal(error: BCAttrValsError) -> None:
    error.attempts, error.waited_s = 6, 1.5
    error.report = SyncReport(1, 0, 0, 0, 0, 0, 1)
    loaded = load_error(dump_error(error))
    del error.report
    assert type(loaded) is type(error)
    assert str(loaded) == str(error)
    assert vars(loaded) == vars(error)
    assert str(pickle.loads(pickle.dumps(loaded))) == str(error)


def test_an_error_of_a_class_nobody_knows_is_a_plain_one() -> None:
    stored = dump_error(ServerError(500, "x")).replace("ServerError", "SystemExit")
    assert type(load_error(stored)) is BCAttrValsError
    with pytest.raises(JournalError):
        load_error("{}")


@pytest.mark.parametrize("bad", ["", "a\0b", b"a\0b"])
async def test_what_is_no_path_is_refused(store: Store, bad: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        await store.attribute_values.sync(upserts(3), journal=bad)
    assert caught.value.field == "journal"
    with pytest.raises(InvalidInputError):
        SyncReport.from_journal(bad)


async def test_a_path_may_be_bytes(sandbox: Sandbox, store: Store, path: Path) -> None:
    report = await store.attribute_values.sync(upserts(3), journal=os.fsencode(path))
    assert report.failed == 0
    assert SyncReport.from_journal(os.fsencode(path)) == report
