"""What jobs of a fleet name by module: a worker imports it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from bc_attrvals import AttributeValueUpsert

VALUES = 300


def token(store_hash: str) -> str:
    return f"s3cret-token-of-{store_hash}"


def broken_token() -> str:
    raise ValueError("s3cret-token-in-words")


def values(store_hash: str) -> Iterator[AttributeValueUpsert]:
    number = sum(map(ord, store_hash))
    for customer_id in range(1, VALUES + 1):
        yield AttributeValueUpsert(customer_id, 1, f"{number}-{customer_id}")


async def no_values() -> AsyncIterator[AttributeValueUpsert]:
    for customer_id in ():
        yield AttributeValueUpsert(customer_id, 1, "")


async def endless() -> AsyncIterator[AttributeValueUpsert]:
    customer_id = 0
    while True:
        customer_id += 1
        await asyncio.sleep(0.001)
        yield AttributeValueUpsert(customer_id % 100 + 1, 1, "v")


def deadly() -> Iterator[AttributeValueUpsert]:
    """Kill the worker that reads it, the first time: a mark says that it did."""
    mark = Path(os.environ["FLEET_MARK"])
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    yield AttributeValueUpsert(1, 1, "after all")


def stops_iterating() -> Iterator[AttributeValueUpsert]:
    return next(iter([]))


def exits() -> Iterator[AttributeValueUpsert]:
    raise SystemExit(3)


async def exits_late() -> AsyncIterator[AttributeValueUpsert]:
    yield AttributeValueUpsert(1, 1, "")
    raise SystemExit(3)


async def cancels() -> AsyncIterator[AttributeValueUpsert]:
    yield AttributeValueUpsert(1, 1, "")
    raise asyncio.CancelledError


class Panic(BaseException):
    """As an extension's that is no Exception."""


def panics() -> Iterator[AttributeValueUpsert]:
    yield AttributeValueUpsert(1, 1, "")
    raise Panic("of an extension")


def panics_at_last() -> Iterator[AttributeValueUpsert]:
    try:
        while True:
            yield AttributeValueUpsert(1, 1, "")
            yield AttributeValueUpsert(1, 1, None)
    finally:
        raise Panic("while it is closed")


async def panics_late() -> AsyncIterator[AttributeValueUpsert]:
    yield AttributeValueUpsert(1, 1, "")
    raise BaseExceptionGroup("several", [Panic("one"), ValueError("another")])


async def ends_as_generator() -> AsyncIterator[AttributeValueUpsert]:
    yield AttributeValueUpsert(1, 1, "")
    raise GeneratorExit


def token_panics() -> str:
    raise Panic("s3cret-token-in-words")


def token_exits() -> str:
    raise SystemExit(3)


def nowhere() -> str:
    return "redis://:s3cret@127.0.0.1:9"


def proxy() -> str:
    return "socks5://user:s3cret@127.0.0.1:1"
