"""The tables of a sync against a model in dicts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bc_attrvals import AttributeValueUpsert, ChangeKind, Reading
from bc_attrvals.core.sync_states import State, from_key, to_key
from bc_attrvals.sync.database import open_temporary
from bc_attrvals.sync.journal import JOURNALS
from bc_attrvals.sync.working_set import WorkingSet

KEYS = st.integers(1, 15).map(lambda one: to_key(one, 1))
VALUES = st.sampled_from(["a", "b"])


@pytest.fixture
def working_set() -> Iterator[WorkingSet]:
    opened = open_temporary(JOURNALS)
    with closing(opened.connection):
        yield opened


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    desired=st.lists(st.tuples(KEYS, VALUES, st.none() | VALUES), max_size=20),
    current=st.lists(
        st.tuples(KEYS, st.integers(1, 2**63 - 1), st.none() | VALUES),
        max_size=20,
        unique_by=lambda row: row[1],
    ),
    prune=st.booleans(),
)
def test_a_plan_is_the_difference_row_by_row(
    desired: list[tuple[int, str, str | None]],
    current: list[tuple[int, int, str | None]],
    prune: bool,
) -> None:
    wanted = {key: (value, kept) for key, value, kept in desired}
    held: dict[int, dict[int, str | None]] = {}
    for key, row_id, value in current:
        held.setdefault(key, {})[row_id] = value
    creates = wanted.keys() - held.keys()
    updates = {
        key
        for key, (value, kept) in wanted.items()
        if key in held and any(one != (kept or value) for one in held[key].values())
    }
    gone = {one for key in held.keys() - wanted.keys() for one in held[key]} if prune else set()
    working_set = open_temporary(JOURNALS)
    with closing(working_set.connection):
        working_set.add_desired(desired)
        assert working_set.end_loading(seal=True) == len(wanted)
        working_set.add_current(current)
        counts, repeated = working_set.compare(Reading.LIST, prune=prune, seal=True)
        assert (counts.create, counts.update, counts.delete) == (
            len(creates),
            len(updates),
            len(gone),
        )
        assert counts.unchanged == len(wanted) - len(creates) - len(updates)
        assert repeated == sum(len(rows) > 1 for rows in held.values())
        pending = working_set.pending_upserts(0, 99)
        assert pending == [
            AttributeValueUpsert(*from_key(key), wanted[key][0])
            for key in sorted(creates | updates)
        ]
        assert working_set.pending_deletes(99) == sorted(gone)
        shown = [change for _, change in working_set.planned_upserts(0, 99)]
        assert [one.kind is ChangeKind.CREATE for one in shown] == [
            key in creates for key in sorted(creates | updates)
        ]
        assert len(working_set.planned_deletes((0, 0), 99)) == len(gone)
        assert working_set.is_intact()


def test_every_state_is_counted_where_it_belongs(working_set: WorkingSet) -> None:
    keys = [to_key(one, 1) for one in range(1, 7)]
    working_set.add_desired([(key, "x", None) for key in keys])
    working_set.end_loading(seal=False)
    working_set.compare(Reading.NOTHING, prune=False, seal=False)
    for key, state in zip(keys, State, strict=True):
        working_set.mark_upserts([(state, key)])
    tally = working_set.tally()
    assert (tally.written, tally.altered, tally.failed, tally.unanswered, tally.open) == (
        1,
        1,
        2,
        1,
        2,
    )
    # What was in flight is resent; what nobody answered is, too, and is no failure any more.
    working_set.take_over()
    assert working_set.number("resent") == 1
    assert (working_set.tally().failed, working_set.tally().open) == (1, 3)


def test_a_failure_has_the_last_names_that_its_key_was_given_with(working_set: WorkingSet) -> None:
    keys = [to_key(customer, 1) for customer in (3, 1, 2, 1, 3)]
    for number, key in enumerate(keys):
        working_set.add_desired(
            [(key, str(number), None)], [(key, f"{number}@example.com", "tier")]
        )
    working_set.end_loading(seal=False)
    working_set.add_failures([(key, "{}") for key in sorted(set(keys))], 3)
    assert [row for _, row in working_set.failures((0, 0), 3)] == [
        ("3@example.com", "tier", "3", "{}"),
        ("2@example.com", "tier", "2", "{}"),
        ("4@example.com", "tier", "4", "{}"),
    ]


def test_failures_come_in_parts_that_leave_none_out(working_set: WorkingSet) -> None:
    rows = [(to_key(one, 1), "x", None) for one in range(1, 8)]
    working_set.add_desired(rows, (), [(None, "a@b.c", 1, str(one), "{}") for one in range(5)])
    working_set.end_loading(seal=False)
    working_set.add_failures([(key, "{}") for key, _, _ in rows], 100)
    whole = working_set.failures((0, 0), 100)
    assert [row[2] for _, row in whole] == [*"01234", *"x" * 7]
    for most in (1, 3, 5, 11):
        found, after = [], (0, 0)
        while part := working_set.failures(after, most):
            assert len(part) <= most
            after = part[-1][0]
            found += part
        assert found == whole


def test_changes_come_in_parts_that_leave_none_out(working_set: WorkingSet) -> None:
    working_set.add_desired([(to_key(one, 1), "x", None) for one in range(1, 11)])
    working_set.end_loading(seal=False)
    # Two rows of one key stand on both sides of a border.
    rows = [(to_key(one, 1), 3 * one + n, "y") for one in range(20, 25) for n in (0, 1)]
    working_set.add_current(rows)
    working_set.compare(Reading.LIST, prune=True, seal=False)
    found, after = [], (0, 0)
    while part := working_set.planned_deletes(after, 3):
        after = part[-1][0]
        found += part
    assert [row_id for (_, row_id), _ in found] == [row_id for _, row_id, _ in rows]


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE desired SET value = 'y'",
        "UPDATE desired SET kept = 'y'",
        "DELETE FROM desired WHERE key = (SELECT min(key) FROM desired)",
        "UPDATE upserts SET kind = 2",
        "UPDATE upserts SET state = 50",
        "INSERT INTO deletes VALUES (7, 51)",
    ],
)
def test_what_was_changed_behind_its_back_is_seen(working_set: WorkingSet, damage: str) -> None:
    working_set.add_desired([(to_key(one, 1), "x", None) for one in range(1, 5)])
    working_set.end_loading(seal=True)
    working_set.compare(Reading.LIST, prune=False, seal=True)
    assert working_set.is_intact()
    working_set.connection.execute(damage)
    assert not working_set.is_intact()
