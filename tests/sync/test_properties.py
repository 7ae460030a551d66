"""apply(plan(current, desired)) == desired within the scope, and nothing outside of it is touched.

The whole of it, over HTTP: each example is a store, a scope and desired values.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bc_attrvals import AttributeValueFilter, AttributeValueUpsert, Limits, Store, SyncReport
from bc_attrvals.sandbox import Quirks, Sandbox
from tests.conftest import make_store

Rows = dict[tuple[int, int], str]

CUSTOMERS = st.integers(1, 12)
ATTRIBUTES = st.integers(1, 5)
KEYS = st.tuples(CUSTOMERS, ATTRIBUTES)
VALUES = st.sampled_from(["", "a", "b", "ü"])
SOME = st.none() | st.lists(CUSTOMERS, max_size=12)
SOME_ATTRIBUTES = st.none() | st.lists(ATTRIBUTES, max_size=5)


@attrs.frozen
class Emulation:
    """A sandbox and a store in a loop that lasts for all examples."""

    runner: asyncio.Runner
    sandbox: Sandbox
    store: Store


@pytest.fixture(scope="module")
def emulation() -> Iterator[Emulation]:
    with asyncio.Runner() as runner:
        # Small pages and calls, so that modest examples take several of each.
        limits = Limits(page_size=5, batch_size=3, delete_size=4)
        sandbox = Sandbox(quota=None, quirks=Quirks(order="shuffled"))
        runner.run(sandbox.start())
        store = make_store(sandbox, limits=limits)
        runner.run(store.__aenter__())
        yield Emulation(runner, sandbox, store)
        runner.run(store.aclose())
        runner.run(sandbox.aclose())


@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    current=st.dictionaries(KEYS, VALUES, max_size=40),
    desired=st.lists(st.tuples(KEYS, VALUES), max_size=40),
    customers=SOME,
    attributes=SOME_ATTRIBUTES,
    prune=st.booleans(),
    has_scope=st.booleans(),
)
def test_a_sync_makes_the_scope_as_desired_and_touches_nothing_else(
    emulation: Emulation,
    current: Rows,
    desired: list[tuple[tuple[int, int], str]],
    customers: list[int] | None,
    attributes: list[int] | None,
    prune: bool,
    has_scope: bool,
) -> None:
    scope = AttributeValueFilter(customers, attributes) if has_scope or prune else None

    def in_scope(key: tuple[int, int]) -> bool:
        return scope is None or (
            (customers is None or key[0] in customers)
            and (attributes is None or key[1] in attributes)
        )

    wanted = [(key, value) for key, value in desired if in_scope(key)]
    expected = dict(wanted)
    kept = {k: v for k, v in current.items() if not (prune and in_scope(k))}

    async def check() -> None:
        sandbox = emulation.sandbox
        values = emulation.store.attribute_values
        await sandbox.reset()
        await sandbox.seed([(*key, value) for key, value in current.items()])
        before = {row.id: row for row in await sandbox.rows()}
        items = [AttributeValueUpsert(*key, value) for key, value in wanted]
        plan = await values.plan_sync(items, scope=scope, prune=prune, allow_empty=True)
        assert {row.id: row for row in await sandbox.rows()} == before

        sandbox.requests.clear()
        report = await values.sync(items, scope=scope, prune=prune, allow_empty=True)
        assert await sandbox.values() == kept | expected
        after = {row.id: row for row in await sandbox.rows()}
        outside = [
            row for row in before.values() if not in_scope((row.customer_id, row.attribute_id))
        ]
        assert all(after[row.id] == row for row in outside)
        assert report == SyncReport(
            created=plan.create,
            updated=plan.update,
            deleted=plan.delete,
            unchanged=plan.unchanged,
            written=plan.write,
            failed=0,
            calls=plan.calls,
            superseded=len(wanted) - len(expected),
            seconds=report.seconds,
        )
        assert report.calls == len(sandbox.requests)
        assert report.created + report.updated + report.unchanged + report.written == len(expected)
        again = await values.plan_sync(items, scope=scope, prune=prune, allow_empty=True)
        assert (again.create, again.update, again.delete) == (0, 0, 0)

    emulation.runner.run(check())
