"""The answers of faults: errors, and successes that mislead."""

from __future__ import annotations

import asyncio

import pytest

from bc_attrvals.sandbox import Fault, Sandbox
from tests.sandbox.api import Api, Reply, item, running


async def strike(
    sandbox: Sandbox, api: Api, fault: Fault | str
) -> tuple[Reply | BaseException, bool]:
    """Put one row under a fault; returns what came back and whether the row was stored."""
    sandbox.faults.script([fault])
    (outcome,) = await asyncio.gather(api.put(item(1)), return_exceptions=True)
    stored = await sandbox.delete_rows([row.id for row in await sandbox.rows()]) == 1
    return outcome, stored


LEFT = "X-Rate-Limit-Requests-Left"


@pytest.mark.parametrize(
    ("kind", "status", "content_type", "title"),
    [
        ("500", 500, "application/json", "Internal Server Error"),
        ("502", 502, "text/html; charset=UTF-8", None),
        ("503", 503, "application/json", "Service Unavailable"),
        ("504", 504, "application/json", "Gateway Timeout"),
        ("429", 429, "application/json", "Too Many Requests"),
        ("suspended", 503, "application/json", "The store is suspended."),
        ("401", 401, "application/json", "Unauthorized"),
        ("403", 403, "application/json", "You don't have a required scope to access the endpoint"),
        ("problem_json", 500, "application/problem+json", "Internal Server Error"),
    ],
)
async def test_error_answers_leave_the_rows_alone(
    kind: str, status: int, content_type: str, title: str | None
) -> None:
    async with running(quota=10) as (sandbox, api):
        reply, stored = await strike(sandbox, api, kind)
        assert isinstance(reply, Reply)
        assert sandbox.requests[-1].fault == kind
        assert sandbox.quota_left == 9
    assert (reply.status, reply.headers["Content-Type"], stored) == (status, content_type, False)
    assert (LEFT in reply.headers) is (kind != "429")
    if title is None:
        assert b"<html>" in reply.body
    else:
        assert (reply.json["title"], reply.json["status"]) == (title, status)


async def test_an_error_answer_may_come_after_the_request_was_applied() -> None:
    async with running() as (sandbox, api):
        reply, stored = await strike(sandbox, api, Fault("504", applied=True, retry_after_s=3))
    assert isinstance(reply, Reply)
    assert (reply.status, reply.headers["Retry-After"], stored) == (504, "3", True)


async def test_html_may_come_with_status_200() -> None:
    async with running() as (sandbox, api):
        reply, stored = await strike(sandbox, api, "html_body")
    assert isinstance(reply, Reply)
    assert (reply.status, stored) == (200, True)
    assert reply.headers["Content-Type"].startswith("text/html")
    assert reply.body.startswith(b"<html>")


@pytest.mark.parametrize(
    ("kind", "status", "body"),
    [
        ("errors_body", 200, b'{"errors":['),
        ("200", 200, b"{}"),
        ("202", 202, b""),
        ("204", 204, b""),
        ("207", 207, b'{"data":[],"errors":['),
        ("null_data", 200, b'{"data":null,'),
        ("html_body", 200, b"<html>"),
    ],
)
async def test_a_success_may_mislead(kind: str, status: int, body: bytes) -> None:
    async with running() as (sandbox, api):
        for fault, applied in ((kind, True), (f"{kind},applied=no", False)):
            reply, stored = await strike(sandbox, api, fault)
            assert isinstance(reply, Reply)
            assert (reply.status, stored) == (status, applied)
            assert reply.body.startswith(body)
            await sandbox.seed([(1, 1, "v")])
            (row,) = await sandbox.rows()
            sandbox.faults.script([fault])
            deleted = await api.delete(f"id:in={row.id}")
            assert (deleted.status, await sandbox.count()) == (status, int(not applied))
            await sandbox.reset()


async def test_rows_may_lack_their_id_or_their_dates() -> None:
    async with running() as (sandbox, api):
        sandbox.faults.script(["rows_without_id", "rows_without_dates"])
        (row,) = (await api.put(item(1))).data
        assert (row["customer_id"], "id" in row) == (1, False)
        (row,) = (await api.put(item(1))).data
        assert (row["id"], row["date_created"], row["date_modified"]) == (1, "", "")
        assert (await api.put(item(1))).data[0]["date_created"]


@pytest.mark.parametrize("status", [400, 409, 413, 423])
async def test_any_refusal_may_pass(status: int) -> None:
    async with running() as (sandbox, api):
        sandbox.faults.script([str(status)])
        assert (await api.put(item(1))).status == status
        assert (await api.put(item(1))).status == 200
