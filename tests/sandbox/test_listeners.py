"""Hosts and ports, and the token that remote controls need."""

from __future__ import annotations

import base64

import pytest

from bc_attrvals.sandbox import Sandbox
from tests.sandbox.api import Control, item, running


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "store.example"])
def test_another_host_than_loopback_must_be_allowed(host: str) -> None:
    with pytest.raises(ValueError, match="allow_remote"):
        Sandbox(host=host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost"])
async def test_loopback_hosts_need_nothing(host: str) -> None:
    async with running(host=host) as (sandbox, api):
        assert sandbox.url == f"http://{host}:{sandbox.port}"
        assert (await api.get()).status == 200


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"me:{password}".encode()).decode()


async def test_remote_controls_need_the_token_and_no_loopback_name() -> None:
    async with running(host="0.0.0.0", allow_remote=True, access_token="s3cret") as (sandbox, api):
        assert sandbox.url == f"http://127.0.0.1:{sandbox.port}"
        ask = Control(sandbox, api)
        named = {"Host": "store.example"}
        refused = await ask("GET", "/sandbox/state", **named)
        assert (refused.status, refused.json["error"]["field"]) == (401, "X-Auth-Token")
        assert refused.headers["WWW-Authenticate"].startswith("Basic")
        for wrong in ({"X_Auth_Token": "wrong"}, {"Authorization": basic("wrong")}):
            assert (await ask("GET", "/", **named, **wrong)).status == 401
        assert (await ask("GET", "/", **named, Authorization="Basic ?")).status == 401
        for right in ({"X_Auth_Token": "s3cret"}, {"Authorization": basic("s3cret")}):
            assert (await ask("GET", "/", **named, **right)).status == 200
            body = {"latency_ms": 0}
            assert (await ask("PUT", "/sandbox/latency", body, **named, **right)).status == 200
            foreign = {"Origin": "http://evil.example", **right}
            assert (await ask("PUT", "/sandbox/latency", body, **named, **foreign)).status == 403
        assert (await api.put(item(1))).status == 200
