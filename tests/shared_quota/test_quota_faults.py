"""A shared quota whose server goes, whose channels fall silent, and whose address can't be."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Self

import pytest

from bc_attrvals import Limits, Operation, Priority, Store
from bc_attrvals.errors import InvalidInputError, StoreStateError
from bc_attrvals.events import Event, SharedQuotaLost, SharedQuotaRegained
from bc_attrvals.sandbox import Sandbox
from tests.conftest import make_store
from tests.probes import until, upserts
from tests.valkey import Valkey

from bc_attrvals.shared_quota import RedisQuota, fallback, link  # isort: skip - as above

pytestmark = pytest.mark.usefixtures("no_task_left")

WRITE = Operation.WRITE
BULK = Priority.BULK
STORE = "abc"


@pytest.fixture(scope="module")
def lasting() -> Iterator[Valkey]:
    with Valkey() as one:
        yield one


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    with Valkey() as one:
        yield one


class Watched:
    """A quota, with the events it told."""

    def __init__(self, url: str, **options: Any) -> None:
        self.quota = RedisQuota(url, **{"timeout_s": 1.0, **options})
        self.events: list[Event] = []
        self.quota.report_to(self.events.append)

    @property
    def lost(self) -> list[SharedQuotaLost]:
        return [event for event in self.events if isinstance(event, SharedQuotaLost)]

    @property
    def regained(self) -> list[SharedQuotaRegained]:
        return [event for event in self.events if isinstance(event, SharedQuotaRegained)]

    @property
    def members(self) -> int:
        return self.quota._member._membership.known(asyncio.get_running_loop().time()).count


@asynccontextmanager
async def opened(*watched: Watched, **limits: int) -> AsyncIterator[list[Watched]]:
    async with AsyncExitStack() as stack:
        for one in watched:
            await one.quota.open(STORE, Limits(**limits))
            stack.push_async_callback(one.quota.close)
        yield list(watched)


async def shares_when_it_dies(valkey: Valkey, processes: list[Watched]) -> list[float]:
    valkey.stop()
    await until(lambda: all(one.lost for one in processes))
    return [one.lost[0].share for one in processes]


# --- processes that have nothing to do -----------------------------------------------------------


async def test_idle_processes_take_no_more_than_the_whole_together(valkey: Valkey) -> None:
    async with opened(*(Watched(valkey.url) for _ in range(8))) as processes:
        assert await shares_when_it_dies(valkey, processes) == [1 / 8] * 8
        # Each has a place of its own in the turns to write.
        assert sorted(one.quota._member._local._members.rank for one in processes) == list(range(8))


async def test_those_that_the_server_has_long_forgotten_are_counted(valkey: Valkey) -> None:
    from redis.asyncio import Redis

    async with opened(*(Watched(valkey.url, lease_s=0.2) for _ in range(5))) as processes:
        # Their leases end, and then the state that nobody used goes too.
        await asyncio.sleep(0.25)
        async with Redis.from_url(valkey.url) as redis:
            assert await redis.delete(f"bc_attrvals:{{{STORE}}}") == 1
        newcomer = Watched(valkey.url, lease_s=0.2)
        async with opened(newcomer):
            # It knows so from its first call on.
            assert newcomer.members == 6
            await until(lambda: all(one.members == 6 for one in processes))
            everybody = [*processes, newcomer]
            assert await shares_when_it_dies(valkey, everybody) == [1 / 6] * 6


async def test_one_that_left_and_one_that_died_are_counted_no_longer(valkey: Valkey) -> None:
    async with opened(*(Watched(valkey.url, lease_s=0.3) for _ in range(6))) as processes:
        leaving, dying, *rest = processes
        await leaving.quota.close()
        assert {one.members for one in rest} == {6}
        await until(lambda: {one.members for one in rest} == {5}, 2)
        # As a SIGKILL leaves it: its connections go, and nothing is said.
        dying.quota._member._task.cancel()
        await dying.quota._member._link.aclose()
        dying.quota._member._link = None
        await asyncio.sleep(0.3)
        rest[0].quota.release(await rest[0].quota.acquire(WRITE, BULK), {})
        await until(lambda: {one.members for one in rest} == {4}, 2)
        assert await shares_when_it_dies(valkey, rest) == [1 / 4] * 4


async def test_one_that_stood_still_for_long_takes_one_unit_a_window(
    valkey: Valkey,
) -> None:
    async with opened(Watched(valkey.url), Watched(valkey.url)) as [one, other]:
        await until(lambda: one.members == 2)
        # As after a SIGSTOP of an hour.
        one.quota._member._membership._confirmed_at -= 3600
        assert await shares_when_it_dies(valkey, [one, other]) == [0.0, 0.25]


async def test_stores_that_were_idle_when_it_died_meet_no_429_and_write_in_turns(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fallback, "_TURN_S", 0.5)
    monkeypatch.setattr(fallback, "_TURN_END_S", 0.2)
    monkeypatch.setattr(fallback, "_QUIET_S", 0.1)
    async with (
        Sandbox(quota=24, window_s=0.5, latency_ms=10) as sandbox,
        AsyncExitStack() as stack,
    ):
        stores = [
            await stack.enter_async_context(
                make_store(sandbox, quota=RedisQuota(valkey.url, timeout_s=1.0))
            )
            for _ in range(8)
        ]
        valkey.stop()
        await asyncio.gather(
            *(
                store.attribute_values.upsert(upserts(30, first=1 + 1_000 * index))
                for index, store in enumerate(stores)
            )
        )
        assert await sandbox.count() == 8 * 30
        assert sandbox.count_429 == 0
        assert sandbox.peak_in_flight("upsert") <= 3


# --- channels that fall silent -------------------------------------------------------------------


class Proxy:
    """Stands before the server; swallows what it says to those that listen while told to."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.swallows = False
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"redis://127.0.0.1:{port}/0"
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers += [writer, server_writer]
        listens = False

        async def up() -> None:
            nonlocal listens
            while data := await reader.read(65536):
                listens = listens or b"SUBSCRIBE" in data
                server_writer.write(data)

        async def down() -> None:
            while data := await server_reader.read(65536):
                if not (listens and self.swallows):
                    writer.write(data)

        await asyncio.gather(up(), down(), return_exceptions=True)
        server_writer.close()
        writer.close()


