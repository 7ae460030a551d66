"""Reads the query strings of GET and DELETE, from the raw bytes on the wire to checked values.

The raw string is parsed here because the service treats it in its own way: an encoded key works,
but a date value with `%3A` in it was refused (reported), so decoding first would hide a mistake.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final, Literal
from urllib.parse import unquote_plus

import attrs

from bc_attrvals.sandbox.answers import RefusalError

MAX_ID: Final = 2**31 - 1
DEFAULT_LIMIT: Final = 50

DateColumn = Literal["date_created", "date_modified"]
Relation = Literal["is", "min", "max"]

_DATE_COLUMNS: Final[tuple[DateColumn, ...]] = ("date_created", "date_modified")
_RELATIONS: Final[dict[str, Relation]] = {"": "is", ":min": "min", ":max": "max"}
_DATE_PARAMETERS: Final[dict[str, tuple[DateColumn, Relation]]] = {
    f"{column}{suffix}": (column, relation)
    for column in _DATE_COLUMNS
    for suffix, relation in _RELATIONS.items()
}
_DATE_TIME: Final = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})"
    r"(?:T(\d{2}):(\d{2})(?::(\d{2})(\.\d{1,9})?)?(?:Z|(-\d{2}):(\d{2}))?)?",
    re.ASCII,
)
_UNIX_TIME: Final = re.compile(r"\d{1,11}(\.\d{1,9})?", re.ASCII)
_INTEGER: Final = re.compile(r"\d{1,10}", re.ASCII)


@attrs.frozen
class DateCondition:
    """One bound on a date column; the moment is in UNIX seconds."""

    column: DateColumn
    relation: Relation
    moment_s: float


@attrs.frozen
class RowFilter:
    """What a listing selects; None selects everything. All the conditions must hold. Hashable."""

    customer_ids: tuple[int, ...] | None = None
    attribute_ids: tuple[int, ...] | None = None
    name: str | None = None
    dates: tuple[DateCondition, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether every row matches."""
        return self == _EVERYTHING

    @property
    def follows_modification(self) -> bool:
        """Whether changing a value can move a row in or out."""
        return any(condition.column == "date_modified" for condition in self.dates)


_EVERYTHING: Final = RowFilter()


@attrs.frozen
class ListQuery:
    """A parsed listing. Pages count from 1; `filter_query` has all but page and limit, raw."""

    page: int
    limit: int
    row_filter: RowFilter
    filter_query: str


def parse_list_query(
    raw_query: str,
    *,
    max_limit: int,
    over_limit: Literal["refuse", "clamp"],
    encoded_dates: bool = False,
) -> ListQuery:
    """Read the query of a GET; raises RefusalError 422 if malformed, 413 for too large a limit."""
    page, limit = 1, min(DEFAULT_LIMIT, max_limit)
    customer_ids: tuple[int, ...] | None = None
    attribute_ids: tuple[int, ...] | None = None
    name: str | None = None
    dates: list[DateCondition] = []
    filters: list[str] = []
    for key, raw_value in _pairs(raw_query):
        if key == "page":
            page = _positive(key, unquote_plus(raw_value))
            continue
        if key == "limit":
            limit = _positive(key, unquote_plus(raw_value))
            continue
        if key == "customer_id:in":
            customer_ids = _ids(key, raw_value)
        elif key == "attribute_id:in":
            attribute_ids = _ids(key, raw_value)
        elif key == "name":
            name = unquote_plus(raw_value)
        elif key in _DATE_PARAMETERS:
            column, relation = _DATE_PARAMETERS[key]
            text = unquote_plus(raw_value) if encoded_dates else raw_value
            dates.append(DateCondition(column, relation, parse_moment_s(key, text)))
        else:
            raise _unknown(key)
        filters.append(f"{key}={raw_value}")
    if limit > max_limit:
        if over_limit == "refuse":
            raise RefusalError(
                413, f"The limit is at most {max_limit}.", {"limit": f"must be 1 to {max_limit}"}
            )
        limit = max_limit
    row_filter = RowFilter(customer_ids, attribute_ids, name, tuple(dates))
    return ListQuery(page, limit, row_filter, "&".join(filters))


def parse_delete_query(raw_query: str, *, max_ids: int | None) -> tuple[int, ...]:
    """Read the query of a DELETE; no `id:in` gives no ids, as sibling endpoints have it."""
    ids: tuple[int, ...] = ()
    for key, raw_value in _pairs(raw_query):
        if key != "id:in":
            raise _unknown(key)
        ids = _ids(key, raw_value)
    if max_ids is not None and len(ids) > max_ids:
        raise RefusalError(413, f"At most {max_ids} ids per call.", {"id:in": "too many ids"})
    return ids


def parse_moment_s(key: str, raw_value: str) -> float:
    """Turn an ISO 8601 date or date-time (UTC without zone) or a UNIX timestamp into UNIX seconds.

    The value is as on the wire: an encoded character is refused, and so is `+`, which a query
    decodes to a space.
    """
    if _UNIX_TIME.fullmatch(raw_value):
        return float(raw_value)
    match = _DATE_TIME.fullmatch(raw_value)
    if match is None:
        raise _malformed(key, "is not an ISO 8601 date, date-time or UNIX timestamp")
    year, month, day, hour, minute, second, fraction, zone_h, zone_min = match.groups()
    try:
        moment = datetime(
            int(year),
            int(month),
            int(day),
            int(hour or 0),
            int(minute or 0),
            int(second or 0),
            tzinfo=UTC,
        )
        # The pattern only lets western offsets through, so both parts are subtracted from UTC.
        moment += timedelta(hours=-int(zone_h or 0), minutes=int(zone_min or 0))
    except (ValueError, OverflowError) as error:
        raise _malformed(key, "is not a date that exists") from error
    return moment.timestamp() + float(fraction or 0)


def _pairs(raw_query: str) -> list[tuple[str, str]]:
    """Split a raw query into decoded keys and raw values; a repeated key is refused."""
    pairs: dict[str, str] = {}
    for part in raw_query.split("&"):
        if not part:
            continue
        raw_key, _, raw_value = part.partition("=")
        key = unquote_plus(raw_key)
        if key in pairs:
            raise _malformed(key, "is given twice")
        pairs[key] = raw_value
    return list(pairs.items())


def _positive(key: str, text: str) -> int:
    if _INTEGER.fullmatch(text) is None or not 1 <= int(text) <= MAX_ID:
        raise _malformed(key, "must be a positive integer")
    return int(text)


def _ids(key: str, raw_value: str) -> tuple[int, ...]:
    return tuple(_positive(key, text) for text in unquote_plus(raw_value).split(","))


def _malformed(key: str, message: str) -> RefusalError:
    return RefusalError(422, f"The filter {key} {message}.", {key: message})


def _unknown(key: str) -> RefusalError:
    title = f"The filter(s): {key} are not valid filter parameter(s)."
    return RefusalError(422, title, {key: "is not a filter of this endpoint"})
