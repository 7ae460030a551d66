"""Reads query strings: from the raw bytes of the request line to checked conditions.

The raw string is parsed here because encoding matters: a quirk refuses percent-encoded dates, which
a decoded query does not show.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Final, Literal
from urllib.parse import unquote_plus

from msgspec import Struct

from bc_attrvals.sandbox.answers import RefusalError
from bc_attrvals.sandbox.quirks import Quirks

MAX_ID: Final = 2**31 - 1
DEFAULT_LIMIT: Final = 50

Relation = Literal["is", "in", "like", "min", "max"]
Operand = str | float | tuple[int, ...] | tuple[str, ...]

_DATE_TIME: Final = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})"
    r"(?:T(\d{2}):(\d{2})(?::(\d{2})(\.\d{1,9})?)?(?:Z|([+-]\d{2})(:?)([0-5]\d))?)?",
    re.ASCII,
)
_UNIX_TIME: Final = re.compile(r"\d{1,11}(\.\d{1,9})?", re.ASCII)
_INTEGER: Final = re.compile(r"\d{1,10}", re.ASCII)


class Condition(Struct, frozen=True):
    """One condition on a column. A date is in UNIX seconds; `in` has a tuple. Hashable."""

    column: str
    relation: Relation
    operand: Operand


class ListQuery(Struct, frozen=True):
    """A parsed listing; all conditions must hold. Pages count from 1.

    `asked_limit` is the limit before it was cut to the largest page. `filter_query` is the raw
    query without page and limit.
    """

    page: int
    limit: int
    asked_limit: int
    conditions: tuple[Condition, ...]
    filter_query: str


Reader = Callable[[str, str, Quirks], Operand]


class Parameter(Struct, frozen=True):
    """A filter of a listing: its column, its relation, and the function that reads its value."""

    column: str
    relation: Relation
    read: Reader


def parse_list_query(
    raw_query: str, parameters: Mapping[str, Parameter], quirks: Quirks
) -> ListQuery:
    """Read the query of a GET; raises RefusalError 422 if malformed, 413 for too large a limit.

    Unknown filters are refused: other customers endpoints of the service do so.
    """
    page, limit = 1, min(DEFAULT_LIMIT, quirks.max_limit)
    conditions: list[Condition] = []
    filters: list[str] = []
    for key, raw_value in _pairs("" if quirks.drop_query else raw_query):
        if key == "page":
            page = _positive(key, unquote_plus(raw_value))
            continue
        if key == "limit":
            limit = _positive(key, unquote_plus(raw_value))
            continue
        parameter = parameters.get(key)
        if parameter is None:
            raise _unknown(key)
        operand = parameter.read(key, raw_value, quirks)
        conditions.append(Condition(parameter.column, parameter.relation, operand))
        filters.append(f"{key}={raw_value}")
    asked_limit = limit
    if limit > quirks.max_limit:
        if quirks.over_limit == "refuse":
            most = quirks.max_limit
            title = f"The limit is at most {most}."
            raise RefusalError(413, title, {"limit": f"must be 1 to {most}"})
        limit = quirks.max_limit
    if quirks.ignore_filters:
        conditions = []
    return ListQuery(page, limit, asked_limit, tuple(conditions), "&".join(filters))


def parse_delete_query(raw_query: str, quirks: Quirks) -> tuple[int, ...]:
    """Read the query of a DELETE; no `id:in` gives no ids, as at other customers endpoints."""
    ids: tuple[int, ...] = ()
    for key, raw_value in _pairs("" if quirks.drop_query else raw_query):
        if key != "id:in":
            raise _unknown(key)
        ids = _ids(key, raw_value, quirks)
    most = quirks.max_delete_ids
    if most is not None and len(ids) > most:
        title = f"At most {most} ids per call."
        raise RefusalError(quirks.delete_limit_status, title, {"id:in": "too many ids"})
    return ids


def parse_moment_s(key: str, raw_value: str, quirks: Quirks) -> float:
    """Turn an ISO 8601 date or date-time (UTC without zone) or a UNIX timestamp into UNIX seconds.

    A raw `+` stands for a space in a query, so only `%2B` begins an eastern offset.
    """
    text = unquote_plus(raw_value) if quirks.encoded_dates else raw_value.replace("+", " ")
    if _UNIX_TIME.fullmatch(text):
        return float(text)
    match = _DATE_TIME.fullmatch(text)
    if match is None:
        raise _malformed(key, "is not an ISO 8601 date, date-time or UNIX timestamp")
    year, month, day, hour, minute, second, fraction, zone_h, colon, zone_min = match.groups()
    if zone_h and not colon and not quirks.compact_offsets:
        raise _malformed(key, "has an offset without a colon")
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
        offset = timedelta(hours=int((zone_h or "+0")[1:]), minutes=int(zone_min or 0))
        if (zone_h or "").startswith("-"):
            offset = -offset
        # Refuses an offset of a day or more.
        moment = (moment - offset).astimezone(timezone(offset))
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


def _ids(key: str, raw_value: str, quirks: Quirks) -> tuple[int, ...]:
    del quirks
    return tuple(_positive(key, text) for text in unquote_plus(raw_value).split(","))


def _text(key: str, raw_value: str, quirks: Quirks) -> str:
    del key, quirks
    return unquote_plus(raw_value)


def _addresses(key: str, raw_value: str, quirks: Quirks) -> tuple[str, ...]:
    addresses = tuple(unquote_plus(raw_value).split(","))
    if quirks.max_emails is not None and len(addresses) > quirks.max_emails:
        raise _malformed(key, f"takes at most {quirks.max_emails} addresses")
    return addresses


def _malformed(key: str, message: str) -> RefusalError:
    return RefusalError(422, f"The filter {key} {message}.", {key: message})


def _unknown(key: str) -> RefusalError:
    title = f"The filter(s): {key} are not valid filter parameter(s)."
    return RefusalError(422, title, {key: "is not a filter of this endpoint"})


_RELATIONS: Final[Mapping[str, Relation]] = {"": "is", ":min": "min", ":max": "max"}
_DATES: Final = {
    f"{column}{suffix}": Parameter(column, relation, parse_moment_s)
    for column in ("date_created", "date_modified")
    for suffix, relation in _RELATIONS.items()
}
#: The filters of each listing. Of those of customers only these are emulated.
VALUE_PARAMETERS: Final[Mapping[str, Parameter]] = {
    "customer_id:in": Parameter("customer_id", "in", _ids),
    "attribute_id:in": Parameter("attribute_id", "in", _ids),
    "name": Parameter("name", "is", _text),
    **_DATES,
}
ATTRIBUTE_PARAMETERS: Final[Mapping[str, Parameter]] = {
    "name": Parameter("name", "is", _text),
    "name:like": Parameter("name", "like", _text),
    "type": Parameter("type", "is", _text),
    **_DATES,
}
CUSTOMER_PARAMETERS: Final[Mapping[str, Parameter]] = {
    "id:in": Parameter("id", "in", _ids),
    "email:in": Parameter("email", "in", _addresses),
    **_DATES,
}
