"""Batching: nothing is lost or doubled, and no key is under way twice in one Store.

The property runs several batchers that share one registry, as the jobs of a Store do, through
random steps beside a model of what each must hold.
"""

from __future__ import annotations

from collections import Counter
from random import Random

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bc_attrvals.core.models import AttributeValueUpsert, Key
from bc_attrvals.writing.batching import MOST_BY_CUSTOMERS, Batcher, KeyRegistry


def item(customer: int, value: object = "", attribute: int = 1) -> AttributeValueUpsert:
    return AttributeValueUpsert(customer, attribute, str(value))


def make(size: int = 10) -> tuple[KeyRegistry, Batcher]:
    registry = KeyRegistry()
    return registry, Batcher(registry, size)


# --- one job ---------------------------------------------------------------------------------


def test_items_come_out_in_the_order_they_came_cut_to_size() -> None:
    registry, batcher = make(size=3)
    items = [item(customer) for customer in (5, 3, 9, 1, 7)]
    assert [batcher.feed(one) for one in items] == [None] * 5
    assert (len(batcher), len(batcher.ready)) == (5, 5)
    assert list(batcher.take().values()) == items[:3]
    assert list(batcher.take().values()) == items[3:]
    assert list(batcher.take().values()) == []
    assert (len(batcher), len(registry)) == (0, 5)


def test_the_latest_of_equals_takes_the_place_of_the_first() -> None:
    _, batcher = make()
    first, other, latest = item(1, "a"), item(2), item(1, "b")
    batcher.feed(first)
    batcher.feed(other)
    assert batcher.feed(latest) is first
    assert list(batcher.take().values()) == [latest, other]


@pytest.mark.parametrize("waits", [False, True])
def test_items_taken_in_together_supersede_one_another_too(waits: bool) -> None:
    _, batcher = make(size=3)
    first, other, latest, last = item(1, "a"), item(2), item(1, "b"), item(3)
    if waits:
        batcher.feed(item(2, "waits"))
    superseded = batcher.fill([first, other, latest, last])
    assert superseded == ([item(2, "waits"), first] if waits else [first])
    assert batcher.fill([]) == []
    batch = list(batcher.take().values())
    assert batch == ([other, latest, last] if waits else [latest, other, last])
    assert len(batcher) == 0


def test_one_customers_attributes_are_different_keys() -> None:
    _, batcher = make()
    items = [item(1, attribute=attribute) for attribute in (1, 2)]
    assert [batcher.feed(one) for one in items] == [None, None]
    assert list(batcher.take().values()) == items


def test_a_key_under_way_is_parked_until_its_call_has_ended() -> None:
    registry, batcher = make()
    batcher.feed(item(1, "a"))
    batch = batcher.take()
    assert batcher.feed(item(1, "b")) is None
    assert (len(batcher), len(batcher.ready)) == (1, 0)
    assert list(batcher.take().values()) == []
    registry.release(batch)
    assert (len(batcher), len(batcher.ready)) == (1, 1)
    assert list(batcher.take().values()) == [item(1, "b")]


def test_of_parked_equals_the_latest_wins() -> None:
    registry, batcher = make()
    batcher.feed(item(1, "a"))
    batcher.take()
    parked = item(1, "b")
    assert batcher.feed(parked) is None
    assert batcher.feed(item(1, "c")) is parked
    registry.release([(1, 1)])
    assert list(batcher.take().values()) == [item(1, "c")]
    assert len(batcher) == 0


def test_a_full_batch_leaves_the_rest_ready() -> None:
    _, batcher = make(size=1)
    batcher.feed(item(1))
    batcher.feed(item(2))
    assert list(batcher.take().values()) == [item(1)]
    assert len(batcher.ready) == 1


def test_draining_gives_up_all_that_waits_and_holds_nothing() -> None:
    registry, batcher = make(size=1)
    batcher.feed(item(1, "a"))
    batcher.take()
    batcher.feed(item(1, "b"))
    batcher.feed(item(2))
    assert sorted(batcher.drain(), key=lambda one: one.key) == [item(1, "b"), item(2)]
    assert (len(batcher), len(batcher.ready), batcher.drain()) == (0, 0, [])
    registry.release([(1, 1)])
    assert (len(batcher), len(registry)) == (0, 0)


