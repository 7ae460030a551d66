"""The HTTPS proxy: an SDK that fixes its address reaches the sandbox, and no other host is."""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
import subprocess
import urllib.request

import aiohttp
import pytest

from bc_attrvals.sandbox import Sandbox, ThreadedSandbox

pytest.importorskip("trustme", reason="the extra sandbox is not installed")

SERVICE = "https://api.bigcommerce.com/stores/sandbox/v3/customers/attribute-values"


async def test_the_services_own_address_leads_here() -> None:
    async with Sandbox(proxy=True) as sandbox, aiohttp.ClientSession() as session:
        addresses = sandbox.addresses
        assert addresses.url.startswith("http://")
        headers = {"X-Auth-Token": sandbox.access_token}
        trusting = ssl.create_default_context(cafile=addresses.ca_file)
        proxy = addresses.proxy_url
        item = [{"customer_id": 1, "attribute_id": 1, "value": "v"}]
        async with session.put(
            SERVICE, json=item, headers=headers, ssl=trusting, proxy=proxy
        ) as response:
            assert response.status == 200
        assert await sandbox.values() == {(1, 1): "v"}
        for url, status in (
            ("https://example.com/", 403),
            ("https://api.bigcommerce.com:8443/", 403),
            ("https://login.bigcommerce.com/", 403),
            (f"https://127.0.0.1:{sandbox.port}/", 403),
        ):
            with pytest.raises(aiohttp.ClientHttpProxyError) as refused:
                await session.get(url, proxy=proxy)
            assert refused.value.status == status
        async with session.get("http://api.bigcommerce.com/", proxy=proxy) as plain:
            assert plain.status == 405
        # The controls are not the service's.
        async with session.get(
            "https://api.bigcommerce.com/sandbox", ssl=trusting, proxy=proxy
        ) as response:
            assert response.status == 403
        await sandbox.open_proxy()
        assert sandbox.addresses == addresses


@pytest.mark.parametrize(
    ("head", "answer"),
    [
        (b"CONNECT api.bigcommerce.com:443 HTTP/1.1\r\n" + b"X: y\r\n" * 9_000 + b"\r\n", b"431"),
        (b"\0\r\n\r\n", b"405"),
        (b"CONNECT\r\n\r\n", b"403"),
        (b"CONNECT \r\n\r\n", b"403"),
        (b"CONNECT api.bigcom", b""),
    ],
)
async def test_malformed_heads_are_refused(head: bytes, answer: bytes) -> None:
    async with Sandbox(proxy=True) as sandbox:
        port = int(str(sandbox.addresses.proxy_url).rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head)
        writer.write_eof()
        try:
            received = await reader.read()
        except ConnectionResetError:
            received = b"HTTP/1.1 431"
        assert received[9:12] == answer
        writer.close()


async def test_open_tunnels_end_with_the_sandbox() -> None:
    before = asyncio.all_tasks()
    sandbox = Sandbox(proxy=True)
    await sandbox.start()
    port = int(str(sandbox.addresses.proxy_url).rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"CONNECT API.bigcommerce.com:443 HTTP/1.1\r\n\r\n")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    async with asyncio.timeout(5):
        await sandbox.aclose()
        assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


def test_a_client_that_reads_the_environment_needs_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ThreadedSandbox() as sandbox:
        sandbox.seed([(7, 1, "gold")])
        for name, value in sandbox.proxy_environment.items():
            monkeypatch.setenv(name, value)
        request = urllib.request.Request(SERVICE, headers={"X-Auth-Token": sandbox.access_token})
        # The opener of urlopen may have been made before.
        with urllib.request.build_opener().open(request, timeout=30) as answer:
            assert json.load(answer)["data"][0]["attribute_value"] == "gold"


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_curl_through_the_proxy() -> None:
    with ThreadedSandbox() as sandbox:
        sandbox.seed([(7, 1, "gold")])
        done = subprocess.run(
            ["curl", "-sS", "--fail", "-H", f"X-Auth-Token: {sandbox.access_token}", SERVICE],
            env=sandbox.proxy_environment,
            capture_output=True,
            timeout=60,
            check=True,
        )
    assert json.loads(done.stdout)["data"][0]["attribute_value"] == "gold"
