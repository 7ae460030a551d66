"""Reads answers as they are: what is missing or odd in them is what a probe asks about."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

import attrs
import msgspec

from bc_attrvals.core.models import Key
from bc_attrvals.core.responses import Response, error_from_answer, indexes_named
from bc_attrvals.errors import APIError, DecodeError


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
    value_field: str
    has_zone: bool


@attrs.frozen
class Listing:
    """The answer of a GET; `pagination` is empty where there is none."""

    objects: list[dict[str, Any]]
    pagination: Mapping[str, Any]

    def number(self, field: str) -> int | None:
        """Return a number of the pagination."""
        value = self.pagination.get(field)
        return value if isinstance(value, int) and not isinstance(value, bool) else None


def read_objects(answer: Response) -> Listing:
    """Read an answer with rows of any resource; raises `DecodeError` for anything else."""
    try:
        document = msgspec.json.decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        document = None
    data = document.get("data") if isinstance(document, dict) else None
    if not isinstance(data, list) or not all(isinstance(one, dict) for one in data):
        reason = "not a list of rows"
        raise DecodeError(
            reason, place="$.data", status=answer.status, request_id=answer.request_id
        )
    assert isinstance(document, dict)
    meta = document.get("meta")
    pagination = meta.get("pagination") if isinstance(meta, dict) else None
    return Listing(data, pagination if isinstance(pagination, dict) else {})


def read_listing(answer: Response) -> tuple[list[Row], Listing]:
    """Read a listing of attribute values; raises `DecodeError` for rows without ids and value."""
    listing = read_objects(answer)
    return [_row(one, index) for index, one in enumerate(listing.objects)], listing


def read_rows(answer: Response) -> list[Row]:
    """Read the rows of a PUT's answer, or of a listing."""
    return read_listing(answer)[0]


def _row(item: Mapping[str, Any], index: int) -> Row:
    field = "attribute_value" if "attribute_value" in item else "value"
    modified = item.get("date_modified")
    moment = _moment(modified)
    try:
        ids = msgspec.convert(item, _Ids)
        value = msgspec.convert(item.get(field), str)
    except msgspec.ValidationError as error:
        raise DecodeError(str(error), place=f"$.data[{index}]") from None
    return Row(
        ids.id,
        (ids.customer_id, ids.attribute_id),
        value,
        _moment(item.get("date_created")),
        moment,
        field,
        moment is None or _parsed(modified).tzinfo is not None,
    )


def _parsed(text: object) -> datetime:
    return msgspec.convert(text, datetime)


def _moment(text: object) -> datetime | None:
    try:
        moment = _parsed(text)
        # The service's own zoneless dates are UTC.
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (msgspec.ValidationError, OverflowError):
        return None


def error_of(answer: Response) -> APIError:
    """Return what a refusal says."""
    return error_from_answer(
        answer.status, answer.body, request_id=answer.request_id, method="", path=""
    )


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
