"""The rows of attribute definitions and of customers, and decoders for their answers.

Only the fields below are read; the others are ignored. A field with a default that can't be read
has its default: names and addresses are resolved without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, Generic, TypeVar

import attrs
import msgspec

from bc_attrvals.core.models import Pagination, to_utc
from bc_attrvals.core.responses import REFUSALS
from bc_attrvals.errors import DecodeError

T = TypeVar("T", bound="Attribute | Customer")


class _Plain:
    """What records of both resources have in common."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; dates are ISO strings."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain


@attrs.frozen
class Attribute(_Plain):
    """The definition of an attribute; `type` is an `AttributeType`, or a type unknown here."""

    id: int
    name: str
    type: str
    date_created: datetime | None = None
    date_modified: datetime | None = None


@attrs.frozen
class Customer(_Plain):
    """The fields read of a customer. Missing texts are empty, a missing group is None."""

    id: int
    email: str
    first_name: str = ""
    last_name: str = ""
    company: str = ""
    customer_group_id: int | None = None
    date_created: datetime | None = None
    date_modified: datetime | None = None


@attrs.frozen
class RowsPage(Generic[T]):
    """One page, and the total of its listing."""

    data: Sequence[T]
    total: int


class _Meta(msgspec.Struct):
    # The reference's example of the definitions has `meta: {}`.
    pagination: Pagination | None = None


class _Envelope(msgspec.Struct, Generic[T]):
    data: list[T]
    meta: _Meta | None = None


_ATTRIBUTES: Final = msgspec.json.Decoder(_Envelope[Attribute])
_CUSTOMERS: Final = msgspec.json.Decoder(_Envelope[Customer])


def decode_attributes(body: bytes) -> RowsPage[Attribute]:
    """Read an answer of `/customers/attributes`. Raises `DecodeError` with the place.

    An answer without pagination is the only page (BigCommerce reference, Get All Customer
    Attributes).
    """
    rows, pagination = _decode(_ATTRIBUTES, body, Attribute)
    return RowsPage(rows, pagination.total if pagination else len({row.id for row in rows}))


def decode_customers(body: bytes) -> RowsPage[Customer]:
    """Read an answer of `/customers`. Raises `DecodeError` with the place.

    Without a total, a page may lack customers.
    """
    rows, pagination = _decode(_CUSTOMERS, body, Customer)
    if pagination is None:
        raise DecodeError("required field missing", place="$.meta.pagination")
    return RowsPage(rows, pagination.total)


def _decode(
    decoder: msgspec.json.Decoder[_Envelope[T]], body: bytes, cls: type[T]
) -> tuple[list[T], Pagination | None]:
    try:
        envelope = decoder.decode(body)
        rows = [_in_utc(row) for row in envelope.data]
    except REFUSALS:
        from bc_attrvals.core.fallback_decoding import convert_records

        return convert_records(body, cls)
    return rows, None if envelope.meta is None else envelope.meta.pagination


def _in_utc(row: T) -> T:
    return attrs.evolve(
        row,
        date_created=row.date_created and to_utc(row.date_created),
        date_modified=row.date_modified and to_utc(row.date_modified),
    )
