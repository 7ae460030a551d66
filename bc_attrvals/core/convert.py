"""The careful converter: cattrs over decoded JSON, with the place of every fault.

It is met only where the fast path of `responses.py` refuses an answer: older spellings (`value`),
zoneless dates, and bodies that can't be read at all, for which it finds the words. It is imported
on first need, so that cattrs costs nothing to those whose answers are in order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

import cattrs
import msgspec
from cattrs.gen import make_dict_structure_fn

from bc_attrvals.core.models import AttributeValue, Page, Pagination, page_of
from bc_attrvals.errors import DecodeError

__all__ = ["convert_page", "convert_rows"]

T = TypeVar("T")


def _strict(expected: type[T]) -> Callable[[object, object], T]:
    def structure(value: object, _: object) -> T:
        # bool is an int in Python, but not in JSON.
        if isinstance(value, expected) and not (expected is int and isinstance(value, bool)):
            return value
        message = f"expected {expected.__name__}, got {_json_name(value)}"
        raise TypeError(message)

    return structure


def _json_name(value: object) -> str:
    return "null" if value is None else type(value).__name__


def _moment(value: object, _: object) -> datetime:
    # Through msgspec, so that both paths read the same spellings. Zoneless dates are UTC.
    moment = msgspec.convert(value, datetime)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=True)
    converter.register_structure_hook(int, _strict(int))
    converter.register_structure_hook(str, _strict(str))
    converter.register_structure_hook(datetime, _moment)
    structure_row = make_dict_structure_fn(AttributeValue, converter)

    def row(value: object, cls: type[AttributeValue]) -> AttributeValue:
        mapping = _mapping(value)
        # The reference pages of 2021 say `value` in answers too.
        if "attribute_value" not in mapping and "value" in mapping:
            mapping = {**mapping, "attribute_value": mapping["value"]}
        return structure_row(mapping, cls)

    converter.register_structure_hook(AttributeValue, row)
    structure_pagination = make_dict_structure_fn(Pagination, converter)
    converter.register_structure_hook(
        Pagination, lambda value, cls: structure_pagination(_mapping(value), cls)
    )
    return converter


def _mapping(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        message = f"expected object, got {_json_name(value)}"
        raise TypeError(message)
    return value


_CONVERTER = _make_converter()


def convert_page(body: bytes) -> Page:
    """Read the answer of a GET, slowly; see `responses.decode_page`."""
    envelope = _load(body)
    data = _rows(envelope.get("data"))
    meta = envelope.get("meta")
    pagination = meta.get("pagination") if isinstance(meta, dict) else None
    return page_of(data, _structure(pagination, Pagination, "$.meta.pagination"))


def convert_rows(body: bytes) -> list[AttributeValue]:
    """Read the answer of a PUT, slowly; see `responses.decode_rows`."""
    return _rows(_load(body).get("data"))


def _rows(value: object) -> list[AttributeValue]:
    if not isinstance(value, list):
        reason = f"expected array, got {_json_name(value)}"
        raise DecodeError(reason, place="$.data")
    # One by one: the first fault ends it. cattrs would gather those of all rows, for minutes where
    # a flood holds some hundred thousand.
    return [_structure(row, AttributeValue, f"$.data[{index}]") for index, row in enumerate(value)]


def _load(body: bytes) -> dict[str, Any]:
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = f"not a JSON document of the service ({len(body)} bytes): {error}"
        raise DecodeError(reason) from None
    if not isinstance(document, dict):
        reason = f"expected object, got {_json_name(document)}"
        raise DecodeError(reason)
    return document


def _structure(value: object, cls: type[T], place: str) -> T:
    try:
        return _CONVERTER.structure(value, cls)
    except cattrs.BaseValidationError as group:
        # Every fault is listed; the first one is what a user can act on.
        reason, _, where = cattrs.transform_error(group, path=place, format_exception=_reason)[
            0
        ].rpartition(" @ ")
    except TypeError as error:
        reason, where = str(error), place
    # Out here, for the notes of cattrs hold types that can't be pickled, and Dask pickles an error
    # with all that was handled when it was raised.
    raise DecodeError(reason, place=where)


def _reason(error: BaseException, _: type | None) -> str:
    if isinstance(error, KeyError):
        return "required field missing"
    if isinstance(error, OverflowError):
        return "a date outside of the years 1 to 9999 in UTC"
    return str(error)
