"""The named values: which may be written, what they held, and what is written to them."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from bc_attrvals import InvalidInputError, PermissionDeniedError, UnknownAttributeError
from bc_attrvals.probe.facts import Unsettled
from bc_attrvals.sandbox import Fault, Quirks
from tests.probe.probing import ATTRIBUTES, ground

OLD_S = 1_700_000_000


@pytest.mark.parametrize("name", ["Teir", 99])
async def test_an_unknown_attribute_is_refused_before_anything_is_written(
    name: str | int, tmp_path: Path
) -> None:
    async with ground(tmp_path) as store:
        with pytest.raises(UnknownAttributeError, match=str(name)):
            await store.probe(attributes=(name,))
        assert store.sandbox.calls["upsert"] == 0
        assert not store.state.exists()


async def test_a_name_without_the_right_to_read_definitions_is_no_unknown_one(
    tmp_path: Path,
) -> None:
    async with ground(tmp_path, faults=[Fault("403", operation="list_attributes")]) as store:
        with pytest.raises(PermissionDeniedError):
            await store.probe(attributes=("Tier",))
        document = await store.probe(attributes=(1,))
    assert "may not read attributes" in document["facts"]["attributes_pagination"]["how"]


async def test_too_many_values_are_refused(tmp_path: Path) -> None:
    async with ground(tmp_path) as store:
        with pytest.raises(InvalidInputError, match="1 to 12, not 13"):
            await store.probe(range(1, 14))


async def test_a_value_that_was_not_there_comes_first(tmp_path: Path) -> None:
    async with ground(tmp_path) as store:
        await store.sandbox.seed([(7, 1, "gold", OLD_S)])
        target = await store.target((7, 8), "Tier", "Age")
        assert target.keys == [(7, 1), (7, 2), (8, 1), (8, 2)]
        assert (target.main, target.is_scratch) == ((7, 2), True)
        assert (await store.target((7,))).is_scratch is False
        assert target.key_of_kind("string") == (7, 1)
        assert target.key_of_kind("date") is None


async def test_a_value_with_blanks_around_it_is_never_written(tmp_path: Path) -> None:
    # A store that trims could not take it back.
    async with ground(tmp_path, Quirks(trim_values=True)) as store:
        await store.sandbox.seed([(7, 1, " gold ", OLD_S)])
        before = await store.sandbox.rows()
        document = await store.probe((7, 8))
        assert await store.sandbox.rows() == before
        with pytest.raises(InvalidInputError, match="blanks around it"):
            await store.probe((7,))
        assert await store.sandbox.rows() == before
        assert not store.state.exists()
    assert (document["keys"], document["facts"]["trim_values"]["value"]) == (1, True)


async def test_fresh_values_differ_and_are_of_the_type(tmp_path: Path) -> None:
    async with ground(tmp_path, attributes={**ATTRIBUTES, "Born": "date"}) as store:
        target = await store.target((7,), "Tier", "Age", "Born")
        items = target.fresh_items(target.keys * 3)
        values = [str(one["value"]) for one in items]
        assert len(set(values)) == 9
        assert all(int(one) for one in values[1::3])
        assert all(date.fromisoformat(one) for one in values[2::3])


async def test_a_row_is_written_anew_where_it_is_gone(tmp_path: Path) -> None:
    async with ground(tmp_path) as store:
        target = await store.target()
        first = await target.ensure()
        assert await target.ensure() == first
        await target.wire.delete([first.id])
        assert (await target.ensure()).id != first.id
        assert len(target.offsets_s) == 2
        store.sandbox.faults.add(Fault.parse("409,operation=upsert"))
        await target.wire.delete([(await target.ensure()).id])
        with pytest.raises(Unsettled, match="a value was answered 409"):
            await target.ensure()
