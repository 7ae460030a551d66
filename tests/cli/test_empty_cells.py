"""Empty cells of the wide form: left alone, or deleted with --empty delete."""

from __future__ import annotations

import json
import random
import signal
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bc_attrvals import AttributeValueUpsert, Limits, ListingDriftError
from bc_attrvals.cli.empty_cells import EmptyCells
from bc_attrvals.tables.rows import Absent
from tests.cli.tables import DELETIONS, WIDE, wide
from tests.raw_server import store_on
from tests.sync.lying_store import Lies, LyingStore

DELETE = [*WIDE, "--empty", "delete", "--yes"]
DELETE_ALL = [*DELETE, "--max-delete", "100%"]


def upsert(served, tmp_path, table, *options, name="in.csv"):
    path = tmp_path / name
    path.write_text(table)
    return served.run("upsert", path, *options, "--json")


def test_empty_cells_are_deleted_where_asked_for(served, tmp_path, summary) -> None:
    seeded = {(1, 1): "a", (1, 2): "b", (1, 3): "c", (2, 1): "d", (3, 1): "e", (3, 2): "f"}
    served.seed(*((*key, value) for key, value in seeded.items()))
    table = "ID,x,y\n1,,new\n2,,\n4,,\n"
    assert summary(upsert(served, tmp_path, table, *WIDE))["stored"] == 1
    assert served.values() == seeded | {(1, 2): "new"}
    found = summary(upsert(served, tmp_path, table, *DELETE))
    assert (found["stored"], found["deleted"], found["exit_status"]) == (1, 2, 0)
    assert served.values() == {(1, 2): "new", (1, 3): "c", (3, 1): "e", (3, 2): "f"}
    assert summary(upsert(served, tmp_path, table, *DELETE))["deleted"] == 0


@pytest.mark.parametrize("command", ["upsert", "sync"])
@pytest.mark.parametrize(
    ("table", "left", "superseded"),
    [
        ("ID,x,y\n1,,b\n1,a,b\n", {(1, 1): "a", (1, 2): "b"}, 1),
        ("ID,x,y\n1,a,b\n1,,b\n", {(1, 2): "b"}, 2),
        ("ID,x,y\n1,a,b\n1,,b\n1,c,b\n", {(1, 1): "c", (1, 2): "b"}, 3),
    ],
)
def test_of_equal_keys_the_last_row_counts(
    served, summary, command, table, left, superseded
) -> None:
    found = summary(served.run(command, "-", *DELETE, "--json", input=table))
    assert served.values() == left
    assert (found["superseded"], found["exit_status"]) == (superseded, 0)


@pytest.mark.parametrize("journal", [[], ["--journal"]])
@pytest.mark.parametrize(("left", "options", "status"), DELETIONS)
def test_more_than_half_and_more_than_100_deletions_are_refused(
    served, tmp_path, journal, left, options, status
) -> None:
    served.seed(*((n, 1, f"v{n}") for n in range(1, 221)))
    args = [*DELETE, *options, *journal, *([tmp_path / "u.db"] if journal else [])]
    result = served.run("upsert", "-", *args, input=wide(left, 220 - left))
    assert result.exit_code == status, result.stderr
    assert len(served.values()) == (220 if status else left)
    if status:
        assert f"{220 - left} values of 220 would be deleted, more than" in result.stderr
        assert "; nothing was sent\n" in result.stderr
        assert served.sandbox.calls["upsert"] == served.sandbox.calls["delete"] == 0


def test_the_limit_goes_with_empty_cells_that_delete(served) -> None:
    result = served.run("upsert", "-", *WIDE, "--max-delete", "5", input=wide(1, 1))
    assert result.exit_code == 2
    assert "--max-delete goes with --empty delete" in result.stderr
    assert served.sandbox.requests.seen == 0


@pytest.mark.parametrize("command", ["upsert", "sync"])
def test_what_others_store_for_an_empty_cell_meanwhile_stays(
    served, summary, monkeypatch, command
) -> None:
    served.seed((1, 1, "v"))
    delete_stored = EmptyCells.delete_stored

    async def delete_later(self, work) -> None:
        served.seed((2, 1, "of others"))
        await delete_stored(self, work)

    monkeypatch.setattr(EmptyCells, "delete_stored", delete_later)
    result = served.run(command, "-", *DELETE, "--json", input="ID,x,y\n1,,b\n2,,b\n")
    assert summary(result)["exit_status"] == 0
    assert served.values() == {(1, 2): "b", (2, 1): "of others", (2, 2): "b"}


