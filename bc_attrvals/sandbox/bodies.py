"""Checks the bodies of PUT and POST item by item, before anything stored is looked at.

The service reports only the first bad item of a batch. So these checks and the checks against what
is stored are merged by the item's index: see `BadItem` and `refusal`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import attrs
import msgspec

from bc_attrvals.sandbox.answers import RefusalError
from bc_attrvals.sandbox.queries import MAX_ID
from bc_attrvals.sandbox.quirks import Quirks

T = TypeVar("T")

MAX_VALUE_CHARACTERS: Final = 255
MAX_NAME_CHARACTERS: Final = 255
ATTRIBUTE_TYPES: Final = ("string", "number", "date")
VALUES_TITLE: Final = "Set customer attribute values failed."
CREATE_TITLE: Final = "Create customer attributes failed."
RENAME_TITLE: Final = "Update customer attributes failed."


@attrs.frozen
class UpsertItem:
    """One checked attribute value; `index` is its place in the body, from 0."""

    index: int
    id: int | None
    customer_id: int
    attribute_id: int
    value: str


@attrs.frozen
class NewAttribute:
    """One checked attribute to create; `index` is its place in the body, from 0."""

    index: int
    name: str
    type: str


@attrs.frozen
class Renaming:
    """One checked attribute to rename; `index` is its place in the body, from 0."""

    index: int
    id: int
    name: str


@attrs.frozen
class BadItem:
    """Why an item is refused; `index` is its place in the body, from 0."""

    index: int
    field: str
    message: str


def parse_upserts(body: bytes, quirks: Quirks) -> tuple[list[UpsertItem], list[BadItem]]:
    """Split the body of an upsert into good and bad items.

    Raises RefusalError if it is not an array of 1 to `max_items` of them.
    """
    items = _array(body, VALUES_TITLE)
    size = len(items)
    if quirks.batch_by == "customers":
        owners = [item.get("customer_id") if isinstance(item, dict) else None for item in items]
        size = len(set(map(str, owners)))
    _check_size(size, quirks.max_items, quirks.batch_limit_status)
    return _sorted_out(items, _upsert)


def parse_new_attributes(body: bytes, quirks: Quirks) -> tuple[list[NewAttribute], list[BadItem]]:
    """Split the body of a POST of attributes into good and bad items."""
    items = _array(body, CREATE_TITLE)
    if quirks.max_new_attributes is not None:
        _check_size(len(items), quirks.max_new_attributes, 422)
    return _sorted_out(items, _new_attribute)


def parse_renamings(body: bytes) -> tuple[list[Renaming], list[BadItem]]:
    """Split the body of a PUT of attributes into good and bad items."""
    return _sorted_out(_array(body, RENAME_TITLE), _renaming)


def refusal(title: str, bad: BadItem, quirks: Quirks) -> RefusalError:
    """Return the refusal that reports one bad item in the style of the quirks."""
    errors: dict[str, str] = {}
    if quirks.error_style == "indexed":
        errors = {f"{bad.index}.{bad.field}": bad.message}
    elif quirks.error_style == "field":
        errors = {".customer_create": bad.message}
    return RefusalError(quirks.refusal_status, title, errors)


def _array(body: bytes, title: str) -> list[object]:
    try:
        decoded: object = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RefusalError(422, title, {".data": "the body is not JSON"}) from error
    if not isinstance(decoded, list):
        raise RefusalError(422, title, {".data": "the body is not an array"})
    if not decoded:
        raise RefusalError(422, title, {".data": "the array is empty"})
    return decoded


def _check_size(size: int, most: int, status: int) -> None:
    if size <= most:
        return
    if status == 422:
        raise RefusalError(422, f"Max batch size allowed is {most}")
    raise RefusalError(status, f"At most {most} items per call.", {".data": f"{size} items given"})


def _sorted_out(
    items: list[object], check: Callable[[int, dict[str, object]], T | BadItem]
) -> tuple[list[T], list[BadItem]]:
    good: list[T] = []
    bad: list[BadItem] = []
    for index, item in enumerate(items):
        checked: T | BadItem = BadItem(index, "data", "is not an object")
        if isinstance(item, dict):
            checked = check(index, item)
        if isinstance(checked, BadItem):
            bad.append(checked)
        else:
            good.append(checked)
    return good, bad


def _id(index: int, item: dict[str, object], field: str) -> int | BadItem:
    if field not in item:
        return BadItem(index, field, f"missing {field}")
    number = item[field]
    # bool is an int in Python, but not in JSON.
    if isinstance(number, int) and not isinstance(number, bool) and 1 <= number <= MAX_ID:
        return number
    return BadItem(index, field, "must be a positive 32-bit integer")


def _upsert(index: int, item: dict[str, object]) -> UpsertItem | BadItem:
    row_id = _id(index, item, "id") if "id" in item else None
    attribute_id = _id(index, item, "attribute_id")
    customer_id = _id(index, item, "customer_id")
    if isinstance(row_id, BadItem):
        return row_id
    if isinstance(attribute_id, BadItem):
        return attribute_id
    if isinstance(customer_id, BadItem):
        return customer_id
    if "value" not in item:
        # "data", as in the recorded refusal.
        return BadItem(index, "data", "missing attribute value")
    value = item["value"]
    if not isinstance(value, str) or len(value) > MAX_VALUE_CHARACTERS:
        message = f"must be a string of 0 to {MAX_VALUE_CHARACTERS} characters"
        return BadItem(index, "value", message)
    return UpsertItem(index, row_id, customer_id, attribute_id, value)


def _name(index: int, item: dict[str, object]) -> str | BadItem:
    if "name" not in item:
        return BadItem(index, "name", "missing name")
    name = item["name"]
    if isinstance(name, str) and 1 <= len(name) <= MAX_NAME_CHARACTERS:
        return name
    return BadItem(index, "name", f"must be a string of 1 to {MAX_NAME_CHARACTERS} characters")


def _new_attribute(index: int, item: dict[str, object]) -> NewAttribute | BadItem:
    name = _name(index, item)
    if isinstance(name, BadItem):
        return name
    kind = item.get("type")
    if not isinstance(kind, str) or kind not in ATTRIBUTE_TYPES:
        return BadItem(index, "type", f"must be one of {', '.join(ATTRIBUTE_TYPES)}")
    return NewAttribute(index, name, kind)


def _renaming(index: int, item: dict[str, object]) -> Renaming | BadItem:
    attribute_id = _id(index, item, "id")
    if isinstance(attribute_id, BadItem):
        return attribute_id
    name = _name(index, item)
    return name if isinstance(name, BadItem) else Renaming(index, attribute_id, name)
