"""Calls are counted, bounded, tried again, and wait for quota."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bc_attrvals import ConnectionFailedError, RateLimitError, StoreSuspendedError
from bc_attrvals.probe.facts import Unsettled
from bc_attrvals.probe.wire import Wire
from bc_attrvals.sandbox import Fault
from bc_attrvals.transport.session import Session
from tests.probe.probing import ground

ITEM = {"customer_id": 7, "attribute_id": 1, "value": "v"}


async def test_the_quota_is_waited_for_and_no_call_is_answered_429(tmp_path: Path) -> None:
    async with ground(tmp_path, quota=5, window_s=0.15) as store:
        wire = Wire(store.session, store.sandbox.store_hash, store.sandbox.url)
        for _ in range(12):
            await wire.get("limit=1")
        assert store.sandbox.count_429 == 0
        assert len(wire.answers) == wire.calls == 12


async def test_a_429_is_waited_out_and_its_headers_are_noted(tmp_path: Path) -> None:
    faults = [Fault.parse("429,times=2,retry_after_s=9")]
    async with ground(tmp_path, faults=faults, quota=None) as store:
        began_s = store.clock.now_s
        wire = store.wire()
        assert (await wire.get("limit=1")).status == 200
        assert store.clock.now_s - began_s == 18
        assert wire.calls == 3
        assert [one.status for one in wire.answers] == [429, 429, 200]


async def test_a_status_that_says_nothing_of_the_request_is_raised(tmp_path: Path) -> None:
    async with ground(tmp_path, faults=[Fault.parse("429")], quota=None) as store:
        with pytest.raises(RateLimitError):
            await store.wire().get("limit=1")
        store.sandbox.faults.clear()
        store.sandbox.faults.add(Fault.parse("suspended"))
        with pytest.raises(StoreSuspendedError):
            await store.wire().get("limit=1")


async def test_a_repeated_500_is_an_answer(tmp_path: Path) -> None:
    async with ground(tmp_path, faults=[Fault.parse("500")]) as store:
        wire = store.wire()
        assert (await wire.put([ITEM])).status == 500
        assert wire.calls == 2


async def test_a_write_without_an_answer_is_sent_again_and_remembered(tmp_path: Path) -> None:
    async with ground(tmp_path, faults=[Fault.parse("drop_after,times=1")]) as store:
        wire = store.wire()
        assert (await wire.put([ITEM])).status == 200
        assert wire.has_unanswered
        assert wire.calls == 2


async def test_a_server_that_is_not_there_is_given_up(tmp_path: Path) -> None:
    async with ground(tmp_path) as store:
        nowhere = Session("http://127.0.0.1:9", "t", user_agent="test", max_response_bytes=1 << 20)
        wire = Wire(nowhere, "x", "http://127.0.0.1:9", sleep=store.clock.sleep)
        with pytest.raises(ConnectionFailedError):
            await wire.get("")
        await nowhere.aclose()
        assert wire.calls == 5


async def test_calls_for_the_restoring_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bc_attrvals.probe.wire._MOST_ASKING", 2)
    async with ground(tmp_path) as store:
        wire = store.wire()
        await wire.get("limit=1")
        await wire.get("limit=1")
        with pytest.raises(Unsettled, match="bound of 2 calls"):
            await wire.get("limit=1")
        wire.begin_restoring()
        assert (await wire.get("limit=1")).status == 200


async def test_a_cancelled_write_is_waited_for(tmp_path: Path) -> None:
    async with ground(tmp_path, latency_ms=30) as store:
        wire = store.wire()
        task = asyncio.ensure_future(wire.put([ITEM]))
        for _ in range(100):
            await asyncio.sleep(0.001)
            if store.sandbox.in_flight("upsert"):
                break
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await store.sandbox.values())[7, 1] == "v"
        assert not wire.has_unanswered
