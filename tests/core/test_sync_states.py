"""The words of a working set: keys as one number, and states that no tipped bit confuses."""

from __future__ import annotations

from itertools import combinations

import pytest
from msgspec.structs import astuple

from bc_attrvals.core.models import MAX_ID
from bc_attrvals.core.sync_states import Differences, Kind, Phase, State, Tally, from_key, to_key

IDS = [1, 2, 3, 2**16, MAX_ID - 1, MAX_ID]


@pytest.mark.parametrize("customer_id", IDS)
@pytest.mark.parametrize("attribute_id", IDS)
def test_a_key_is_one_number_of_64_bits_and_reads_back(customer_id: int, attribute_id: int) -> None:
    key = to_key(customer_id, attribute_id)
    assert 0 < key < 2**63
    assert from_key(key) == (customer_id, attribute_id)


def test_keys_are_ordered_by_customer_then_attribute() -> None:
    """The rows of one customer lie side by side in the working set."""
    pairs = [(customer, attribute) for customer in IDS for attribute in IDS]
    assert sorted(to_key(*pair) for pair in pairs) == [to_key(*pair) for pair in sorted(pairs)]


def test_any_two_states_differ_in_more_than_one_bit() -> None:
    for one, other in combinations(State, 2):
        assert (one ^ other).bit_count() > 1


def test_what_is_kept_on_disk_keeps_its_meaning_in_every_version() -> None:
    assert {phase.name: phase.value for phase in Phase} == {
        "LOADING": "loading",
        "READING": "reading",
        "WRITING": "writing",
        "DELETING": "deleting",
        "FINISHED": "finished",
    }
    assert {kind.name: kind.value for kind in Kind} == {"CREATE": 1, "UPDATE": 2, "WRITE": 3}
    assert {state.name: state.value for state in State} == {
        "PENDING": 0x33,
        "IN_FLIGHT": 0x3C,
        "DONE": 0x55,
        "ALTERED": 0x69,
        "FAILED": 0x5A,
        "UNANSWERED": 0x66,
    }


def test_what_is_created_updated_and_written_is_upserted() -> None:
    assert (
        Differences(create=1, update=20, write=300, unchanged=4_000, delete=50_000).upserts == 321
    )


def test_counts_begin_at_nothing() -> None:
    assert set(astuple(Differences()) + astuple(Tally())) == {0}
