"""The scope of a sync: ids alone, and membership decided on our side."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from bc_attrvals import AttributeValueFilter, InvalidInputError
from bc_attrvals.sync.scope import Scope

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("scope", [None, AttributeValueFilter()])
def test_no_filter_and_an_empty_one_hold_the_whole_store(
    scope: AttributeValueFilter | None,
) -> None:
    assert Scope.of(scope).matches(1, 1)
    assert Scope.of(scope).narrowed(None).is_empty


def test_both_id_lists_must_hold_a_row() -> None:
    scope = Scope.of(AttributeValueFilter([1, 2], [3]))
    assert scope.matches(2, 3)
    assert not scope.matches(3, 3)
    assert not scope.matches(1, 2)


def test_the_largest_id_is_in_scope() -> None:
    assert Scope.of(None).matches(2**31 - 1, 2**31 - 1)


def test_a_scope_is_asked_for_as_it_is_or_with_fewer_attributes() -> None:
    scope = Scope.of(AttributeValueFilter([2, 1], [4, 3]))
    assert scope.narrowed(None) == AttributeValueFilter([1, 2], [3, 4])
    assert scope.narrowed((4,)) == AttributeValueFilter([1, 2], [4])
    customers = Scope.of(AttributeValueFilter([2, 1]))
    assert customers.narrowed(None) == AttributeValueFilter([1, 2])
    assert customers.narrowed((4,)) == AttributeValueFilter([1, 2], [4])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "score"),
        ("date_created", NOW),
        ("date_created_min", NOW),
        ("date_created_max", NOW),
        ("date_modified", NOW),
        ("date_modified_min", NOW),
        ("date_modified_max", NOW),
    ],
)
def test_what_no_desired_value_has_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(InvalidInputError, match=field) as caught:
        Scope.of(AttributeValueFilter(**{field: value}))  # type: ignore[arg-type]
    assert caught.value.field == field


def test_anything_but_a_filter_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="not list") as caught:
        Scope.of([1, 2])  # type: ignore[arg-type]
    assert caught.value.field == "scope"


def test_a_digest_ignores_order_and_tells_scopes_apart() -> None:
    scopes = [
        AttributeValueFilter(),
        AttributeValueFilter([]),
        AttributeValueFilter([1, 2]),
        AttributeValueFilter(None, [1, 2]),
        AttributeValueFilter([1, 2], [1]),
    ]
    assert len({Scope.of(scope).digest() for scope in scopes}) == len(scopes)
    reordered = Scope.of(AttributeValueFilter([2, 1])).digest()
    assert reordered == Scope.of(AttributeValueFilter([1, 2])).digest()


def test_a_digest_is_the_same_in_every_version() -> None:
    """A journal holds it: with another one, a sync begun before an update can't be taken up."""
    assert Scope.of(None).digest() == "267f2c39f134e33ffe7055da6eeef206"
    assert (
        Scope.of(AttributeValueFilter([2, 1], [3])).digest() == "5f00e10443cb9ededcba224a458565af"
    )
