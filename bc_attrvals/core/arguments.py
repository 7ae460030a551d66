"""Checks of arguments, shared by models and resources."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import attrs

from bc_attrvals.errors import InvalidInputError

T = TypeVar("T")


def listed(field: str, values: Iterable[T]) -> list[T]:
    """Return the values as a list. Raises `InvalidInputError` naming `field` for no iterable."""
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        message = f"{field} must be an iterable, not {type(values).__name__}"
        raise InvalidInputError(message, field=field)
    return list(values)


def checked_list(
    field: str, values: Iterable[object], check: Callable[[object, str, str], T]
) -> list[T]:
    """Return the result of `check(value, field, place)` for each value."""
    given = enumerate(listed(field, values))
    return [check(one, field, f"{field}[{index}]") for index, one in given]


def check_range(field: str, value: int, low: int, high: int | None) -> None:
    """Raise `InvalidInputError` naming `field` unless `value` is an int within the bounds."""
    good = isinstance(value, int) and not isinstance(value, bool) and value >= low
    if not good or (high is not None and value > high):
        bounds = f"of at least {low}" if high is None else f"from {low} to {high}"
        message = f"{field} must be an int {bounds}, not {value!r}"
        raise InvalidInputError(message, field=field)


def between(
    low: int, high: int | None = None
) -> Callable[[object, attrs.Attribute[int], int], None]:
    """Return an attrs validator for an int within the bounds."""
    return lambda _, attribute, value: check_range(attribute.name, value, low, high)


def check_encodes(text: str, field: str) -> None:
    """Raise `InvalidInputError` naming `field` for a text that UTF-8 can't encode."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        message = f"{field} holds a lone surrogate at character {error.start}"
        raise InvalidInputError(message, field=field) from None
