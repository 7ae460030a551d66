"""Reads answers as they are: what is missing or odd in them is what a probe asks about."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

import attrs
import msgspec

from bc_attrvals.core.models import Key
from bc_attrvals.core.responses import SUCCESS, Response, error_from_answer, indexes_named
from bc_attrvals.errors import APIError, DecodeError
from bc_attrvals.probe.facts import Unsettled


class _Ids(msgspec.Struct):
    id: int
    customer_id: int
    attribute_id: int


@attrs.frozen
class Row:
    """One row of an answer. Dates are None where they are missing or no dates."""

    id: int
    key: Key
    value: str
    created: datetime | None
    modified: datetime | None
    has_zone: bool
    value_field: str


@attrs.frozen
class Listing:
    """The answer of a GET; `pagination` is empty where there is none."""

    objects: list[dict[str, Any]]
    pagination: Mapping[str, Any]

    def number(self, field: str) -> int | None:
        """Return a number of the pagination."""
        value = self.pagination.get(field)
        return value if isinstance(value, int) and not isinstance(value, bool) else None


def read_listing(answer: Response) -> Listing:
    """Read an answer with rows of any resource; raises `DecodeError` for anything else."""
    try:
        document = msgspec.json.decode(answer.body)
        data = msgspec.convert(document["data"], list[dict[str, Any]])
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError, RecursionError):
        place, status = "$.data", answer.status
        raise DecodeError(
            "not a list of rows", place=place, status=status, request_id=answer.request_id
        ) from None
    meta = document.get("meta")
    pagination = meta.get("pagination") if isinstance(meta, dict) else None
    return Listing(data, pagination if isinstance(pagination, dict) else {})


def read_rows(answer: Response) -> list[Row]:
    """Read attribute values of any answer; raises `DecodeError` for rows without ids and value."""
    return [_row(one, index) for index, one in enumerate(read_listing(answer).objects)]


def _row(item: Mapping[str, Any], index: int) -> Row:
    field = "attribute_value" if "attribute_value" in item else "value"
    try:
        ids = msgspec.convert(item, _Ids)
        value = msgspec.convert(item.get(field), str)
    except msgspec.ValidationError as error:
        raise DecodeError(str(error), place=f"$.data[{index}]") from None
    key = (ids.customer_id, ids.attribute_id)
    created, _ = _moment(item.get("date_created"))
    return Row(ids.id, key, value, created, *_moment(item.get("date_modified")), field)


def _moment(text: object) -> tuple[datetime | None, bool]:
    """Return a date, and whether it has a zone; without one it is UTC."""
    try:
        moment = msgspec.convert(text, datetime)
        has_zone = moment.tzinfo is not None
        return (moment if has_zone else moment.replace(tzinfo=UTC)).astimezone(UTC), has_zone
    except (msgspec.ValidationError, OverflowError):
        return None, True


def error_of(answer: Response, method: str = "", path: str = "") -> APIError:
    """Return the error of a refusal."""
    return error_from_answer(
        answer.status, answer.body, request_id=answer.request_id, method=method, path=path
    )


def accepted(answer: Response, what: str) -> Response:
    """Return an answer; raise `Unsettled` for a refusal."""
    if answer.status not in SUCCESS:
        raise Unsettled(f"{what} was answered {answer.status}")
    return answer


def style_of(answer: Response, count: int) -> Literal["indexed", "field", "empty", "no body"]:
    """Return how the refusal of a call of `count` items names the bad one.

    "no body" is a body that is missing, cut off, or no object.
    """
    errors = error_of(answer).errors
    if errors:
        return "indexed" if indexes_named(errors, count) else "field"
    try:
        msgspec.json.decode(answer.body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "no body"
    return "empty"
