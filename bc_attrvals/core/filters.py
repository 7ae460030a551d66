"""Filters of listings: checked when they are built, then turned into query strings.

First step of the read path. A filter too long for one URL becomes several queries whose results do
not overlap: each asks for a part of the ids. A query checks the rows of its answers, because the
service or a proxy may ignore a filter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from operator import attrgetter
from typing import Final, TypeAlias
from urllib.parse import quote

import attrs
import msgspec

from bc_attrvals.core.arguments import check_encodes, checked_list
from bc_attrvals.core.models import Row, check_id
from bc_attrvals.errors import FilterIgnoredError, InvalidInputError

#: A moment: an aware datetime, or a date, which means its midnight UTC.
When: TypeAlias = datetime | date

#: URLs are kept below 4,096 bytes, a bound that common proxies and servers accept; the rest is
#: room for `&page=` and its number.
MAX_URL_BYTES: Final = 4_000

_ONE_SECOND: Final = timedelta(seconds=1)


def _to_utc(value: When, field: str) -> datetime:
    if not isinstance(value, datetime):
        if not isinstance(value, date):
            message = f"{field} must be a datetime or a date, not {type(value).__name__}"
            raise InvalidInputError(message, field=field)
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    if value.tzinfo is None or value.utcoffset() is None:
        message = f"{field} is a datetime without time zone; give it one, such as datetime.UTC"
        raise InvalidInputError(message, field=field)
    return value.astimezone(UTC)


def _whole_second(value: When | None, field: str) -> datetime | None:
    """Return a moment in whole seconds: a `_max` is rounded down, a `_min` up."""
    if value is None:
        return None
    try:
        moment = _to_utc(value, field)
        whole = moment.replace(microsecond=0)
        if whole == moment or field.endswith("_max"):
            return whole
        if field.endswith("_min"):
            return whole + _ONE_SECOND
    except OverflowError:
        message = f"{field} is outside of the years 1 to 9999 in UTC"
        raise InvalidInputError(message, field=field) from None
    # The service keeps whole seconds and matches the form without suffix exactly (BigCommerce
    # reference, Get All Customer Attribute Values).
    message = f"{field} matches a whole second exactly, and so takes no fraction of one"
    raise InvalidInputError(message, field=field)


def _id_tuple(value: Iterable[int] | None, field: str) -> tuple[int, ...] | None:
    if value is None:
        return None
    # Each once, in the given order: a repeated id would be listed twice when split.
    return tuple(dict.fromkeys(checked_list(field, value, check_id)))


def _checked_name(name: str | None) -> str | None:
    if name is None:
        return None
    if not isinstance(name, str):
        message = f"name must be a str, not {type(name).__name__}"
        raise InvalidInputError(message, field="name")
    if not name:
        # It is not known how the service reads `name=`; at worst it ignores the filter.
        raise InvalidInputError("name must not be empty", field="name")
    check_encodes(name, "name")
    return name


@attrs.frozen(init=False)
class AttributeValueFilter:
    """Which values to list: one field for each filter of the service. A row must match all of them.

    None leaves a filter out. `customer_id_in` and `attribute_id_in` take any iterable of positive
    ints; an empty one matches nothing, and nothing is sent. `name` is the attribute's name.
    `date_created` and `date_modified` match one second exactly; `_min` and `_max` are bounds.
    Dates are aware datetimes, or dates, which mean midnight UTC. The service keeps whole seconds,
    so fractions of a second are rounded inward: the minimum up, the maximum down.

    Raises `InvalidInputError`, whose `field` names what is wrong: a naive datetime, a fraction of a
    second to match exactly, an empty name, or an id that is not a positive 32-bit int.
    """

    customer_id_in: tuple[int, ...] | None
    attribute_id_in: tuple[int, ...] | None
    name: str | None
    date_created: datetime | None
    date_created_min: datetime | None
    date_created_max: datetime | None
    date_modified: datetime | None
    date_modified_min: datetime | None
    date_modified_max: datetime | None

    def __init__(
        self,
        customer_id_in: Iterable[int] | None = None,
        attribute_id_in: Iterable[int] | None = None,
        name: str | None = None,
        date_created: When | None = None,
        date_created_min: When | None = None,
        date_created_max: When | None = None,
        date_modified: When | None = None,
        date_modified_min: When | None = None,
        date_modified_max: When | None = None,
    ) -> None:
        self.__attrs_init__(
            _id_tuple(customer_id_in, "customer_id_in"),
            _id_tuple(attribute_id_in, "attribute_id_in"),
            _checked_name(name),
            _whole_second(date_created, "date_created"),
            _whole_second(date_created_min, "date_created_min"),
            _whole_second(date_created_max, "date_created_max"),
            _whole_second(date_modified, "date_modified"),
            _whole_second(date_modified_min, "date_modified_min"),
            _whole_second(date_modified_max, "date_modified_max"),
        )

    @property
    def is_empty(self) -> bool:
        """True if no filter is set, so that every value matches."""
        return self == _EVERYTHING

    @property
    def matches_nothing(self) -> bool:
        """True if no row can match, so that nothing has to be sent."""
        return (
            self.customer_id_in == ()
            or self.attribute_id_in == ()
            or _is_empty_range(self.date_created_min, self.date_created_max)
            or _is_empty_range(self.date_modified_min, self.date_modified_max)
        )

    def matches(self, row: Row) -> bool:
        """Return whether a row matches this filter, `name` not included.

        A row holds its attribute's id and not its name, so `name` is not checked; see `named`.
        Dates are compared by whole seconds. A bound counts as inside, because the service does not
        document whether it does. A row with an unreadable date or id does not match a filter that
        needs it.
        """
        return _fault_of(self, [row]) is None

    def named(self, attribute_ids: Iterable[int]) -> AttributeValueFilter:
        """Return this filter with the ids of the attributes that `name` stands for.

        `name` is kept. With the ids, each row can be checked against the filter.
        """
        ids = tuple(attribute_ids)
        if self.attribute_id_in is not None:
            ids = tuple(one for one in self.attribute_id_in if one in ids)
        return attrs.evolve(self, attribute_id_in=ids)


def _fault_of(filter: AttributeValueFilter, rows: Sequence[Row]) -> tuple[int, str] | None:
    """Return the index of the first row that does not match, and the field that differs."""
    for field, ids in (
        ("customer_id", filter.customer_id_in),
        ("attribute_id", filter.attribute_id_in),
    ):
        if ids is None:
            continue
        wanted = frozenset(ids)
        get_id = attrgetter(field)
        if not wanted.issuperset(map(get_id, rows)):
            return next(i for i, row in enumerate(rows) if get_id(row) not in wanted), field
    for field, exact, least, most in (
        ("date_created", filter.date_created, filter.date_created_min, filter.date_created_max),
        ("date_modified", filter.date_modified, filter.date_modified_min, filter.date_modified_max),
    ):
        if exact is None and least is None and most is None:
            continue
        for index, row in enumerate(rows):
            if not _is_within(getattr(row, field), exact, least, most):
                return index, field
    return None


def _is_within(
    moment: datetime | None, exact: datetime | None, least: datetime | None, most: datetime | None
) -> bool:
    if moment is None:
        return False
    second = moment.replace(microsecond=0)
    return (
        (exact is None or second == exact)
        and (least is None or second >= least)
        and (most is None or second <= most)
    )


_EVERYTHING: Final = AttributeValueFilter()


def check_filter(filter: object) -> None:
    """Raise `InvalidInputError` unless the argument is a filter or None."""
    if filter is not None and not isinstance(filter, AttributeValueFilter):
        message = f"filter must be an AttributeValueFilter or None, not {type(filter).__name__}"
        raise InvalidInputError(message, field="filter")


# The service's name for each field that holds a moment.
_DATE_PARAMETERS: Final = (
    ("date_created", "date_created"),
    ("date_created_min", "date_created:min"),
    ("date_created_max", "date_created:max"),
    ("date_modified", "date_modified"),
    ("date_modified_min", "date_modified:min"),
    ("date_modified_max", "date_modified:max"),
)


def _is_empty_range(minimum: datetime | None, maximum: datetime | None) -> bool:
    return minimum is not None and maximum is not None and minimum > maximum


def format_moment(moment: datetime) -> str:
    """Return `2024-05-14T09:34:00Z`. The service refuses `%3A` and `+00:00`."""
    return moment.replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


class ListingQuery(msgspec.Struct, frozen=True):
    """The query string of one listing, and the filter that its rows must match."""

    text: str
    filter: AttributeValueFilter = _EVERYTHING

    def check(self, rows: Sequence[Row]) -> None:
        """Raise `FilterIgnoredError` for the first row that the query did not ask for."""
        if self.filter is _EVERYTHING:
            return
        fault = _fault_of(self.filter, rows)
        if fault is not None:
            index, field = fault
            row_id = rows[index].id
            raise FilterIgnoredError(
                f"the service listed a row outside of the filter: {field} of row {row_id}",
                field=field,
                place=f"$.data[{index}]",
                row_id=row_id,
            )

    def narrowed(self, least: datetime | None, most: datetime | None) -> ListingQuery:
        """Return the query with added bounds of `date_created`; its filter must have none."""
        if least is None and most is None:
            return self
        texts = [self.text] if self.text else []
        for parameter, moment in (("date_created:min", least), ("date_created:max", most)):
            if moment is not None:
                texts.append(f"{parameter}={format_moment(moment)}")
        part = attrs.evolve(self.filter, date_created_min=least, date_created_max=most)
        return ListingQuery("&".join(texts), part)


def split_queries(filter: AttributeValueFilter | None, room_bytes: int) -> list[ListingQuery]:
    """Return the queries, each at most `room_bytes` long, that together list `filter`.

    Their results do not overlap. An empty list means that nothing can match; a query without text
    asks for everything. Colons and commas are not encoded, because the service refused `20%3A00`.

    Raises `InvalidInputError` if the name alone is longer than the room, and for an argument that
    is not a filter.
    """
    check_filter(filter)
    if filter is None or filter.is_empty:
        return [ListingQuery("")]
    if filter.matches_nothing:
        return []
    fixed = [
        f"{parameter}={format_moment(moment)}"
        for field, parameter in _DATE_PARAMETERS
        if (moment := getattr(filter, field)) is not None
    ]
    if filter.name is not None:
        fixed.append(f"name={quote(filter.name, safe='')}")
    tail = "&".join(fixed)
    room_bytes -= len(tail)
    if room_bytes < _LEAST_ROOM_BYTES:
        raise InvalidInputError("name is too long for a URL", field="name")
    return [
        ListingQuery(
            "&".join(
                part
                for part in (
                    _parameter("customer_id:in", customers),
                    _parameter("attribute_id:in", attributes),
                    tail,
                )
                if part
            ),
            attrs.evolve(filter, customer_id_in=customers, attribute_id_in=attributes),
        )
        for customers, attributes in _id_parts(filter, room_bytes)
    ]


# Both id parameters with one id of ten digits each, and the ampersands.
_LEAST_ROOM_BYTES: Final = 64


#: Ids that one query asks for; None for all.
_IdPart: TypeAlias = tuple[int, ...] | None


def _id_parts(filter: AttributeValueFilter, room_bytes: int) -> Iterator[tuple[_IdPart, _IdPart]]:
    """Yield every pair of a part of the customer ids with a part of the attribute ids."""
    # A store has few attributes (50 for a customer), so their ids are usually not split.
    attributes = list(_chunks("attribute_id:in", filter.attribute_id_in, room_bytes // 2))
    longest = max(len(_parameter("attribute_id:in", part)) for part in attributes)
    customers = list(_chunks("customer_id:in", filter.customer_id_in, room_bytes - longest - 2))
    for attribute_part in attributes:
        for customer_part in customers:
            yield customer_part, attribute_part


def _chunks(parameter: str, ids: Sequence[int] | None, room_bytes: int) -> Iterator[_IdPart]:
    """Yield parts of ids that take at most `room_bytes` as a parameter; None for None."""
    if ids is None:
        yield None
        return
    for part in parts_of(map(str, ids), room_bytes - len(parameter) - 1):
        yield tuple(map(int, part))


def _parameter(name: str, ids: _IdPart) -> str:
    return "" if ids is None else f"{name}={','.join(map(str, ids))}"


def parts_of(texts: Iterable[str], room_bytes: int, most: int | None = None) -> Iterator[list[str]]:
    """Yield lists of ASCII texts, at most `most` each, that take `room_bytes` joined by commas."""
    part: list[str] = []
    length = 0
    for text in texts:
        if part and (length + 1 + len(text) > room_bytes or len(part) == most):
            yield part
            part, length = [], 0
        length += len(text) + bool(part)
        part.append(text)
    if part:
        yield part
