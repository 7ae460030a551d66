"""The desired values as rows: all of them, in order, or the exception that ended the input."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import pytest

from bc_attrvals import AttributeValueFilter, AttributeValueUpsert, InvalidInputError, Store
from bc_attrvals.core.sync_states import DesiredRow, to_key
from bc_attrvals.sandbox import Sandbox
from bc_attrvals.sync.loading import Loader
from bc_attrvals.sync.scope import Scope
from tests.probes import upserts

WHOLE = Scope.of(None)


async def loaded(desired: Any, scope: Scope = WHOLE, **options: Any) -> list[list[DesiredRow]]:
    settings = {"normalise": None, "field": "desired", "resolve": nothing, **options}
    async with aclosing(Loader(scope=scope, **settings).load(desired, resolve=True)) as parts:
        return [part.rows async for part in parts]


async def nothing(_: object) -> list[Any]:
    raise AssertionError("no name was given")


async def test_every_item_is_a_row_in_order_and_lists_are_bounded() -> None:
    lists = await loaded(upserts(10_000))
    assert max(map(len, lists)) <= 4_096
    assert [row for rows in lists for row in rows] == [
        (to_key(*item.key), item.value, None) for item in upserts(10_000)
    ]


async def test_a_form_is_kept_only_where_it_is_another_one() -> None:
    values = [AttributeValueUpsert(1, 1, "a"), AttributeValueUpsert(2, 1, "b ")]
    (rows,) = await loaded(values, normalise=str.rstrip)
    assert [row[1:] for row in rows] == [("a", None), ("b ", "b")]


async def test_a_place_is_named_by_the_field_it_stands_in() -> None:
    scope = Scope.of(AttributeValueFilter(attribute_id_in=[1]))
    for bad in (None, AttributeValueUpsert(1, 2, "x")):
        with pytest.raises(InvalidInputError) as caught:
            await loaded([*upserts(5), bad], scope, field="items")
        assert (caught.value.field, caught.value.place) == ("items", "items[5]")


class Ended(BaseException):
    """An exception of an extension."""


@pytest.mark.parametrize(
    "error",
    [
        LookupError("x"),
        Ended("x"),
        GeneratorExit("x"),
        asyncio.CancelledError("x"),
        BaseExceptionGroup("x", [Ended()]),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("is_async", [False, True])
async def test_an_input_that_ends_by_any_exception_has_not_ended(
    sandbox: Sandbox, store: Store, error: BaseException, is_async: bool
) -> None:
    class Items:
        """Not a generator, which would turn some of these into others."""

        def __init__(self) -> None:
            self._left = iter(upserts(30))

        def __iter__(self) -> Iterator[AttributeValueUpsert]:
            return self

        def __next__(self) -> AttributeValueUpsert:
            item = next(self._left, None)
            if item is None:
                raise error
            return item

    class AsyncItems:
        def __init__(self) -> None:
            self._items = Items()

        def __aiter__(self) -> AsyncIterator[AttributeValueUpsert]:
            return self

        async def __anext__(self) -> AttributeValueUpsert:
            return next(self._items)

    with pytest.raises(type(error)):
        await store.attribute_values.sync(
            AsyncItems() if is_async else Items(),
            scope=AttributeValueFilter(attribute_id_in=[1]),
            prune=True,
        )
    assert not sandbox.requests
