"""The transport against servers that misbehave: the right error, one send, the token nowhere."""

from __future__ import annotations

import asyncio
import gc
import gzip
import logging
import pickle
import socket
import traceback
import weakref
import zlib
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
from aioresponses import aioresponses
from multidict import CIMultiDict

from bc_attrvals import (
    APIError,
    AuthenticationError,
    BCAttrValsError,
    ConnectionFailedError,
    ConnectionLostError,
    DecodeError,
    Event,
    Limits,
    PartialFailureError,
    RequestRetrying,
    RequestTimeoutError,
    RetryPolicy,
    ServerError,
    Store,
    StoreStateError,
    UnconfirmedError,
)
from bc_attrvals.core.requests import RequestBuilder
from bc_attrvals.transport.session import _ENCODINGS, Session
from tests.probes import at_rest, until, upserts
from tests.raw_server import (
    TOKEN,
    Connection,
    RawRequest,
    Script,
    answer,
    page_body,
    row,
    rows_body,
    serving,
    store_on,
)

pytestmark = pytest.mark.usefixtures("no_task_left")

ONCE = RetryPolicy(attempts=1)
EMPTY_PAGE = page_body([], total=0, per_page=250, page=1, total_pages=0)


def saying(raw: bytes, *, close: bool = True) -> Script:
    """Say these bytes to each request, then close the connection."""

    async def script(_: RawRequest, connection: Connection) -> None:
        await connection.say(raw)
        if close:
            connection.close()

    return script


async def reset(_: RawRequest, connection: Connection) -> None:
    connection.reset()


async def close(_: RawRequest, connection: Connection) -> None:
    connection.close()


async def hang(_: RawRequest, connection: Connection) -> None:
    await connection.hang()


def then_reset(raw: bytes) -> Script:
    """Say these bytes, and reset the connection once they have arrived."""

    async def script(_: RawRequest, connection: Connection) -> None:
        await connection.say(raw)
        # Client and server share the loop: in these turns it reads what was said.
        for _ in range(5):
            await asyncio.sleep(0)
        connection.reset()

    return script


def then_hang(raw: bytes) -> Script:
    async def script(_: RawRequest, connection: Connection) -> None:
        await connection.say(raw)
        await connection.hang()

    return script


