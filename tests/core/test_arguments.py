"""Arguments are refused by name."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from bc_attrvals import InvalidInputError
from bc_attrvals.core.arguments import between, check_encodes, check_range, checked_list, listed
from bc_attrvals.core.models import check_id


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


def test_a_text_that_utf_8_cannot_encode_is_refused_with_its_place() -> None:
    check_encodes("\U0001f600", "name")
    with pytest.raises(InvalidInputError, match="lone surrogate at character 2") as caught:
        check_encodes("ab\udfff", "name")
    assert caught.value.field == "name"


@attrs.frozen
class Bounded:
    few: int = attrs.field(default=1, validator=between(1, 3))
    many: int = attrs.field(default=0, validator=between(0))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"few": 4}, "few must be an int from 1 to 3, not 4"),
        ({"few": True}, "few must be an int from 1 to 3, not True"),
        ({"many": -1}, "many must be an int of at least 0, not -1"),
        ({"many": 1.0}, "many must be an int of at least 0, not 1.0"),
    ],
)
def test_a_field_out_of_its_bounds_is_named(given: dict[str, Any], message: str) -> None:
    assert Bounded(3, 10**30).few == 3
    with pytest.raises(InvalidInputError, match=f"^{message}$"):
        Bounded(**given)


def test_a_bad_entry_is_refused_with_its_place() -> None:
    assert checked_list("ids", iter((1, 2)), check_id) == [1, 2]
    with pytest.raises(InvalidInputError, match="ids must be an int") as caught:
        checked_list("ids", [1, "2"], check_id)
    assert (caught.value.field, caught.value.place) == ("ids", "ids[1]")
