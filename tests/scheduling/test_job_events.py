"""Bulk jobs in logs and events: numbers and sums."""

from __future__ import annotations

from contextlib import aclosing

import pytest

from bc_attrvals import (
    AttributeValueFilter,
    AuthenticationError,
    JobEnded,
    JobStarted,
    RequestSent,
    Store,
)
from bc_attrvals.events import Event
from bc_attrvals.sandbox import Sandbox
from tests.test_store import upserts


def jobs(events: list[Event]) -> list[Event]:
    return [one for one in events if isinstance(one, JobStarted | JobEnded)]


async def test_each_kind_of_job_is_announced_and_summed_up(
    store: Store, heard: list[Event]
) -> None:
    values = store.attribute_values
    everything = AttributeValueFilter()
    await values.upsert(upserts(20))
    assert [one async for one in values.upsert_stream(upserts(5))]
    rows = [one async for one in values.stream()]
    await values.sync(upserts(10), scope=everything, prune=True)
    await values.delete([rows[0].id])
    await values.delete_where(everything, everything=True)
    ended = [one for one in heard if isinstance(one, JobEnded)]
    assert [(one.job, one.kind, one.counts, one.error) for one in ended] == [
        (1, "upsert", (("stored", 20),), None),
        (2, "upsert", (("stored", 5),), None),
        (3, "list", (("rows", 20),), None),
        (4, "sync", (("deleted", 10), ("unchanged", 10)), None),
        (5, "delete", (("deleted", 1),), None),
        (6, "delete", (("deleted", 9),), None),
    ]
    assert [one.job for one in heard if isinstance(one, JobStarted)] == [1, 2, 3, 4, 5, 6]
    for one in ended:
        sent = [event for event in heard if isinstance(event, RequestSent) and event.job == one.job]
        assert len(sent) == one.calls > 0


async def test_a_single_call_belongs_to_no_job(store: Store, heard: list[Event]) -> None:
    await store.attribute_values.get_page()
    await store.attribute_values.put_batch(upserts(1))
    assert jobs(heard) == []
    sent = [one for one in heard if isinstance(one, RequestSent)]
    assert [(one.request, one.method, one.job) for one in sent] == [
        (1, "GET", None),
        (2, "PUT", None),
    ]


async def test_a_job_that_an_error_ends_says_so_with_its_sums(
    sandbox: Sandbox, store: Store, heard: list[Event]
) -> None:
    sandbox.faults.script([None, "401", "401", "401"], "upsert")
    with pytest.raises(AuthenticationError):
        await store.attribute_values.upsert(upserts(200))
    ended = jobs(heard)[-1]
    assert isinstance(ended, JobEnded)
    assert ended.error == "AuthenticationError"
    assert dict(ended.counts)["stored"] == 10


async def test_a_listing_that_is_left_early_has_ended(store: Store, heard: list[Event]) -> None:
    await store.attribute_values.upsert(upserts(3))
    async with aclosing(store.attribute_values.stream()) as rows:
        async for _ in rows:
            break
    ended = jobs(heard)[-1]
    assert isinstance(ended, JobEnded)
    assert (ended.kind, ended.counts, ended.error) == ("list", (("rows", 3),), "GeneratorExit")
