"""The wire to the Redis or Valkey server: one script to call, one channel to listen on.

Below `quota.py`, which decides what to ask; the answers are decided by `grants.lua` in the server.
What fails here is a `LinkError`, which holds neither the URL nor the server's words.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit

import attrs
import msgspec

from bc_attrvals.errors import InvalidInputError

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.asyncio.client import PubSub

__all__ = ["Ask", "Grant", "Link", "LinkError", "Reply", "checked_url", "place_of"]

_SCRIPT: Final = Path(__file__).with_name("grants.lua").read_text(encoding="utf-8")
# Without one, redis-py takes the timeout of calls for the longest silence.
_LISTEN_S: Final = 60.0
_SCHEMES: Final = {"redis", "rediss", "unix"}


class LinkError(Exception):
    """The server can't be reached, or does not do as asked; `kind` is the class of the cause.

    `refused` says that it is there and does not let us in.
    """

    def __init__(self, kind: str, *, refused: bool = False) -> None:
        super().__init__(kind)
        self.kind = kind
        self.refused = refused


class Grant(msgspec.Struct, array_like=True, frozen=True):
    """A slot and a unit for this process; `seq` counts from 1 without gaps."""

    seq: int
    operation: int
    priority: int


class Reply(msgspec.Struct, array_like=True, frozen=True):
    """What the script answers; times in milliseconds.

    `grants` are those not heard of yet. Without one, the script is to be called again in `wait_ms`
    at the latest. `processes` counts those that are alive, `rank` is ours among them, from 0.
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
    while.
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


def checked_url(url: str) -> str:
    """Return a URL that redis-py takes; raise `InvalidInputError`, which does not quote it."""
    try:
        from redis.asyncio.connection import parse_url
    except ModuleNotFoundError as error:
        if error.name != "redis":
            raise
        message = "a shared quota needs redis-py: pip install 'bc_attrvals[redis]'"
        raise InvalidInputError(message, field="url") from None
    if not isinstance(url, str) or urlsplit(url).scheme not in _SCHEMES:
        message = "url must begin with redis://, rediss:// or unix://"
        raise InvalidInputError(message, field="url")
    try:
        parse_url(url)
    except (ValueError, TypeError):
        raise InvalidInputError("url is none that redis-py takes", field="url") from None
    return url


def place_of(url: str) -> str:
    """Return where a URL leads to, without user, password and options."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    port = "" if parts.port is None else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}{parts.path}"


class Link:
    """One connection for calls and one that listens. Bound to the running loop."""

    def __init__(self, url: str, key: str, process: str, timeout_s: float) -> None:
        self._url = url
        self._key = key
        self._process = process
        self._timeout_s = timeout_s
        self._redis: Redis | None = None
        self._pubsub: PubSub | None = None
        self._listener: asyncio.Task[None] | None = None
        self._sha = ""
        #: Whether listening has failed: grants then come in answers only.
        self.is_deaf = False
        self._decode_reply = msgspec.msgpack.Decoder(Reply)
        self._decode_grant = msgspec.msgpack.Decoder(Grant)

    async def connect(self, granted: Callable[[Grant], None], lost: Callable[[], None]) -> None:
        """Connect, load the script and listen; `lost` is called when listening fails.

        Raises `LinkError`; close it in any case.
        """
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        self._redis = Redis.from_url(
            self._url,
            socket_timeout=self._timeout_s,
            socket_connect_timeout=self._timeout_s,
            # A call that may have been done is made again by us, who know what has changed.
            retry=Retry(NoBackoff(), 0),
            health_check_interval=0,
            decode_responses=False,
            max_connections=4,
        )
        await self._guarded(self._open(self._redis))
        assert self._pubsub is not None
        self._listener = asyncio.create_task(self._listen(self._pubsub, granted, lost))

    async def _open(self, redis: Redis) -> None:
        self._sha = await redis.script_load(_SCRIPT)
        self._pubsub = redis.pubsub()
        await self._pubsub.subscribe(f"{self._key}:{self._process}")
        # Its answer: from here on every grant is heard.
        await self._pubsub.get_message(timeout=self._timeout_s)

    async def call(self, ask: Ask) -> Reply:
        """Call the script once. Raises `LinkError`; it may have been done then."""
        assert self._redis is not None
        message = msgspec.msgpack.encode(attrs.asdict(ask, recurse=False))
        # redis-py types it for both of its clients.
        answer = cast(Awaitable[bytes], self._redis.evalsha(self._sha, 1, self._key, message))
        try:
            return self._decode_reply.decode(await self._guarded(answer))
        except msgspec.MsgspecError:
            raise LinkError("DecodeError") from None

    async def aclose(self) -> None:
        """Let go of both connections; errors of a server that is gone play no part."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)
        for one in (self._pubsub, self._redis):
            if one is not None:
                try:
                    await _translated(one.aclose())  # type: ignore[no-untyped-call,unused-ignore]
                except LinkError:
                    continue
        self._pubsub = self._redis = None

    async def _listen(
        self, pubsub: PubSub, granted: Callable[[Grant], None], lost: Callable[[], None]
    ) -> None:
        while True:
            try:
                message = await self._guarded(
                    pubsub.get_message(ignore_subscribe_messages=True, timeout=_LISTEN_S)
                )
                if message is not None:
                    granted(self._decode_grant.decode(message["data"]))
            except (LinkError, msgspec.MsgspecError):
                self.is_deaf = True
                lost()
                return

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


async def _translated(work: Awaitable[Any]) -> Any:  # noqa: ANN401 - redis-py's own
    from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

    try:
        return await work
    except (AuthenticationError, NoPermissionError) as error:
        raise LinkError(type(error).__name__, refused=True) from None
    except (RedisError, OSError, TimeoutError) as error:
        # Its words may hold what stands in the URL.
        raise LinkError(type(error).__name__) from None