def test_a_field_that_json_lines_do_not_have_is_left_alone(served, tmp_path) -> None:
    served.seed(*((customer, 1, "v") for customer in (1, 2, 3)))
    rows = [{"ID": 1, "x": None}, {"ID": 2}, {"ID": 3, "x": ""}]
    table = "".join(json.dumps(row) + "\n" for row in rows)
    assert upsert(served, tmp_path, table, *DELETE, name="in.jsonl").exit_code == 0
    assert served.values() == {(2, 1): "v"}


def test_nulls_of_parquet_are_empty_cells(served, tmp_path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    served.seed((1, 1, "v"), (1, 2, "w"))
    table = pa.table({"ID": [1], "x": pa.nulls(1), "y": ["w2"]})
    parquet.write_table(table, tmp_path / "in.parquet")
    assert served.run("upsert", tmp_path / "in.parquet", *DELETE).exit_code == 0
    assert served.values() == {(1, 2): "w2"}


def test_many_customers_are_looked_up_in_few_calls(served, tmp_path, summary) -> None:
    served.seed(*((customer, 1, "v") for customer in range(1, 1501)))
    served.seed(*((customer, 2, "w") for customer in range(1, 1501, 10)))
    # Every third cell is empty.
    table = "ID,x,y\n" + "".join(f"{n},{'' if n % 3 else 'v'},\n" for n in range(1, 1501))
    found = summary(upsert(served, tmp_path, table, *DELETE_ALL))
    assert found["deleted"] == 1000 + 150
    gets = [one for one in served.sandbox.requests if one.method == "GET"]
    assert len(gets) <= 16
    assert served.values() == {(n, 1): "v" for n in range(3, 1501, 3)}


def test_few_stored_values_are_listed_whole(served, tmp_path, summary) -> None:
    served.seed((5, 1, "v"), (5, 3, "other"), (999_999, 1, "not in the file"))
    table = "ID,x,y\n" + "".join(f"{n},,\n" for n in range(1, 20_000))
    assert summary(upsert(served, tmp_path, table, *DELETE))["deleted"] == 1
    assert sum(one.method == "GET" for one in served.sandbox.requests) == 2
    assert set(served.values()) == {(5, 3), (999_999, 1)}


def test_it_asks_and_takes_no_for_an_answer(served, tmp_path, monkeypatch) -> None:
    served.seed((1, 1, "v"))
    monkeypatch.setattr("bc_attrvals.cli.value_file.need_terminal", lambda **_: None)
    path = tmp_path / "in.csv"
    path.write_text("ID,x,y\n1,,b\n")
    options = ["upsert", path, *WIDE, "--empty", "delete"]
    result = served.run(*options, input="n\n")
    assert result.exit_code == 2
    assert "1 empty cell" in result.stderr
    assert "nothing was sent" in result.stderr
    assert served.sandbox.requests.seen == 0
    assert served.run(*options, input="y\n").exit_code == 0
    assert served.values() == {(1, 2): "b"}
    # Nothing to ask about.
    path.write_text("ID,x,y\n1,a,b\n")
    assert served.run(*options, input="").exit_code == 0


def test_nothing_is_deleted_after_a_job_that_ended_early(served, tmp_path, summary) -> None:
    served.seed((1, 1, "v"))
    served.sandbox.faults.script(["401"] * 3)
    result = upsert(served, tmp_path, "ID,x,y\n1,,b\n", *DELETE)
    assert result.exit_code == 3
    assert summary(result)["deleted"] == 0
    assert not any(one.method == "DELETE" for one in served.sandbox.requests)


@pytest.mark.parametrize("passed", [1, 2, 3])
def test_an_error_half_way_tells_what_was_deleted(serve, tmp_path, summary, passed) -> None:
    with serve() as served:
        served.seed(*((customer, 1, "v") for customer in range(1, 121)))
        table = "ID,x,y\n1,,b\n" + "".join(f"{n},,\n" for n in range(2, 121))
        # One GET, one PUT, then DELETEs.
        served.sandbox.faults.script([None] * passed + ["403"] * 20)
        result = upsert(served, tmp_path, table, *DELETE_ALL)
        found = summary(result)
        assert result.exit_code == 3
        assert found["stored"] == (passed > 1)
        assert found["deleted"] == 120 + found["stored"] - len(served.values())
        assert bool(found["deleted"]) == (passed == 3)
        assert "403" in result.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_while_deleting_tells_what_was_deleted(serve, tmp_path, until) -> None:
    path = tmp_path / "in.csv"
    path.write_text("ID,x,y\n" + "".join(f"{n},,\n" for n in range(1, 2001)))
    with serve(latency_ms=30) as served:
        served.seed(*((customer, 1, "v") for customer in range(1, 2001)))
        process = served.start("upsert", path, *DELETE_ALL, "--json")
        until(lambda: any(one.method == "DELETE" for one in served.sandbox.requests))
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=30)
        assert (process.returncode, stderr) == (130, b"Interrupted.\n")
        found = json.loads(stdout)
        assert 0 < found["deleted"] < 2000
        assert found["deleted"] == 2000 - len(served.values())
        served.sandbox.latency_ms = 0
        assert served.run("upsert", path, *DELETE_ALL).exit_code == 0
        assert served.values() == {}


