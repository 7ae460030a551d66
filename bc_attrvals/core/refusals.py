"""Finds the cause of a refusal: an item of a write, the size of a call, or neither.

Pure: (error, items in the call) → `Fault`. Used by bulk writes and by readers of pages.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

import msgspec

from bc_attrvals.core.retry import ends_job
from bc_attrvals.errors import APIError, BCAttrValsError, UnconfirmedError


class Fault(StrEnum):
    """The cause of a refused call of several items."""

    # The `__hash__` of enums is written in Python, and slow.
    __hash__ = str.__hash__

    #: No later request of the job could succeed.
    JOB = "job"
    #: There are too many items in the call.
    SIZE = "size"
    #: An item of the call, named or not.
    ITEM = "item"
    #: An item, or the service itself: if each part is answered the same, it is the service.
    ITEM_OR_SERVICE = "item_or_service"
    #: The connection, the service or its load, and not the items.
    SERVICE = "service"


_TOO_LARGE: Final = frozenset({413, 414})
#: The service refuses items with 422 (BigCommerce reference, Upsert Customer Attribute Values). A
#: proxy, or a neighbouring endpoint, may refuse them with the others.
_OF_ITEMS: Final = frozenset({400, 409, 422, 423})
_OF_SERVICE: Final = frozenset({408, 429, 503})


def fault_of(error: BCAttrValsError, count: int) -> Fault:
    """Return the cause of an error of a call of `count` items."""
    if ends_job(error):
        return Fault.JOB
    if not isinstance(error, APIError) or error.status in _OF_SERVICE:
        return Fault.SERVICE
    if error.status in _TOO_LARGE or size_allowed(error, count) is not None:
        return Fault.SIZE
    return Fault.ITEM if error.status in _OF_ITEMS else Fault.ITEM_OR_SERVICE


_LIMIT: Final = re.compile(
    r"\b(?:max(?:imum)?|most|limit(?:ed)?|exceeds?|more than)\b", re.IGNORECASE
)
_OF_A_CALL: Final = re.compile(
    r"\bbatch size\b|\b(?:per|an?|each|one|single) (?:call|request|batch)\b"
    r"|\b(?:items|records|entries|objects)\b",
    re.IGNORECASE,
)
_NUMBER: Final = re.compile(r"(?<![\d.])\d{1,4}(?![\d.])", re.ASCII)


def size_allowed(error: BCAttrValsError, count: int) -> int | None:
    """Return the size that a refusal of `count` items names, as "Max batch size allowed is N".

    None unless it is a 4xx that names the size of a call and a number from 1 to `count` - 1. The
    title is that of a 422 in the BigCommerce reference, Create a Customer Attribute.
    """
    if not isinstance(error, APIError) or not 400 <= error.status < 500:
        return None
    for text in (error.title, *error.errors.values()):
        if _LIMIT.search(text) and _OF_A_CALL.search(text):
            sizes = [int(number) for number in _NUMBER.findall(text)]
            if fitting := [size for size in sizes if 0 < size < count]:
                return max(fitting)
    return None


#: No smaller page is asked for.
SMALLEST_PAGE: Final = 10
_PAGE_LIMIT: Final = re.compile(r"\blimit\b", re.IGNORECASE)


def is_of_page_size(error: APIError) -> bool:
    """Return whether a page was refused because of its `limit`.

    A `limit` that is too large is answered 413 (BigCommerce guide, Filtering), or 422 naming it.
    """
    texts = (error.title, *error.errors, *error.errors.values())
    return error.status == 413 or (error.status == 422 and any(map(_PAGE_LIMIT.search, texts)))


def page_size_named(error: APIError, limit: int) -> int | None:
    """Return the rows of a page that a refusal of `limit` rows names as the most it allows.

    None for fewer than `SMALLEST_PAGE`, which may be the least instead.
    """
    texts = (error.title, *error.errors.values())
    sizes = [int(one) for text in texts for one in _NUMBER.findall(text)]
    return max((size for size in sizes if SMALLEST_PAGE <= size < limit), default=None)


def check_deleted(status: int, body: bytes) -> None:
    """Raise `UnconfirmedError` unless an answer confirms a DELETE.

    A 204 confirms it (BigCommerce reference, Delete Customer Attribute Values), and so does a 200
    with the service's empty answer: no bytes, or a JSON object without members other than `data`
    and `meta`, both empty. Any other 2xx may come from a proxy, or announce a later deletion.
    """
    if status == 204 or (status == 200 and _is_empty(body)):
        return
    message = f"answered {status} with a body that does not confirm the deletion"
    if status not in {200, 204}:
        message = f"answered {status}, which does not confirm the deletion"
    raise UnconfirmedError(message)


def _is_empty(body: bytes) -> bool:
    if not body.strip():
        return True
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    if not isinstance(document, dict):
        return False
    return document.keys() <= {"data", "meta"} and not any(map(_holds_anything, document.values()))


def _holds_anything(value: object) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_anything, value.values()))
    return bool(value)
