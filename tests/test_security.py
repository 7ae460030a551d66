"""What must never happen: the token out, a header in, a file in the wrong place or hands."""

from __future__ import annotations

import asyncio
import copy
import logging
import os
import pickle
import socket
import stat
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Never
from unittest import mock

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bc_attrvals import (
    AttributeValueFilter,
    BCAttrValsError,
    ConnectionFailedError,
    InvalidInputError,
    JournalError,
    RetryPolicy,
    Store,
    StoreStateError,
)
from bc_attrvals.attribute_values import AttributeValues
from bc_attrvals.sandbox import Sandbox
from tests.cli.conftest import Served
from tests.conftest import make_store
from tests.probes import at_rest, until, upserts
from tests.raw_server import TOKEN, Connection, RawRequest, answer, page_body, serving, store_on
from tests.tls import serving_tls, trusting
from tests.transport.test_session import check_no_token

ONCE = RetryPolicy(attempts=1)
EMPTY = page_body([], total=0, per_page=250, page=1, total_pages=0)


async def hang(_: RawRequest, connection: Connection) -> None:
    await connection.hang()


async def well(_: RawRequest, connection: Connection) -> None:
    await connection.say(answer(EMPTY))


# -- the token --


CALLS: dict[str, Callable[[AttributeValues], Awaitable[object]]] = {
    "get_page": lambda values: values.get_page(),
    "count": lambda values: values.count(),
    "put_batch": lambda values: values.put_batch(upserts(1)),
    "delete_batch": lambda values: values.delete_batch([1]),
    "pages": lambda values: anext(values.pages()),
    "exact": lambda values: anext(values.stream(exactly_once=True)),
    "upsert": lambda values: values.upsert(upserts(30)),
    "delete": lambda values: values.delete([1]),
    "delete_where": lambda values: values.delete_where(AttributeValueFilter([1])),
    "sync": lambda values: values.sync(upserts(3), scope=AttributeValueFilter([1, 2, 3])),
}


@pytest.mark.usefixtures("no_task_left")
@pytest.mark.parametrize("call", CALLS)
async def test_no_frame_behind_a_callers_timeout_holds_the_token(
    call: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with store_on(hang, timeout=60.0) as (store, server):
        values = store.attribute_values
        with pytest.raises(TimeoutError) as caught:  # noqa: PT012
            async with asyncio.timeout(None) as limit:
                now = asyncio.get_running_loop().time()
                sent = asyncio.ensure_future(until(lambda: server.requests))
                sent.add_done_callback(lambda _: limit.reschedule(now))
                await CALLS[call](values)
        await sent
    # What was left on the wire has ended with the Store.
    check_no_token(caught.value, caplog.records)


@pytest.mark.parametrize(
    "arguments",
    [
        {"store_hash": "a/b"},
        {"access_token": f"{TOKEN}\r\nX-Evil: 1"},
        {"base_url": "http://shop.example"},
        {"timeout": 0},
        {"limits": 5},
        {"session": 5},
    ],
    ids=str,
)
def test_no_frame_of_ours_behind_a_bad_argument_holds_the_token(arguments: Any) -> None:
    with pytest.raises(InvalidInputError) as caught:
        Store(**{"store_hash": "hash", "access_token": TOKEN, **arguments})
    error = caught.value
    # The caller's frame holds what the caller gave.
    assert error.__traceback__ is not None
    trace = error.__traceback__.tb_next
    while trace is not None:
        shown = {name: value for name, value in trace.tb_frame.f_locals.items() if name != "self"}
        assert TOKEN not in repr(shown)
        trace = trace.tb_next
    assert TOKEN not in str(error)


async def test_no_frame_behind_a_session_that_is_not_made_holds_the_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(**_: object) -> Never:
        raise MemoryError

    monkeypatch.setattr(aiohttp, "TCPConnector", fail)
    with pytest.raises(MemoryError) as caught:
        await Store("hash", TOKEN).__aenter__()
    check_no_token(caught.value, [])


async def test_no_frame_behind_a_refused_session_holds_the_token() -> None:
    session = aiohttp.ClientSession()
    await session.close()
    store = Store("hash", TOKEN, session=session)
    with pytest.raises(StoreStateError) as caught:
        await store.__aenter__()
    check_no_token(caught.value, [])


async def test_no_event_statistic_or_journal_holds_the_token(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    received: list[object] = []
    token = sandbox.access_token
    sandbox.faults.script(["500", "drop_after", "429"])
    async with make_store(sandbox) as store:
        store.subscribe(received.append)
        report = await store.attribute_values.sync(upserts(50), journal=tmp_path / "journal.db")
        shown = repr([received, store.statistics(), report, store, store._state])
        await at_rest(store)
    assert len(received) > 6
    assert token not in shown
    kept = [file.read_bytes() for file in tmp_path.iterdir()]  # noqa: ASYNC240
    assert kept
    assert not any(token.encode() in one for one in kept)


def test_a_store_is_neither_pickled_nor_copied() -> None:
    store = Store("hash", TOKEN)
    for one in (store, store.with_options(timeout=1.0)):
        for act in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="pickled") as caught:
                act(one)
            assert TOKEN not in str(caught.value)


# -- where it travels --


async def test_no_cookie_is_kept() -> None:
    async def script(_: RawRequest, connection: Connection) -> None:
        # By name: aiohttp's own jar takes none from an address, and would pass for ours.
        await connection.say(answer(EMPTY, headers={"Set-Cookie": "session=1; Path=/"}))

    async with serving(script) as server:
        url = f"http://localhost:{server.port}"
        async with Store("hash", TOKEN, base_url=url) as store:
            await store.attribute_values.get_page()
            await store.attribute_values.get_page()
    assert len(server.requests) == 2
    assert all("cookie" not in request.headers for request in server.requests)


async def test_a_certificate_nobody_vouches_for_is_sent_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving_tls(answer(EMPTY)) as (port, received):
        url = f"https://localhost:{port}"
        async with Store("hash", TOKEN, base_url=url) as store:
            with pytest.raises(ConnectionFailedError, match="no trusted connection") as caught:
                await store.attribute_values.put_batch(upserts(1))
            assert store.statistics().requests == 1
            await at_rest(store)
        assert received == []
        error = caught.value
        assert (error.retryable, error.may_have_been_applied, error.attempts) == (False, False, 1)
        check_no_token(error, caplog.records)
        # The certificate is what it was about: whoever trusts it gets through,
        connector = aiohttp.TCPConnector(ssl=trusting())
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            Store("hash", TOKEN, base_url=url, session=session) as store,
        ):
            assert (await store.attribute_values.get_page()).data == []
        assert len(received) == 1
        # but not under another name.
        connector = aiohttp.TCPConnector(ssl=trusting(), resolver=_Loopback())
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            Store(
                "hash", TOKEN, base_url=f"https://other.example:{port}", session=session, retry=ONCE
            ) as store,
        ):
            with pytest.raises(ConnectionFailedError, match="no trusted connection"):
                await store.attribute_values.get_page()
        assert len(received) == 1


