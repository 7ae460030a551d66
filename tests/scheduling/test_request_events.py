"""How each try of a request is seen in events and logs."""

from __future__ import annotations

import logging
import re

import pytest

from bc_attrvals import (
    RequestAnswered,
    RequestRetrying,
    RequestSent,
    Store,
)
from bc_attrvals.events import Event
from bc_attrvals.sandbox import Sandbox
from tests.conftest import make_store
from tests.test_store import upserts


async def test_tries_pair_by_request_and_attempt(
    sandbox: Sandbox, store: Store, heard: list[Event]
) -> None:
    sandbox.faults.script(["500", "drop_after"], "upsert")
    await store.attribute_values.upsert(upserts(30))
    sent = [one for one in heard if isinstance(one, RequestSent)]
    ended = [one for one in heard if isinstance(one, RequestAnswered)]
    tries = {(one.request, one.attempt) for one in sent}
    assert len(tries) == len(sent) == len(ended) == 5
    assert {(one.request, one.attempt) for one in ended} == tries
    assert {one.job for one in (*sent, *ended)} == {1}
    failed = {one.request: one for one in ended if one.status != 200}
    assert sorted((one.status or 0, one.error or "") for one in failed.values()) == [
        (0, "ConnectionLostError"),
        (500, ""),
    ]
    retrying = [one for one in heard if isinstance(one, RequestRetrying)]
    assert {(one.request, one.attempt) for one in retrying} == {(one, 1) for one in failed}


async def test_info_shows_jobs_and_retries_and_debug_each_try(
    sandbox: Sandbox, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="bc_attrvals")
    sandbox.faults.script(["503", "drop_after"], "upsert")
    await store.attribute_values.upsert(upserts(1))
    told = [
        (record.levelname, re.sub(r"\d+\.\d{3} s", "_ s", record.getMessage()))
        for record in caplog.records
        if record.name.startswith("bc_attrvals.") and "sandbox" not in record.name
    ]
    path = f"/stores/{sandbox.store_hash}/v3/customers/attribute-values"
    patterns = [
        ("INFO", "upsert 1 started"),
        ("DEBUG", rf"request 1: PUT {path}, try 1: 503 after _ s, \d+ bytes, request id \S+"),
        ("INFO", "the store is under load: each write pauses _ s"),
        ("INFO", "request 1: write failed on try 1 with ServerError, sent again in _ s"),
        (
            "DEBUG",
            (
                rf"request 1: PUT {path}, try 2: ConnectionLostError after _ s, 0 bytes, "
                "request id None"
            ),
        ),
        ("INFO", "request 1: write failed on try 2 with ConnectionLostError, sent again in _ s"),
        ("DEBUG", rf"request 1: PUT {path}, try 3: 200 after _ s, \d+ bytes, request id \S+"),
        ("INFO", "upsert 1 ended: 1 stored; calls: 3, of them retries: 2, _ s"),
    ]
    assert len(told) == len(patterns), told
    for (level, text), (wanted, pattern) in zip(told, patterns, strict=True):
        assert level == wanted
        assert re.fullmatch(pattern, text), (text, pattern)


async def test_info_shows_waits_for_quota_and_429s_in_seconds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="bc_attrvals")
    async with Sandbox(quota=3, window_s=0.4) as sandbox, make_store(sandbox) as store:
        await store.attribute_values.upsert(upserts(50))
        # Another app takes what is left of the window.
        sandbox.faults.script(["429"], "upsert")
        await store.attribute_values.upsert(upserts(1))
    texts = [record.getMessage() for record in caplog.records]
    assert any(
        re.fullmatch(r"the quota is spent for 0\.\d{3} s; requests queued: \d", text)
        for text in texts
    )
    assert any(
        re.fullmatch(r"request \d: write refused with 429 on try 1, sent again .+", text)
        for text in texts
    ), texts


async def test_without_anybody_who_asks_no_request_gets_a_number(
    sandbox: Sandbox, store: Store
) -> None:
    await store.attribute_values.upsert(upserts(20))
    heard: list[Event] = []
    store.subscribe(heard.append)
    await store.attribute_values.get_page()
    assert [one.request for one in heard if isinstance(one, RequestSent)] == [1]
