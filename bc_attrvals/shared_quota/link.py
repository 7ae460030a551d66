"""The wire to the Redis or Valkey server: one script to call, and two channels to listen on.

Below `quota.py`, which decides what to ask; the answers are decided by `grants.lua` in the server.
What fails here is a `LinkError`, which holds neither the URL nor the server's words.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import attrs
import msgspec

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.asyncio.client import PubSub

__all__ = ["PING_S", "Ask", "Grant", "Hearers", "Link", "LinkError", "Reply"]

_SCRIPT: Final = Path(__file__).with_name("grants.lua").read_text(encoding="utf-8")
# Without one, redis-py takes the timeout of calls for the longest silence.
_LISTEN_S: Final = 60.0
#: So often it is seen to that the channels are heard.
PING_S: Final = 5.0
#: A pong is waited for in so many parts: a loop that stood still meanwhile misses one at most.
_PATIENCE: Final = 4
#: Keeps the connections alive where somebody between forgets silent ones, in seconds.
_KEEPALIVE: Final = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}


class LinkError(Exception):
    """The server can't be reached, or does not do as asked; `kind` is the class of the cause.

    `refusal` says why another try is of no use, if so.
    """

    def __init__(self, kind: str, *, refusal: str | None = None) -> None:
        super().__init__(kind)
        self.kind = kind
        self.refusal = refusal


class Grant(msgspec.Struct, array_like=True, frozen=True):
    """A slot and a unit for this process; `seq` counts from 1 without gaps.

    In an answer `age_ms` says how long ago it was given.
    """

    seq: int
    operation: int
    priority: int
    age_ms: float = 0.0


class Joined(msgspec.Struct, array_like=True, frozen=True):
    """Who there is: the ids of all processes that listen or hold leases, in order."""

    now_ms: float
    ids: list[str]


class Reply(msgspec.Struct, array_like=True, frozen=True):
    """What the script answers; times in milliseconds.

    `grants` are those not heard of yet. Without one, the script is to be called again in `wait_ms`
    at the latest. `processes` counts those that have joined, `rank` is ours of them, from 0.
    `contended` says whether others wait, `forgotten` that the server did not know us. `quota` -1
    is an unknown one.
    """

    now_ms: float
    grants: list[Grant]
    wait_ms: float
    processes: int
    rank: int
    contended: bool
    forgotten: bool
    quota: int
    left: int
    reset_ms: float


@attrs.frozen(kw_only=True)
class Ask:
    """What a process tells and asks; times in milliseconds, of the past as ages.

    `seen` is the newest grant heard of; `held` the leases under way (number, operation, priority),
    negative numbers those taken without the server; `done` those that ended since; `want` counts
    requests that wait: interactive reads, writes, deletes, then bulk. `slack` bounds the way to
    the server. `back` says that we ought to be known, `lost` that we did without the server for a
    while, `at` when by the server's clock it is said, 0 if that is not known.
    """

    id: str
    seen: int
    held: list[tuple[int, int, int]]
    done: list[tuple[float, ...]]
    want: list[int]
    limits: tuple[int, int, int, int]
    ttl: float
    slack: float
    back: bool
    lost: bool
    leave: bool
    at: float

    def unread_ms(self, now_ms: float) -> float:
        """Return for how long at least it lay unread until this time of the server.

        As `grants.lua` has it.
        """
        return max(0.0, now_ms - self.at - self.slack) if self.at > 0 else 0.0


@attrs.frozen(kw_only=True)
class Hearers:
    """What is called with what comes over the channels, from a task of the link.

    `alive` when it is known that nothing which was told before is unheard, `lost` once when
    listening has failed, with the class of what went wrong.
    """

    granted: Callable[[Grant], None]
    joined: Callable[[Joined], None]
    alive: Callable[[], None]
    lost: Callable[[str], None]

    @classmethod
    def nobody(cls) -> Hearers:
        """Return those of a connection that is made to see whether it can be."""

        def ignore(*args: object) -> None:
            del args

        return cls(granted=ignore, joined=ignore, alive=ignore, lost=ignore)


class Link:
    """One connection for calls and one that listens. Bound to the running loop."""

    def __init__(self, url: str, key: str, process: str, timeout_s: float) -> None:
        self._url = url
        self._key = key
        self._own = f"{key}:{process}".encode()
        self._timeout_s = timeout_s
        self._redis: Redis | None = None
        self._pubsub: PubSub | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._sha = ""
        #: Whether listening has failed: grants then come in answers only.
        self.is_deaf = False
        self._doubtful = asyncio.Event()
        self._pings = 0
        self._ponged = asyncio.Event()
        self._decode_reply = msgspec.msgpack.Decoder(Reply)
        self._decode_grant = msgspec.msgpack.Decoder(Grant)
        self._decode_joined = msgspec.msgpack.Decoder(Joined)

    async def connect(self, hearers: Hearers) -> None:
        """Connect, load the script and listen.

        Raises `LinkError`; close it in any case.
        """
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        options: dict[str, Any] = {}
        if not self._url.startswith("unix:"):
            options["socket_keepalive"] = True
            options["socket_keepalive_options"] = {
                getattr(socket, name): seconds
                for name, seconds in _KEEPALIVE.items()
                if hasattr(socket, name)
            }
        self._redis = Redis.from_url(
            self._url,
            socket_timeout=self._timeout_s,
            socket_connect_timeout=self._timeout_s,
            # A call that may have been done is made again by us, who know what has changed.
            retry=Retry(NoBackoff(), 0),
            health_check_interval=0,
            decode_responses=False,
            max_connections=4,
            # Of version 3 a pong is no message of the channel.
            protocol=2,
            **options,
        )
        await self._guarded(self._open(self._redis))
        assert self._pubsub is not None
        self._tasks = [
            asyncio.create_task(self._until_it_fails(work, self._pubsub, hearers))
            for work in (self._listen, self._see_that_it_hears)
        ]

    async def _open(self, redis: Redis) -> None:
        self._sha = await redis.script_load(_SCRIPT)
        self._pubsub = redis.pubsub()
        await self._pubsub.subscribe(self._own, self._key)
        # Two answers: from here on every message is heard.
        for _ in range(2):
            if await self._pubsub.get_message(timeout=self._timeout_s) is None:
                raise TimeoutError

    async def call(self, ask: Ask) -> Reply:
        """Call the script once. Raises `LinkError`; it may have been done then."""
        assert self._redis is not None
        message = msgspec.msgpack.encode(attrs.asdict(ask, recurse=False))
        # redis-py types it for both of its clients.
        answer = cast(Awaitable[bytes], self._redis.evalsha(self._sha, 1, self._key, message))
        reply = await self._guarded(answer)
        try:
            return self._decode_reply.decode(reply)
        except (msgspec.MsgspecError, TypeError):
            raise LinkError("DecodeError") from None

    def doubt(self) -> None:
        """See now whether the channels are heard; something was told that did not come."""
        self._doubtful.set()

    async def aclose(self) -> None:
        """Let go of both connections; errors of a server that is gone play no part.

        Cancelled, it lets go of them even so.
        """
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            try:
                await _let_go_of(self._pubsub)
            finally:
                await _let_go_of(self._redis)
        self._pubsub = self._redis = None

    async def _until_it_fails(
        self,
        work: Callable[[PubSub, Hearers], Awaitable[None]],
        pubsub: PubSub,
        hearers: Hearers,
    ) -> None:
        try:
            await _translated(work(pubsub, hearers))
        except LinkError as error:
            if not self.is_deaf:
                self.is_deaf = True
                hearers.lost(error.kind)

    async def _listen(self, pubsub: PubSub, hearers: Hearers) -> None:
        while True:
            message = await self._guarded(
                pubsub.get_message(ignore_subscribe_messages=True, timeout=_LISTEN_S)
            )
            if message is None:
                continue
            if message["type"] == "pong":
                if message["data"] == b"%d" % self._pings:
                    self._ponged.set()
                hearers.alive()
            elif message["channel"] == self._own:
                hearers.granted(self._decode_grant.decode(message["data"]))
            else:
                hearers.joined(self._decode_joined.decode(message["data"]))

    async def _see_that_it_hears(self, pubsub: PubSub, hearers: Hearers) -> None:
        """Ping over the listening connection: it may die without a word, as behind a NAT."""
        del hearers
        while True:
            await _within(PING_S, self._doubtful)
            self._doubtful.clear()
            self._ponged.clear()
            self._pings += 1
            await self._guarded(
                pubsub.ping(str(self._pings))  # type: ignore[no-untyped-call,unused-ignore]
            )
            for _ in range(_PATIENCE):
                if await _within(self._timeout_s / _PATIENCE, self._ponged):
                    break
            else:
                raise TimeoutError

    @staticmethod
    async def _guarded(work: Awaitable[Any]) -> Any:  # noqa: ANN401 - redis-py's own
        task = asyncio.current_task()
        assert task is not None
        before = task.cancelling()
        try:
            return await _translated(work)
        finally:
            if task.cancelling() > before:
                # redis-py may swallow it where it comes together with an answer or a timeout.
                raise asyncio.CancelledError


async def _let_go_of(one: Redis | PubSub | None) -> None:
    if one is not None:
        with suppress(LinkError):
            await _translated(one.aclose())  # type: ignore[no-untyped-call,unused-ignore]


async def _within(seconds: float, event: asyncio.Event) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False


async def _translated(work: Awaitable[Any]) -> Any:  # noqa: ANN401 - redis-py's own
    try:
        return await work
    except LinkError:
        raise
    except Exception as error:  # noqa: BLE001 - redis-py's are many, and not all of one kind
        failed = LinkError(type(error).__name__, refusal=_refusal(error))
    # Not while the other is handled, whose words may hold what stands in the URL.
    raise failed


def _refusal(error: Exception) -> str | None:
    """Return what is wrong with the address or the server, if trying again is of no use."""
    from redis.exceptions import (
        AuthenticationError,
        InvalidResponse,
        NoPermissionError,
        ResponseError,
    )

    kind = type(error).__name__
    words = str(error).lower() if isinstance(error, ResponseError) else ""
    for is_it, told in (
        (isinstance(error, AuthenticationError), "the server refuses the user or password"),
        (
            isinstance(error, NoPermissionError) or "can't run this command" in words,
            "the server does not let this user do what is needed",
        ),
        (isinstance(error, InvalidResponse), "what answers there is neither Redis nor Valkey"),
        ("db index" in words, "the server has no database of that number"),
        ("unknown command" in words, "the server lacks a command that is needed"),
    ):
        if is_it:
            return f"{told} ({kind})"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the server's certificate is not trusted ({type(cause).__name__})"
        cause = cause.__cause__ or cause.__context__
    return None