GOOD = answer(rows_body([row(1, 1, 1, "v1")]))
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
ZIPPED = gzip.compress(rows_body([row(1, 1, 1, "v1")]))
BAD_HTTP: list[tuple[str, Script, type[BCAttrValsError]]] = [
    ("reset before the answer", reset, ConnectionLostError),
    ("closed before the answer", close, ConnectionLostError),
    ("closed in the status line", saying(b"HTTP/1.1 2"), ConnectionLostError),
    ("closed in the headers", saying(b"HTTP/1.1 200 OK\r\nContent-Le"), ConnectionLostError),
    ("reset in the headers", then_reset(b"HTTP/1.1 200 OK\r\nContent-Le"), ConnectionLostError),
    ("closed in the body", saying(GOOD[:-5]), ConnectionLostError),
    ("reset in the body", then_reset(GOOD[:-5]), ConnectionLostError),
    ("hangs before the answer", hang, RequestTimeoutError),
    ("hangs in the headers", then_hang(b"HTTP/1.1 200 OK\r\nContent-Le"), RequestTimeoutError),
    ("hangs in the body", then_hang(GOOD[:-5]), RequestTimeoutError),
    ("no HTTP at all", saying(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), ConnectionLostError),
    ("a status beyond all", saying(b"HTTP/1.1 99999 OK\r\n\r\n"), ConnectionLostError),
    ("binary noise", saying(bytes(range(256)) * 4), ConnectionLostError),
    (
        "a length that is no number",
        saying(HEAD + b"Content-Length: many\r\n\r\n{}"),
        ConnectionLostError,
    ),
    (
        "two lengths",
        saying(HEAD + b"Content-Length: 2\r\nContent-Length: 5\r\n\r\n{}"),
        ConnectionLostError,
    ),
    (
        "length and chunks",
        saying(HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"),
        ConnectionLostError,
    ),
    (
        "a bad chunk",
        saying(HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n"),
        ConnectionLostError,
    ),
    (
        "chunks without an end",
        saying(HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"),
        ConnectionLostError,
    ),
    (
        "an endless header",
        saying(HEAD + b"X-Long: " + b"x" * 70_000 + b"\r\n\r\n"),
        ConnectionLostError,
    ),
    (
        "bad gzip",
        saying(answer(b"this was never zipped", headers={"Content-Encoding": "gzip"})),
        ConnectionLostError,
    ),
    (
        "gzip that stops",
        saying(answer(ZIPPED[: len(ZIPPED) // 2], headers={"Content-Encoding": "gzip"})),
        # aiohttp hands over what it could unpack.
        DecodeError,
    ),
    ("200 with nothing", saying(answer()), DecodeError),
    ("204 for 200", saying(b"HTTP/1.1 204 No Content\r\n\r\n"), DecodeError),
    ("HTML", saying(answer(b"<html>all is well</html>")), DecodeError),
    ("noise in a 200", saying(answer(b"\xff\xfe\x00")), DecodeError),
]


def chain_of(error: BaseException) -> list[BaseException]:
    """Return an error with all that stands behind it, whether shown or not."""
    found: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and one not in found:
            found.append(one)
            waiting += [one.__cause__, one.__context__]
    return found


def check_no_token(error: BaseException, records: list[logging.LogRecord]) -> None:
    """Look for the token wherever somebody may print it."""
    for one in chain_of(error):
        report = getattr(one, "report", None)
        shown = [repr(one), str(one), repr(one.args), repr(vars(one)), repr(report)]
        shown += getattr(one, "__notes__", [])
        shown += traceback.format_exception(one)
        # As reporters of crashes do.
        shown += traceback.TracebackException.from_exception(one, capture_locals=True).format()
        assert not any(TOKEN in text for text in shown)
    assert TOKEN not in repr(pickle.loads(pickle.dumps(error)).__dict__)
    formatter = logging.Formatter()
    for record in records:
        assert TOKEN not in formatter.format(record)
        assert TOKEN not in repr(record.args)
        if record.exc_info and record.exc_info[1]:
            assert all(TOKEN not in repr(one) for one in chain_of(record.exc_info[1]))


@pytest.mark.parametrize("is_first", [True, False], ids=["first", "later"])
@pytest.mark.parametrize(
    ("script", "error"),
    [(script, error) for _, script, error in BAD_HTTP],
    ids=[name for name, _, _ in BAD_HTTP],
)
async def test_an_ill_formed_answer_is_our_error_after_one_send_without_the_token(
    script: Script,
    error: type[BCAttrValsError],
    is_first: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    async with store_on(saying(GOOD), retry=ONCE, timeout=0.15) as (store, server):
        if not is_first:
            await store.attribute_values.put_batch(upserts(1))
            server.script = saying(answer(EMPTY_PAGE))
            await store.attribute_values.get_page()
            server.requests.clear()
        server.script = script
        with pytest.raises(BCAttrValsError) as written:
            await store.attribute_values.put_batch(upserts(1))
        with pytest.raises(BCAttrValsError) as read:
            await store.attribute_values.get(1, 1)
        # A write whose answer can't be read is read back.
        read_back = ["GET"] if error is DecodeError else []
        assert [request.method for request in server.requests] == ["PUT", *read_back, "GET"]
        await at_rest(store)
    gc.collect()
    assert type(written.value) is error
    assert type(read.value) is error
    assert (written.value.attempts, read.value.attempts) == (1, 1)
    for caught in (written, read):
        check_no_token(caught.value, caplog.records)
    # Nothing of it is an error that nobody looked at.
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
    if error is DecodeError:
        assert isinstance(written.value, DecodeError)
        assert written.value.status in {200, 204}
    else:
        # aiohttp's own errors hold the request's headers.
        assert chain_of(written.value) == [written.value]
        assert written.value.may_have_been_applied  # type: ignore[attr-defined]
        assert not read.value.may_have_been_applied  # type: ignore[attr-defined]


async def test_a_refused_connection_was_never_sent(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        async with Store("hash", TOKEN, base_url=url, retry=ONCE) as store:
            with pytest.raises(ConnectionFailedError) as caught:
                await store.attribute_values.put_batch(upserts(1))
            await at_rest(store)
    assert not caught.value.may_have_been_applied
    assert caught.value.method == "PUT"
    check_no_token(caught.value, caplog.records)


async def test_a_host_without_address_was_never_sent_to(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with Store("hash", TOKEN, base_url="https://nobody.invalid", retry=ONCE) as store:
        with pytest.raises(ConnectionFailedError) as caught:
            await store.attribute_values.put_batch(upserts(1))
    assert not caught.value.may_have_been_applied
    check_no_token(caught.value, caplog.records)


async def test_a_server_without_tls_was_never_sent_to() -> None:
    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(b"plain HTTP spoken here", 400))
        writer.close()
        await writer.wait_closed()

    plain = await asyncio.start_server(refuse, "127.0.0.1", 0)
    url = f"https://127.0.0.1:{plain.sockets[0].getsockname()[1]}"
    async with plain, Store("hash", TOKEN, base_url=url, retry=ONCE, timeout=2.0) as store:
        with pytest.raises(ConnectionFailedError) as caught:
            await store.attribute_values.put_batch(upserts(1))
    assert not caught.value.may_have_been_applied


async def test_a_proxy_that_refuses_was_passed_nothing() -> None:
    async with (
        serving(saying(answer(b"who are you?", 407))) as proxy,
        aiohttp.ClientSession(proxy=proxy.url) as session,
        Store(
            "hash", TOKEN, base_url="https://nobody.invalid", session=session, retry=ONCE
        ) as store,
    ):
        with pytest.raises(ConnectionFailedError, match="the proxy answered 407") as caught:
            await store.attribute_values.put_batch(upserts(1))
        assert [request.method for request in proxy.requests] == ["CONNECT"]
        assert TOKEN not in repr(proxy.requests)
    assert not caught.value.may_have_been_applied
    check_no_token(caught.value, [])


async def send(store: Store, method: str) -> None:
    """Make one call of each kind."""
    values = store.attribute_values
    if method == "GET":
        await values.get(1, 1)
    elif method == "PUT":
        await values.put_batch(upserts(1))
    else:
        await values.delete_batch([1])


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
@pytest.mark.parametrize(
    "drop", [close, reset, saying(b"HTTP/1.1 2")], ids=["close", "reset", "cut"]
)
async def test_a_kept_alive_connection_that_drops_is_sent_on_again_by_our_policy_alone(
    method: str, drop: Script
) -> None:
    async def script(request: RawRequest, connection: Connection) -> None:
        if len(server.requests) == 1:
            await connection.say(answer(EMPTY_PAGE))
        else:
            await drop(request, connection)

    for attempts in (1, 3):
        retry = RetryPolicy(attempts=attempts, base_s=0.001, cap_s=0.001)
        async with store_on(script, retry=retry) as (store, server):
            await store.attribute_values.get_page()
            with pytest.raises(ConnectionLostError) as caught:
                await send(store, method)
            dropped = server.requests[1:]
            assert [request.method for request in dropped] == [method] * attempts
            # The first of them went out on the connection that was kept.
            assert dropped[0].connection == 1
            assert caught.value.attempts == attempts
            assert store.statistics().requests == attempts + 1


@pytest.mark.parametrize("is_gone", [True, False])
async def test_a_write_is_never_unsent_after_its_body_went_out(is_gone: bool) -> None:
    async def script(request: RawRequest, connection: Connection) -> None:
        if len(server.requests) == 1:
            await connection.say(answer(EMPTY_PAGE))
            return
        if is_gone:
            server.stop_listening()
        connection.close()

    async with store_on(script, retry=ONCE) as (store, server):
        await store.attribute_values.get_page()
        with pytest.raises(ConnectionLostError) as caught:
            await send(store, "PUT")
        assert caught.value.may_have_been_applied
        assert (caught.value.method, len(server.requests)) == ("PUT", 2)
        check_no_token(caught.value, [])
        await at_rest(store)


@pytest.mark.parametrize("is_own", [True, False])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
@pytest.mark.parametrize("drop", [close, reset], ids=["close", "reset"])
async def test_an_idle_connection_that_was_closed_costs_no_back_off_but_once(
    drop: Script, method: str, is_own: bool
) -> None:
    async def script(request: RawRequest, connection: Connection) -> None:
        count = len(server.requests)
        if count in {1, 3, 5}:
            body = rows_body([row(1, 1, 1, "v1")]) if request.method == "PUT" else EMPTY_PAGE
            await connection.say(NO_CONTENT if request.method == "DELETE" else answer(body))
        else:
            await drop(request, connection)

    # With a back-off anywhere this test takes too long.
    retry = RetryPolicy(attempts=2, base_s=1_000.0, cap_s=1_000.0)
    delays: list[float] = []

    def note(event: Event) -> None:
        if isinstance(event, RequestRetrying):
            delays.append(event.delay_s)

    async with aiohttp.ClientSession() as session:
        options = {} if is_own else {"session": session}
        async with store_on(script, retry=retry, **options) as (store, server):
            store.subscribe(note)
            await store.attribute_values.get_page()
            for _ in range(2):
                async with asyncio.timeout(5):
                    await send(store, method)
            await at_rest(store)
    assert delays == [0.0, 0.0]


@pytest.mark.parametrize("drop", [close, reset], ids=["close", "reset"])
async def test_a_new_connection_that_drops_backs_off(drop: Script) -> None:
    delays: list[float] = []

    def note(event: Event) -> None:
        if isinstance(event, RequestRetrying):
            delays.append(event.delay_s)

    retry = RetryPolicy(attempts=3, base_s=0.001, cap_s=0.001)
    async with store_on(drop, retry=retry) as (store, _):
        store.subscribe(note)
        with pytest.raises(ConnectionLostError):
            await store.attribute_values.get_page()
    assert len(delays) == 2
    assert all(delays)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_a_callers_session_does_not_send_again_either(method: str) -> None:
    async def script(request: RawRequest, connection: Connection) -> None:
        if len(server.requests) == 1:
            await connection.say(answer(EMPTY_PAGE))
        else:
            connection.close()

    async with (
        aiohttp.ClientSession() as session,
        store_on(script, retry=ONCE, session=session) as (store, server),
    ):
        await store.attribute_values.get_page()
        with pytest.raises(ConnectionLostError):
            await send(store, method)
        assert len(server.requests) == 2


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_zip_bomb_stops_at_the_cap(encoding: str) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31 if encoding == "gzip" else 15)
    flood = b" " * 2**20
    # aiohttp 3.13 itself ends at 32 MiB.
    bomb = b"".join(packer.compress(flood) for _ in range(24)) + packer.flush()
    raw = answer(bomb, headers={"Content-Encoding": encoding})
    async with store_on(saying(raw), retry=ONCE) as (store, _):
        with pytest.raises(DecodeError, match="longer than 8388608 bytes") as caught:
            await store.attribute_values.get_page()
        await at_rest(store)
    assert caught.value.status == 200


@pytest.mark.parametrize("length", [True, False], ids=["told", "untold"])
async def test_an_answer_without_end_stops_at_the_cap(length: bool) -> None:
    said = 0

    async def script(_: RawRequest, connection: Connection) -> None:
        nonlocal said
        await connection.say(
            HEAD + (b"Content-Length: 99999999999\r\n" if length else b"") + b"\r\n"
        )
        while True:
            await connection.say(b" " * 65536)
            said += 65536

    limits = Limits(max_response_bytes=100_000)
    async with store_on(script, retry=ONCE, limits=limits) as (store, _):
        with pytest.raises(DecodeError, match="longer than 100000 bytes"):
            await store.attribute_values.get_page()
        await at_rest(store)
    assert said < 10 * 2**20


async def test_a_long_answer_that_comes_in_pieces_is_read_whole() -> None:
    rows = [row(one, one, value="v" * 255) for one in range(1, 3_001)]
    body = page_body(rows, total=3_000, per_page=3_000, page=1, total_pages=1)
    async with store_on(saying(answer(body), close=False)) as (store, _):
        for _ in range(2):
            page = await store.attribute_values.get_page()
            assert [one.id for one in page.data] == list(range(1, 3_001))


async def test_answers_are_unpacked_and_read_without_a_length() -> None:
    body = page_body([row(1, 1)], total=1, per_page=250, page=1, total_pages=1)
    zipped = gzip.compress(body)
    half = len(zipped) // 2
    chunks = b"".join(
        b"%x\r\n%b\r\n" % (len(part), part) for part in (zipped[:half], zipped[half:])
    )
    raws = [
        answer(body),
        answer(zipped, headers={"Content-Encoding": "gzip"}),
        HEAD + b"\r\n" + body,
        HEAD
        + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
        + chunks
        + b"0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + answer(body),
        b"HTTP/1.0 200 OK\r\n\r\n" + body,
    ]

    for raw in raws:
        async with store_on(saying(raw), retry=ONCE) as (store, _):
            page = await store.attribute_values.get_page()
            assert [one.id for one in page.data] == [1]


KNOWS_ZSTD = "zstd" in _ENCODINGS


@pytest.mark.parametrize(
    "encoding",
    [
        "br",
        pytest.param(
            "zstd", marks=pytest.mark.skipif(not KNOWS_ZSTD, reason="new in aiohttp 3.13")
        ),
    ],
)
async def test_a_packed_body_that_needs_a_missing_package_is_named(encoding: str) -> None:
    packed = answer(b"packed", headers={"Content-Encoding": encoding})
    async with store_on(saying(packed), retry=ONCE) as (store, _):
        with pytest.raises(ConnectionLostError, match=rf"unpacked: .*\({encoding}\).*install"):
            await store.attribute_values.get_page()


@pytest.mark.parametrize("encoding", ["lz4"] if KNOWS_ZSTD else ["lz4", "zstd"])
async def test_an_unknown_packing_is_named_and_never_hides_a_refusal(encoding: str) -> None:
    async def script(request: RawRequest, connection: Connection) -> None:
        status = 200 if request.method == "GET" else 401
        await connection.say(answer(b"packed", status, {"Content-Encoding": encoding}))

    async with store_on(script, retry=ONCE) as (store, _):
        with pytest.raises(DecodeError, match=f"packed as '{encoding}'") as caught:
            await store.attribute_values.get_page()
        with pytest.raises(AuthenticationError):
            await store.attribute_values.put_batch(upserts(1))
    assert caught.value.status == 200


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_an_error_and_the_token_goes_no_further(status: int) -> None:
    async with serving(saying(GOOD)) as other:
        raw = answer(b"", status, {"Location": f"{other.url}/stolen"})
        async with store_on(saying(raw), retry=ONCE) as (store, server):
            with pytest.raises(APIError) as caught:
                await store.attribute_values.get_page()
            with pytest.raises(APIError):
                await store.attribute_values.put_batch(upserts(1))
        assert len(server.requests) == 2
        assert other.requests == []
        assert other.connections == 0
    assert caught.value.status == status
    assert "redirect" in caught.value.title


async def test_a_delete_is_done_by_204_and_by_the_services_own_empty_answer_alone() -> None:
    done = [NO_CONTENT, answer(b""), answer(b"{}")]
    unconfirmed = [answer(b"<html>done</html>"), answer(b"", 202)]
    raws = [*done, *unconfirmed]

    async def script(_: RawRequest, connection: Connection) -> None:
        await connection.say(raws[len(server.requests) - 1])

    async with store_on(script, retry=ONCE) as (store, server):
        for raw in raws:
            if raw in done:
                await store.attribute_values.delete_batch([1])
            else:
                with pytest.raises(UnconfirmedError):
                    await store.attribute_values.delete_batch([1])


@pytest.mark.parametrize(
    ("status", "body", "title"),
    [
        (401, b"<html>no</html>", "(no readable error body)"),
        (401, b'{"title": "Unauth', "(no readable error body)"),
        (401, b"", "(no readable error body)"),
        (401, b'{"title": "No\\r\\nentry", "errors": 7}', "No  entry"),
        (401, b'[{"title": "x"}]', "x"),
        (401, b"no entry", "no entry"),
        (401, b'{"detail": "Denied."}', "Denied."),
    ],
)
async def test_the_body_of_an_error_never_hides_its_status(
    status: int, body: bytes, title: str
) -> None:
    raw = answer(body, status, {"X-Request-Id": "r" * 300})
    async with store_on(saying(raw, close=False), retry=ONCE) as (store, _):
        with pytest.raises(AuthenticationError) as caught:
            await store.attribute_values.get_page()
    assert (caught.value.status, caught.value.title) == (status, title)
    assert caught.value.request_id == "r" * 100
    assert (caught.value.method, caught.value.path) == (
        "GET",
        "/stores/hash/v3/customers/attribute-values",
    )


@pytest.mark.parametrize("status", [200, 401])
async def test_a_request_id_is_printable_whatever_was_sent(status: int) -> None:
    raw = f"HTTP/1.1 {status} X\r\nX-Request-Id: a".encode() + b"\xffb\xe9" + b"r" * 3000
    raw += b"\r\nContent-Length: 2000\r\n\r\n" + b" " * 2000
    limits = Limits(max_response_bytes=1024 if status == 200 else 4096)
    async with store_on(saying(raw), retry=ONCE, limits=limits) as (store, _):
        with pytest.raises((DecodeError, AuthenticationError)) as caught:
            await store.attribute_values.get_page()
    request_id = caught.value.request_id
    assert request_id is not None
    assert len(request_id) == 100
    assert request_id.isprintable()
    assert f"{caught.value}{request_id}".encode()


async def test_an_answer_that_switches_protocols_is_an_error() -> None:
    raw = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nhello"
    async with store_on(saying(raw), retry=ONCE, timeout=2.0) as (store, _):
        with pytest.raises(APIError) as caught:
            await store.attribute_values.get_page()
        await at_rest(store)
    assert caught.value.status == 101


async def test_a_cut_error_body_does_not_hide_the_status() -> None:
    raw = answer(b'{"status": 401, "title": "Unauthorized"}', 401)[:-10]
    async with store_on(saying(raw), retry=ONCE) as (store, _):
        with pytest.raises(AuthenticationError) as caught:
            await store.attribute_values.get_page()
    assert caught.value.status == 401


async def test_the_token_is_in_no_log_and_no_error_of_a_whole_job(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With asyncio's and aiohttp's own loggers at their most talkative."""
    caplog.set_level(logging.DEBUG)
    scripts = [
        reset,
        saying(b"HTTP/1.1 99999 OK\r\n\r\n"),
        saying(answer(b"no", 500)),
        saying(GOOD),
    ]

    async def script(request: RawRequest, connection: Connection) -> None:
        await scripts[len(server.requests) % len(scripts)](request, connection)

    asyncio.get_running_loop().set_debug(True)
    async with store_on(script, retry=RetryPolicy(attempts=2, base_s=0.001)) as (store, server):
        with pytest.raises(PartialFailureError) as caught:
            await store.attribute_values.upsert(upserts(60))
        shown = repr(store) + repr(store.with_options(timeout=1.0)) + repr(store.attribute_values)
        runtime = store._state.runtime
        assert runtime is not None
        shown += repr(runtime.session) + repr(runtime.scheduler) + repr(store.statistics())
    assert TOKEN not in shown
    assert [record for record in caplog.records if record.name.startswith("bc_attrvals")]
    check_no_token(caught.value, caplog.records)
    for outcome in caught.value.report.failures:
        assert outcome.error is not None
        check_no_token(outcome.error, caplog.records)


async def test_the_headers_are_those_the_service_asks_for() -> None:
    async with store_on(saying(GOOD, close=False), user_agent="shop-sync/2 (a@b.c)") as (
        store,
        server,
    ):
        await store.attribute_values.put_batch(upserts(1))
    (request,) = server.requests
    assert request.headers["x-auth-token"] == TOKEN
    assert request.headers["accept"] == "application/json"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"].startswith("shop-sync/2 (a@b.c) bc_attrvals/")
    # Only reads ask caches for a fresh answer.
    assert "cache-control" not in request.headers
    assert request.target == "/stores/hash/v3/customers/attribute-values"
    assert request.body == b'[{"customer_id":1,"attribute_id":1,"value":"v1"}]'


@pytest.mark.parametrize("is_own", [True, False])
async def test_a_cache_that_keeps_to_its_rules_gives_no_old_answer(is_own: bool) -> None:
    cached: list[bytes] = []
    totals = iter(range(2))

    async def cache(request: RawRequest, connection: Connection) -> None:
        if not cached or request.headers.get("cache-control") == "no-cache":
            total = next(totals)
            rows = [row(1, 1)] * total
            body = page_body(rows, total=total, per_page=1, page=1, total_pages=total)
            cached[:] = [answer(body)]
        await connection.say(cached[0])

    async with AsyncExitStack() as stack:
        options: dict[str, Any] = {}
        if not is_own:
            options["session"] = await stack.enter_async_context(aiohttp.ClientSession())
        store, _ = await stack.enter_async_context(store_on(cache, **options))
        assert [await store.attribute_values.count() for _ in range(2)] == [0, 1]


async def test_a_callers_session_that_raises_for_status_still_gives_our_errors() -> None:
    async with aiohttp.ClientSession(raise_for_status=True) as session:
        raw = answer(b'{"title": "Unauthorized"}', 401)
        async with store_on(saying(raw, close=False), session=session) as (store, server):
            with pytest.raises(AuthenticationError):
                await store.attribute_values.get_page()
            assert len(server.requests) == 1


async def test_a_callers_session_that_leaves_bodies_packed_is_read_all_the_same() -> None:
    raw = answer(gzip.compress(EMPTY_PAGE), headers={"Content-Encoding": "gzip"})
    async with (
        aiohttp.ClientSession(auto_decompress=False) as session,
        store_on(saying(raw, close=False), session=session, retry=ONCE) as (store, _),
    ):
        assert (await store.attribute_values.get_page()).data == []


async def test_a_callers_session_is_asked_by_its_own_request() -> None:
    asked: list[str] = []
    with pytest.warns(DeprecationWarning, match="discouraged"):

        class Noting(aiohttp.ClientSession):
            """What a caller adds is in `request`."""

            def request(self, method: str, url: Any, **options: Any) -> Any:
                asked.append(method)
                return super().request(method, url, **options)

    async with (
        Noting() as session,
        store_on(saying(GOOD, close=False), session=session) as (store, server),
    ):
        await store.attribute_values.put_batch(upserts(1))
    assert asked == [request.method for request in server.requests] == ["PUT"]


async def test_a_request_that_is_mocked_in_aiohttp_is_never_gone_past(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def mocked(*_: object, **__: object) -> aiohttp.ClientResponse:
        raise aiohttp.ServerDisconnectedError

    monkeypatch.setattr(aiohttp.ClientSession, "request", mocked)
    async with store_on(saying(GOOD), retry=ONCE) as (store, server):
        with pytest.raises(ConnectionLostError):
            await store.attribute_values.get_page()
        assert server.requests == []


async def test_a_callers_session_that_was_closed_says_so() -> None:
    async with (
        aiohttp.ClientSession() as session,
        store_on(saying(GOOD), session=session) as (store, server),
    ):
        await session.close()
        with pytest.raises(StoreStateError, match="session"):
            await store.attribute_values.put_batch(upserts(1))
        assert server.requests == []
        await at_rest(store)


async def test_a_callers_middlewares_and_headers_stay_in_use() -> None:
    seen: list[str] = []

    async def note(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        seen.append(request.method)
        return await handler(request)

    headers = {"X-Own": "1", "X-Auth-Token": "other", "Accept": "text/html"}
    async with (
        aiohttp.ClientSession(headers=headers, middlewares=(note,)) as session,
        store_on(saying(GOOD, close=False), session=session) as (store, server),
    ):
        await store.attribute_values.put_batch(upserts(1))
    (request,) = server.requests
    assert seen == ["PUT"]
    assert (request.headers["x-own"], request.headers["x-auth-token"]) == ("1", TOKEN)
    assert request.headers["accept"] == "application/json"


async def test_a_cancelled_send_closes_its_connection() -> None:
    async with serving(hang) as server:
        session = Session(server.url, TOKEN, user_agent="x", max_response_bytes=2**20)
        request = RequestBuilder("hash", server.url).page("", 1, 50)
        task = asyncio.create_task(session.send(request, 5.0))
        await until(lambda: server.requests)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: not server.open_connections)
        await session.aclose()
        assert session.closed


async def test_a_callers_own_session_may_be_a_mocked_one(mocked: aioresponses) -> None:
    """How a user of the library may test: no server, any `aiohttp.ClientSession`."""
    url = "https://api.bigcommerce.com/stores/hash/v3/customers/attribute-values?limit=250&page=1"
    mocked.get(url, status=503, body="<html>")
    mocked.get(url, body=EMPTY_PAGE, headers=CIMultiDict({"X-Request-Id": "one"}))
    async with (
        aiohttp.ClientSession() as session,
        Store("hash", TOKEN, session=session, retry=RetryPolicy(base_s=0.001)) as store,
    ):
        assert (await store.attribute_values.get_page()).data == []
        assert store.statistics().requests == 2
        assert not session.closed
    ((_, calls),) = mocked.requests.items()
    assert [call.kwargs["allow_redirects"] for call in calls] == [False, False]


async def test_a_lasting_error_inside_of_a_mocked_session_is_ours(mocked: aioresponses) -> None:
    url = "https://api.bigcommerce.com/stores/hash/v3/customers/attribute-values?limit=250&page=1"
    mocked.get(url, exception=aiohttp.ServerDisconnectedError(), repeat=True)
    async with (
        aiohttp.ClientSession() as session,
        Store("hash", TOKEN, session=session, retry=RetryPolicy(attempts=2, base_s=0.001)) as store,
    ):
        with pytest.raises(ConnectionLostError) as caught:
            await store.attribute_values.get_page()
        assert store.statistics().requests == 2
    assert chain_of(caught.value) == [caught.value]
    assert not isinstance(caught.value, ServerError)


async def test_a_page_goes_with_the_task_that_read_it() -> None:
    async with store_on(saying(answer(EMPTY_PAGE), close=False)) as (store, _):
        # The first task opens a connection, which lives longer than the task.
        for _ in range(2):
            gc.disable()
            try:
                task = asyncio.create_task(store.attribute_values.get_page())
                assert not (await task).data
                reference = weakref.ref(task)
                del task
                await asyncio.sleep(0)
                assert reference() is None
            finally:
                gc.enable()