def test_a_batch_of_customers_holds_all_their_items_however_they_came() -> None:
    registry, batcher = make(size=2)
    batcher.customers = 2
    for customer, attribute in ((1, 1), (2, 1), (1, 2), (3, 1), (2, 2), (1, 3), (3, 2)):
        batcher.feed(item(customer, attribute=attribute))
    assert list(batcher.take()) == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2)]
    assert list(batcher.take()) == [(3, 1), (3, 2)]
    assert (len(batcher), len(registry)) == (0, 7)


def test_batches_of_customers_have_room_for_rows_that_do_not_come_together() -> None:
    _, batcher = make()
    batcher.customers = 2
    for customer in range(1, MOST_BY_CUSTOMERS):
        batcher.feed(item(customer))
    assert batcher.room == 1
    batcher.feed(item(1, attribute=2))
    assert batcher.room == 0
    assert list(batcher.take()) == [(1, 1), (1, 2), (2, 1)]


def test_a_key_under_way_leaves_its_customer_out_of_a_batch_of_customers() -> None:
    registry, batcher = make()
    batcher.customers = 1
    for customer in (1, 2):
        batcher.feed(item(customer))
    registry.held.update([(1, 1)])
    assert list(batcher.take()) == [(2, 1)]
    registry.release([(1, 1)])
    assert list(batcher.take()) == [(1, 1)]


# --- several jobs of one Store ---------------------------------------------------------------


def test_a_key_that_another_job_took_since_is_parked_when_it_would_be_taken() -> None:
    registry = KeyRegistry()
    one, other = Batcher(registry, 10), Batcher(registry, 10)
    one.feed(item(1, "one"))
    other.feed(item(1, "other"))
    other.feed(item(2))
    assert list(one.take().values()) == [item(1, "one")]
    assert list(other.take().values()) == [item(2)]
    assert (len(other), len(other.ready)) == (1, 0)
    registry.release([(1, 1)])
    assert list(other.take().values()) == [item(1, "other")]


def test_a_job_is_woken_when_its_parked_key_is_free_and_only_then() -> None:
    registry = KeyRegistry()
    woken: list[str] = []
    one = Batcher(registry, 10, lambda: woken.append("one"))
    other = Batcher(registry, 10, lambda: woken.append("other"))
    one.feed(item(1))
    one.feed(item(2))
    one.take()
    other.feed(item(1, "other"))
    registry.release([(2, 1)])
    assert woken == []
    registry.release([(1, 1)])
    assert woken == ["other"]
    registry.release([(1, 1)])
    assert woken == ["other"]


def test_a_drained_job_is_woken_no_more() -> None:
    registry = KeyRegistry()
    woken: list[str] = []
    one = Batcher(registry, 10)
    other = Batcher(registry, 10, lambda: woken.append("other"))
    third = Batcher(registry, 10, lambda: woken.append("third"))
    one.feed(item(1))
    one.take()
    other.feed(item(1))
    third.feed(item(1))
    other.drain()
    registry.release([(1, 1)])
    assert woken == ["third"]
    assert registry._waiting == {}


def test_a_job_that_lost_a_key_to_another_has_it_next() -> None:
    """A job whose input is one key without end must not keep the others from it for good."""
    registry = KeyRegistry()
    batches: list[tuple[str, dict[Key, AttributeValueUpsert]]] = []

    def take(name: str) -> None:
        if batch := jobs[name].take():
            batches.append((name, batch))

    jobs = {name: Batcher(registry, 10, lambda name=name: take(name)) for name in ("hot", "cold")}
    jobs["hot"].feed(item(1, "hot"))
    jobs["cold"].feed(item(1, "cold"))
    take("hot")
    jobs["hot"].feed(item(1, "hot again"))
    take("cold")
    registry.release([(1, 1)])
    assert [name for name, _ in batches] == ["hot", "cold"]
    registry.release([(1, 1)])
    assert [name for name, _ in batches] == ["hot", "cold", "hot"]


