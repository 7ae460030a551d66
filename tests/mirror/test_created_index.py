"""The index that a reconciliation counts with."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from bc_attrvals.mirror.created_index import CreatedIndex
from bc_attrvals.mirror.ranges import BEGINNING, Range

quick = settings(deadline=None, derandomize=True)

PLACES = st.tuples(st.integers(1, 3), st.integers(0, 20))


@quick
@given(
    rows=st.lists(PLACES, max_size=40),
    gone=st.randoms(use_true_random=False),
    ids=st.sets(st.integers(1, 4), min_size=1),
    first=st.just(BEGINNING) | st.integers(0, 20),
    last=st.integers(0, 25),
)
def test_it_counts_and_finds_as_a_sorted_list_does(
    rows: list[tuple[int, int]], gone: object, ids: set[int], first: int, last: int
) -> None:
    half = len(rows) // 2
    index = CreatedIndex(sorted(rows[:half]))
    index.add(rows[half:])
    left = list(rows)
    gone.shuffle(left)  # type: ignore[attr-defined]
    index.remove(left[: len(left) // 3])
    left = left[len(left) // 3 :]
    part = Range(tuple(sorted(ids)), first, last)
    within = sorted(second for one, second in left if one in ids and first <= second <= last)
    assert index.count(part) == len(within)
    assert [index.created_at(part, place) for place in range(len(within))] == within
    assert sorted(index.attribute_ids()) == sorted({one for one, _ in left})
