"""Events: delivered to all who listen, whatever one of them does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import get_args

import attrs
import pytest

import bc_attrvals
from bc_attrvals import events
from bc_attrvals.core.requests import Operation
from bc_attrvals.core.sync_states import Phase
from bc_attrvals.events import (
    Event,
    EventBus,
    JobEnded,
    JobStarted,
    ListingDriftSeen,
    MirrorFoundWrong,
    MirrorProgressed,
    QuotaExhausted,
    RequestAnswered,
    RequestRetrying,
    RequestSent,
    SharedQuotaLost,
    SharedQuotaRegained,
    SyncProgressed,
)

SENT = RequestSent(Operation.READ, 1)
ALL = [
    SENT,
    RequestAnswered(Operation.WRITE, 200, 0.1, 512, "r-1"),
    RequestRetrying(Operation.DELETE, 1, 0.5, "ServerError"),
    QuotaExhausted(150, 12.5),
    JobStarted(1, "upsert"),
    JobEnded(1, "upsert", 2.5, 12, 1, (("stored", 120),)),
    ListingDriftSeen(3, 100, 99),
    MirrorProgressed(250),
    MirrorFoundWrong(1, 0, 0, 0),
    SharedQuotaLost(0.25, "ConnectionError"),
    SyncProgressed(Phase.WRITING, 10, 1, total=20),
    SharedQuotaRegained(1.5, forgotten=True),
]


def test_events_reach_all_subscribers_in_the_order_of_things() -> None:
    bus, heard = EventBus(), []
    for name in ("first", "second"):
        bus.subscribe(lambda event, name=name: heard.append((name, event)))
    for event in ALL:
        bus.emit(event)
    assert heard == [(name, event) for event in ALL for name in ("first", "second")]


def test_a_subscriber_that_raises_harms_nobody_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bus, heard = EventBus(), []

    def broken(event: Event) -> None:
        raise RuntimeError("broken subscriber")

    bus.subscribe(heard.append)
    bus.subscribe(broken)
    bus.subscribe(heard.append)
    with caplog.at_level(logging.ERROR, logger="bc_attrvals"):
        bus.emit(SENT)
        bus.emit(SENT)
    assert heard == [SENT] * 4
    assert [record.getMessage() for record in caplog.records] == [
        "a subscriber failed on RequestSent"
    ] * 2
    assert caplog.records[0].exc_info is not None


class Odd(BaseException):
    """No Exception."""


@pytest.mark.parametrize("error", [asyncio.CancelledError, SystemExit, GeneratorExit, Odd])
def test_a_subscriber_may_raise_anything(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    bus, heard = EventBus(), []

    def broken(event: Event) -> None:
        raise error

    bus.subscribe(broken)
    bus.subscribe(heard.append)
    bus.emit(SENT)
    assert heard == [SENT]
    assert "a subscriber failed on RequestSent" in caplog.text


def test_an_interrupt_in_a_subscriber_ends_the_loop_after_what_reports_the_event() -> None:
    bus, heard = EventBus(), []

    def interrupted(event: Event) -> None:
        raise KeyboardInterrupt

    async def work() -> None:
        bus.subscribe(interrupted)
        bus.subscribe(heard.append)
        bus.emit(SENT)
        heard.append("went on")
        await asyncio.sleep(60)

    loop = asyncio.new_event_loop()
    task = loop.create_task(work())
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(task)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()
    assert heard == [SENT, "went on"]


def test_unsubscribing_ends_the_delivery_and_twice_is_harmless() -> None:
    bus, one, other = EventBus(), [], []
    unsubscribe = bus.subscribe(one.append)
    bus.subscribe(other.append)
    bus.emit(SENT)
    unsubscribe()
    unsubscribe()
    bus.emit(SENT)
    assert (one, other) == ([SENT], [SENT, SENT])


def test_one_callback_subscribed_twice_is_called_twice_and_taken_out_once_at_a_time() -> None:
    bus, heard = EventBus(), []
    callback: Callable[[Event], object] = heard.append
    first, second = bus.subscribe(callback), bus.subscribe(callback)
    bus.emit(SENT)
    assert len(heard) == 2
    first()
    first()
    bus.emit(SENT)
    assert len(heard) == 3
    second()
    bus.emit(SENT)
    assert len(heard) == 3


def test_subscribing_and_unsubscribing_while_an_event_is_delivered_counts_from_the_next() -> None:
    bus, heard = EventBus(), []

    def once(event: Event) -> None:
        heard.append("once")
        unsubscribe()
        bus.subscribe(lambda event: heard.append("later"))

    unsubscribe = bus.subscribe(once)
    bus.subscribe(lambda event: heard.append("other"))
    bus.emit(SENT)
    assert heard == ["once", "other"]
    bus.emit(SENT)
    assert heard == ["once", "other", "other", "later"]


def test_an_event_emitted_by_a_subscriber_is_delivered() -> None:
    bus, heard = EventBus(), []

    def answer(event: Event) -> None:
        heard.append(event)
        if isinstance(event, RequestSent):
            bus.emit(ALL[1])

    bus.subscribe(answer)
    bus.emit(SENT)
    assert heard == ALL[:2]


def test_a_bus_is_true_while_anyone_listens() -> None:
    bus = EventBus()
    assert not bus
    unsubscribe = bus.subscribe(lambda event: None)
    assert bus
    unsubscribe()
    assert not bus


def test_with_nobody_listening_emitting_does_nothing() -> None:
    EventBus().emit(SENT)


@pytest.mark.parametrize("event", ALL, ids=lambda event: type(event).__name__)
def test_events_are_frozen_slotted_and_equal_by_their_fields(event: Event) -> None:
    name = attrs.fields(type(event))[0].name
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(event, name, None)
    assert not hasattr(event, "__dict__")
    assert attrs.evolve(event) == event
    assert hash(attrs.evolve(event)) == hash(event)


def test_every_event_is_exported_and_part_of_the_union() -> None:
    assert {type(event) for event in ALL} == set(get_args(Event))
    names = {cls.__name__ for cls in get_args(Event)}
    made = {name for name, one in vars(events).items() if attrs.has(one)}
    assert made == names
    assert names | {"Event"} <= set(bc_attrvals.__all__)
