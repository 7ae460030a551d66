"""Finding the bad items of a refused batch."""

from __future__ import annotations

from collections.abc import Callable, Collection
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bc_attrvals import AttributeValueUpsert
from bc_attrvals.writing.bad_items import BadItemSearch, Suspects

Named = Callable[[list[AttributeValueUpsert], set[int]], Collection[int]]


def item(customer_id: int, attribute_id: int = 1) -> AttributeValueUpsert:
    return AttributeValueUpsert(customer_id=customer_id, attribute_id=attribute_id, value="v")


def no_index(part: list[AttributeValueUpsert], bad: set[int]) -> Collection[int]:
    return ()


def first_bad(part: list[AttributeValueUpsert], bad: set[int]) -> Collection[int]:
    return (next(index for index, item in enumerate(part) if item.customer_id in bad),)


def run(
    items: list[AttributeValueUpsert],
    bad: set[int],
    named: Named = no_index,
    suspects: Suspects | None = None,
) -> tuple[list[int], list[int], list[int]]:
    """Return the customers accepted and refused, and the size of each part sent."""
    search = BadItemSearch(items, Suspects() if suspects is None else suspects)
    accepted: list[int] = []
    refused: list[int] = []
    sizes: list[int] = []
    while part := search.take():
        sizes.append(len(part))
        assert len(sizes) < 100
        if any(item.customer_id in bad for item in part):
            refused += [item.customer_id for item in search.refused(part, named(part, bad))]
        else:
            accepted += [item.customer_id for item in part]
            search.settle(part)
    assert search.items() == []
    return accepted, refused, sizes


def test_good_items_take_one_call() -> None:
    accepted, refused, sizes = run([item(c) for c in range(1, 11)], set())
    assert accepted == list(range(1, 11))
    assert refused == []
    assert sizes == [10]


def test_a_named_item_costs_one_call_more() -> None:
    accepted, refused, sizes = run([item(c) for c in range(1, 11)], {4}, first_bad)
    assert accepted == [1, 2, 3, 5, 6, 7, 8, 9, 10]
    assert refused == [4]
    assert sizes == [10, 9]


@pytest.mark.parametrize("bad", range(1, 11))
def test_one_bad_item_without_a_name_is_found_in_at_most_seven_calls(bad: int) -> None:
    accepted, refused, sizes = run([item(c) for c in range(1, 11)], {bad})
    assert sorted(accepted) == [c for c in range(1, 11) if c != bad]
    assert refused == [bad]
    assert len(sizes) <= 7


def test_the_half_that_must_hold_the_bad_item_is_not_sent_whole() -> None:
    _, refused, sizes = run([item(c) for c in range(1, 9)], {8})
    assert refused == [8]
    assert sizes == [8, 4, 2, 1, 1]


def test_what_is_not_known_to_be_bad_is_sent_in_one_part() -> None:
    accepted, _, sizes = run([item(c) for c in range(1, 9)], {1})
    assert accepted == [2, 3, 4, 5, 6, 7, 8]
    assert sizes == [8, 4, 2, 1, 7]


def test_items_of_a_customer_refused_before_go_out_alone() -> None:
    suspects = Suspects()
    suspects.add(item(3))
    items = [item(3, 1), item(3, 2), item(4), item(5)]
    accepted, refused, sizes = run(items, {3}, suspects=suspects)
    assert (accepted, refused, sizes) == ([4, 5], [3, 3], [2, 1, 1])


def test_a_suspect_whose_item_was_stored_is_none_any_more() -> None:
    suspects = Suspects()
    suspects.add(item(3))
    assert item(3, 9) in suspects
    suspects.clear([item(3)])
    assert item(3, 9) not in suspects
    suspects.add(item(3, 2))
    assert item(3, 9) not in suspects


