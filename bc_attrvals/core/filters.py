"""What a listing is asked for: a filter, checked when it is built, turned into query strings.

First step of the read path. A filter too long for one URL becomes several queries whose results
do not overlap, for each takes its own part of the ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final, TypeAlias
from urllib.parse import quote

import attrs

from bc_attrvals.core.models import check_id
from bc_attrvals.errors import InvalidInputError

__all__ = ["MAX_URL_BYTES", "AttributeValueFilter", "When", "check_filter", "split_queries"]

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
    try:
        return value.astimezone(UTC)
    except OverflowError:
        message = f"{field} is outside of the years 1 to 9999 in UTC"
        raise InvalidInputError(message, field=field) from None


def _exact_second(value: When | None, field: str) -> datetime | None:
    if value is None:
        return None
    moment = _to_utc(value, field)
    if moment.microsecond:
        # The service keeps whole seconds and matches the bare form exactly (its reference).
        message = f"{field} matches a whole second exactly, and so takes no fraction of one"
        raise InvalidInputError(message, field=field)
    return moment


def _second_up(value: When | None, field: str) -> datetime | None:
    if value is None:
        return None
    moment = _to_utc(value, field)
    whole = moment.replace(microsecond=0)
    if whole == moment:
        return whole
    try:
        return whole + _ONE_SECOND
    except OverflowError:
        message = f"{field} is outside of the years 1 to 9999 in UTC"
        raise InvalidInputError(message, field=field) from None


def _second_down(value: When | None, field: str) -> datetime | None:
    return None if value is None else _to_utc(value, field).replace(microsecond=0)


def _id_tuple(value: Iterable[int] | None, field: str) -> tuple[int, ...] | None:
    if value is None:
        return None
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        message = f"{field} must be an iterable of ints, not {type(value).__name__}"
        raise InvalidInputError(message, field=field)
    checked = (check_id(one, field, f"{field}[{index}]") for index, one in enumerate(value))
    # Once each, in the order given: an id asked for twice would be listed twice when split.
    return tuple(dict.fromkeys(checked))


def _checked_name(name: str | None) -> str | None:
    if name is None:
        return None
    if not isinstance(name, str):
        message = f"name must be a str, not {type(name).__name__}"
        raise InvalidInputError(message, field="name")
    if not name:
        # How the service reads `name=` is not known; "no filter" would be the worst.
        raise InvalidInputError("name must not be empty", field="name")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InvalidInputError("name holds a lone surrogate", field="name") from None
    return name


@attrs.frozen(init=False)
class AttributeValueFilter:
    """Which values to list: one field for each filter of the service, all of them met at once.

    None leaves a filter out. `customer_id_in` and `attribute_id_in` take any iterable of
    positive ints; an empty one matches nothing, and nothing is sent. `name` is the attribute's
    name. `date_created` and `date_modified` match one second exactly; `_min` and `_max` bound.
    Dates are aware datetimes, or dates, which mean midnight UTC; fractions of a second are
    rounded inward, the minimum up and the maximum down, for the service keeps whole seconds.

    Raises `InvalidInputError`, whose `field` names what is wrong: a naive datetime, a fraction
    of a second to match exactly, an empty name, an id that is no positive 32-bit int.
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
            _exact_second(date_created, "date_created"),
            _second_up(date_created_min, "date_created_min"),
            _second_down(date_created_max, "date_created_max"),
            _exact_second(date_modified, "date_modified"),
            _second_up(date_modified_min, "date_modified_min"),
            _second_down(date_modified_max, "date_modified_max"),
        )

    @property
    def is_empty(self) -> bool:
        """True when no filter is set, so that every value matches."""
        return self == _EVERYTHING

    @property
    def matches_nothing(self) -> bool:
        """True when no row can match, so that nothing need be sent."""
        return (
            self.customer_id_in == ()
            or self.attribute_id_in == ()
            or _is_empty_range(self.date_created_min, self.date_created_max)
            or _is_empty_range(self.date_modified_min, self.date_modified_max)
        )


_EVERYTHING: Final = AttributeValueFilter()


def check_filter(filter: object) -> None:
    """Raise `InvalidInputError` for what is neither a filter nor None."""
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
    """`2024-05-14T09:34:00Z`: never percent-encoded, never `+00:00`, which the service refuses."""
    return moment.replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def split_queries(filter: AttributeValueFilter | None, room_bytes: int) -> list[str]:
    """Return the query strings, each at most `room_bytes` long, that together list `filter`.

    Their results do not overlap. An empty list means that nothing can match; `[""]` asks for
    everything. Colons and commas stand raw, for the service refused `20%3A00`.

    Raises `InvalidInputError` when the name alone is longer than the room, and for no filter.
    """
    check_filter(filter)
    if filter is None:
        return [""]
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
        "&".join(part for part in (customers, attributes, tail) if part)
        for customers, attributes in _id_parts(filter, room_bytes)
    ]


# Both id parameters with one id of ten digits each, and the ampersands.
_LEAST_ROOM_BYTES: Final = 64


def _id_parts(filter: AttributeValueFilter, room_bytes: int) -> Iterator[tuple[str, str]]:
    """Yield every pair of a part of the customer ids with a part of the attribute ids."""
    # A store has few attributes (50 a customer), so theirs is the list that stays whole.
    attributes = list(_chunks("attribute_id:in", filter.attribute_id_in, room_bytes // 2))
    longest = max(len(part) for part in attributes)
    customers = list(_chunks("customer_id:in", filter.customer_id_in, room_bytes - longest - 2))
    for attribute_part in attributes:
        for customer_part in customers:
            yield customer_part, attribute_part


def _chunks(parameter: str, ids: Sequence[int] | None, room_bytes: int) -> Iterator[str]:
    """Yield `parameter=1,2,3` strings of at most `room_bytes`; one empty string for None."""
    if ids is None:
        yield ""
        return
    yield from (f"{parameter}={part}" for part in join_ids(ids, room_bytes - len(parameter) - 1))


def join_ids(ids: Iterable[int], room_bytes: int, most: int | None = None) -> Iterator[str]:
    """Yield `1,2,3` strings of at most `room_bytes` and at most `most` ids, in order."""
    for part in join_texts(map(str, ids), room_bytes, most):
        yield ",".join(part)


def join_texts(
    texts: Iterable[str], room_bytes: int, most: int | None = None
) -> Iterator[list[str]]:
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
