"""The models of the resource, and the checks of items before they are sent.

Models are frozen and slotted. The service uses `value` in requests and `attribute_value` in answers
(older reference pages have `value` in both). The Python name is `value`, and
`AttributeValue.attribute_value` is the same string.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from datetime import UTC, datetime
from operator import attrgetter
from typing import Annotated, Protocol, TypeAlias, TypeVar, final

import attrs
import msgspec
from msgspec.structs import force_setattr

from bc_attrvals.core.arguments import check_encodes
from bc_attrvals.errors import DecodeError, InvalidInputError

__all__ = [
    "MAX_ID",
    "MAX_ROW_ID",
    "MAX_VALUE_CHARACTERS",
    "AttributeValue",
    "AttributeValueUpsert",
    "BarePage",
    "BareRow",
    "Key",
    "Page",
    "Pagination",
    "whole_row",
]

#: Ids of customers and attributes are `int32` in the service's OpenAPI description.
MAX_ID = 2**31 - 1
#: Ids of rows are not documented with a limit: any positive 64-bit integer is accepted.
MAX_ROW_ID = 2**63 - 1
#: The longest value in characters (BigCommerce reference, Upsert Customer Attribute Values).
MAX_VALUE_CHARACTERS = 255

#: Integers of more bits are not shown in errors.
_MOST_BITS_SHOWN = 256

#: (customer_id, attribute_id), by which the service matches an upsert without `id`.
Key: TypeAlias = tuple[int, int]

T = TypeVar("T")


class Row(Protocol):
    """The fields of a stored value that listings check and readers use, whole or in part."""

    @property
    def id(self) -> int: ...
    @property
    def customer_id(self) -> int: ...
    @property
    def attribute_id(self) -> int: ...
    @property
    def value(self) -> str | None: ...
    @property
    def date_created(self) -> datetime | None: ...
    @property
    def date_modified(self) -> datetime | None: ...


# Annotations for msgspec. A date without zone leaves the fast path (see responses.py).
_RowId = Annotated[int, msgspec.Meta(ge=1, le=MAX_ROW_ID)]
_AwareDatetime = Annotated[datetime, msgspec.Meta(tz=True)]


def to_utc(moment: datetime) -> datetime:
    """Return a moment in UTC; the service's zoneless dates are UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _dates_in_utc(cls: type[T]) -> type[T]:
    """Make the dates of a record properties that convert to UTC when they are read.

    Converting the dates of each row of a page took a fourteenth of the page's CPU, and nearly all
    are in UTC already. msgspec sets and compares the slots directly, and equal moments are equal in
    any zone.
    """

    def in_utc(slot: str) -> property:
        get: Callable[[object], datetime | None] = attrgetter(slot)

        def date(record: object) -> datetime | None:
            moment = get(record)
            if moment is None or moment.tzinfo is UTC or moment.tzinfo is None:
                return moment
            return moment.astimezone(UTC)

        return property(date)

    for name in ("date_created", "date_modified"):
        setattr(cls, f"_{name}", vars(cls)[name])
        setattr(cls, name, in_utc(f"_{name}"))
    return cls


# Records that are made by the hundred thousand are both Structs and attrs classes. The Struct gives
# the slots, `__init__`, `__eq__`, `__hash__` and `__match_args__`: msgspec decodes a page of them
# in three fifths of the time that an attrs class alone takes, and the garbage collector does not
# track them. attrs gives the fields, and prevents setting them. The price: they can't be weakly
# referenced, and only a Struct can subclass them.
@final
@_dates_in_utc
@attrs.frozen(
    these={
        "id": attrs.field(),
        "customer_id": attrs.field(),
        "attribute_id": attrs.field(),
        "attribute_value": attrs.field(),
        "date_created": attrs.field(default=None),
        "date_modified": attrs.field(default=None),
    },
    init=False,
    repr=True,
    eq=False,
    slots=False,
    match_args=False,
)
class AttributeValue(msgspec.Struct, frozen=True, gc=False):
    """One stored value, as the service answered it.

    Dates are aware UTC datetimes, or None if the answer had none. `to_dict` also has them in UTC;
    msgspec's own encoder writes the offset that the answer had. Do not subclass it.
    """

    id: _RowId
    customer_id: int
    attribute_id: int
    attribute_value: str
    date_created: _AwareDatetime | None = None
    date_modified: _AwareDatetime | None = None

    @property
    def value(self) -> str:
        """The stored string; the same as `attribute_value`."""
        return self.attribute_value

    @property
    def key(self) -> Key:
        """(customer_id, attribute_id)."""
        return (self.customer_id, self.attribute_id)

    def to_dict(self) -> dict[str, str | int | None]:
        """Return plain JSON types, under the service's names; dates are ISO strings in UTC."""
        # The copy is made from the properties, so its dates are in UTC.
        plain: dict[str, str | int | None] = msgspec.to_builtins(attrs.evolve(self))
        return plain

    def to_upsert(self) -> AttributeValueUpsert:
        """Return the upsert that stores this value, matched by customer and attribute.

        Raises `InvalidInputError` for a value that the service would refuse today.
        """
        return AttributeValueUpsert(self.customer_id, self.attribute_id, self.attribute_value)


