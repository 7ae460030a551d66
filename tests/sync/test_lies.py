"""A sync of a store that lies touches nothing outside of its scope, and ends, in bounded calls."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bc_attrvals import (
    AttributeValueFilter,
    AttributeValueUpsert,
    BCAttrValsError,
    FilterIgnoredError,
    Limits,
    ListingDriftError,
    RetryPolicy,
    Store,
    SyncPlan,
    SyncReport,
)
from tests.raw_server import TOKEN, RawServer
from tests.sync.lying_store import Key, Lies, LyingStore

CUSTOMERS = st.integers(1, 8)
ATTRIBUTES = st.integers(1, 4)
VALUES = st.dictionaries(
    st.tuples(CUSTOMERS, ATTRIBUTES), st.sampled_from(["", "a", " b ", "ü"]), max_size=30
)
LIES = st.builds(
    Lies,
    ignores=st.frozensets(st.sampled_from(["customer_id:in", "attribute_id:in"])),
    hidden=st.just(frozenset()) | st.frozensets(st.integers(0, 29), max_size=4),
    repeats_page=st.none() | st.integers(1, 2),
    page_cap=st.sampled_from([250, 3]),
    total_added=st.sampled_from([0, 0, 0, -3, 1, 7, 1_000]),
    total_pages=st.sampled_from(["right", "right", "one", "none", "many"]),
    current_page=st.sampled_from(["right", "right", "one", "zero"]),
    null_value=st.booleans(),
    put=st.sampled_from(["honest", "honest", "html", "empty", "nothing", "trims"]),
    delete=st.sampled_from(["honest", "honest", "html", "errors", "accepted"]),
)


@attrs.frozen
class Served:
    """A raw server and a Store on it, in a loop that lasts for all examples."""

    runner: asyncio.Runner
    server: RawServer
    store: Store


async def _silent(*_: object) -> None:
    raise AssertionError("no store is served")


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with asyncio.Runner() as runner:
        server = RawServer(_silent)
        runner.run(server.start())
        store = Store(
            "lies",
            TOKEN,
            base_url=server.url,
            limits=Limits(page_size=5, batch_size=3, delete_size=4),
            retry=RetryPolicy(attempts=2, base_s=0.0001, cap_s=0.001),
        )
        runner.run(store.__aenter__())
        yield Served(runner, server, store)
        runner.run(store.aclose())
        runner.run(server.aclose())


@settings(
    max_examples=250,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    current=VALUES,
    desired=VALUES,
    customers=st.none() | st.lists(CUSTOMERS, max_size=8),
    attributes=st.lists(ATTRIBUTES, max_size=3),
    lies=LIES,
)
@example({(1, 1): "a", (2, 2): "b"}, {}, None, [1], Lies(ignores=frozenset({"attribute_id:in"})))
@example({(n, 1): "a" for n in range(1, 9)}, {}, None, [1], Lies(hidden=frozenset({2})))
def test_a_lying_store_loses_no_row_outside_of_the_scope_and_no_desired_one(
    served: Served,
    current: dict[Key, str],
    desired: dict[Key, str],
    customers: list[int] | None,
    attributes: list[int],
    lies: Lies,
) -> None:
    def in_scope(key: Key) -> bool:
        return (customers is None or key[0] in customers) and key[1] in attributes

    lying = LyingStore.holding(current, lies)
    before = dict(lying.rows)
    wanted = {key: value for key, value in desired.items() if in_scope(key)}

    async def sync() -> object:
        served.server.script = lying.script
        try:
            return await served.store.attribute_values.sync(
                [AttributeValueUpsert(*key, value) for key, value in wanted.items()],
                scope=AttributeValueFilter(customers, attributes),
                prune=True,
                allow_empty=True,
            )
        except BCAttrValsError as error:
            return error.report

    report = served.runner.run(sync())
    assert isinstance(report, SyncReport)
    for number, (key, value) in before.items():
        if not in_scope(key):
            assert lying.rows[number] == (key, value)
    assert all(in_scope(before[one][0]) for one in lying.deleted)
    assert not {before[one][0] for one in lying.deleted} & wanted.keys()
    assert lying.written <= wanted.keys()
    # Only what is true is reported.
    assert report.deleted <= len(before.keys() - lying.rows.keys())
    assert report.calls == lying.calls <= 150


@pytest.mark.parametrize(
    ("lies", "error"),
    [
        (Lies(ignores=frozenset({"attribute_id:in"})), FilterIgnoredError),
        (Lies(hidden=frozenset({3, 7})), ListingDriftError),
        (Lies(repeats_page=1), ListingDriftError),
        (Lies(total_added=5), ListingDriftError),
    ],
    ids=["filter ignored", "rows hidden", "pages repeated", "total too large"],
)
def test_nothing_is_written_on_the_word_of_a_lying_listing(
    served: Served, lies: Lies, error: type[BCAttrValsError]
) -> None:
    values = {(customer, attribute): "x" for customer in range(1, 9) for attribute in (1, 2)}
    lying = LyingStore.holding(values, lies)

    async def sync() -> None:
        served.server.script = lying.script
        await served.store.attribute_values.sync(
            [AttributeValueUpsert(1, 1, "y")],
            scope=AttributeValueFilter(attribute_id_in=[1]),
            prune=True,
        )

    with pytest.raises(error):
        served.runner.run(sync())
    assert (lying.deleted, lying.written) == (set(), set())


@pytest.mark.parametrize("job", ["sync", "delete_where"])
def test_rows_that_a_listing_repeats_under_other_ids_are_not_deleted(
    served: Served, job: str
) -> None:
    """These ids are those of rows outside, whatever the listing says of them."""
    values = {(customer, attribute): "x" for customer in range(1, 9) for attribute in (1, 2)}
    lying = LyingStore.holding(values, Lies(renumbers=True))
    scope = AttributeValueFilter(attribute_id_in=[1])

    async def run() -> None:
        served.server.script = lying.script
        resource = served.store.attribute_values
        if job == "sync":
            await resource.sync([AttributeValueUpsert(9, 1, "y")], scope=scope, prune=True)
        else:
            await resource.delete_where(scope)

    with pytest.raises(
        ListingDriftError, match=r"row [246] was listed for customer [123]"
    ) as caught:
        served.runner.run(run())
    assert lying.deleted == set()
    assert getattr(caught.value.report, "deleted", None) == 0
    assert lying.calls <= 4


@pytest.mark.parametrize("is_plan", [True, False])
def test_nothing_is_written_where_a_listing_repeats_rows_that_would_be_pruned(
    served: Served, tmp_path: Path, is_plan: bool
) -> None:
    """The same call over the journal then reads the store anew, and reports all that was done."""
    values = {(customer, attribute): "x" for customer in range(1, 9) for attribute in (1, 2)}
    lying = LyingStore.holding(values, Lies(renumbers=True))
    desired = [AttributeValueUpsert(customer, 1, "y") for customer in (1, 9)]
    scope = AttributeValueFilter(attribute_id_in=[1])

    async def sync() -> SyncReport | SyncPlan:
        served.server.script = lying.script
        values = served.store.attribute_values
        if is_plan:
            return await values.plan_sync(desired, scope=scope, prune=True)
        journal = tmp_path / "journal.db"
        return await values.sync(desired, scope=scope, prune=True, journal=journal)

    with pytest.raises(ListingDriftError):
        served.runner.run(sync())
    assert (lying.deleted, lying.written) == (set(), set())
    lying.lies = Lies()
    done = served.runner.run(sync())
    if isinstance(done, SyncPlan):
        assert (done.create, done.update, done.delete) == (1, 1, 7)
        return
    assert (done.resumed, done.created, done.updated, done.deleted) == (True, 1, 1, 7)
    rows = dict(lying.rows.values())
    assert rows == {**{(n, 2): "x" for n in range(1, 9)}, (1, 1): "y", (9, 1): "y"}


def test_the_same_store_without_lies_is_made_as_desired(served: Served) -> None:
    values = {(customer, attribute): "x" for customer in range(1, 9) for attribute in (1, 2)}
    lying = LyingStore.holding(values, Lies())

    async def sync() -> SyncReport:
        served.server.script = lying.script
        return await served.store.attribute_values.sync(
            [AttributeValueUpsert(1, 1, "y"), AttributeValueUpsert(2, 1, "x")],
            scope=AttributeValueFilter(attribute_id_in=[1]),
            prune=True,
        )

    report = served.runner.run(sync())
    assert (report.updated, report.unchanged, report.deleted) == (1, 1, 6)
    assert dict(lying.rows.values()) == {
        **{(customer, 2): "x" for customer in range(1, 9)},
        (1, 1): "y",
        (2, 1): "x",
    }
