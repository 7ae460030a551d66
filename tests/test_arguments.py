"""Arguments of wrong types: refused by name, before anything is sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bc_attrvals import InvalidInputError, Store
from bc_attrvals.attribute_values import AttributeValues
from bc_attrvals.sandbox import Sandbox

BAD_CALLS: list[tuple[str, Callable[[AttributeValues], object], str]] = [
    ("get_page", lambda values: values.get_page({}), "filter"),
    ("get_page", lambda values: values.get_page(page="1"), "page"),
    ("get_page", lambda values: values.get_page(limit=1.5), "limit"),
    ("get", lambda values: values.get("1", 1), "customer_id"),
    ("get", lambda values: values.get(1, None), "attribute_id"),
    ("count", lambda values: values.count("x"), "filter"),
    ("put_batch", lambda values: values.put_batch(5), "items"),
    ("put_batch", lambda values: values.put_batch("items"), "items"),
    ("put_batch", lambda values: values.put_batch([{}]), "items"),
    ("delete_batch", lambda values: values.delete_batch(5), "ids"),
    ("delete_batch", lambda values: values.delete_batch("1"), "ids"),
    ("pages", lambda values: anext(values.pages([])), "filter"),
    ("pages", lambda values: anext(values.pages(read_ahead=-1)), "read_ahead"),
    ("stream", lambda values: anext(values.stream({})), "filter"),
    ("exact", lambda values: anext(values.stream({"a": 1}, exactly_once=True)), "filter"),
    ("upsert", lambda values: values.upsert(5), "items"),
    ("upsert_stream", lambda values: anext(values.upsert_stream("items")), "items"),
    ("delete", lambda values: values.delete(5), "ids"),
    ("delete_where", lambda values: values.delete_where({"a": 1}), "filter"),
    ("delete_where", lambda values: values.delete_where({}, everything=True), "filter"),
    ("plan_sync", lambda values: values.plan_sync(5, scope=None), "desired"),
    ("plan_sync", lambda values: values.plan_sync([], scope={}), "scope"),
    ("sync", lambda values: values.sync("x"), "desired"),
    ("sync", lambda values: values.sync([], journal=5), "journal"),
]


@pytest.mark.parametrize(
    ("call", "field"), [one[1:] for one in BAD_CALLS], ids=[one[0] for one in BAD_CALLS]
)
async def test_an_argument_of_a_wrong_type_is_refused_by_name(
    sandbox: Sandbox, store: Store, call: Callable[[AttributeValues], Any], field: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        await call(store.attribute_values)
    assert caught.value.field == field
    assert not sandbox.requests


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"priority": 7}, "priority"),
        ({"priority": "bulk"}, "priority"),
        ({"retry": 5}, "retry"),
        ({"timeout": "5"}, "timeout"),
    ],
)
async def test_a_view_checks_its_options(store: Store, options: Any, field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        store.with_options(**options)
    assert caught.value.field == field
