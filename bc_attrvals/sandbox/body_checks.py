"""Checks the bodies of PUT and POST: an array, how many items it holds, and each item.

The eleventh item of a PUT is refused here. These checks need no stored rows. The service reports
only the first bad item of a batch, so these checks and those against the stored rows are merged by
the item's index: see `refusal`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Final, Literal, TypeVar, get_args

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from bc_attrvals.sandbox.answers import RefusalError
from bc_attrvals.sandbox.query_strings import MAX_ID
from bc_attrvals.sandbox.quirks import Quirks

T = TypeVar("T", bound=Struct)

#: BigCommerce reference, Upsert Customer Attribute Values.
MAX_VALUE_CHARACTERS: Final = 255
#: BigCommerce reference, Create a Customer Attribute.
MAX_NAME_CHARACTERS: Final = 255
AttributeType = Literal["string", "number", "date"]
ATTRIBUTE_TYPES: Final = get_args(AttributeType)
VALUES_TITLE: Final = "Set customer attribute values failed."
CREATE_TITLE: Final = "Create customer attributes failed."
RENAME_TITLE: Final = "Update customer attributes failed."

_ID_RULE: Final = "must be a positive 32-bit integer"
_TYPE_RULE: Final = f"must be one of {', '.join(ATTRIBUTE_TYPES)}"
_RULES: Final = {
    "id": _ID_RULE,
    "attribute_id": _ID_RULE,
    "customer_id": _ID_RULE,
    "value": f"must be a string of 0 to {MAX_VALUE_CHARACTERS} characters",
    "name": f"must be a string of 1 to {MAX_NAME_CHARACTERS} characters",
    "type": _TYPE_RULE,
}
# A recorded answer of the service names a missing value "0.data".
_MISSING: Final = {"value": ("data", "missing attribute value"), "type": ("type", _TYPE_RULE)}

Id = Annotated[int, Meta(ge=1, le=MAX_ID)]
Name = Annotated[str, Meta(min_length=1, max_length=MAX_NAME_CHARACTERS)]
Value = Annotated[str, Meta(max_length=MAX_VALUE_CHARACTERS)]


class UpsertItem(Struct, kw_only=True, gc=False):
    """One attribute value of a PUT. Fields are checked in this order."""

    id: Id | UnsetType = UNSET
    attribute_id: Id
    customer_id: Id
    value: Value


class NewAttribute(Struct):
    """One attribute to create."""

    name: Name
    type: AttributeType


class Renaming(Struct):
    """One attribute to rename."""

    id: Id
    name: Name


class BadItem(Struct, frozen=True):
    """Why an item is refused: one of its fields, and what is wrong with it."""

    field: str
    message: str


#: Items by their index in the body, from 0.
Indexed = list[tuple[int, T]]
Refused = dict[int, BadItem]


def parse_upserts(body: bytes, quirks: Quirks) -> tuple[Indexed[UpsertItem], Refused]:
    """Split the body of a PUT of attribute values into good and bad items.

    Raises RefusalError if it is not an array of 1 to `max_items` of them.
    """
    items = _array(body, VALUES_TITLE, UpsertItem)
    size = len(items)
    if quirks.batch_by == "customers":
        size = len({str(_field(item, "customer_id")) for item in items})
    _check_size(size, quirks.max_items, quirks.batch_limit_status)
    return _sorted_out(items, UpsertItem)


def parse_new_attributes(body: bytes, quirks: Quirks) -> tuple[Indexed[NewAttribute], Refused]:
    """Split the body of a POST of attributes into good and bad items."""
    items = _array(body, CREATE_TITLE, NewAttribute)
    if quirks.max_new_attributes is not None:
        _check_size(len(items), quirks.max_new_attributes, 422)
    return _sorted_out(items, NewAttribute)


def parse_renamings(body: bytes) -> tuple[Indexed[Renaming], Refused]:
    """Split the body of a PUT of attributes into good and bad items."""
    return _sorted_out(_array(body, RENAME_TITLE, Renaming), Renaming)


def refusal(title: str, refused: Mapping[int, BadItem], quirks: Quirks) -> RefusalError:
    """Return the refusal that reports the first bad item in the style of the quirks."""
    index = min(refused)
    bad = refused[index]
    errors: dict[str, str] = {}
    if quirks.error_style == "indexed":
        errors = {f"{index}.{bad.field}": bad.message}
    elif quirks.error_style == "field":
        errors = {".customer_create": bad.message}
    return RefusalError(quirks.refusal_status, title, errors)


@cache
def _decoder(kind: type[Struct]) -> msgspec.json.Decoder[list[Any]]:
    return msgspec.json.Decoder(list[kind])  # type: ignore[valid-type]


def _array(body: bytes, title: str, kind: type[Struct]) -> list[Any]:
    """Return the items: decoded as `kind` if all of them are good, else as plain JSON."""
    try:
        try:
            decoded = _decoder(kind).decode(body)
        except msgspec.ValidationError:
            decoded = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RefusalError(422, title, {".data": "the body is not JSON"}) from error
    if not isinstance(decoded, list):
        raise RefusalError(422, title, {".data": "the body is not an array"})
    if not decoded:
        raise RefusalError(422, title, {".data": "the array is empty"})
    return decoded


def _field(item: object, name: str) -> object:
    return item.get(name) if isinstance(item, dict) else getattr(item, name, None)


def _check_size(size: int, most: int, status: int) -> None:
    if size <= most:
        return
    if status == 422:
        raise RefusalError(422, f"Max batch size allowed is {most}")
    raise RefusalError(status, f"At most {most} items per call.", {".data": f"{size} items given"})


def _sorted_out(items: list[Any], kind: type[T]) -> tuple[Indexed[T], Refused]:
    if isinstance(items[0], kind):
        return list(enumerate(items)), {}
    refused = {index: bad for index, item in enumerate(items) if (bad := _bad(item, kind))}
    good = [
        (index, msgspec.convert(item, kind))
        for index, item in enumerate(items)
        if index not in refused
    ]
    return good, refused


def _bad(item: object, kind: type[Struct]) -> BadItem | None:
    if not isinstance(item, dict):
        return BadItem("data", "is not an object")
    for field in msgspec.structs.fields(kind):
        name = field.name
        if name in item:
            try:
                msgspec.convert(item[name], field.type)
            except msgspec.ValidationError:
                return BadItem(name, _RULES[name])
        elif field.required:
            return BadItem(*_MISSING.get(name, (name, f"missing {name}")))
    return None