def test_an_attribute_refused_twice_is_suspected_until_a_value_of_it_is_stored() -> None:
    suspects = Suspects()
    suspects.add(item(3, 7))
    assert item(9, 7) not in suspects
    suspects.add(item(4, 7))
    assert item(9, 7) in suspects
    # It explains what follows: the customer is not suspected for it.
    suspects.add(item(5, 7))
    assert item(5, 1) not in suspects
    suspects.clear([item(9, 7)])
    assert item(10, 7) not in suspects


def test_what_a_customer_explains_is_not_held_against_the_attribute() -> None:
    suspects = Suspects()
    suspects.add(item(3, 1))
    suspects.add(item(3, 8))
    suspects.add(item(4, 8))
    assert item(9, 8) not in suspects


def test_an_attribute_of_which_a_value_was_stored_is_not_suspected() -> None:
    suspects = Suspects()
    suspects.clear([item(9, 7)])
    suspects.add(item(3, 7))
    suspects.add(item(4, 7))
    assert item(10, 7) not in suspects


def test_a_customer_stays_suspected_when_others_have_that_attribute() -> None:
    suspects = Suspects()
    suspects.add(item(3, 7))
    suspects.clear([item(4, 7)])
    _, _, sizes = run([item(3, 8), item(5)], {3}, suspects=suspects)
    assert sizes == [1, 1]


@pytest.mark.parametrize("hits", [0, 1, 2])
def test_customers_are_suspected_until_errors_outnumber_hits_by_two(hits: int) -> None:
    suspects = Suspects()
    for attribute in range(100, 101 + hits):
        suspects.add(item(1, attribute))
    for customer in range(2, 4 + hits):
        suspects.add(item(customer, customer))
        assert item(customer, 99) in suspects
        suspects.clear([item(customer, customer)])
    suspects.add(item(50, 50))
    assert item(50, 99) not in suspects


@pytest.mark.parametrize(
    ("bad", "most_calls"),
    [
        # An attribute of all customers, one of half of them, single values, whole customers.
        ({(c, 3) for c in range(1, 201)}, 640),
        ({(c, 3) for c in range(1, 201, 2)}, 510),
        ({(c, c % 5 + 1) for c in range(1, 166, 3)}, 400),
        ({(c, a) for c in range(1, 12) for a in range(1, 6)}, 200),
        # Each second value: they are sent alone.
        (
            {
                (c, a)
                for c in range(1, 201)
                for a in range(1, 6)
                if Random(9 * c + a).random() < 0.5
            },
            1100,
        ),
    ],
)
def test_a_thousand_items_cost_about_one_call_each_at_most(
    bad: set[tuple[int, int]], most_calls: int
) -> None:
    suspects = Suspects()
    items = [item(customer, attribute) for customer in range(1, 201) for attribute in range(1, 6)]
    calls = 0
    refused: set[tuple[int, int]] = set()
    for start in range(0, len(items), 10):
        search = BadItemSearch(items[start : start + 10], suspects)
        while part := search.take():
            calls += 1
            if any(one.key in bad for one in part):
                refused |= {one.key for one in search.refused(part, ())}
            else:
                search.settle(part)
                suspects.clear(part)
    assert refused == bad
    assert calls <= most_calls


def test_a_refusal_that_does_not_come_again_loses_nothing() -> None:
    search = BadItemSearch([item(c) for c in range(1, 5)], Suspects())
    assert search.refused(search.take(), ()) == []
    accepted: list[int] = []
    while part := search.take():
        accepted += [item.customer_id for item in part]
        search.settle(part)
    assert accepted == [1, 2, 3, 4]


def test_a_part_too_large_is_halved_and_stays_so() -> None:
    search = BadItemSearch([item(c) for c in range(1, 11)], Suspects())
    assert search.too_large(search.take()) == []
    sizes = []
    while part := search.take():
        sizes.append(len(part))
        search.settle(part)
    assert sizes == [5, 5]


def test_two_items_too_large_together_are_sent_one_by_one() -> None:
    search = BadItemSearch([item(1), item(2)], Suspects())
    assert search.too_large(search.take()) == []
    assert search.take() == [item(1)]


