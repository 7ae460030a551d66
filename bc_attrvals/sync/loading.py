"""Reads the desired values: an iterable, sync or async, becomes checked rows in large lists.

The first step of a sync, between the caller's input and the working set. Names and addresses are
resolved here, a list at a time.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Final, TypeAlias

import attrs

from bc_attrvals.core.models import AttributeValueUpsert
from bc_attrvals.core.named_value import NamedValue
from bc_attrvals.core.sync_states import DesiredRow, GivenName, Unresolved, to_key
from bc_attrvals.errors import InvalidInputError, UnresolvedError
from bc_attrvals.sync.options import Normalise
from bc_attrvals.sync.report import dump_error
from bc_attrvals.sync.scope import Scope
from bc_attrvals.writing.sources import Items, chunks

#: Items read before they go to the working set together; the event loop runs in between.
_CHUNK: Final = 4_096

#: Returns the upsert or the error of each named value, in order.
Resolve: TypeAlias = Callable[
    [Sequence[NamedValue]], Awaitable[Sequence[AttributeValueUpsert | UnresolvedError]]
]


#: One value as it was read: a named one with its names.
Read: TypeAlias = DesiredRow | tuple[int | str, int | str, str]


@attrs.frozen
class _Named:
    index: int
    item: NamedValue


@attrs.frozen
class Loaded:
    """A part of the input, in its order."""

    #: What was read, before any name was resolved: a journal is bound to it.
    read: Sequence[Read]
    rows: list[DesiredRow]
    names: list[GivenName]
    unresolved: list[Unresolved]


@attrs.frozen(kw_only=True)
class Loader:
    """How an input is read; `field` is what errors call it."""

    scope: Scope
    normalise: Normalise | None
    field: str
    resolve: Resolve

    async def load(self, desired: Items, *, resolve: bool) -> AsyncGenerator[Loaded]:
        """Yield an input in large parts, to its end; close the generator.

        Without `resolve`, only `read` is filled where values are named. Raises what the input
        raises, and `InvalidInputError` for an item of another type or outside of the scope, and for
        a result of `normalise` that is no text; `place` is `field[i]`.
        """
        async with aclosing(chunks(desired, self._checked, self.field, _CHUNK)) as lists:
            async for entries in lists:
                yield await self._resolved(entries, resolve=resolve)

    async def _resolved(self, entries: Sequence[DesiredRow | _Named], *, resolve: bool) -> Loaded:
        rows = [entry for entry in entries if not isinstance(entry, _Named)]
        if len(rows) == len(entries):
            return Loaded(rows, rows, [], [])
        named = [entry.item for entry in entries if isinstance(entry, _Named)]
        found = iter(await self.resolve(named) if resolve and named else ())
        read: list[Read] = []
        loaded = Loaded(read, [], [], [])
        for entry in entries:
            if not isinstance(entry, _Named):
                read.append(entry)
                loaded.rows.append(entry)
                continue
            item = entry.item
            read.append((*item.key, item.text))
            if not resolve:
                continue
            upsert = next(found)
            if isinstance(upsert, UnresolvedError):
                key = None if upsert.key is None else to_key(*upsert.key)
                loaded.unresolved.append((key, *item.key, item.text, dump_error(upsert)))
                continue
            row = self._row(upsert, entry.index)
            loaded.rows.append(row)
            loaded.names.append((row[0], *item.key))
        return loaded

    def _checked(self, item: object, index: int) -> DesiredRow | _Named:
        # Runs once for each value of the input.
        if type(item) is AttributeValueUpsert:
            return self._row(item, index)
        if isinstance(item, NamedValue):
            return _Named(index, item)
        message = f"expected AttributeValueUpsert or NamedValue, got {type(item).__name__}"
        raise InvalidInputError(message, field=self.field, place=f"{self.field}[{index}]")

    def _row(self, item: AttributeValueUpsert, index: int) -> DesiredRow:
        customer_id, attribute_id, value = item.customer_id, item.attribute_id, item.value
        if not self.scope.matches(customer_id, attribute_id):
            raise InvalidInputError(
                f"customer {customer_id}, attribute {attribute_id} is outside of the scope",
                field=self.field,
                place=f"{self.field}[{index}]",
            )
        kept = None
        if self.normalise is not None:
            kept = _kept(value, self.normalise, f"{self.field}[{index}]")
        return to_key(customer_id, attribute_id), value, kept


def _kept(value: str, normalise: Normalise, place: str) -> str | None:
    """Return the form in which the store keeps a value, or None where that is the value."""
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