def test_failures_are_in_long_form_for_their_other_cells_would_be_empty(
    served, tmp_path, parse
) -> None:
    served.sandbox.reject_customers([2])
    served.seed((2, 1, "stays"))
    failed = tmp_path / "failed.csv"
    path = tmp_path / "in.csv"
    path.write_text("ID,x,y\n1,a,b\n2,c,d\n")
    result = served.run("upsert", path, *DELETE, "--failures", failed)
    assert result.exit_code == 1
    assert "in long form" in result.stdout
    assert [row[:3] for row in parse(failed.read_text())] == [
        ["customer_id", "attribute_id", "value"],
        ["2", "1", "c"],
        ["2", "2", "d"],
    ]


@pytest.mark.parametrize("lies", [Lies(), Lies(renumbers=True)], ids=["true", "repeated"])
async def test_rows_that_a_listing_repeats_under_other_ids_are_not_deleted(lies: Lies) -> None:
    """These ids are those of rows that no cell names."""
    values = {(customer, attribute): "x" for customer in range(1, 9) for attribute in (1, 2)}
    lying = LyingStore.holding(values, lies)
    lying.rows[99] = ((5, 1), "a second row of one cell")
    with EmptyCells() as cells:
        list(cells.watch(Absent(customer, 1) for customer in range(1, 9)))
        async with store_on(lying.script, limits=Limits(page_size=5)) as (store, _):
            if lies == Lies():
                assert await cells.find(store) == 9
                return
            with pytest.raises(ListingDriftError, match="a look-up of their customers lacks"):
                await cells.find(store)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(st.integers(1, 4), st.integers(1, 3), st.sampled_from(["", "v"])), max_size=60
    ),
    st.integers(1, 7),
)
def test_what_is_kept_is_what_the_last_cells_say(cells, chunk) -> None:
    with pytest.MonkeyPatch.context() as patch, EmptyCells() as kept:
        patch.setattr("bc_attrvals.cli.empty_cells._CHUNK_KEYS", chunk)
        entries = [
            AttributeValueUpsert(c, a, value) if value else Absent(c, a) for c, a, value in cells
        ]
        yielded = list(kept.watch(entries))
        assert yielded == [one for one in entries if not isinstance(one, Absent)]
        last = {(c, a): value for c, a, value in cells}
        assert kept.count == sum(not value for value in last.values())


def test_memory_does_not_grow_with_the_empty_cells() -> None:
    import tracemalloc

    order = random.Random(1)
    with EmptyCells() as kept:
        tracemalloc.start()
        try:
            cells = (Absent(order.randrange(1, 2**31), 1) for _ in range(30_000))
            assert list(kept.watch(cells)) == []
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert kept.count > 29_900
        assert peak < 2_500_000
