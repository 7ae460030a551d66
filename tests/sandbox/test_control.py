"""The guard of the control routes, and the page that they serve."""

from __future__ import annotations

import pytest

from bc_attrvals.sandbox import control
from tests.sandbox.api import Control, running

MINE = {"customer_id": 1, "attribute_id": 2, "value": "a"}


async def test_wrong_paths_methods_and_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "MAX_BODY_BYTES", 1000)
    async with running() as (sandbox, api):
        ask = Control(sandbox, api)
        assert (await ask("GET", "/sandbox/nothing")).status == 404
        assert (await ask("GET", "/sandbox/faults/1")).status == 405
        assert (await ask("POST", "/sandbox/state")).status == 405
        assert (await ask("POST", "/")).status == 404
        assert (await ask("POST", "/sandbox/rows", b" " * 2000)).status == 413
        # Not a control route, but a path the store does not have.
        assert (await ask("GET", "/sandboxes")).status == 404
        assert sandbox.requests.seen == 1


@pytest.mark.parametrize(
    ("headers", "reads", "writes"),
    [
        ({}, 200, 200),
        ({"Host": "localhost:1"}, 200, 200),
        ({"Host": "[::1]:1"}, 200, 200),
        ({"Host": "evil.example"}, 403, 403),
        ({"Host": "127.0.0.1.evil.example:80"}, 403, 403),
        ({"Host": ""}, 403, 403),
        ({"Host": "localhost:5", "Origin": "http://localhost:5"}, 200, 200),
        ({"Host": "localhost:5", "Origin": "http://localhost:6"}, 200, 403),
        ({"Origin": "https://evil.example"}, 200, 403),
        ({"Origin": "null"}, 200, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 200, 403),
        ({"Sec_Fetch_Site": "same-site"}, 200, 403),
        ({"Sec_Fetch_Site": "same-origin"}, 200, 200),
    ],
)
async def test_pages_from_elsewhere_change_nothing(
    headers: dict[str, str], reads: int, writes: int
) -> None:
    async with running() as (sandbox, api):
        ask = Control(sandbox, api)
        assert (await ask("GET", "/sandbox/rows", **headers)).status == reads
        assert (await ask("GET", "/", **headers)).status == reads
        body = {"rows": [MINE]}
        assert (await ask("POST", "/sandbox/rows", body, **headers)).status == writes
        assert await sandbox.count() == (1 if writes == 200 else 0)


async def test_the_page_lets_only_its_own_script_run() -> None:
    async with running() as (sandbox, api):
        reply = await Control(sandbox, api)("GET", "/")
        head = await Control(sandbox, api)("HEAD", "/")
    policy = reply.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert policy.count("'sha256-") == 2
    assert reply.headers["Content-Type"] == "text/html; charset=utf-8"
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert "Access-Control-Allow-Origin" not in reply.headers
    assert (head.status, head.body) == (200, b"")
    assert b"innerHTML" not in reply.body
    assert b"//" not in reply.body.replace(b"http://www.w3.org/2000/svg", b"").split(b"<script>")[0]
