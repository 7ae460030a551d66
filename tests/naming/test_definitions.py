"""Definitions are read anew when a name is missing, and the nearest names are found."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest

from bc_attrvals import UnknownAttributeError
from bc_attrvals.core.definitions import Attribute
from bc_attrvals.naming.definitions import Definitions, KnownDefinitions, nearest_names
from bc_attrvals.scheduling.calls import Calls


@pytest.mark.looptime
async def test_a_job_sees_what_others_defined_before_it_and_reads_again_once_a_minute() -> None:
    asked: list[int] = []
    names = ["Loyalty tier"]

    class Listed:
        """The calls of `/customers/attributes`, answered by what others have defined."""

        async def rows(self, query: str, number: int, limit: int, decode: object) -> object:
            asked.append(number)
            rows = [Attribute(one, name, "string", None, None) for one, name in enumerate(names, 1)]
            return SimpleNamespace(data=rows, total=len(rows))

    known, calls = KnownDefinitions(), cast("Calls", Listed())
    loop = asyncio.get_running_loop()
    began_at_s = loop.time()

    async def lacks(name: str, began_at_s: float) -> bool:
        return (await known.get(calls, [name], began_at_s)).find(name) is None

    assert not await lacks("Loyalty tier", began_at_s)
    for _ in range(3):
        assert await lacks("Shoe size", began_at_s)
    assert len(asked) == 1
    names.append("Shoe size")
    await asyncio.sleep(59)
    # In this job a minute later, in the next job at once, and there not again.
    assert await lacks("Shoe size", began_at_s)
    next_began_at_s = loop.time()
    assert not await lacks("Shoe size", next_began_at_s)
    assert await lacks("Birthday", next_began_at_s)
    assert len(asked) == 2
    await asyncio.sleep(60)
    assert await lacks("Birthday", next_began_at_s)
    assert not await lacks("Loyalty tier", loop.time())
    assert len(asked) == 3


def test_nearest_names_regard_neither_case_nor_blanks() -> None:
    names = ["Loyalty tier", "Shoe size", "Birthday"]
    assert nearest_names("loyalty  Tier ", names) == ["Loyalty tier"]
    assert nearest_names("xyz", names) == []


def test_a_name_of_two_definitions_is_refused_and_their_ids_still_find_them() -> None:
    one, two = (Attribute(number, "Tier", "string", None, None) for number in (1, 2))
    definitions = Definitions([one, two])
    assert definitions.find(1) is one
    with pytest.raises(UnknownAttributeError, match=r"ids 1, 2\); use the id"):
        definitions.find("Tier")
    with pytest.raises(UnknownAttributeError, match="no attribute has the id 3"):
        definitions.get(3)
    assert definitions.lack_any([1, "Tier", 3])
    assert not definitions.lack_any([2, "Tier"])
