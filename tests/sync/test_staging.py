"""A staged table holds what a dict would, whatever the order the rows come in."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bc_attrvals.sync.staging import Staging

ROWS = st.lists(
    st.lists(st.tuples(st.integers(1, 20), st.integers(1, 3), st.text(max_size=3)), max_size=9),
    max_size=6,
)


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as opened:
        yield opened


def plain(connection: sqlite3.Connection) -> Staging:
    staging = Staging(connection, "rows", {"key": "INTEGER NOT NULL", "value": "TEXT"})
    for statement in staging.schema:
        connection.execute(statement)
    return staging


@settings(max_examples=150, deadline=None, derandomize=True)
@given(parts=ROWS, ascending=st.booleans(), key_columns=st.sampled_from([1, 2]))
def test_of_equal_keys_the_last_row_stays(
    parts: list[list[tuple[int, int, str]]], ascending: bool, key_columns: int
) -> None:
    if ascending:
        parts = [sorted(part) for part in sorted(parts)]
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        columns = {"key": "INTEGER NOT NULL", "id": "INTEGER NOT NULL", "value": "TEXT"}
        staging = Staging(connection, "rows", columns, key_columns=key_columns)
        for statement in staging.schema:
            connection.execute(statement)
        for part in parts:
            staging.add(part)
        staging.merge()
        found = connection.execute("SELECT * FROM rows ORDER BY key, id").fetchall()
    expected = {row[:key_columns]: row for part in parts for row in part}
    assert found == sorted(expected.values(), key=lambda row: row[:2])


def test_rows_in_order_are_appended_and_not_staged(connection: sqlite3.Connection) -> None:
    staging = plain(connection)
    staging.add([(1, "a"), (2, "b")])
    staging.add([(3, "c")])
    assert connection.execute("SELECT count(*) FROM rows").fetchone() == (3,)
    staging.add([(3, "again"), (9, "d")])
    assert connection.execute("SELECT count(*) FROM rows_staged").fetchone() == (2,)
    staging.merge()
    assert connection.execute("SELECT value FROM rows").fetchall() == [
        ("a",),
        ("b",),
        ("again",),
        ("d",),
    ]
    assert connection.execute("SELECT count(*) FROM rows_staged").fetchone() == (0,)


def test_cleared_it_is_empty_and_begins_anew(connection: sqlite3.Connection) -> None:
    staging = plain(connection)
    staging.add([(5, "a"), (4, "b")])
    staging.clear()
    staging.add([(1, "c")])
    staging.merge()
    assert connection.execute("SELECT * FROM rows").fetchall() == [(1, "c")]
