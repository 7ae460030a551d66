"""Reads the desired values: an iterable, sync or async, becomes checked rows in large lists.

The first step of a sync, between the caller's input and the working set.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from functools import partial
from typing import Final

from bc_attrvals.core.models import AttributeValueUpsert
from bc_attrvals.core.sync_states import DesiredRow, to_key
from bc_attrvals.errors import InvalidInputError
from bc_attrvals.sync.options import Normalise
from bc_attrvals.sync.scope import Scope
from bc_attrvals.writing.sources import Items, chunks

__all__ = ["desired_rows"]

#: Items read before they go to the working set together; the event loop runs in between.
_CHUNK: Final = 4_096


def desired_rows(
    desired: Items, scope: Scope, normalise: Normalise | None, field: str
) -> AsyncGenerator[list[DesiredRow]]:
    """Yield the rows of an input in large lists, to its end; close the generator.

    Raises what the input raises, and `InvalidInputError` for an item that is none or outside of
    the scope, and for a result of `normalise` that is no text; `place` is `field[i]`.
    """
    check = partial(_checked, scope=scope, normalise=normalise, field=field)
    return chunks(desired, check, field, _CHUNK)


def _checked(
    item: object, index: int, scope: Scope, normalise: Normalise | None, field: str
) -> DesiredRow:
    if not isinstance(item, AttributeValueUpsert):
        message = f"expected AttributeValueUpsert, got {type(item).__name__}"
        raise InvalidInputError(message, field=field, place=f"{field}[{index}]")
    if not scope.holds(item.customer_id, item.attribute_id):
        message = (
            f"customer {item.customer_id}, attribute {item.attribute_id} is outside of the scope"
        )
        raise InvalidInputError(message, field=field, place=f"{field}[{index}]")
    key, value = to_key(item.customer_id, item.attribute_id), item.value
    return key, value, None if normalise is None else _kept(value, normalise, f"{field}[{index}]")


def _kept(value: str, normalise: Normalise, place: str) -> str | None:
    """Return the form that the store keeps of a value, or None where that is the value."""
    kept: object = normalise(value)
    if not isinstance(kept, str):
        message = f"normalise must return a str, not {type(kept).__name__}"
        raise InvalidInputError(message, field="normalise", place=place)
    try:
        kept.encode()
    except UnicodeEncodeError as error:
        message = f"normalise returned a lone surrogate at character {error.start}"
        raise InvalidInputError(message, field="normalise", place=place) from None
    return None if kept == value else str.__str__(kept)
