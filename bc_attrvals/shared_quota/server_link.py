"""The wire to the Redis or Valkey server: one script to call, and two channels to listen on.

Below `member.py`, which decides what to ask. `grants.lua` decides the answers in the server. A
failure is a `LinkError`, which holds neither the URL nor the server's words.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.asyncio.client import PubSub


_SCRIPT: Final = Path(__file__).with_name("grants.lua").read_text(encoding="utf-8")
# Without one, redis-py takes the timeout of calls for the longest silence.
_LISTEN_S: Final = 60.0
#: Ping interval of the subscription, in seconds.
PING_S: Final = 5.0
#: Parts of the wait for a pong: a loop that stood still meanwhile misses one at most.
_PATIENCE: Final = 4
#: Keeps connections alive where a router on the way forgets silent ones, in seconds.
_KEEPALIVE: Final = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}


#: How a node of a cluster answers for a key of another (Redis cluster specification, MOVED).
_MOVED: Final = re.compile(r"(?:moved )?\d{1,5} ([a-z0-9.:\[\]_-]{1,260})")


class LinkError(Exception):
    """The server can't be reached, or refuses; `kind` is the class of the cause.

    `refusal` says why another try is of no use, or is None.
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
    """The members: the ids of all processes that listen or hold leases, in order."""

    now_ms: float
    ids: list[str]


class Reply(msgspec.Struct, array_like=True, frozen=True):
    """What the script answers; times in milliseconds.

    `grants` are those not received yet. Without a grant, the process calls again in `wait_ms` at
    the latest. `processes` counts those that have joined, `rank` is the caller's place in their
    order, from 0. `contended` says whether others wait, `forgotten` whether the server did not know
    the caller. `quota` is -1 if it is unknown.
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


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What a process reports and asks; times in milliseconds, of the past as ages.

    `seen` is the newest grant received; `held` the leases under way (number, operation, priority),
    negative numbers those taken without the server; `done` those that ended since. `want` counts
    requests that wait: interactive reads, writes, deletes, then bulk; `flows` counts the jobs of
    the bulk ones, by operation. `slack` bounds the way to the server. `back` says that the server
    should know this process, `lost` that the process was in degraded mode. `at` is the time of the
    call by the server's clock, 0 if that is not known.
    """

    id: str
    seen: int
    held: list[tuple[int, int, int]]
    done: list[tuple[float, ...]]
    want: list[int]
    flows: list[int]
    limits: tuple[int, int, int, int]
    ttl: float
    slack: float
    back: bool
    lost: bool
    leave: bool
    at: float

    def unread_ms(self, now_ms: float) -> float:
        """Return how long the call waited unread at least, until `now_ms` of the server.

        `grants.lua` computes the same.
        """
        return max(0.0, now_ms - self.at - self.slack) if self.at > 0 else 0.0


def _ignore(*args: object) -> None:
    del args


