"""The proxy of a Store: by argument or environment, with a password that is never shown."""

from __future__ import annotations

import asyncio
import base64
import logging
import socket
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import aiohttp
import pytest

from bc_attrvals import ConnectionFailedError, InvalidInputError, RetryPolicy, Store
from bc_attrvals.transport.proxies import proxy_of_environment
from tests.probes import at_rest
from tests.raw_server import TOKEN, answer, page_body, row, serving
from tests.tls import serving_tls, trusting
from tests.transport.test_session import chain_of, check_no_token, saying

pytestmark = pytest.mark.usefixtures("no_task_left")

ONCE = RetryPolicy(attempts=1)
SECRET = "pr0xy-passw0rd"
PAGE = answer(page_body([row(1, 1)], total=1, per_page=250, page=1, total_pages=1))


@asynccontextmanager
async def tunnelling() -> AsyncIterator[tuple[int, list[str]]]:
    """Serve as an HTTP proxy that tunnels to loopback; yields its port and the heads it got."""
    heads: list[str] = []
    tasks: set[asyncio.Task[None]] = set()

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await reader.read(65536):
                writer.write(piece)
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        heads.append(head)
        port = int(head.split()[1].rpartition(":")[2])
        there, back = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(pipe(reader, back), pipe(there, writer))

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], heads
    for task in list(tasks):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("how", ["proxy", "environment"])
async def test_an_https_store_is_reached_through_a_tunnel_with_user_and_password(
    how: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", trusting())
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    async with tunnelling() as (proxy_port, heads), serving_tls(PAGE) as (port, received):
        proxy = f"http://user:{SECRET}@127.0.0.1:{proxy_port}"
        url = f"https://localhost:{port}"
        if how == "proxy":
            store = Store("hash", TOKEN, base_url=url, proxy=proxy)
        else:
            monkeypatch.setenv("HTTPS_PROXY", proxy)
            store = Store("hash", TOKEN, base_url=url, trust_env=True)
        async with store:
            assert len((await store.attribute_values.get_page()).data) == 1
            assert len((await store.attribute_values.get_page()).data) == 1
            shown = repr(store) + repr(store.with_options(timeout=1.0))
            await at_rest(store)
    (head,) = heads
    assert head.startswith(f"CONNECT localhost:{port} HTTP/1.1")
    credentials = base64.b64encode(f"user:{SECRET}".encode()).decode()
    assert f"Proxy-Authorization: Basic {credentials}" in head
    # The token goes inside of TLS alone.
    assert TOKEN not in head
    assert TOKEN.encode() in b"".join(received)
    assert SECRET not in shown + caplog.text


async def test_without_trust_env_no_proxy_of_the_environment_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    async with (
        serving(saying(PAGE)) as server,
        Store("hash", TOKEN, base_url=server.url, retry=ONCE) as store,
    ):
        assert len((await store.attribute_values.get_page()).data) == 1


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"HTTPS_PROXY": "http://p:1"}, "http://p:1"),
        ({"https_proxy": "http://p:2"}, "http://p:2"),
        ({"ALL_PROXY": "http://p:3"}, "http://p:3"),
        ({"HTTP_PROXY": "http://p:4"}, None),
        ({"HTTPS_PROXY": "http://p:5", "NO_PROXY": "bigcommerce.com"}, None),
        ({"HTTPS_PROXY": "http://p:6", "NO_PROXY": "example.com"}, "http://p:6"),
        ({}, None),
    ],
)
def test_the_environment_names_the_proxy_as_other_tools_read_it(
    variables: dict[str, str], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    proxy = proxy_of_environment("https://api.bigcommerce.com")
    assert proxy == expected


async def test_a_proxy_that_is_gone_or_refuses_shows_no_password(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        gone = f"http://user:{SECRET}@127.0.0.1:{taken.getsockname()[1]}"
        async with serving(saying(answer(b"who?", 407))) as refusing:
            refuses = refusing.url.replace("://", f"://user:{SECRET}@")
            for proxy in (gone, refuses):
                async with Store(
                    "hash", TOKEN, base_url="https://nobody.invalid", proxy=proxy, retry=ONCE
                ) as store:
                    with pytest.raises(ConnectionFailedError) as caught:
                        await store.attribute_values.get_page()
                check_no_token(caught.value, caplog.records)
                for one in chain_of(caught.value):
                    assert SECRET not in f"{one!r}{one}{one.args}"
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    "proxy",
    [f"socks5://u:{SECRET}@h:1", f"u:{SECRET}@h:1", f"http://u:{SECRET}/x@h:1", "", "http://", 7],
)
def test_a_proxy_that_can_not_be_is_refused_unquoted(proxy: object) -> None:
    with pytest.raises(InvalidInputError, match=r"^proxy") as caught:
        Store("hash", TOKEN, proxy=proxy)  # type: ignore[arg-type]
    assert caught.value.field == "proxy"
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    # Of our own frames; the first is this one.
    assert SECRET not in "".join(frame.filename + str(frame.locals) for frame in shown.stack[1:])
    assert SECRET not in str(caught.value)
    check_no_token(caught.value, [])


@pytest.mark.parametrize("options", [{"proxy": "http://127.0.0.1:1"}, {"trust_env": True}])
async def test_a_session_of_ones_own_has_its_own_proxy(options: dict[str, object]) -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(InvalidInputError) as caught:
            Store("hash", TOKEN, session=session, **options)  # type: ignore[arg-type]
    assert caught.value.field in options
