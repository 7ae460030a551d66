"""The slow converter: cattrs over decoded JSON, which names the place of every fault.

It is used only for answers that the fast paths of `responses.py` and `definitions.py` refuse: older
spellings (`value`), dates without a zone, malformed rows and fields, and bodies that can't be read,
for which it names the fault.
It is imported when first needed, so cattrs costs nothing while answers are well-formed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NoReturn, TypeVar

import attrs
import cattrs
import msgspec
from attrs import NOTHING
from cattrs.gen import make_dict_structure_fn, override

from bc_attrvals.core.definitions import Attribute, Customer
from bc_attrvals.core.models import (
    MAX_ROW_ID,
    AttributeValue,
    BarePage,
    BareRow,
    Page,
    Pagination,
    page_of,
    to_utc,
    whole_row,
)
from bc_attrvals.errors import DecodeError

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


_structure_int = _strict(int)
_structure_str = _strict(str)


def _row_id(value: object, expected: object) -> int:
    number = _structure_int(value, expected)
    if not 0 < number <= MAX_ROW_ID:
        message = f"expected an id from 1 to {MAX_ROW_ID}"
        raise ValueError(message)
    return number


def _text(value: object, expected: object) -> str:
    text = _structure_str(value, expected)
    try:
        text.encode()
    except UnicodeEncodeError:
        # From an escape such as \\ud83d, or from bytes that are not UTF-8.
        message = "the text holds a lone surrogate"
        raise ValueError(message) from None
    return text


def _moment(value: object, _: object) -> datetime:
    # Through msgspec, so that both paths read the same spellings.
    return to_utc(msgspec.convert(value, datetime))


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=True)
    converter.register_structure_hook(int, _structure_int)
    converter.register_structure_hook(str, _text)
    converter.register_structure_hook(datetime, _moment)
    structure_row = make_dict_structure_fn(
        AttributeValue, converter, id=override(struct_hook=_row_id)
    )

    def row(value: object, cls: type[AttributeValue]) -> AttributeValue:
        return structure_row(_row_mapping(value), cls)

    converter.register_structure_hook(AttributeValue, row)
    structure_pagination = make_dict_structure_fn(Pagination, converter)
    converter.register_structure_hook(
        Pagination, lambda value, cls: structure_pagination(_mapping(value), cls)
    )
    _tolerate_odd_fields(converter, Attribute)
    _tolerate_odd_fields(converter, Customer)
    return converter


def _tolerate_odd_fields(converter: cattrs.Converter, cls: type[attrs.AttrsInstance]) -> None:
    """Give fields of `cls` that can't be read their default, if they have one."""
    structure = make_dict_structure_fn(cls, converter)
    optional = [one for one in attrs.fields(attrs.resolve_types(cls)) if one.default is not NOTHING]

    def record(value: object, _: object) -> attrs.AttrsInstance:
        fields = dict(_mapping(value))
        for field in optional:
            if field.name in fields:
                try:
                    converter.structure(fields[field.name], field.type)
                except (TypeError, ValueError, OverflowError):
                    del fields[field.name]
        return structure(fields, cls)

    converter.register_structure_hook(cls, record)


