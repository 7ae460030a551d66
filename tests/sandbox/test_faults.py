"""Which requests a fault meets, and how connections are lost."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import aiohttp
import pytest

from bc_attrvals.sandbox import Fault, FaultKind, Faults, Operation, Sandbox
from tests.sandbox.api import Api, Reply, item, running, until

LEFT = "X-Rate-Limit-Requests-Left"


async def strike(
    sandbox: Sandbox, api: Api, fault: Fault | str
) -> tuple[Reply | BaseException, bool]:
    """Put one row under a fault; returns what came back and whether the row was stored."""
    sandbox.faults.script([fault])
    (outcome,) = await asyncio.gather(api.put(item(1)), return_exceptions=True)
    stored = await sandbox.delete_rows([row.id for row in await sandbox.rows()]) == 1
    return outcome, stored


@pytest.mark.parametrize(
    ("kind", "stored", "error"),
    [
        ("drop_before", False, aiohttp.ClientOSError),
        ("drop_after", True, aiohttp.ServerDisconnectedError),
        ("cut_body", True, aiohttp.ClientPayloadError),
    ],
)
async def test_lost_connections(kind: str, stored: bool, error: type[Exception]) -> None:
    async with running(quota=10) as (sandbox, api):
        outcome, was_stored = await strike(sandbox, api, kind)
        request = sandbox.requests[-1]
        assert (await api.put(item(2))).status == 200
        assert sandbox.quota_left == 8
    assert isinstance(outcome, error)
    assert was_stored is stored
    assert request.status == (200 if kind == "cut_body" else None)
    assert (request.fault, request.item_count) == (kind, int(stored))


@pytest.mark.parametrize("kind", ["drop_after", "cut_body"])
async def test_a_delete_without_a_body_to_cut_loses_its_answer(kind: str) -> None:
    async with running() as (sandbox, api):
        await sandbox.seed([(1, 1, "v")])
        sandbox.faults.add(kind)
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await api.delete("id:in=1")
        assert await sandbox.count() == 0


async def test_a_hanging_request_ends_when_its_client_goes_away() -> None:
    async with running(faults=[Fault("hang", operation="upsert")]) as (sandbox, api):
        with pytest.raises(TimeoutError):
            await api.call("PUT", data=b"[]", timeout=aiohttp.ClientTimeout(total=0.02))
        await until(lambda: not sandbox.in_flight())
        (request,) = sandbox.requests
        assert (request.status, request.fault) == (None, FaultKind.HANG)
        assert (await api.get()).status == 200


async def test_a_hanging_request_ends_when_the_sandbox_closes() -> None:
    async with running(faults=[Fault("hang")]) as (sandbox, api):
        call = asyncio.create_task(api.get())
        await until(lambda: sandbox.in_flight("list"))
        async with asyncio.timeout(2):
            await sandbox.aclose()
            with pytest.raises(aiohttp.ClientError):
                await call
        assert sandbox.requests[0].ended_at_s is not None


async def test_a_slow_request_is_answered_after_a_later_one() -> None:
    async with running() as (sandbox, api):
        sandbox.faults.script([Fault("slow", delay_s=0.02), None])
        ended: list[str] = []

        async def call(name: str) -> None:
            assert (await api.get()).status == 200
            ended.append(name)

        slow = asyncio.create_task(call("slow"))
        await until(lambda: sandbox.requests.seen)
        await call("quick")
        await slow
    assert ended == ["quick", "slow"]


async def test_a_fault_meets_its_operation_after_some_and_only_so_often() -> None:
    fault = Fault("500", operation="list", after=1, times=2)
    async with running(faults=[fault]) as (sandbox, api):
        assert list(sandbox.faults) == [fault]
        assert (await api.put(item(1))).status == 200
        assert [(await api.get()).status for _ in range(4)] == [200, 500, 500, 200]
        assert list(sandbox.faults) == []


async def test_scripts_go_first_and_can_spare_a_request() -> None:
    async with running(faults=[Fault("503")]) as (sandbox, api):
        sandbox.faults.script(["500", None])
        sandbox.faults.script([None], operation="delete")
        assert (await api.delete()).status == 204
        assert [(await api.get()).status for _ in range(3)] == [500, 200, 503]
        sandbox.faults.clear()
        assert (await api.get()).status == 200


async def test_tosses_repeat_with_the_seed() -> None:
    async def statuses(seed: int) -> list[int]:
        async with running(faults=[Fault("500", probability=0.5)], seed=seed) as (_, api):
            return [(await api.get()).status for _ in range(30)]

    first, again, other = [await statuses(seed) for seed in (1, 1, 2)]
    assert first == again
    assert first != other
    assert 5 < first.count(500) < 25


async def test_a_caller_may_bring_the_control_itself() -> None:
    faults = Faults([Fault("500", times=1)])
    async with Sandbox(faults=faults) as sandbox:
        assert sandbox.faults is faults


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "418"}, "unknown fault kind '418'; one of 400, 401"),
        ({"kind": "500", "probability": 1.1}, "probability"),
        ({"kind": "500", "times": 0}, "times"),
        ({"kind": "500", "after": -1}, "after"),
        ({"kind": "500", "delay_s": -1}, "delay_s"),
        ({"kind": "500", "delay_s": float("nan")}, "delay_s"),
        ({"kind": "drop_befor"}, "did you mean drop_before"),
        ({"kind": "500", "retry_after_s": -1}, "retry_after_s"),
        ({"kind": "500", "operation": "get"}, "unknown operation 'get'; one of list"),
        ({"kind": "hang", "retry_after_s": 1}, "retry_after_s"),
        ({"kind": "drop_after", "applied": True}, "applied"),
    ],
)
def test_faults_that_make_no_sense_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Fault(**arguments)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("503", Fault("503")),
        ("503=0.05", Fault("503", probability=0.05)),
        (" 503 = 5% , operation = list ", Fault("503", probability=0.05, operation="list")),
        ("429,retry_after_s=2,times=3", Fault("429", retry_after_s=2, times=3)),
        ("504,applied=yes,after=10", Fault("504", applied=True, after=10)),
        ("slow=1e-1,delay_s=.5", Fault("slow", probability=0.1, delay_s=0.5)),
    ],
)
def test_a_fault_is_told_in_one_line(line: str, fault: Fault) -> None:
    assert Fault.parse(line) == fault


def test_faults_have_numbers_to_end_them_by() -> None:
    faults = Faults()
    numbers = [faults.add("503,times=1"), faults.add("500=5%"), faults.add(FaultKind.HANG)]
    assert len(set(numbers)) == 3
    assert [active.number for active in faults.active] == numbers
    assert faults.remove(numbers[1])
    assert not faults.remove(numbers[1])
    assert [active.fault.kind for active in faults.active] == ["503", "hang"]


def test_faults_are_over_when_none_can_hit() -> None:
    faults = Faults([Fault("500", times=1)])
    faults.script([None])
    rng = random.Random(0)
    assert not faults.are_over
    assert faults.next_for(Operation.LIST, rng) is None
    assert not faults.are_over
    assert faults.next_for(Operation.LIST, rng) == Fault("500", times=1)
    assert faults.are_over
