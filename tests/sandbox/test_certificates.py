"""The sandbox's own certificate authority."""

from __future__ import annotations

import asyncio
import ssl
import sys
from pathlib import Path

import aiohttp
import pytest

from bc_attrvals.sandbox import Sandbox, ThreadedSandbox

pytest.importorskip("trustme", reason="the extra sandbox is not installed")


async def test_https_is_served_to_who_trusts_the_file(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    async with Sandbox(https=True, ca_file=file) as sandbox, aiohttp.ClientSession() as session:
        assert sandbox.url.startswith("https://127.0.0.1:")
        assert sandbox.environment["SSL_CERT_FILE"] == str(file)
        url = f"{sandbox.url}/stores/sandbox/v3/customers"
        headers = {"X-Auth-Token": sandbox.access_token}
        trusting = ssl.create_default_context(cafile=file)
        async with session.get(url, headers=headers, ssl=trusting) as response:
            assert response.status == 200
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await session.get(url, headers=headers)
        # The page changes things under its own, secure origin.
        origin = {"Origin": sandbox.url}
        latency = f"{sandbox.url}/sandbox/latency"
        for scheme, status in (("https", 200), ("http", 403)):
            origin = {"Origin": sandbox.url.replace("https", scheme)}
            async with session.put(
                latency, json={"latency_ms": 0}, headers=origin, ssl=trusting
            ) as response:
                assert response.status == status
    assert file.exists()


async def test_a_temporary_file_goes_with_the_sandbox() -> None:
    async with Sandbox(https=True) as sandbox:
        ca_file = Path(str(sandbox.addresses.ca_file))
        content = await asyncio.to_thread(ca_file.read_bytes)
        assert b"BEGIN CERTIFICATE" in content
        assert b"PRIVATE" not in content
    assert not ca_file.parent.exists()


async def test_without_trustme_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trustme", None)
    with pytest.raises(RuntimeError, match=r"bc_attrvals\[sandbox\]"):
        await Sandbox(https=True).start()
    with ThreadedSandbox() as sandbox, pytest.raises(RuntimeError, match="trustme"):
        _ = sandbox.proxy_environment