def test_jobs_that_wait_for_one_key_have_it_in_the_order_they_came() -> None:
    registry = KeyRegistry()
    woken: list[str] = []
    jobs = {
        name: Batcher(registry, 10, lambda name=name: woken.append(name))
        for name in ("b", "c", "a")
    }
    registry.held.update([(1, 1)])
    for job in jobs.values():
        job.feed(item(1))
    registry.release([(1, 1)])
    assert woken == ["b", "c", "a"]


def test_a_job_that_is_woken_may_drain_another_that_waits_for_the_same_key() -> None:
    """As one does whose answer ends them both."""
    registry = KeyRegistry()
    other = Batcher(registry, 10)
    drained: list[AttributeValueUpsert] = []
    one = Batcher(registry, 10, lambda: drained.extend(other.drain()))
    registry.held.update([(1, 1)])
    one.feed(item(1, "one"))
    other.feed(item(1, "other"))
    registry.release([(1, 1)])
    assert drained == [item(1, "other")]
    assert (len(one.ready), len(other), registry._waiting) == (1, 0, {})


def test_releasing_what_is_not_held_is_harmless() -> None:
    registry, batcher = make()
    registry.release([(1, 1), (1, 1)])
    batcher.feed(item(1))
    assert list(batcher.take().values()) == [item(1)]
    assert (1, 1) in registry
    assert (2, 1) not in registry


# --- properties ------------------------------------------------------------------------------


@attrs.define(eq=False)
class Job:
    """A batcher, and what a model says that it must hold."""

    batcher: Batcher
    fed: int = 0
    superseded: int = 0
    taken: int = 0
    drained: int = 0
    woken: int = 0
    waiting: dict[Key, AttributeValueUpsert] = attrs.field(factory=dict)


class Jobs:
    """Several jobs of one Store, each step checked."""

    def __init__(self, count: int, size: int, *, eager: bool, customers: int = 0) -> None:
        self.registry = KeyRegistry()
        self.size = size
        self.eager = eager
        self.releasing = False
        self.fed = 0
        self.under_way: list[dict[Key, AttributeValueUpsert]] = []
        self.jobs: list[Job] = []
        for number in range(count):
            woken = self._woken_of(number)
            self.jobs.append(Job(Batcher(self.registry, size, woken)))
            self.jobs[-1].batcher.customers = customers
        self.customers = customers

    def _woken_of(self, number: int):
        def woken() -> None:
            self.jobs[number].woken += 1
            if self.eager:
                # In the midst of a release, which frees one key after the other.
                self.take(number)

        return woken

    def feed(self, number: int, key: Key) -> None:
        job = self.jobs[number]
        self.fed += 1
        fed = AttributeValueUpsert(*key, str(self.fed))
        many = job.batcher.fill([fed]) if self.fed % 2 else [job.batcher.feed(fed)]
        superseded = many[0] if many else None
        assert superseded is job.waiting.get(key), "what it replaces is what waited"
        job.superseded += superseded is not None
        job.fed += 1
        job.waiting[key] = fed

    def take(self, number: int) -> None:
        job = self.jobs[number]
        free = {key for key in job.waiting if key not in self.held}
        batch = job.batcher.take()
        keys = list(batch)
        if self.customers:
            taken = {customer for customer, _ in keys}
            assert len(taken) <= self.customers
            if not self.releasing:
                assert {key for key in free if key[0] in taken} == set(keys)
                assert len(taken) == min(self.customers, len({customer for customer, _ in free}))
        else:
            assert len(keys) <= self.size
            if not self.releasing:
                smallest = min(self.size, len(free))
                assert len(keys) == smallest, "a batch is no smaller than it must be"
        assert free.issuperset(keys), "a key is under way twice"
        for key, one in batch.items():
            assert one.key == key
            assert job.waiting.pop(key) is one, "the latest of equals goes out"
        job.taken += len(batch)
        if batch:
            self.under_way.append(batch)

    def release(self, call: int) -> None:
        batch = self.under_way.pop(call)
        self.releasing = True
        self.registry.release(batch)
        self.releasing = False

    def drain(self, number: int) -> None:
        job = self.jobs[number]
        drained = job.batcher.drain()
        assert Counter(map(id, drained)) == Counter(map(id, job.waiting.values()))
        job.drained += len(drained)
        job.waiting.clear()

    @property
    def held(self) -> set[Key]:
        return {key for batch in self.under_way for key in batch}

    def check(self) -> None:
        held = self.held
        assert len(held) == sum(map(len, self.under_way)) == len(self.registry)
        assert all(key in self.registry for key in held)
        for job in self.jobs:
            assert len(job.batcher) == len(job.waiting)
            assert job.fed == job.taken + job.superseded + job.drained + len(job.batcher)
            free = sum(key not in held for key in job.waiting)
            # One that another job took since is found out when it would be taken.
            assert free <= len(job.batcher.ready) <= len(job.batcher)