# A Struct is made in half the time, and msgspec encodes it directly.
@final
@attrs.frozen(
    these={
        "customer_id": attrs.field(),
        "attribute_id": attrs.field(),
        "value": attrs.field(),
        "id": attrs.field(default=None),
    },
    init=False,
    repr=False,
    eq=False,
    slots=False,
    match_args=False,
)
class AttributeValueUpsert(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One value to store: created if the customer has none for the attribute, else replaced.

    Checked when it is built: the ids of customer and attribute are positive 32-bit integers, the
    value a string of at most 255 characters that UTF-8 can encode. `id`, the id of the stored row,
    is optional; without it the service matches by customer and attribute.

    Raises `InvalidInputError`, whose `field` names what is wrong. Do not subclass it.
    """

    customer_id: int
    attribute_id: int
    value: str
    id: int | None = None

    def __post_init__(self) -> None:
        """Check the fields. Valid ones take one condition: this may run for 100,000 items."""
        customer_id, attribute_id, value = self.customer_id, self.attribute_id, self.value
        if not (
            type(customer_id) is int
            and type(attribute_id) is int
            and type(value) is str
            and 0 < customer_id <= MAX_ID
            and 0 < attribute_id <= MAX_ID
            and len(value) <= MAX_VALUE_CHARACTERS
            and value.isascii()
            and self.id is None
        ):
            force_setattr(self, "customer_id", check_id(customer_id, "customer_id"))
            force_setattr(self, "attribute_id", check_id(attribute_id, "attribute_id"))
            force_setattr(self, "value", check_value(value))
            if self.id is not None:
                force_setattr(self, "id", check_id(self.id, "id", most=MAX_ROW_ID))

    @property
    def key(self) -> Key:
        """(customer_id, attribute_id)."""
        return (self.customer_id, self.attribute_id)


def check_id(value: object, field: str, place: str | None = None, *, most: int = MAX_ID) -> int:
    """Return `value` as an id from 1 to `most`, or raise `InvalidInputError` naming `field`."""
    # bool is an int in Python, but True is not an id. numpy's integers are not int subclasses.
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        message = f"{field} must be an int, not {type(value).__name__}"
        raise InvalidInputError(message, field=field, place=place)
    number = int(value)
    if not 0 < number <= most:
        # Python refuses to convert integers of several thousand digits to text.
        shown = number if number.bit_length() < _MOST_BITS_SHOWN else "a number of many digits"
        message = f"{field} must be from 1 to {most}, not {shown}"
        raise InvalidInputError(message, field=field, place=place)
    # A plain int, because the JSON encoder accepts no subclasses.
    return number


def check_value(value: object) -> str:
    """Return a plain string that the service can store, or raise `InvalidInputError`."""
    if not isinstance(value, str):
        message = f"value must be a str, not {type(value).__name__}"
        raise InvalidInputError(message, field="value")
    if len(value) > MAX_VALUE_CHARACTERS:
        message = f"value has {len(value)} characters, at most {MAX_VALUE_CHARACTERS} are stored"
        raise InvalidInputError(message, field="value")
    check_encodes(value, "value")
    # str() of an enum member may be its name.
    return str.__str__(value)


@attrs.frozen
class Pagination:
    """The position of a page in its listing, as the service answered it; pages count from 1.

    `total` and `total_pages` are those at the time of the answer: both change while others write.
    """

    total: int
    per_page: int
    current_page: int
    total_pages: int
    count: int | None = None


@attrs.frozen
class Page:
    """One page of a listing. The order of `data` is the service's, and is not documented."""

    data: list[AttributeValue]
    pagination: Pagination

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON types, in the service's own names."""
        rows = [row.to_dict() for row in self.data]
        return {"data": rows, "pagination": attrs.asdict(self.pagination)}


class BareRow(msgspec.Struct, frozen=True, gc=False):
    """The readable fields of a row, for readers that do not need all of it.

    An unreadable id is 0, an unreadable value or date is None. `place` is the row's JSON path in
    its answer.
    """

    id: int
    customer_id: int
    attribute_id: int
    value: str | None
    date_created: datetime | None
    date_modified: datetime | None
    place: str


def whole_row(row: Row) -> AttributeValue | None:
    """Return a row as an `AttributeValue`; None if its value is unreadable.

    An unreadable id is 0, an unreadable date None.
    """
    if isinstance(row, AttributeValue) or row.value is None:
        return row if isinstance(row, AttributeValue) else None
    return AttributeValue(
        row.id, row.customer_id, row.attribute_id, row.value, row.date_created, row.date_modified
    )


class BarePage(msgspec.Struct, frozen=True):
    """A page for readers that do not need all of each row."""

    data: list[Row]
    pagination: Pagination


def page_of(data: list[AttributeValue], pagination: Pagination) -> Page:
    """Return a page with counts that agree with its rows.

    If there are rows and `total_pages` is 0, it is computed from the total. Raises `DecodeError`
    for a negative count.
    """
    if pagination.total < 0 or pagination.total_pages < 0:
        field = "total" if pagination.total < 0 else "total_pages"
        raise DecodeError("negative", place=f"$.meta.pagination.{field}")
    if data and not pagination.total_pages:
        per_page = pagination.per_page if pagination.per_page > 0 else len(data)
        pages = max(1, math.ceil(pagination.total / per_page))
        pagination = attrs.evolve(pagination, total_pages=pages)
    return Page(data, pagination)
