"""The changes of a plan, one by one."""

from __future__ import annotations

import json

from bc_attrvals import AttributeValueFilter, AttributeValueUpsert, ChangeKind, Store, SyncChange
from bc_attrvals.sandbox import Sandbox

FIRST = AttributeValueFilter(attribute_id_in=[1])


async def test_a_plan_shows_every_change_in_order_and_writes_nothing(
    sandbox: Sandbox, store: Store
) -> None:
    await sandbox.seed((customer, 1, f"v{customer}") for customer in range(1, 9_001))
    before = await sandbox.values()
    desired = [
        AttributeValueUpsert(customer, 1, "new" if customer % 2 else f"v{customer}")
        for customer in range(4_001, 14_001)
    ]
    shown: list[SyncChange] = []
    lists: list[int] = []

    async def show(changes: list[SyncChange]) -> None:
        shown.extend(changes)
        lists.append(len(changes))

    plan = await store.attribute_values.plan_sync(
        reversed(desired), scope=FIRST, prune=True, show_changes=show
    )
    assert (plan.create, plan.update, plan.delete) == (5_000, 2_500, 4_000)
    expected = [
        *(
            SyncChange(ChangeKind.UPDATE, one, 1, f"v{one}", "new")
            for one in range(4_001, 9_001, 2)
        ),
        *(
            SyncChange(ChangeKind.CREATE, one, 1, None, "new" if one % 2 else f"v{one}")
            for one in range(9_001, 14_001)
        ),
        *(SyncChange(ChangeKind.DELETE, one, 1, f"v{one}", None) for one in range(1, 4_001)),
    ]
    assert shown == expected
    assert max(lists) <= 4_096
    assert await sandbox.values() == before


async def test_a_plan_that_reads_nothing_shows_writes_unless_it_always_reads(
    sandbox: Sandbox, store: Store
) -> None:
    await sandbox.seed([(1, 1, "old"), (2, 1, "same")])
    desired = [AttributeValueUpsert(1, 1, "new"), AttributeValueUpsert(2, 1, "same")]
    shown: list[SyncChange] = []

    async def show(changes: list[SyncChange]) -> None:
        shown.extend(changes)

    await store.attribute_values.plan_sync(desired, scope=None, show_changes=show)
    assert [(one.kind, one.old, one.new) for one in shown] == [
        (ChangeKind.WRITE, None, "new"),
        (ChangeKind.WRITE, None, "same"),
    ]
    shown.clear()
    await store.attribute_values.plan_sync(desired, scope=None, show_changes=show, always_read=True)
    assert shown == [SyncChange(ChangeKind.UPDATE, 1, 1, "old", "new")]


async def test_plans_reports_and_changes_are_plain_json(sandbox: Sandbox, store: Store) -> None:
    sandbox.reject_customers([2])
    await sandbox.seed([(1, 1, "old")])
    desired = [AttributeValueUpsert(1, 1, "new"), AttributeValueUpsert(2, 1, "x")]
    plan = await store.attribute_values.plan_sync(desired, scope=FIRST, prune=True)
    found = json.loads(json.dumps(plan.to_dict()))
    assert found == plan.to_dict()
    assert (found["reading"], found["update"], found["create"]) == ("list", 1, 1)
    assert found["calls"] == plan.calls
    report = await store.attribute_values.sync(desired, scope=FIRST, prune=True)
    told = json.loads(json.dumps(report.to_dict()))
    assert told == report.to_dict()
    assert (told["ok"], told["updated"], told["failed"]) == (False, 1, 1)
    assert told["failures"][0]["item"]["customer_id"] == 2
    change = SyncChange(ChangeKind.DELETE, 1, 2, "old", None)
    assert json.loads(json.dumps(change.to_dict())) == {
        "kind": "delete",
        "customer_id": 1,
        "attribute_id": 2,
        "old": "old",
        "new": None,
    }
