"""The values that are made up."""

from __future__ import annotations

from bc_attrvals.cli.sample_data import ATTRIBUTES, sample_values


def test_they_are_the_same_each_time_and_no_key_comes_twice() -> None:
    values = list(sample_values(1_000))
    assert values == list(sample_values(1_000))
    assert len({one.key for one in values}) == 1_000
    assert {one.attribute_id for one in values} == set(ATTRIBUTES)
    assert values[:401] == list(sample_values(401))