async def test_an_idle_process_notices_that_it_no_longer_hears(
    lasting: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "PING_S", 0.1)
    async with Proxy(lasting.port) as proxy:
        one = Watched(proxy.url, namespace="idle", timeout_s=0.2)
        async with opened(one):
            # Pongs come.
            await asyncio.sleep(0.3)
            assert not one.events
            proxy.swallows = True
            began_at = time.monotonic()
            await until(lambda: one.lost)
            assert time.monotonic() - began_at < 0.8
            assert one.lost[0].reason == "TimeoutError"
            # New connections are swallowed too: it goes on alone, and does not flap.
            one.quota.release(await one.quota.acquire(WRITE, BULK), {})
            await asyncio.sleep(0.5)
            assert not one.regained
            proxy.swallows = False
            await until(lambda: one.regained)
            assert len(one.lost) == 1


async def test_a_grant_that_lay_unheard_shows_that_the_channel_is_dead(lasting: Valkey) -> None:
    options = {"namespace": "unheard", "timeout_s": 0.2, "lease_s": 3.0}
    async with (
        Proxy(lasting.port) as proxy,
        opened(Watched(proxy.url, **options), Watched(lasting.url, **options), writes=1) as [
            deaf,
            other,
        ],
    ):
        other.quota.release(await other.quota.acquire(WRITE, BULK), {})
        lease = await other.quota.acquire(WRITE, BULK)
        waiting = asyncio.ensure_future(deaf.quota.acquire(WRITE, BULK))
        await asyncio.sleep(0.1)
        proxy.swallows = True
        other.quota.release(lease, {})
        # Long before the next ping was due.
        await until(lambda: deaf.lost, 3)
        proxy.swallows = False
        deaf.quota.release(await waiting, {})
        await until(lambda: deaf.regained)
        assert not other.events


async def test_a_loop_that_stood_still_is_not_taken_for_a_dead_channel(
    lasting: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "PING_S", 0.01)
    async with opened(Watched(lasting.url, namespace="still", timeout_s=0.1)) as [one]:
        for _ in range(2):
            await asyncio.sleep(0.03)
            time.sleep(0.25)  # noqa: ASYNC251 - that it blocks is the point
        await asyncio.sleep(0.1)
        assert not one.events