class _Loopback(aiohttp.abc.AbstractResolver):
    """Says that every name is this machine."""

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> Any:
        one = {"hostname": host, "host": "127.0.0.1", "port": port}
        return [{**one, "family": socket.AF_INET, "proto": 0, "flags": 0}]

    async def close(self) -> None:
        pass


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost.evil.com",
        "http://127.0.0.1.nip.io",
        "http://0x7f.1",
        "http://0177.0.0.1",
        "http://127.1",
        "http://127.0.0.1@evil.com",
        "http://localhost:80@evil.com",
        "http://evil.com#@127.0.0.1",
        "http://evil.com?@127.0.0.1",
        "http://evil.com\\@127.0.0.1",
        "http://127.0.0.1\r\nHost: evil.com",
        "http://127.0.0.1%2eevil.com",
        "http://localhost%00.evil.com",
        "http://localhost.",
        "http://[::]",
        "http://[::ffff:8.8.8.8]",
        "http://169.254.169.254",
        "//evil.com",
        "javascript://127.0.0.1/",
    ],
)
def test_no_spelling_gets_plain_http_past_loopback(url: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        Store("hash", TOKEN, base_url=url)
    assert caught.value.field == "base_url"


async def test_the_base_url_of_a_callers_session_leads_nowhere_else() -> None:
    async with (
        serving(well) as other,
        aiohttp.ClientSession(base_url=f"{other.url}/stolen/") as session,
        store_on(well, session=session) as (store, server),
    ):
        await store.attribute_values.get_page()
        assert (len(server.requests), other.connections) == (1, 0)


async def test_proxies_of_the_environment_are_not_used() -> None:
    """The token goes where `base_url` says; who wants a proxy gives a session."""
    async with serving(well) as proxy, store_on(well) as (_, server):
        with mock.patch.dict(os.environ, {"http_proxy": proxy.url, "HTTP_PROXY": proxy.url}):
            async with Store("hash", TOKEN, base_url=server.url) as store:
                await store.attribute_values.get_page()
        assert (len(server.requests), proxy.connections) == (1, 0)


TEXTS = st.text(max_size=20) | st.text("aZ0-_.~/\\?#%&=:;@ \r\n\t\0\x7f\x85\u2028", max_size=12)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(TEXTS, TEXTS, TEXTS)
def test_whatever_is_taken_stands_in_its_place_alone(
    store_hash: str, token: str, agent: str
) -> None:
    """A header or a path can't be made of a store hash, a token or a user agent."""
    with suppress(InvalidInputError):
        asyncio.run(_check_wire(store_hash, "token", "agent"))
    with suppress(InvalidInputError):
        asyncio.run(_check_wire("hash", token, "agent"))
    with suppress(InvalidInputError):
        asyncio.run(_check_wire("hash", "token", agent))


async def _check_wire(store_hash: str, token: str, agent: str) -> None:
    store = Store(store_hash, token, base_url="http://127.0.0.1:9", user_agent=agent)
    async with serving(well) as server:
        store._base_url = server.url
        async with store:
            await store.attribute_values.get_page()
    (request,) = server.requests
    assert request.target == (
        f"/stores/{store_hash}/v3/customers/attribute-values?limit=250&page=1"
    )
    assert request.headers["x-auth-token"] == token
    assert request.headers["user-agent"].startswith(agent.strip())
    assert sorted(request.headers) == [
        "accept",
        "accept-encoding",
        "cache-control",
        "content-type",
        "host",
        "user-agent",
        "x-auth-token",
    ]


@pytest.mark.parametrize(
    "bad", ["../x", "..", ".", "a/b", "a?b", "a#b", "a%2fb", "a b", "a\\b", ""]
)
def test_a_store_hash_is_one_step_of_a_path(bad: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        Store(bad, TOKEN)
    assert caught.value.field == "store_hash"


# -- files --


@pytest.fixture
def open_umask() -> Any:
    """Make files readable for all, unless somebody sees to it."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("open_umask")
async def test_a_journal_and_what_sqlite_puts_beside_it_are_its_owners(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    sandbox.latency_ms = 2
    seen: dict[str, int] = {}

    def look(_: object) -> None:
        for one in tmp_path.iterdir():
            seen[one.name] = stat.S_IMODE(one.stat().st_mode)

    async with make_store(sandbox) as store:
        store.subscribe(look)
        await store.attribute_values.sync(upserts(200), journal=tmp_path / "journal")
    look(None)
    assert seen == {"journal": 0o600, "journal-wal": 0o600}


@pytest.mark.parametrize("suffix", ["", "-wal", "-journal", "-shm"])
@pytest.mark.parametrize("leads", ["to a file", "nowhere"])
async def test_a_planted_link_beside_a_journal_is_not_followed(
    sandbox: Sandbox, store: Store, tmp_path: Path, suffix: str, leads: str
) -> None:
    target = tmp_path / "target"
    if leads == "to a file":
        target.write_bytes(b"theirs")
    (tmp_path / f"journal{suffix}").symlink_to(target)
    with pytest.raises(JournalError, match="symbolic link"):
        await store.attribute_values.sync(upserts(3), journal=tmp_path / "journal")
    assert not sandbox.requests
    assert target.exists() is (leads == "to a file")
    if target.exists():
        assert target.read_bytes() == b"theirs"


@pytest.mark.usefixtures("open_umask")
def test_files_of_the_command_line_are_their_owners_and_follow_no_link(tmp_path: Path) -> None:
    table = tmp_path / "in.csv"
    table.write_text("customer_id,attribute_id,value\n1,1,a\n2,1,b\n")
    target = tmp_path / "target"
    target.write_text("theirs")
    with Served() as served:
        served.sandbox.reject_customers([2])
        for name, command in (
            ("failed.csv", ("upsert", table, "--failures")),
            ("out.csv", ("export", "--output")),
        ):
            path = tmp_path / name
            path.symlink_to(target)
            assert served.run(*command, path).exit_code == 2
            path.unlink()
            assert served.run(*command, path).exit_code in {0, 1}
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert len(path.read_text().splitlines()) == 2
            path.unlink()
    assert target.read_text() == "theirs"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["in.csv", "target"]


# -- the sandbox --


async def test_the_sandbox_is_reached_from_this_machine_alone(sandbox: Sandbox) -> None:
    assert sandbox._listeners is not None
    (accepting,) = sandbox._listeners._accepting
    assert [one.getsockname()[0] for one in accepting.sockets] == ["127.0.0.1"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        # No packet is sent: this only asks which address of this machine faces outward.
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return
        outward = probe.getsockname()[0]
    if not outward.startswith("127."):
        with pytest.raises(ConnectionError):
            await asyncio.open_connection(outward, sandbox.port)


async def test_a_wrong_token_gets_nothing_of_the_sandbox(sandbox: Sandbox) -> None:
    async with Store(sandbox.store_hash, "wrong", base_url=sandbox.url) as store:
        with pytest.raises(BCAttrValsError) as caught:
            await store.attribute_values.get_page()
    assert sandbox.access_token not in str(caught.value) + repr(sandbox) + repr(sandbox.requests)