def _mapping(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        message = f"expected object, got {_json_name(value)}"
        raise TypeError(message)
    return value


def _row_mapping(value: object) -> Mapping[str, Any]:
    mapping = _mapping(value)
    # The reference pages of 2021 say `value` in answers too.
    if "attribute_value" not in mapping and "value" in mapping:
        return {**mapping, "attribute_value": mapping["value"]}
    return mapping


_CONVERTER = _make_converter()


def convert_page(body: bytes) -> Page:
    """Read the answer of a GET; see `responses.decode_page`."""
    envelope = _load(body)
    data = _rows(envelope.get("data"))
    return page_of(data, _pagination(envelope))


def convert_bare_page(body: bytes) -> BarePage:
    """Read the readable parts of the answer of a GET; see `responses.decode_bare_page`."""
    envelope = _load(body)
    rows = [_bare_row(row, index) for index, row in enumerate(_array(envelope.get("data")))]
    return BarePage([*rows], _pagination(envelope))


def convert_records(body: bytes, cls: type[T]) -> tuple[list[T], Pagination | None]:
    """Read the answer of a neighbouring resource, which may have no pagination.

    `cls` is `Attribute` or `Customer`.
    """
    envelope = _load(body)
    rows = [
        _structure(row, cls, f"$.data[{index}]")
        for index, row in enumerate(_array(envelope.get("data")))
    ]
    found = _found_pagination(envelope)
    return rows, None if found is None else _pagination(envelope)


def _pagination(envelope: Mapping[str, Any]) -> Pagination:
    return _structure(_found_pagination(envelope), Pagination, "$.meta.pagination")


def _found_pagination(envelope: Mapping[str, Any]) -> object:
    meta = envelope.get("meta")
    return meta.get("pagination") if isinstance(meta, dict) else None


def _bare_row(value: object, index: int) -> BareRow:
    fields = _row_mapping(value) if isinstance(value, dict) else {}

    def read(field: str, structure: Callable[[object, object], T], default: T) -> T:
        try:
            return structure(fields.get(field), None)
        except (TypeError, ValueError, OverflowError):
            return default

    no_text: str | None = None
    no_moment: datetime | None = None
    return BareRow(
        read("id", _row_id, 0),
        read("customer_id", _structure_int, 0),
        read("attribute_id", _structure_int, 0),
        read("attribute_value", _text, no_text),
        read("date_created", _moment, no_moment),
        read("date_modified", _moment, no_moment),
        f"$.data[{index}]",
    )


def convert_rows(body: bytes) -> list[AttributeValue]:
    """Read the answer of a PUT; see `responses.decode_rows`."""
    return _rows(_load(body).get("data"))


def convert_proofs(body: bytes) -> list[AttributeValue]:
    """Read the rows of a PUT's answer that confirm a value; see `responses.decode_proofs`."""
    found = enumerate(_array(_load(body).get("data")))
    rows = [_bare_row(row, index) for index, row in found]
    return [whole for row in rows if row.id and (whole := whole_row(row)) is not None]


def _array(value: object) -> list[object]:
    if not isinstance(value, list):
        reason = f"expected array, got {_json_name(value)}"
        raise DecodeError(reason, place="$.data")
    return value


def _rows(value: object) -> list[AttributeValue]:
    # One by one, because the first fault ends it. cattrs would collect the faults of all rows, and
    # take minutes for some hundred thousand.
    return [
        _structure(row, AttributeValue, f"$.data[{index}]")
        for index, row in enumerate(_array(value))
    ]


def _load(body: bytes) -> dict[str, Any]:
    document: object
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        document = _load_odd_text(body)
        if document is not None:
            return document
        reason = f"not a JSON document of the service ({len(body)} bytes): {error}"
        raise DecodeError(reason) from None
    if not isinstance(document, dict):
        reason = f"expected object, got {_json_name(document)}"
        raise DecodeError(reason)
    return document


def _load_odd_text(body: bytes) -> dict[str, Any] | None:
    """Read a document whose texts may have lone surrogates; None if it still can't be read.

    msgspec refuses the whole document for one of them. Bytes that are not UTF-8 become surrogates.
    """
    try:
        document = json.loads(body.decode("utf-8", "surrogateescape"), parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _refuse(constant: str) -> NoReturn:
    message = f"{constant} is no JSON"
    raise ValueError(message)


def _structure(value: object, cls: type[T], place: str) -> T:
    try:
        return _CONVERTER.structure(value, cls)
    except cattrs.BaseValidationError as group:
        # cattrs lists all faults; the first one is enough for a user.
        reason, _, where = cattrs.transform_error(group, path=place, format_exception=_reason)[
            0
        ].rpartition(" @ ")
    except TypeError as error:
        reason, where = str(error), place
    # Raised outside of the handler. The notes of cattrs hold types that can't be pickled, and Dask
    # pickles an error together with its context.
    raise DecodeError(reason, place=where)


def _reason(error: BaseException, _: type | None) -> str:
    if isinstance(error, KeyError):
        return "required field missing"
    if isinstance(error, OverflowError):
        return "a date outside of the years 1 to 9999 in UTC"
    return str(error)