async def test_a_server_that_stood_still_waits_for_those_that_gave_it_up(
    lasting: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(Watched(lasting.url, namespace="hung")) as [one]:
        membership, clock = one.quota._member._membership, one.quota._member._membership.server_s
        # As a call that lay for five seconds in its buffers.
        monkeypatch.setattr(membership, "server_s", lambda now: clock(now) - 5)
        waiting = asyncio.ensure_future(one.quota.acquire(WRITE, BULK))
        await asyncio.sleep(0.1)
        monkeypatch.setattr(membership, "server_s", clock)
        began_at = time.monotonic()
        one.quota.release(await waiting, {})
        assert 0.5 < time.monotonic() - began_at < 1.5
        one.quota.release(await one.quota.acquire(WRITE, BULK), {})
        assert time.monotonic() - began_at < 1.7
        assert not one.events


async def test_what_lay_unread_while_the_server_stood_still_puts_no_window_off(
    valkey: Valkey,
) -> None:
    headers = {
        "X-Rate-Limit-Time-Window-Ms": "2000",
        "X-Rate-Limit-Time-Reset-Ms": "1901",
        "X-Rate-Limit-Requests-Quota": "40",
        "X-Rate-Limit-Requests-Left": "30",
    }
    async with opened(Watched(valkey.url)) as [one]:
        quota = one.quota
        lease = await quota.acquire(WRITE, BULK)
        # Slower than it is on a busy machine, to be told from what follows.
        assert quota._member._slack_s < 0.15
        for _ in range(2):
            quota.release(lease, headers)
            ended_at = time.monotonic()
            with valkey.standing_still():
                waiting = asyncio.ensure_future(quota.acquire(WRITE, BULK))
                await asyncio.sleep(0.35)
            lease = await waiting
            known = quota.snapshot()
            assert known.quota == 40
            assert known.resets_in_s is not None
            ends_in_s = 1.901 - (time.monotonic() - ended_at)
            assert known.resets_in_s == pytest.approx(ends_in_s, abs=0.2)
            # It was no long way: the next time is seen as well.
            assert quota._member._slack_s < 0.15
        quota.release(lease, {})
        assert not one.events


# --- closing that is cancelled -------------------------------------------------------------------


async def connections(valkey: Valkey) -> int:
    from redis.asyncio import Redis

    async with Redis.from_url(valkey.url) as redis:
        return len(await redis.client_list()) - 1


async def gone(valkey: Valkey) -> None:
    async with asyncio.timeout(3):
        while await connections(valkey):  # noqa: ASYNC110 - nobody tells when they are
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("again", [True, False])
async def test_a_store_whose_closing_is_cancelled_leaves_nothing(
    valkey: Valkey, again: bool
) -> None:
    async with Sandbox(quota=None, latency_ms=50) as sandbox:
        before = asyncio.all_tasks()
        for turns in (0, 1, 3, 6, 14):
            store = make_store(sandbox, quota=RedisQuota(valkey.url, timeout_s=1.0))
            await store.__aenter__()
            work = asyncio.ensure_future(store.attribute_values.upsert(upserts(100)))
            await until(lambda: sandbox.in_flight() == 3)
            closing = asyncio.ensure_future(store.aclose())
            for _ in range(turns):
                await asyncio.sleep(0)
            closing.cancel()
            await asyncio.wait([closing])
            if again or not turns:
                await store.aclose()
            await gone(valkey)
            await asyncio.wait([work], timeout=3)
            assert isinstance(work.exception(), Exception)
            await until(lambda: not asyncio.all_tasks() - before - {asyncio.current_task()})
            # Entered again, it works as before.
            async with store:
                assert store._quota.connected  # type: ignore[union-attr]
            await until(lambda: not sandbox.in_flight())


async def test_closing_that_is_cancelled_returns_at_once_and_is_finished_by_another(
    valkey: Valkey,
) -> None:
    one = Watched(valkey.url)
    await one.quota.open(STORE, Limits())
    await one.quota.acquire(WRITE, BULK)
    with valkey.standing_still():
        closing = asyncio.ensure_future(one.quota.close())
        # It waits for the server to hear of it.
        await asyncio.sleep(0.05)
        assert not closing.done()
        began_at = time.monotonic()
        closing.cancel()
        await asyncio.wait([closing])
        assert closing.cancelled()
        assert time.monotonic() - began_at < 0.5
        assert not one.quota.connected
    await one.quota.close()
    assert one.quota._member._link is None
    await gone(valkey)


def test_a_loop_that_ends_while_a_shared_quota_is_closed_closes_it(
    valkey: Valkey,
) -> None:
    async def main() -> RedisQuota:
        one = Watched(valkey.url)
        await one.quota.open(STORE, Limits())
        closing = asyncio.ensure_future(one.quota.close())
        await asyncio.sleep(0.001)
        closing.cancel()
        return one.quota

    quota = asyncio.run(main())
    assert quota._member._link is None
    asyncio.run(gone(valkey))


@pytest.mark.parametrize("how", ["asyncio.run", "closed at once"])
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_quota_and_its_store_are_closed_after_their_loop_has_ended(
    how: str, valkey: Valkey
) -> None:
    async def leave_open() -> tuple[Store, RedisQuota, Watched]:
        lonely = Watched(valkey.url, lease_s=0.4)
        await lonely.quota.open("other", Limits(writes=1))
        await lonely.quota.acquire(WRITE, BULK)
        quota = RedisQuota(valkey.url)
        async with Sandbox(quota=None, store_hash=STORE) as sandbox:
            store = make_store(sandbox, quota=quota)
            await store.__aenter__()
            await store.attribute_values.count()
        return store, quota, lonely

    async def late() -> None:
        for _ in range(2):
            await store.aclose()
            await quota.close()
            await lonely.quota.close()
        with pytest.raises(StoreStateError):
            await quota.acquire(WRITE, BULK)
        # The slot that was held comes back.
        await lonely.quota.open("other", Limits(writes=1))
        lease = await asyncio.wait_for(lonely.quota.acquire(WRITE, BULK), 5)
        lonely.quota.release(lease, {})
        await lonely.quota.close()

    if how == "asyncio.run":
        store, quota, lonely = asyncio.run(leave_open())
        # Closed with the loop, while they are all still referred to.
        asyncio.run(gone(valkey))
    else:
        loop = asyncio.new_event_loop()
        store, quota, lonely = loop.run_until_complete(leave_open())
        # What aiohttp and redis-py left undone is theirs to complain of.
        loop.set_exception_handler(lambda *_: None)
        tasks = asyncio.all_tasks(loop)
        loop.close()
    asyncio.run(late())
    if how == "asyncio.run":
        asyncio.run(gone(valkey))
    else:
        for task in tasks:
            # Never to be finished: asyncio would report each.
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        # Its sockets are dropped here, not in a later test.
        del store, quota, lonely, task, tasks, loop
        gc.collect()


async def test_a_node_of_a_cluster_that_has_not_the_key_names_the_one_that_has() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readline():
            words = []
            for _ in range(int(head[1:])):
                size = int((await reader.readline())[1:])
                words.append((await reader.readexactly(size + 2))[:-2])
            if words[0].upper() == b"EVALSHA":
                writer.write(b"-MOVED 5798 10.0.0.7:6379\r\n")
            elif words[0].upper() == b"SUBSCRIBE":
                for channel in words[1:]:
                    writer.write(
                        b"*3\r\n$9\r\nsubscribe\r\n$%d\r\n%b\r\n:1\r\n" % (len(channel), channel)
                    )
            else:
                writer.write(b"+OK\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        quota = RedisQuota(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        with pytest.raises(InvalidInputError, match=r"Cluster.* is on 10\.0\.0\.7:6379") as caught:
            await quota.open(STORE, Limits())
        assert caught.value.field == "url"
        assert str(caught.value).count("10.0.0.7") == 1
        assert not quota.connected
        await quota.close()


async def test_a_refusal_while_it_runs_is_logged_once(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("bc_attrvals.shared_quota.member._RETRY_S", 0.01)
    async with opened(Watched(valkey.url)) as [one]:

        async def refuses(self: object, callbacks: object) -> None:
            raise link.LinkError("ResponseError", refusal="it is a Redis Cluster")

        monkeypatch.setattr(link.Link, "connect", refuses)
        one.quota._member._lose("ResponseError")
        await asyncio.sleep(0.2)
        assert not one.quota.connected
    assert caplog.messages.count("the shared quota: it is a Redis Cluster") == 1


# --- what goes wrong within ----------------------------------------------------------------------


async def test_whatever_fails_while_calling_is_told_and_gone_on_from(
    lasting: Valkey, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(Watched(lasting.url, namespace="fails")) as [one]:
        take, failures = one.quota._member._take, [KeyError("s3cret"), IndexError("s3cret")]

        def fails(*args: Any) -> None:
            if failures:
                raise failures.pop()
            take(*args)

        monkeypatch.setattr(one.quota._member, "_take", fails)
        lease = await asyncio.wait_for(one.quota.acquire(WRITE, BULK), 5)
        await until(lambda: one.regained)
        assert [event.reason for event in one.lost][:1] == ["IndexError"]
        one.quota.release(lease, {})
        one.quota.release(await asyncio.wait_for(one.quota.acquire(WRITE, BULK), 5), {})
        assert "s3cret" not in caplog.text


async def test_a_message_that_makes_no_sense_costs_the_connection_alone(lasting: Valkey) -> None:
    from redis.asyncio import Redis

    async with (
        Redis.from_url(lasting.url) as redis,
        opened(Watched(lasting.url, namespace="sense")) as [one],
    ):
        for message in (b"\xc1", b"\x93\x01\x09\x01", b"\xa1x"):
            had = len(one.regained)
            channel = f"sense:{{{STORE}}}:{one.quota._member._process}"
            await redis.publish(channel, message)
            await until(lambda had=had: len(one.regained) > had or one.quota.connected, 3)
            one.quota.release(await asyncio.wait_for(one.quota.acquire(WRITE, BULK), 5), {})


# --- addresses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hidden@[bad",
        "redis://:hid/hidden@localhost",
        "redis://:12/hidden@localhost",
        "redis://:12#hidden@localhost",
        "redis://:x@localhost:hidden",
        "redis://:hidden@localhost:99999",
        "redis://:hidden@localhost:0",
        "redis://:hidden@localhost/abc",
        "redis://:hidden@localhost/-1",
        "redis://:hidden@localhost/1/2",
        "redis://:hidden@localhost?db=x",
        "redis://:hidden@localhost?foo=1",
        "redis://:hidden@localhost?ssl_cert_reqs=none",
        "redis://:hidden@localhost?socket_timeout=0.001",
        "redis://:hidden@localhost?decode_responses=True",
        "redis://:hidden@localhost?max_connections=1",
        "rediss://:hidden@localhost?ssl_nonsense=1",
        "redis://:hidden\ud800@localhost",
        "redis://:hidden@%00",
        "redis://:hidden@a b",
        "redis://:hidden@" + "a" * 80,
        "redis://:hidden@" + "a." * 300,
        "unix://:hidden@",
        "unix:///tmp/%00hidden",
        ":hidden@localhost",
        "http://:hidden@localhost",
        "",
        None,
        b"redis://:hidden@localhost",
    ],
)
def test_an_address_that_cannot_be_is_refused_and_not_quoted(
    url: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(InvalidInputError, match="url of the shared quota") as refused:
        RedisQuota(url)
    assert refused.value.field == "url"
    assert_hidden(refused.value, caplog)
    made = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(refused.tb)]
    # A reporter of crashes shows what stands in frames.
    assert not any("hidden" in repr(one) for one in made)
    assert repr(RedisQuota.__new__(RedisQuota)) == "<RedisQuota not made>"
    ours = [
        frame.f_locals
        for frame, _ in traceback.walk_tb(refused.tb)
        if "bc_attrvals/shared_quota" in frame.f_code.co_filename
    ]
    assert ours
    assert not any(
        "hidden" in repr(value)
        for names in ours
        for value in names.values()
        if value is not names.get("self")
    )


def assert_hidden(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    assert error.__cause__ is None
    assert error.__context__ is None
    told = "".join(traceback.format_exception_only(error))
    assert "hidden" not in told + repr(error) + repr(error.args) + caplog.text


@pytest.mark.parametrize(
    ("path", "told"),
    [("/99", "no database of that number"), ("/0", "refuses the user or password")],
)
async def test_a_server_that_will_never_do_is_refused_on_opening(
    path: str, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with Valkey(password=True) as valkey:
        password = "hidden" if path == "/0" else valkey.PASSWORD
        quota = RedisQuota(f"redis://:{password}@127.0.0.1:{valkey.port}{path}")
        with pytest.raises(InvalidInputError, match=told) as refused:
            await quota.open(STORE, Limits())
        assert refused.value.field == "url"
        assert_hidden(refused.value, caplog)
        with pytest.raises(InvalidInputError):
            await quota.open(STORE, Limits())


@pytest.mark.parametrize("says", [b"SSH-2.0-OpenSSH_9.9\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
async def test_what_is_no_such_server_is_refused_on_opening(says: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(says)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        quota = RedisQuota(f"redis://:hidden@127.0.0.1:{port}")
        with pytest.raises(InvalidInputError, match="neither Redis nor Valkey"):
            await quota.open(STORE, Limits())


async def test_a_server_on_a_socket_of_the_file_system(tmp_path: Path) -> None:
    path = tmp_path / "v.sock"
    with Valkey(socket_path=path) as valkey:
        one = Watched(f"unix://{path}")
        async with opened(one):
            one.quota.release(await one.quota.acquire(WRITE, BULK), {})
            assert not one.events
            valkey.stop()
            await until(lambda: one.lost)