def test_one_item_too_large_is_given_up() -> None:
    search = BadItemSearch([item(1)], Suspects())
    part = search.take()
    assert search.too_large(part) == [item(1)]
    assert search.items() == []


def test_a_size_that_is_named_is_taken_at_once() -> None:
    search = BadItemSearch([item(c) for c in range(1, 11)], Suspects())
    assert search.too_large(search.take(), 3) == []
    sizes = []
    while part := search.take():
        sizes.append(len(part))
        search.settle(part)
    assert sizes == [3, 3, 3, 1]


def test_a_part_that_is_searched_is_no_larger_than_the_service_takes() -> None:
    search = BadItemSearch([item(c) for c in range(1, 11)], Suspects())
    search.refused(search.take(), ())
    search.limit(2)
    sizes = []
    while part := search.take():
        sizes.append(len(part))
        search.settle(part)
    assert max(sizes) == 2


def test_a_failure_is_searched_like_a_refusal_until_the_service_itself_has_failed() -> None:
    suspects = Suspects()
    failures = 0
    for _ in range(2):
        search = BadItemSearch([item(c) for c in range(1, 11)], suspects)
        given_up: list[int] = []
        while part := search.take():
            given_up += [one.customer_id for one in search.failed(part, ())]
            failures += 1
        assert sorted(given_up) == list(range(1, 11))
        assert search.items() == []
    # Seventeen in a row, then one for each batch.
    assert failures <= 17 + 1
    suspects.clear([item(99)])
    search = BadItemSearch([item(c) for c in range(1, 11)], suspects)
    assert search.failed(search.take(), ()) == []


def test_an_accepted_call_says_that_the_service_has_not_failed() -> None:
    suspects = Suspects()
    for customer in range(1, 41, 2):
        bad, good = item(customer, customer), item(customer + 1, customer + 1)
        search = BadItemSearch([bad, good], suspects)
        assert search.failed(search.take(), ()) == []
        assert search.failed(search.take(), ()) == [bad]
        assert search.take() == [good]
        search.settle([good])
        # With others, so that few of all are bad.
        suspects.clear([good] * 3)


def test_an_item_taken_back_stays_while_as_many_others_are_settled() -> None:
    search = BadItemSearch([item(c) for c in range(1, 5)], Suspects())
    search.refused(search.take(), ())
    half = search.take()
    search.settle(half)
    search.again(half[:1])
    following = search.take()
    assert following == [item(3)]
    search.settle(following)
    assert search.items() == [item(4), item(1)]


def test_no_more_than_ten_thousand_are_remembered_and_those_go_on_counting() -> None:
    suspects = Suspects()
    for number in range(1, 10_001):
        suspects.add(item(number, number))
    for _ in range(2):
        suspects.add(item(10_001, 10_001))
    assert item(10_000, 20_000) in suspects
    assert item(10_001, 20_000) not in suspects
    assert item(20_000, 10_001) not in suspects
    suspects.add(item(20_000, 10_000))
    assert item(30_000, 10_000) in suspects


def test_a_part_given_up_for_another_reason_acquits_the_rest() -> None:
    search = BadItemSearch([item(c) for c in range(1, 5)], Suspects())
    search.refused(search.take(), ())
    search.lost(search.take())
    assert [item.customer_id for item in search.take()] == [3, 4]


@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=10),
    st.sets(st.integers(1, 12)),
    st.sets(st.integers(1, 12)),
    st.sampled_from([no_index, first_bad]),
)
def test_exactly_the_bad_ones_are_refused(
    customers: list[int], bad: set[int], remembered: set[int], named: Named
) -> None:
    suspects = Suspects()
    for customer_id in remembered:
        suspects.add(item(customer_id))
    items = [item(customer_id, index + 1) for index, customer_id in enumerate(customers)]
    accepted, refused, _ = run(items, bad, named, suspects)
    assert sorted(refused) == sorted(c for c in customers if c in bad)
    assert sorted(accepted) == sorted(c for c in customers if c not in bad)
