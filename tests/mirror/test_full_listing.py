"""`verify`: a service that breaks the rules is found out, named and repaired."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import attrs
import pytest

from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.core.models import AttributeValue, Page
from bc_attrvals.events import Event, MirrorFoundWrong
from bc_attrvals.mirror.report import Fault, FaultKind

from .fake_store import START, FakeStore, moment
from .opening import held, opened

pytestmark = pytest.mark.looptime(noop_cycles=2)


async def test_a_change_without_a_new_date_modified_is_found_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = FakeStore()
    store.seed(1_000)
    events: list[Event] = []
    store.events.subscribe(events.append)
    async with opened(store, tmp_path) as mirror:
        await mirror.refresh()
        # It learns what the bounds include, and shows some rows for that.
        await mirror.refresh()
        before = store.rows[5]
        after = store.change(5, "silently", moves_date=False)
        assert (await mirror.refresh()).ok
        assert (await held(mirror))[5] == before

        with caplog.at_level(logging.WARNING, "bc_attrvals"):
            report = await mirror.refresh(verify=True)
        assert await held(mirror) == store.rows
        assert not report.ok
        assert (report.stale, report.missing, report.surplus) == (1, 0, 0)
        assert report.faults == (Fault(FaultKind.STALE, before, after),)
        assert report.changed == 1
        assert "changed without a new date_modified: 1," in caplog.text
        assert "silently" not in caplog.text
        assert MirrorFoundWrong(1, 0, 0, 0) in events
        assert (await mirror.refresh(verify=True)).ok


async def test_a_row_added_with_an_old_date_is_found_by_the_counts(tmp_path: Path) -> None:
    store = FakeStore()
    store.seed(1_000)
    async with opened(store, tmp_path) as mirror:
        await mirror.refresh()
        store.insert(9_000, 1, "imported", START + 17)
        row = store.rows[store.next_id - 1]
        report = await mirror.refresh()
        assert report.uncounted == 1
        assert report.faults == (Fault(FaultKind.MISSING, None, row),)
        assert not report.ok
        assert await held(mirror) == store.rows


async def test_rows_counted_too_few_in_one_part_of_a_scope_are_reported(tmp_path: Path) -> None:
    store = FakeStore(page_size=20, room_bytes=817)
    store.seed(400)
    scope = AttributeValueFilter(customer_id_in=range(1, 101))
    async with opened(store, tmp_path, scope) as mirror:
        await mirror.refresh()
        store.insert(1, 9, "old", START + 7)
        report = await mirror.refresh()
        assert (report.ok, report.uncounted) == (False, 1)
        assert await held(mirror) == store.rows


async def test_counts_that_lie_are_found_out(tmp_path: Path) -> None:
    store = FakeStore()
    store.seed(1_000)

    def one_too_many(query: str, page: Page) -> Page:
        _, _, limit = store.asked[-1]
        if limit == 1 and "date_created:min" not in query:
            total = page.pagination.total + 1
            return Page(page.data, attrs.evolve(page.pagination, total=total))
        return page

    async with opened(store, tmp_path) as mirror:
        await mirror.refresh()
        await mirror.refresh()
        gone = store.rows[700]
        store.delete(700)
        store.lie = one_too_many
        assert (await mirror.refresh()).removed == 0
        report = await mirror.refresh(verify=True)
        assert (report.stale, report.missing, report.surplus) == (0, 0, 1)
        assert report.faults == (Fault(FaultKind.SURPLUS, gone, None),)
        assert await held(mirror) == store.rows


async def test_a_row_that_goes_back_in_time_is_repaired(tmp_path: Path) -> None:
    # As after a restored backup.
    store = FakeStore()
    store.seed(1_000)
    async with opened(store, tmp_path) as mirror:
        old = store.rows[5]
        store.change(5, "later")
        await mirror.refresh()
        store.put(old)
        report = await mirror.refresh(verify=True)
        assert report.stale == 1
        assert await held(mirror) == store.rows


async def test_changes_while_everything_is_listed_are_no_faults(tmp_path: Path) -> None:
    store = FakeStore(page_size=20)
    store.seed(400)
    async with opened(store, tmp_path) as mirror:
        await mirror.refresh()
        changed = iter(range(1, 400, 3))

        def change_one() -> None:
            row_id = next(changed, None)
            if row_id is not None and store.calls > 6:
                store.change(row_id, "now")
                store.insert(row_id, 9, "new")

        store.before = change_one
        report = await mirror.refresh(verify=True)
        assert report.ok
        store.before = None
        await mirror.refresh()
        assert await held(mirror) == store.rows


async def test_rows_deleted_while_everything_is_listed_are_no_faults(tmp_path: Path) -> None:
    store = FakeStore(page_size=20)
    store.seed(400)
    async with opened(store, tmp_path) as mirror:
        await mirror.refresh()
        await mirror.refresh()
        gone = iter(range(1, 400, 7))

        def delete_one() -> None:
            row_id = next(gone, None)
            if row_id is not None and store.calls > before + 6:
                store.delete(row_id)

        before = store.calls
        store.before = delete_one
        report = await mirror.refresh(verify=True)
        assert (report.ok, report.faults) == (True, ())
        assert report.removed > 0
        store.before = None
        assert (await mirror.refresh(verify=True)).ok
        assert await held(mirror) == store.rows


async def test_only_the_first_hundred_faults_are_named(tmp_path: Path) -> None:
    store = FakeStore()
    store.seed(600)
    async with opened(store, tmp_path) as mirror:
        await mirror.refresh()
        for row_id in range(1, 151):
            store.change(row_id, "silently", moves_date=False)
        report = await mirror.refresh(verify=True)
        assert report.stale == 150
        assert len(report.faults) == 100


async def test_everything_is_listed_once_in_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FakeStore()
    store.seed(300)
    now_s = time.time()
    monkeypatch.setattr(time, "time", lambda: now_s)
    async with opened(store, tmp_path, verify_every_s=100) as mirror:
        assert (await mirror.refresh()).verified
        now_s += 99
        assert not (await mirror.refresh()).verified
        store.change(3, "silently", moves_date=False)
        now_s += 2
        report = await mirror.refresh()
        assert report.verified
        assert report.stale == 1
        assert not (await mirror.refresh()).verified
        now_s -= 1_000
        assert (await mirror.refresh()).verified


async def test_rows_with_fractions_of_seconds_and_odd_texts_are_kept_as_they_are(
    tmp_path: Path,
) -> None:
    store = FakeStore()
    when = moment(START).replace(microsecond=123_456)
    for number, value in enumerate(["", "é", "\U0001f600", "a\0b"], 1):
        store.put(AttributeValue(number, number, 1, value, when, when))
    async with opened(store, tmp_path) as mirror:
        await mirror.refresh()
        assert await held(mirror) == store.rows
        assert (await mirror.refresh(verify=True)).ok
