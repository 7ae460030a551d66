"""Checks the body of an upsert, item by item, before the rows are touched.

The service reports only the first bad item of a batch, so the checks here and the checks against
the rows are merged by the item's index: see `BadItem` and `refusal`.
"""

from __future__ import annotations

from typing import Final, Literal

import attrs
import msgspec

from bc_attrvals.sandbox.answers import RefusalError
from bc_attrvals.sandbox.filters import MAX_ID

MAX_ITEMS: Final = 10
MAX_VALUE_CHARACTERS: Final = 255
REFUSED_TITLE: Final = "Set customer attribute values failed."


@attrs.frozen
class UpsertItem:
    """One checked item; `index` is its place in the body, from 0."""

    index: int
    id: int | None
    customer_id: int
    attribute_id: int
    value: str


@attrs.frozen
class BadItem:
    """Why an item is refused; `index` is its place in the body, from 0."""

    index: int
    field: str
    message: str


def parse_upsert_body(body: bytes) -> tuple[list[UpsertItem], list[BadItem]]:
    """Split a body into good and bad items.

    Raises RefusalError if it is no array of 1 to 10 of them.
    """
    try:
        decoded: object = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RefusalError(422, REFUSED_TITLE, {".data": "the body is not JSON"}) from error
    if not isinstance(decoded, list):
        raise RefusalError(422, REFUSED_TITLE, {".data": "the body is not an array"})
    if not decoded:
        raise RefusalError(422, REFUSED_TITLE, {".data": "the array is empty"})
    if len(decoded) > MAX_ITEMS:
        raise RefusalError(
            413, f"At most {MAX_ITEMS} items per call.", {".data": f"{len(decoded)} items given"}
        )
    good: list[UpsertItem] = []
    bad: list[BadItem] = []
    for index, item in enumerate(decoded):
        checked = _check(index, item)
        if isinstance(checked, BadItem):
            bad.append(checked)
        else:
            good.append(checked)
    return good, bad


def refusal(bad: BadItem, style: Literal["indexed", "field", "empty"]) -> RefusalError:
    """Return the 422 that reports one bad item in the way the quirk asks for."""
    errors: dict[str, str] = {}
    if style == "indexed":
        errors = {f"{bad.index}.{bad.field}": bad.message}
    elif style == "field":
        errors = {".customer_create": bad.message}
    return RefusalError(422, REFUSED_TITLE, errors)


def _check(index: int, item: object) -> UpsertItem | BadItem:
    if not isinstance(item, dict):
        return BadItem(index, "data", "is not an object")
    ids: dict[str, int] = {}
    for field in ("id", "attribute_id", "customer_id"):
        if field not in item:
            if field == "id":
                continue
            return BadItem(index, field, f"missing {field}")
        number = item[field]
        # bool is an int in Python, but not in JSON.
        if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= MAX_ID:
            return BadItem(index, field, "must be a positive 32-bit integer")
        ids[field] = number
    if "value" not in item:
        # "data", as the recorded refusal has it.
        return BadItem(index, "data", "missing attribute value")
    value = item["value"]
    if not isinstance(value, str) or len(value) > MAX_VALUE_CHARACTERS:
        message = f"must be a string of 0 to {MAX_VALUE_CHARACTERS} characters"
        return BadItem(index, "value", message)
    return UpsertItem(index, ids.get("id"), ids["customer_id"], ids["attribute_id"], value)
