"""Arguments are refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from bc_attrvals import InvalidInputError
from bc_attrvals.core.arguments import check_range, listed


@pytest.mark.parametrize("values", ["12", b"12", None, 7])
def test_what_can_not_be_iterated_over_values_is_refused_by_name(values: Any) -> None:
    with pytest.raises(InvalidInputError, match="ids must be an iterable") as caught:
        listed("ids", values)
    assert caught.value.field == "ids"


def test_any_other_iterable_is_a_list() -> None:
    assert listed("ids", iter((1, 2))) == [1, 2]


@pytest.mark.parametrize(
    ("value", "high", "words"),
    [(0, None, "at least 1"), (11, 10, "from 1 to 10"), (True, 10, "from"), (1.0, 10, "from")],
)
def test_a_number_out_of_range_is_refused_with_its_bounds(
    value: Any, high: int | None, words: str
) -> None:
    with pytest.raises(InvalidInputError, match=words) as caught:
        check_range("page", value, 1, high)
    assert caught.value.field == "page"


def test_the_bounds_are_in_range() -> None:
    check_range("page", 1, 1, None)
    check_range("page", 10, 1, 10)