class Callbacks(msgspec.Struct, frozen=True, kw_only=True):
    """Called with what comes over the channels, from a task of the link.

    `alive` is called when every earlier message has been read, `lost` once when listening has
    failed, with the class of what went wrong.
    """

    granted: Callable[[Grant], None] = _ignore
    joined: Callable[[Joined], None] = _ignore
    alive: Callable[[], None] = _ignore
    lost: Callable[[str], None] = _ignore


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
        #: Whether listening has failed. Grants then come in answers only.
        self.has_lost_channels = False
        self._check_now = asyncio.Event()
        self._pings = 0
        self._ponged = asyncio.Event()
        self._decode_reply = msgspec.msgpack.Decoder(Reply)
        self._decode_grant = msgspec.msgpack.Decoder(Grant)
        self._decode_joined = msgspec.msgpack.Decoder(Joined)

    async def connect(self, callbacks: Callbacks) -> None:
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
            # The member calls again itself: it knows what has changed since.
            retry=Retry(NoBackoff(), 0),
            health_check_interval=0,
            decode_responses=False,
            max_connections=4,
            # With version 3 of the protocol a pong is no message of the channel.
            protocol=2,
            **options,
        )
        await self._guarded(self._open(self._redis))
        assert self._pubsub is not None
        self._tasks = [
            asyncio.create_task(self._until_it_fails(work, self._pubsub, callbacks))
            for work in (self._listen, self._ping)
        ]

    async def _open(self, redis: Redis) -> None:
        self._sha = await redis.script_load(_SCRIPT)
        self._pubsub = redis.pubsub()
        await self._pubsub.subscribe(self._own, self._key)
        # After the answers to both subscriptions no message is missed.
        for _ in range(2):
            if await self._pubsub.get_message(timeout=self._timeout_s) is None:
                raise TimeoutError

    async def call(self, ask: Ask) -> Reply:
        """Call the script once. Raises `LinkError`; the call may have taken effect even so."""
        assert self._redis is not None
        message = msgspec.msgpack.encode(ask)
        # redis-py types it for both of its clients.
        answer = cast(Awaitable[bytes], self._redis.evalsha(self._sha, 1, self._key, message))
        reply = await self._guarded(answer)
        try:
            return self._decode_reply.decode(reply)
        except (msgspec.MsgspecError, TypeError):
            raise LinkError("DecodeError") from None

    def check_channels(self) -> None:
        """Ping the channels now: a message is missing."""
        self._check_now.set()

    async def aclose(self) -> None:
        """Close both connections; errors of a server that is gone are ignored.

        Cancelled, it closes them even so. In another loop than it was opened in, what is left of
        them is dropped.
        """
        tasks = [task for task in self._tasks if not task.done()]
        self._tasks = []
        if tasks and tasks[0].get_loop() is not asyncio.get_running_loop():
            # They can't be waited for here, nor cancelled where their loop is closed.
            tasks = []
        for task in tasks:
            task.cancel()
        async with AsyncExitStack() as stack:
            for one in (self._redis, self._pubsub):
                stack.push_async_callback(_close_quietly, one)
            await asyncio.gather(*tasks, return_exceptions=True)
        self._pubsub = self._redis = None

    async def _until_it_fails(
        self,
        work: Callable[[PubSub, Callbacks], Awaitable[None]],
        pubsub: PubSub,
        callbacks: Callbacks,
    ) -> None:
        try:
            await _translated(work(pubsub, callbacks))
        except LinkError as error:
            if not self.has_lost_channels:
                self.has_lost_channels = True
                callbacks.lost(error.kind)

    async def _listen(self, pubsub: PubSub, callbacks: Callbacks) -> None:
        while True:
            message = await self._guarded(
                pubsub.get_message(ignore_subscribe_messages=True, timeout=_LISTEN_S)
            )
            if message is None:
                continue
            if message["type"] == "pong":
                if message["data"] == b"%d" % self._pings:
                    self._ponged.set()
                callbacks.alive()
            elif message["channel"] == self._own:
                callbacks.granted(self._decode_grant.decode(message["data"]))
            else:
                callbacks.joined(self._decode_joined.decode(message["data"]))

    async def _ping(self, pubsub: PubSub, callbacks: Callbacks) -> None:
        """Ping over the listening connection: behind a NAT it may be lost without a sign."""
        del callbacks
        while True:
            await _within(PING_S, self._check_now)
            self._check_now.clear()
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
                # redis-py may swallow a cancellation that comes with an answer or a timeout.
                raise asyncio.CancelledError


async def _close_quietly(one: Redis | PubSub | None) -> None:
    if one is None:
        return
    cancelled: asyncio.CancelledError | None = None
    for _ in range(2):
        try:
            with suppress(LinkError):
                await _translated(one.aclose())  # type: ignore[no-untyped-call,unused-ignore]
        except asyncio.CancelledError as error:
            # Cancelled, redis-py leaves the rest open: it is closed in the second round.
            cancelled = error
        else:
            break
    if cancelled is not None:
        raise cancelled


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
    # Raised outside of the handler: the message of the other error may hold parts of the URL.
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
    moved = _MOVED.fullmatch(words)
    # Newer versions of redis-py have a class for this error, whose message lacks the word.
    if moved is not None and ("moved" in words or kind == "MovedError"):
        return f"it is a Redis Cluster, and this store's key is on {moved[1]}: name that node"
    for is_it, reason in (
        (isinstance(error, AuthenticationError), "the server refuses the user or password"),
        (
            isinstance(error, NoPermissionError) or "can't run this command" in words,
            "the server does not let this user run a command that is needed",
        ),
        (isinstance(error, InvalidResponse), "what answers there is neither Redis nor Valkey"),
        ("db index" in words, "the server has no database of that number"),
        ("unknown command" in words, "the server lacks a command that is needed"),
    ):
        if is_it:
            return f"{reason} ({kind})"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the server's certificate is not trusted ({type(cause).__name__})"
        cause = cause.__cause__ or cause.__context__
    return None
