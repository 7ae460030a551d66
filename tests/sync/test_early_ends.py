"""However a job ends early, no value that was sent and no row whose delete was sent is "not sent".

Each value is in one count, and what the report says is stored or deleted is so.
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, Final, TypeAlias

import attrs
import pytest

from bc_attrvals import (
    AttributeValueFilter,
    AttributeValueUpsert,
    Limits,
    OutcomeStatus,
    RetryPolicy,
    Store,
    SyncReport,
    UpsertOutcome,
    UpsertReport,
)
from bc_attrvals.events import Event, JobEnded
from bc_attrvals.sync import unnoted_outcomes
from bc_attrvals.sync.working_set import WorkingSet
from tests.probes import upserts
from tests.raw_server import Connection, RawRequest, answer, store_on
from tests.sync.lying_store import Lies, LyingStore

FIRST = AttributeValueFilter(attribute_id_in=[1])
COUNT: Final = 100
#: Small, so that a job has several rounds of deletes.
LIMITS: Final = Limits(delete_size=5)

Job: TypeAlias = Callable[[Store, Any, Path], Awaitable[object]]


async def _stream(store: Store, items: Any, path: Path) -> list[UpsertOutcome]:
    return [one async for one in store.attribute_values.upsert_stream(items)]


#: By name: what is called, with the items and a path.
JOBS: Final[dict[str, Job]] = {
    "upsert": lambda store, items, _: store.attribute_values.upsert(items),
    "stream": _stream,
    "upsert, journalled": lambda store, items, path: store.attribute_values.upsert(
        items, journal=path
    ),
    "sync": lambda store, items, _: store.attribute_values.sync(items, scope=FIRST, prune=True),
    "sync, journalled": lambda store, items, path: store.attribute_values.sync(
        items, scope=FIRST, prune=True, journal=path
    ),
}
OF_A_DATABASE: Final = frozenset(JOBS) - {"upsert", "stream"}


class FullDisk:
    """Refuses to mark rows from the call of a number on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._left: float = float("inf")
        for name in ("mark_upserts", "mark_deletes"):
            monkeypatch.setattr(WorkingSet, name, self._limited(getattr(WorkingSet, name)))

    def fill(self, left: float) -> None:
        self._left = left

    def _limited(self, mark: Callable[..., None]) -> Callable[..., None]:
        def limited(*args: Any) -> None:
            self._left -= 1
            if self._left < 0:
                raise sqlite3.OperationalError("database or disk is full")
            mark(*args)

        return limited


@attrs.define
class Ending:
    """One job, and the end that comes to it once so many writes have arrived at the service."""

    way: str
    moment: int
    random: Random
    honest: LyingStore = attrs.field(factory=lambda: LyingStore({}))
    sent: set[int] = attrs.field(factory=set)
    read: int = 0
    writes: int = 0
    store: Store | None = None
    task: asyncio.Task[object] | None = None
    closing: asyncio.Task[None] | None = None
    ended: JobEnded | None = None

    async def script(self, request: RawRequest, connection: Connection) -> None:
        if request.method == "GET":
            await self.honest.script(request, connection)
            return
        if request.method == "PUT":
            self.sent |= {item["customer_id"] for item in request.items}
        else:
            self.sent |= {int(one) for one in request.query["id:in"].split(",")}
        self.writes += 1
        if self.writes >= self.moment:
            self.end()
        # Answers come in any order; some are lost, or the write is.
        for _ in range(self.random.randrange(30)):
            await asyncio.sleep(0)
        chance = self.random.random()
        if self.way == "unauthorized" and self.writes >= self.moment and chance < 0.7:
            await connection.say(answer(b"", 401))
        elif chance < 0.1:
            connection.reset()
        elif chance < 0.2:
            self.honest._put(request) if request.method == "PUT" else self.honest._delete(request)
            connection.reset()
        else:
            await self.honest.script(request, connection)

    def end(self) -> None:
        assert self.store is not None
        assert self.task is not None
        if self.way == "closed" and self.closing is None:
            self.closing = asyncio.ensure_future(self.store.aclose())
        elif self.way == "cancelled" and self.writes == self.moment:
            self.task.cancel()
        elif self.way == "tasks killed" and self.writes == self.moment:
            runtime = self.store._state.runtime
            for task in [] if runtime is None else runtime.scheduler._tasks:
                task.cancel()

    def hear(self, event: Event) -> None:
        if isinstance(event, JobEnded):
            self.ended = event
        if self.way == "subscriber":
            raise RuntimeError("a subscriber of the caller's")

    def items(self) -> Iterator[AttributeValueUpsert]:
        for self.read, item in enumerate(upserts(COUNT), 1):
            yield item
            if self.way == "source" and self.writes >= self.moment:
                raise OSError("the input broke")

    async def run(self, job: Job, path: Path) -> object:
        """Return the result of the job, or what it raised."""
        retry = RetryPolicy(attempts=2, base_s=0.0001, cap_s=0.0002)
        async with store_on(self.script, retry=retry, limits=LIMITS) as (self.store, _):
            self.store.subscribe(self.hear)
            self.task = asyncio.ensure_future(job(self.store, self.items(), path))
            (found,) = await asyncio.gather(self.task, return_exceptions=True)
        return found


