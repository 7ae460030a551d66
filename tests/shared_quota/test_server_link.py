"""The wire to the server: channels that fall silent, servers that will never do."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, Self

import pytest

from bc_attrvals import Limits
from bc_attrvals.errors import InvalidInputError
from tests.probes import until
from tests.shared_quota.quotas import BULK, STORE, WRITE, Watched, assert_hidden, watching
from tests.valkey import Valkey

from bc_attrvals.shared_quota import (  # isort: skip - skipped where redis is missing
    RedisQuota,
    server_link,
)

pytestmark = pytest.mark.usefixtures("no_task_left")


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
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_link, "PING_S", 0.1)
    async with Proxy(valkey.port) as proxy:
        one = Watched(proxy.url, namespace="idle", timeout_s=0.2)
        async with watching(one):
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


async def test_a_grant_that_lay_unheard_shows_that_the_channel_is_dead(valkey: Valkey) -> None:
    options = {"namespace": "unheard", "timeout_s": 0.2, "lease_s": 3.0}
    async with (
        Proxy(valkey.port) as proxy,
        watching(Watched(proxy.url, **options), Watched(valkey.url, **options), writes=1) as [
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
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_link, "PING_S", 0.01)
    async with watching(Watched(valkey.url, namespace="still", timeout_s=0.1)) as [one]:
        for _ in range(2):
            await asyncio.sleep(0.03)
            time.sleep(0.25)  # noqa: ASYNC251 - that it blocks is the point
        await asyncio.sleep(0.1)
        assert not one.events


async def test_a_server_that_stood_still_waits_for_those_that_gave_it_up(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with watching(Watched(valkey.url, namespace="hung")) as [one]:
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
    own_valkey: Valkey,
) -> None:
    headers = {
        "X-Rate-Limit-Time-Window-Ms": "2000",
        "X-Rate-Limit-Time-Reset-Ms": "1901",
        "X-Rate-Limit-Requests-Quota": "40",
        "X-Rate-Limit-Requests-Left": "30",
    }
    async with watching(Watched(own_valkey.url)) as [one]:
        quota = one.quota
        lease = await quota.acquire(WRITE, BULK)
        # Slower than it is on a busy machine, to be told from what follows.
        assert quota._member._slack_s < 0.15
        for _ in range(2):
            quota.release(lease, headers)
            ended_at = time.monotonic()
            with own_valkey.standing_still():
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
    own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("bc_attrvals.shared_quota.member._RETRY_S", 0.01)
    async with watching(Watched(own_valkey.url)) as [one]:

        async def refuses(self: object, callbacks: object) -> None:
            raise server_link.LinkError("ResponseError", refusal="it is a Redis Cluster")

        monkeypatch.setattr(server_link.Link, "connect", refuses)
        one.quota._member._lose("ResponseError")
        await asyncio.sleep(0.2)
        assert not one.quota.connected
    assert caplog.messages.count("the shared quota: it is a Redis Cluster") == 1


async def test_whatever_fails_while_calling_is_told_and_gone_on_from(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with watching(Watched(valkey.url, namespace="fails")) as [one]:
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


async def test_a_message_that_makes_no_sense_costs_the_connection_alone(valkey: Valkey) -> None:
    from redis.asyncio import Redis

    async with (
        Redis.from_url(valkey.url) as redis,
        watching(Watched(valkey.url, namespace="sense")) as [one],
    ):
        for message in (b"\xc1", b"\x93\x01\x09\x01", b"\xa1x"):
            had = len(one.regained)
            channel = f"sense:{{{STORE}}}:{one.quota._member._process}"
            await redis.publish(channel, message)
            await until(lambda had=had: len(one.regained) > had or one.quota.connected, 3)
            one.quota.release(await asyncio.wait_for(one.quota.acquire(WRITE, BULK), 5), {})


@pytest.mark.parametrize(
    ("path", "told"),
    [("/99", "no database of that number"), ("/0", "refuses the user or password")],
)
async def test_a_server_that_will_never_do_is_refused_on_opening(
    path: str, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with Valkey(password=True) as own_valkey:
        password = "hidden" if path == "/0" else own_valkey.PASSWORD
        quota = RedisQuota(f"redis://:{password}@127.0.0.1:{own_valkey.port}{path}")
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