def examples(count: int) -> settings:
    return settings(
        max_examples=count,
        derandomize=True,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def run(seed: int, jobs: Jobs, steps: int, keys: int) -> None:
    random = Random(seed)
    count = len(jobs.jobs)
    for _ in range(steps):
        step = random.random()
        if step < 0.5:
            jobs.feed(random.randrange(count), (random.randint(1, keys), random.randint(1, 2)))
        elif step < 0.7:
            jobs.take(random.randrange(count))
        elif step < 0.98 and jobs.under_way:
            jobs.release(random.randrange(len(jobs.under_way)))
        elif step >= 0.98:
            jobs.drain(random.randrange(count))
        jobs.check()


many_jobs = given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 4),
    size=st.sampled_from([1, 2, 10]),
    keys=st.sampled_from([1, 3, 30]),
    eager=st.booleans(),
    customers=st.sampled_from([0, 0, 1, 3]),
)


@examples(200)
@many_jobs
def test_whatever_happens_nothing_is_lost_or_doubled_and_no_key_is_under_way_twice(
    seed: int, count: int, size: int, keys: int, eager: bool, customers: int
) -> None:
    jobs = Jobs(count, size, eager=eager, customers=customers)
    run(seed, jobs, 150, keys)


@examples(100)
@many_jobs
def test_all_that_waits_goes_out_in_the_end(
    seed: int, count: int, size: int, keys: int, eager: bool, customers: int
) -> None:
    jobs = Jobs(count, size, eager=eager, customers=customers)
    run(seed, jobs, 80, keys)
    random = Random(seed)
    for _ in range(1_000):
        # Only those that were woken, or have something ready, look again: as the bulk writer does.
        ready = [number for number, job in enumerate(jobs.jobs) if job.batcher.ready]
        for number in ready:
            jobs.take(number)
        if not jobs.under_way:
            break
        jobs.release(random.randrange(len(jobs.under_way)))
        jobs.check()
    assert [len(job.batcher) for job in jobs.jobs] == [0] * count
    assert len(jobs.registry) == 0
    assert jobs.registry._waiting == {}


@examples(60)
@many_jobs
def test_when_all_jobs_are_drained_nobody_waits_for_a_key(
    seed: int, count: int, size: int, keys: int, eager: bool, customers: int
) -> None:
    jobs = Jobs(count, size, eager=eager, customers=customers)
    run(seed, jobs, 80, keys)
    for number in range(count):
        jobs.drain(number)
    assert jobs.registry._waiting == {}
    woken = [job.woken for job in jobs.jobs]
    while jobs.under_way:
        jobs.release(0)
    jobs.check()
    assert [job.woken for job in jobs.jobs] == woken
    assert len(jobs.registry) == 0


@pytest.mark.parametrize("eager", [False, True])
def test_values_of_one_key_go_out_in_the_order_they_came(eager: bool) -> None:
    random = Random(3)
    jobs = Jobs(1, 2, eager=eager)
    sent: list[int] = []
    for _ in range(3_000):
        before = len(jobs.under_way)
        step = random.random()
        if step < 0.5:
            jobs.feed(0, (1, 1))
        elif step < 0.75:
            jobs.take(0)
        elif jobs.under_way:
            before -= 1
            jobs.release(0)
        sent += [int(one.value) for batch in jobs.under_way[before:] for one in batch.values()]
    assert sent == sorted(set(sent))
    assert len(sent) > 300
