"""Limits: what may be asked for."""

from __future__ import annotations

import attrs
import pytest

from bc_attrvals.core.limits import Limits
from bc_attrvals.errors import InvalidInputError

# The least and the most of each; None where nothing bounds it.
BOUNDS: dict[str, tuple[int, int | None]] = {
    "reads": (1, None),
    "writes": (1, None),
    "deletes": (1, None),
    "batch_size": (1, 10),
    "page_size": (1, 250),
    "delete_size": (1, None),
    "reserve": (0, None),
    "coalesce_ms": (0, 1_000),
    "max_response_bytes": (1024, None),
}


def test_every_limit_is_bounded() -> None:
    assert set(BOUNDS) == {field.name for field in attrs.fields(Limits)} - {"batch_by"}


def test_the_defaults_are_the_documented_ones() -> None:
    documented = Limits(
        reads=10,
        writes=3,
        deletes=3,
        batch_size=10,
        page_size=250,
        delete_size=50,
        reserve=0,
        coalesce_ms=10,
        max_response_bytes=8_388_608,
    )
    assert Limits() == documented


@pytest.mark.parametrize(("name", "bounds"), BOUNDS.items())
def test_the_bounds_themselves_are_accepted(name: str, bounds: tuple[int, int | None]) -> None:
    low, high = bounds
    for value in (low, 10**6 if high is None else high):
        assert getattr(Limits(**{name: value}), name) == value


@pytest.mark.parametrize(("name", "bounds"), BOUNDS.items())
def test_what_is_beyond_them_is_refused(name: str, bounds: tuple[int, int | None]) -> None:
    low, high = bounds
    for bad in (low - 1, -(10**9), *(() if high is None else (high + 1, 10**9))):
        allowed = f"of at least {low}" if high is None else f"from {low} to {high}"
        with pytest.raises(
            InvalidInputError, match=f"^{name} must be an int {allowed}, not {bad}$"
        ) as caught:
            Limits(**{name: bad})
        assert caught.value.field == name


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.parametrize("bad", [True, 5.0, "5", None])
def test_what_is_no_whole_number_is_refused(name: str, bad: object) -> None:
    with pytest.raises(InvalidInputError) as caught:
        Limits(**{name: bad})  # type: ignore[arg-type]
    assert caught.value.field == name


def test_limits_are_given_by_name() -> None:
    with pytest.raises(TypeError):
        Limits(10)  # type: ignore[misc]


@pytest.mark.parametrize("bad", ["row", "", None, 10, True])
def test_a_batch_counts_rows_or_customers(bad: object) -> None:
    assert Limits(batch_by="customers").batch_by == "customers"
    with pytest.raises(InvalidInputError, match='batch_by must be "rows" or "customers"') as caught:
        Limits(batch_by=bad)  # type: ignore[arg-type]
    assert caught.value.field == "batch_by"