def count_of(report: object, *names: str) -> int:
    return sum(getattr(report, name, 0) for name in names)


def check_counts(ending: Ending, report: object) -> None:
    confirmed = count_of(report, "stored", "created", "updated", "written")
    failed, not_sent = count_of(report, "failed"), count_of(report, "not_sent")
    assert confirmed <= len(ending.honest.written)
    assert not_sent <= ending.read - len(ending.sent)
    assert confirmed + failed + not_sent == ending.read
    if failures := [one.status for one in getattr(report, "failures", ())]:
        # A stream yields its outcomes, and keeps none.
        assert failures.count(OutcomeStatus.FAILED) == failed


WAYS: Final = [
    *((way, name) for way in ("unauthorized", "closed", "subscriber") for name in JOBS),
    *((way, name) for way in ("cancelled", "tasks killed") for name in JOBS),
    *(("disk full", name) for name in sorted(OF_A_DATABASE)),
    *(("source", name) for name in ("upsert", "stream")),
]


@pytest.mark.parametrize(("way", "name"), WAYS)
@pytest.mark.usefixtures("quick_probes")
async def test_no_value_that_was_sent_is_reported_as_not_sent(
    way: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unnoted_outcomes, "MOST_UNNOTED", 20)
    disk = FullDisk(monkeypatch)
    for seed in range(6):
        random = Random(f"{way} {name} {seed}")
        ending = Ending(way, random.randrange(1, 9), random)
        disk.fill(random.randrange(6) if way == "disk full" else float("inf"))
        found = await ending.run(JOBS[name], tmp_path / f"{seed}.db")
        report = getattr(found, "report", found)
        if isinstance(report, SyncReport | UpsertReport):
            check_counts(ending, report)
        elif isinstance(found, list):
            assert len(found) == ending.read
        elif notes := getattr(found, "__notes__", ()):
            stored, failed, superseded, not_sent = map(int, re.findall(r"\d+", notes[0]))
            assert (stored + failed + not_sent, superseded) == (ending.read, 0)
            assert not_sent <= ending.read - len(ending.sent)
        else:
            assert isinstance(found, asyncio.CancelledError)
        assert ending.ended is not None
        counts = dict(ending.ended.counts)
        assert counts.get("not_sent", 0) <= ending.read - len(ending.sent)


@pytest.mark.parametrize("journalled", [False, True])
@pytest.mark.parametrize("way", ["unauthorized", "closed", "disk full", "tasks killed"])
@pytest.mark.usefixtures("quick_probes")
async def test_no_delete_that_was_sent_is_reported_as_not_sent(
    way: str, journalled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FullDisk(monkeypatch)
    for seed in range(6):
        random = Random(f"{way} {seed}")
        rows = {number: ((number, 1), "old") for number in range(1, COUNT + 1)}
        ending = Ending(way, random.randrange(1, 9), random, LyingStore(rows, Lies()))
        disk.fill(random.randrange(12) if way == "disk full" else float("inf"))

        async def prune(store: Store, _: object, path: Path) -> SyncReport:
            return await store.attribute_values.sync(
                [],
                scope=FIRST,
                prune=True,
                allow_empty=True,
                journal=path if journalled else None,
            )

        found = await ending.run(prune, tmp_path / f"{seed}.db")
        report = getattr(found, "report", found)
        assert isinstance(report, SyncReport)
        assert report.deleted <= COUNT - len(ending.honest.rows)
        assert report.not_sent <= COUNT - len(ending.sent)
        assert report.deleted + report.unconfirmed_deletes + report.not_sent == COUNT
